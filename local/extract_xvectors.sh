#!/usr/bin/env bash
# Embeddings of a data directory, under the names and in the formats of Kaldi's extract_xvectors.sh.
#
# Usage: local/extract_xvectors.sh [options] <final.pt> <data-dir> <xvector-dir>
#   local/extract_xvectors.sh --nj 8 exp/xvector/final.pt data/test exp/xvector/xvectors_test
# Options:
#   --nj 4                       number of jobs
#   --cmd utils/run_jobs.sh      command that runs the jobs
#   --max-frames 6000            longer utterances are cut into chunks, whose vectors are averaged; 0: never
#   --chunk-frames 0             >0: one vector per piece of this many frames, <utterance>-<first>-<last>; 0: whole utterances
#   --gpus 0                     number of GPUs, which the jobs share (with a queue: each job asks for one); 0: the CPU
#   --amp none                   none: float32; bf16: bf16; fast: half precision if the device has it (bf16, or fp16 on GPUs
#                                without bf16); auto: like fast, but only if the vectors hardly change
#   --max-lost 5                 largest percentage of utterances without a vector that is not an error
#
# If the data directory has the features that the model was trained on, they are used. Otherwise the model's own features
# are computed from wav.scp (and segments, utt2aug), and a message says so.
# It writes xvector.scp and xvector.JOB.ark (1-D float vectors), spk_xvector.scp, num_utts.ark, mean.vec and lost_utts; with
# --chunk-frames also utt2spk and spk2utt of the pieces. xvector.scp is written last, so it marks the rest as complete. A
# second run keeps what is finished: a job's vectors are made again only if its utterances, their features, the model or the
# options have changed. log/extract.JOB.log says every 10 seconds how many utterances are done.
set -euo pipefail
export LC_ALL=C

nj=4
cmd=utils/run_jobs.sh
max_frames=6000
chunk_frames=0
gpus=0
amp=none
max_lost=5

. utils/parse_options.sh
[ $# -eq 3 ] || { "$0" --help >&2; exit 1; }
model=$1
data=${2%/}
out=${3%/}

. local/part_lib.sh
check_words "$model" "$data" "$out"
local/check_python.sh
[ -s "$model" ] || fail "$model: no such checkpoint; run stage 3 or 4"
list=
for name in feats.scp segments wav.scp; do
  if [ -f "$data/$name" ]; then list=$data/$name; break; fi
done
[ -s "$list" ] || fail "${list:-$data/feats.scp} is missing or empty; run stage 2"
[[ $nj =~ ^[1-9][0-9]*$ ]] || fail "--nj '$nj' is not a positive number"
[[ $chunk_frames =~ ^[0-9]+$ ]] || fail "--chunk-frames '$chunk_frames' is not a number of frames"
[[ $gpus =~ ^[0-9]+$ ]] || fail "--gpus '$gpus' is not a number of GPUs"
[[ $amp =~ ^(none|auto|fast|bf16)$ ]] || fail "--amp '$amp' is not one of: none auto fast bf16"
[[ $max_lost =~ ^[0-9]+$ ]] || fail "--max-lost '$max_lost' is not a whole number of percent"
total=$(awk 'NF {n++} END {print n + 0}' < "$list")
[ "$nj" -le "$total" ] || nj=$total
mkdir -p "$out/log" || fail "can't make $out; check the rights of the folder"
hold_lock "$out/.lock" "another job extracts vectors into $out; wait for it, or give another folder"

rm -f "$out/xvector.scp"   # a run that is cut short leaves none
parts=()
for ((job = 1; job <= nj; job++)); do parts+=("$out/log/utts.$job"); done
utils/split_scp.sh "$list" "${parts[@]}"
gpu=()
device=cpu
if [ "$gpus" -gt 0 ]; then
  device=cuda
  case $cmd in
    *run_jobs.sh* | *run.pl*)   # on this machine: all jobs at once, on the first GPUs that there are
      if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
        CUDA_VISIBLE_DEVICES=$(cut -d , -f "1-$gpus" <<< "$CUDA_VISIBLE_DEVICES")
      else
        CUDA_VISIBLE_DEVICES=$(seq -s , 0 $((gpus - 1)))
      fi
      export CUDA_VISIBLE_DEVICES
      gpu=(--max-jobs-run "$nj")
      ;;
    *) gpu=(--gpu 1 --max-jobs-run "$gpus") ;;
  esac
fi
# shellcheck disable=SC2086  # cmd may carry options
$cmd "${gpu[@]}" JOB=1:"$nj" "$out/log/extract.JOB.log" \
  local/extract_xvectors.py --max-frames "$max_frames" --chunk-frames "$chunk_frames" --device "$device" --amp "$amp" \
  --job JOB "$model" "$data" "$out/log/utts.JOB" "$out/xvector.JOB"
sed -n "s|^.*: front end: |$0: |p" "$out/log/extract.1.log"
for ((job = 1; job <= nj; job++)); do
  made=$(awk -v chunks="$chunk_frames" '{ key = chunks > 0 ? substr($1, 1, length($1) - 18) : $1 } key != last { n++ } { last = key } END { print n + 0 }' < "$out/xvector.$job.scp")
  [ $((made + $(wc -l < "$out/xvector.$job.lost_utts"))) -eq "$(wc -l < "$out/log/utts.$job")" ] ||
    fail "$out/xvector.$job.scp doesn't have the vectors of job $job, as if another run had written it; run it again"
done
for ((job = 1; job <= nj; job++)); do cat "$out/xvector.$job.lost_utts"; done > "$out/lost_utts"
lost=$(wc -l < "$out/lost_utts")
if [ $((lost * 100)) -gt $((total * max_lost)) ]; then
  fail "$lost of $total utterances have no vector, more than $max_lost %: see $out/lost_utts, for example: $(head -n 1 "$out/lost_utts")"
fi
for ((job = 1; job <= nj; job++)); do cat "$out/xvector.$job.scp"; done > "$out/.xvector.scp.tmp"
rm -f "${parts[@]}"
for file in "$out"/xvector.*; do   # of an earlier run with more jobs
  [[ ${file#"$out"/xvector.} =~ ^([0-9]+)\.(ark|scp|lost_utts|made)$ ]] || continue
  [ "${BASH_REMATCH[1]}" -le "$nj" ] || rm -f "$file"
done
vectors=$(wc -l < "$out/.xvector.scp.tmp")
if [ "$chunk_frames" -gt 0 ] && [ -f "$data/utt2spk" ]; then
  # By the environment, since awk would take the file a=b/utt2spk for an assignment.
  speakers=$data/utt2spk awk 'BEGIN { while ((getline line < ENVIRON["speakers"]) > 0) { split(line, part); speaker[part[1]] = part[2] } }
    { print $1, speaker[substr($1, 1, length($1) - 18)] }' < "$out/.xvector.scp.tmp" > "$out/utt2spk"
  utils/utt2spk_to_spk2utt.sh "$out/utt2spk" | sort -k1,1 > "$out/spk2utt"
  speakers=$out/spk2utt
else
  speakers=$data/spk2utt
  [ -f "$speakers" ] || speakers=
fi
local/average_xvectors.py "$speakers" "$out/.xvector.scp.tmp" "$out"
mv "$out/.xvector.scp.tmp" "$out/xvector.scp"
kept=$(count_kept "$out/log/extract.JOB.log" "$nj")
[ "$kept" -eq 0 ] || echo "$0: $kept of $nj jobs were finished before, and their vectors are kept"
echo "$0: $total in, $vectors vectors out, $lost lost, in $out"
