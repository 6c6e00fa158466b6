#!/usr/bin/env bash
# Embeddings of fixed crops of each utterance, for teachers that are too slow to hear every crop of a training.
#
# Usage: local/extract_crop_xvectors.sh [options] <final.pt> <data-dir> <xvector-dir>
#   local/extract_crop_xvectors.sh --num-crops 4 --crop-frames 200 exp/campplus/final.pt data/train_all exp/campplus/crops
# Options:
#   --num-crops 4                most crops of an utterance; they are spread evenly over it
#   --crop-frames 200            frames of a crop; students may take crops of as many frames or fewer (--num-frames)
#   --nj 4                       number of jobs
#   --cmd utils/run_jobs.sh      what runs them
#   --use-gpu false              true: each job on a GPU
#   --max-lost 5                 percent of the utterances that may be without vectors before it is an error
#
# Given as --teacher, <xvector-dir>/xvector.scp teaches by the vectors of the crops: local/train.py then draws the student's
# crops from places that the teacher has heard. The model's own front end hears exactly the samples of each crop. Features of
# the data directory are taken if they are the model's own; if not, wav.scp is read (and segments, utt2aug).
# Writes xvector.scp (1-D vectors, <utterance>-<first frame>-<frame after the last>), utt2spk and spk2utt of the crops,
# spk_xvector.scp, num_utts.ark, mean.vec and lost_utts. Run again, it keeps what is finished.
set -euo pipefail
export LC_ALL=C

num_crops=4
crop_frames=200
nj=4
cmd=utils/run_jobs.sh
use_gpu=false
max_lost=5

. utils/parse_options.sh
[ $# -eq 3 ] || { "$0" --help >&2; exit 1; }
model=$1
data=${2%/}
out=${3%/}

. local/lib.sh
check_words "$model" "$data" "$out"
local/check_python.sh
[ -s "$model" ] || fail "$model: no such checkpoint; run stage 3 or 4"
list=
for name in feats.scp segments wav.scp; do
  if [ -f "$data/$name" ]; then list=$data/$name; break; fi
done
[ -s "$list" ] || fail "${list:-$data/wav.scp} is missing or empty; run stage 2"
[ -s "$data/utt2spk" ] || fail "$data/utt2spk is missing or empty; run stage 1"
for option in nj num_crops crop_frames; do
  [[ ${!option} =~ ^[1-9][0-9]*$ ]] || fail "--${option//_/-} '${!option}' is not a positive number"
done
[[ $max_lost =~ ^[0-9]+$ ]] || fail "--max-lost '$max_lost' is not a whole number of percent"
total=$(wc -l < "$list")
[ "$nj" -le "$total" ] || nj=$total
mkdir -p "$out/log" || fail "can't make $out; check the rights of the folder"
if command -v flock >/dev/null; then
  exec 9> "$out/.lock"
  flock -n 9 || fail "another job makes vectors in $out; wait for it"
fi

rm -f "$out/xvector.scp"
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
  local/extract_crop_xvectors.py --num-crops "$num_crops" --crop-frames "$crop_frames" --device "$device" \
  "$model" "$data" "$out/log/utts.JOB" "$out/xvector.JOB"
sed -n "s|^.*: front end: |$0: |p" "$out/log/extract.1.log"
for ((job = 1; job <= nj; job++)); do cat "$out/xvector.$job.lost_utts"; done > "$out/lost_utts"
lost=$(wc -l < "$out/lost_utts")
if [ $((lost * 100)) -gt $((total * max_lost)) ]; then
  fail "$lost of $total utterances have no vector, more than $max_lost %: see $out/lost_utts, for example: $(head -n 1 "$out/lost_utts")"
fi
for ((job = 1; job <= nj; job++)); do cat "$out/xvector.$job.scp"; done | sort -k1,1 > "$out/.xvector.scp.tmp"
utt2spk=$data/utt2spk awk 'BEGIN {while ((getline < ENVIRON["utt2spk"]) > 0) speaker[$1] = $2}
    {print $1, speaker[substr($1, 1, length($1) - 18)]}' < "$out/.xvector.scp.tmp" > "$out/utt2spk"
utils/utt2spk_to_spk2utt.sh "$out/utt2spk" | sort -k1,1 > "$out/spk2utt"
made=$(awk '!seen[substr($1, 1, length($1) - 18)]++ {n++} END {print n + 0}' < "$out/.xvector.scp.tmp")
[ $((made + lost)) -eq "$total" ] || fail "$made utterances made and $lost lost are not the $total of $list; run it again"
mv "$out/.xvector.scp.tmp" "$out/xvector.scp"
rm -f "${parts[@]}"
local/average_xvectors.py "$out/spk2utt" "$out/xvector.scp" "$out"
echo "$0: $total in, $(wc -l < "$out/xvector.scp") vectors of $made utterances out, $lost lost, in $out"
