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
#   --gpus 0                     number of GPUs, which the jobs share (with a queue: each job asks for one); 0: the CPU
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
gpus=0
max_lost=5

. utils/parse_options.sh
. local/part_lib.sh
model_words "$@"
[ -s "$data/utt2spk" ] || fail "$data/utt2spk is missing or empty; run stage 1"
local/check_python.sh
require_positive nj num_crops crop_frames
require_whole max_lost gpus
set_jobs "$list"
make_folders "$out" "$out/log"
hold_lock "$out/.lock" "another job makes vectors in $out; wait for it"

rm -f "$out/xvector.scp"
split_list "$list" "$out/log/utts"
gpu=()
device=cpu
choose_gpus "$gpus" "$nj" "$cmd"
# shellcheck disable=SC2086  # cmd may carry options
$cmd "${gpu[@]}" JOB=1:"$nj" "$out/log/extract.JOB.log" \
  local/extract_crop_xvectors.py --num-crops "$num_crops" --crop-frames "$crop_frames" --device "$device" \
  --job JOB "$model" "$data" "$out/log/utts.JOB" "$out/xvector.JOB"
sed -n "s|^.*: front end: |$0: |p" "$out/log/extract.1.log"
gather "$out/xvector" lost_utts "$out/lost_utts"
require_few_lost "$out/lost_utts" "have no vector"
gather "$out/xvector" scp "$out/.xvector.scp"
sort -k1,1 -o "$out/.xvector.scp" "$out/.xvector.scp"
piece_speakers "$data/utt2spk" "$out/.xvector.scp" "$out"
made=$(awk '!seen[substr($1, 1, length($1) - 18)]++ {n++} END {print n + 0}' < "$out/.xvector.scp")
[ $((made + lost)) -eq "$total" ] || fail "$made utterances made and $lost lost are not the $total of $list; run it again"
rm -f "${parts[@]}"
remove_surplus "$out/xvector"
local/average_xvectors.py "$out/spk2utt" "$out/.xvector.scp" "$out"
mv "$out/.xvector.scp" "$out/xvector.scp"   # last: it says that the rest is there
say_kept "$out/log/extract.JOB.log"
echo "$0: $total in, $(wc -l < "$out/xvector.scp") vectors of $made utterances out, $lost lost, in $out"
