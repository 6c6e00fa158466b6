#!/usr/bin/env bash
# Embeddings of a data directory, under the names and in the formats of Kaldi's extract_xvectors.sh.
#
# Usage: local/extract_xvectors.sh [options] <final.pt> <data-dir> <xvector-dir>
#   local/extract_xvectors.sh --nj 8 exp/xvector/final.pt data/test exp/xvector/xvectors_test
# Options:
#   --nj 4                       number of jobs
#   --cmd utils/run_jobs.sh      what runs them
#   --max-frames 6000            longer utterances are cut into chunks, whose vectors are averaged; 0: never
#   --use-gpu false              true: each job on a GPU
#
# Writes xvector.scp and xvector.JOB.ark (1-D float vectors), spk_xvector.scp, num_utts.ark and mean.vec.
set -euo pipefail
export LC_ALL=C

nj=4
cmd=utils/run_jobs.sh
max_frames=6000
use_gpu=false

. utils/parse_options.sh
[ $# -eq 3 ] || { "$0" --help >&2; exit 1; }
model=$1
data=${2%/}
out=${3%/}

fail() { echo "$0: $*" >&2; exit 1; }
local/check_python.sh
[ -s "$model" ] || fail "$model: no such checkpoint; run stage 3 or 4"
[ -s "$data/feats.scp" ] || fail "$data/feats.scp is missing or empty; run stage 2"
[[ $nj =~ ^[1-9][0-9]*$ ]] || fail "--nj '$nj' is not a positive number"
total=$(wc -l < "$data/feats.scp")
[ "$nj" -le "$total" ] || nj=$total
mkdir -p "$out/log" || fail "can't make $out; check the rights of the folder"

rm -f "$out"/xvector.*scp
parts=()
for ((job = 1; job <= nj; job++)); do parts+=("$out/log/feats.$job.scp"); done
utils/split_scp.sh "$data/feats.scp" "${parts[@]}"
gpu=()
device=cpu
if $use_gpu; then
  gpu=(--gpu 1)
  device=cuda
fi
# shellcheck disable=SC2086  # cmd may carry options
$cmd "${gpu[@]}" JOB=1:"$nj" "$out/log/extract.JOB.log" \
  local/extract_xvectors.py --max-frames "$max_frames" --device "$device" "$model" "$out/log/feats.JOB.scp" "$out/xvector.JOB"
for ((job = 1; job <= nj; job++)); do cat "$out/xvector.$job.scp"; done > "$out/.xvector.scp.tmp"
mv "$out/.xvector.scp.tmp" "$out/xvector.scp"
rm -f "${parts[@]}"
speakers=$data/spk2utt
[ -f "$speakers" ] || speakers=
local/average_xvectors.py "$speakers" "$out/xvector.scp" "$out"
echo "$0: $total in, $(wc -l < "$out/xvector.scp") vectors out, in $out"
