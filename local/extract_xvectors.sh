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
#   --engine auto                torch: PyTorch; onnx: ONNX Runtime, on CPUs in float32; auto: onnx for jobs of 500 utterances
#                                or more, if the packages onnx and onnxruntime are there and its vectors are PyTorch's
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
engine=auto
max_lost=5

. utils/parse_options.sh
. local/part_lib.sh
model_words "$@"
local/check_python.sh
require_positive nj
require_whole chunk_frames gpus max_lost
[[ $amp =~ ^(none|auto|fast|bf16)$ ]] || fail "--amp '$amp' is not one of: none auto fast bf16"
[[ $engine =~ ^(auto|torch|onnx)$ ]] || fail "--engine '$engine' is not one of: auto torch onnx"
[ "$engine" != onnx ] || [ "$gpus" -eq 0 ] || fail "--engine onnx computes on the CPU; with --gpus take --engine torch"
[ "$engine" != onnx ] || [ "$amp" = none ] || fail "--engine onnx computes in float32; with --amp $amp take --engine torch"
set_jobs "$list"
make_folders "$out" "$out/log"
hold_lock "$out/.lock" "another job extracts vectors into $out; wait for it, or give another folder"

rm -f "$out/xvector.scp"   # a run that is cut short leaves none
split_list "$list" "$out/log/utts"
gpu=()
device=cpu
choose_gpus "$gpus" "$nj" "$cmd"
# shellcheck disable=SC2086  # cmd may carry options
$cmd "${gpu[@]}" JOB=1:"$nj" "$out/log/extract.JOB.log" \
  local/extract_xvectors.py --max-frames "$max_frames" --chunk-frames "$chunk_frames" --device "$device" --amp "$amp" \
  --engine "$engine" --job JOB "$model" "$data" "$out/log/utts.JOB" "$out/xvector.JOB"
sed -n "s|^.*: front end: |$0: |p; s|^.*: \(engine: .*\)|$0: \1|p" "$out/log/extract.1.log"
for ((job = 1; job <= nj; job++)); do
  made=$(awk -v chunks="$chunk_frames" '{ key = chunks > 0 ? substr($1, 1, length($1) - 18) : $1 } key != last { n++ } { last = key } END { print n + 0 }' < "$out/xvector.$job.scp")
  [ $((made + $(wc -l < "$out/xvector.$job.lost_utts"))) -eq "$(wc -l < "$out/log/utts.$job")" ] ||
    fail "$out/xvector.$job.scp doesn't have the vectors of job $job, as if another run had written it; run it again"
done
gather "$out/xvector" lost_utts "$out/lost_utts"
require_few_lost "$out/lost_utts" "have no vector"
gather "$out/xvector" scp "$out/.xvector.scp"
rm -f "${parts[@]}"
remove_surplus "$out/xvector"
vectors=$(wc -l < "$out/.xvector.scp")
speakers=$data/spk2utt
[ -f "$speakers" ] || speakers=
if [ "$chunk_frames" -gt 0 ] && [ -f "$data/utt2spk" ]; then
  piece_speakers "$data/utt2spk" "$out/.xvector.scp" "$out"
  speakers=$out/spk2utt
fi
local/average_xvectors.py "$speakers" "$out/.xvector.scp" "$out"
mv "$out/.xvector.scp" "$out/xvector.scp"
say_kept "$out/log/extract.JOB.log"
echo "$0: $total in, $vectors vectors out, $lost lost, in $out"
