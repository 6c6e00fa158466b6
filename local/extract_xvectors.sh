#!/usr/bin/env bash
# Embeddings of a data directory, under the names and in the formats of Kaldi's extract_xvectors.sh.
#
# Usage: local/extract_xvectors.sh [options] <final.pt> <data-dir> <xvector-dir>
#   local/extract_xvectors.sh --nj 8 exp/xvector/final.pt data/test exp/xvector/xvectors_test
# Options:
#   --nj 4                       number of jobs
#   --cmd utils/run_jobs.sh      what runs them
#   --max-frames 6000            longer utterances are cut into chunks, whose vectors are averaged; 0: never
#   --chunk-frames 0             a vector for each piece of so many frames, <utterance>-<first>-<last>; 0: whole utterances
#   --use-gpu false              true: each job on a GPU
#   --max-lost 5                 percent of the utterances that may be without a vector before it is an error
#
# The features of the data directory serve where they are those that the model was trained on; where they are not, or there
# are none, the model's own are computed from wav.scp (and segments, utt2aug), which is said.
# Writes xvector.scp and xvector.JOB.ark (1-D float vectors), spk_xvector.scp, num_utts.ark, mean.vec, and lost_utts; with
# --chunk-frames utt2spk and spk2utt of the pieces too.
set -euo pipefail
export LC_ALL=C

nj=4
cmd=utils/run_jobs.sh
max_frames=6000
chunk_frames=0
use_gpu=false
max_lost=5

. utils/parse_options.sh
[ $# -eq 3 ] || { "$0" --help >&2; exit 1; }
model=$1
data=${2%/}
out=${3%/}

fail() { echo "$0: $*" >&2; exit 1; }
local/check_python.sh
[ -s "$model" ] || fail "$model: no such checkpoint; run stage 3 or 4"
list=
for name in feats.scp segments wav.scp; do
  if [ -f "$data/$name" ]; then list=$data/$name; break; fi
done
[ -s "$list" ] || fail "${list:-$data/feats.scp} is missing or empty; run stage 2"
[[ $nj =~ ^[1-9][0-9]*$ ]] || fail "--nj '$nj' is not a positive number"
[[ $chunk_frames =~ ^[0-9]+$ ]] || fail "--chunk-frames '$chunk_frames' is not a number of frames"
[[ $max_lost =~ ^[0-9]+$ ]] || fail "--max-lost '$max_lost' is not a whole number of percent"
total=$(wc -l < "$list")
[ "$nj" -le "$total" ] || nj=$total
mkdir -p "$out/log" || fail "can't make $out; check the rights of the folder"

rm -f "$out"/xvector.*scp
parts=()
for ((job = 1; job <= nj; job++)); do parts+=("$out/log/utts.$job"); done
utils/split_scp.sh "$list" "${parts[@]}"
gpu=()
device=cpu
if $use_gpu; then
  gpu=(--gpu 1)
  device=cuda
fi
# shellcheck disable=SC2086  # cmd may carry options
$cmd "${gpu[@]}" JOB=1:"$nj" "$out/log/extract.JOB.log" \
  local/extract_xvectors.py --max-frames "$max_frames" --chunk-frames "$chunk_frames" --device "$device" \
  "$model" "$data" "$out/log/utts.JOB" "$out/xvector.JOB"
sed -n "s|^.*: front end: |$0: |p" "$out/log/extract.1.log"
for ((job = 1; job <= nj; job++)); do cat "$out/xvector.$job.lost_utts"; done > "$out/lost_utts"
rm -f "$out"/xvector.*.lost_utts
lost=$(wc -l < "$out/lost_utts")
if [ $((lost * 100)) -gt $((total * max_lost)) ]; then
  fail "$lost of $total utterances have no vector, more than $max_lost %: see $out/lost_utts, for example: $(head -n 1 "$out/lost_utts")"
fi
for ((job = 1; job <= nj; job++)); do cat "$out/xvector.$job.scp"; done > "$out/.xvector.scp.tmp"
mv "$out/.xvector.scp.tmp" "$out/xvector.scp"
rm -f "${parts[@]}"
if [ "$chunk_frames" -gt 0 ] && [ -f "$data/utt2spk" ]; then
  awk 'NR == FNR {speaker[$1] = $2; next} {print $1, speaker[substr($1, 1, length($1) - 18)]}' \
    "$data/utt2spk" "$out/xvector.scp" > "$out/utt2spk"
  utils/utt2spk_to_spk2utt.sh "$out/utt2spk" | sort -k1,1 > "$out/spk2utt"
  speakers=$out/spk2utt
else
  speakers=$data/spk2utt
  [ -f "$speakers" ] || speakers=
fi
local/average_xvectors.py "$speakers" "$out/xvector.scp" "$out"
echo "$0: $total in, $(wc -l < "$out/xvector.scp") vectors out, $lost lost, in $out"
