#!/usr/bin/env bash
# Does distillation gain from more training speakers? One table of methods for each number of made-up speakers.
#
# Usage: ./compare_speakers.sh [options]
#   ./compare_speakers.sh                      # 60, 200 and 600 speakers; hours on two cores
#   ./compare_speakers.sh --sizes "60 1000" --seeds 0 --kd_types "none enskd"
# Options:
#   --sizes "60 200 600"               training speakers; smaller sets are the first speakers of the largest one
#   --kd_types "none kld enskd cosine" conf/kd/<kd_type>.conf
#   --seeds "0 1 2 3 4"                of the students
#   --teacher xvector                  conf/model/<teacher>.conf, trained on the same speakers, seed 0
#   --student xvector_micro            conf/model/<student>.conf
#   --utts 60000                       utterances that a student hears in all, whatever the number of speakers
#   --jobs 2                           systems at the same time, a thread each
#   --data exp/speakers/data           made by stages 1 and 2 here, apart from run.sh's
#
# Every student makes as many steps, so a set of ten times the speakers is heard a tenth of the times. Teachers hear twice as
# many. Goes on where it was stopped. exp/speakers/<size>/table.md are the tables.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

sizes="60 200 600"
kd_types="none kld enskd cosine"
seeds="0 1 2 3 4"
teacher=xvector
student=xvector_micro
utts=60000
jobs=2
data=exp/speakers/data

. utils/parse_options.sh
[ $# -eq 0 ] || { echo "$0: unexpected argument '$1' (see --help)" >&2; exit 1; }
. ./cmd.sh
. ./path.sh
largest=$(tr ' ' '\n' <<< "$sizes" | sort -n | tail -n 1)
mkdir -p "$data"

if [ ! -e "$data/.done_$largest" ]; then
  ./prepare_data.py --num-train-speakers "$largest" --nj "$jobs" "$data"
  for x in train test; do
    local/make_fbank.sh --nj "$jobs" --cmd "$train_cmd" "$data/$x"
    utils/fix_data_dir.sh "$data/$x"
  done
  touch "$data/.done_$largest"
fi

# Epochs for as many utterances; the margin comes at the same parts of the run.
settings() { # folder, speakers, utterances in all
  local count
  count=$(wc -l < "$data/train_$2/utt2spk")
  mkdir -p "$1"
  awk -v all="$3" -v count="$count" -v folder="$1" 'BEGIN {
    epochs = int(all / count + 0.5)
    if (epochs < 1) epochs = 1
    print "--type=aam\n--scale=32\n--margin=0.2\n--margin-start=" 0.15 * epochs "\n--margin-end=" 0.4 * epochs > (folder "/head.conf")
    print "--num-epochs=" epochs "\n--warmup-epochs=" 0.05 * epochs "\n--average=1" > (folder "/train.conf") }'
  grep -v -e '^--num-epochs' -e '^--warmup-epochs' -e '^--average' conf/train.conf >> "$1/train.conf"
}

for size in $sizes; do
  out=exp/speakers/$size
  [ "$size" -eq "$largest" ] || awk -v most="$size" 'NR <= most {print $1}' "$data/train/spk2utt" > "$data/spk_$size"
  if [ "$size" -eq "$largest" ]; then utils/copy_data_dir.sh "$data/train" "$data/train_$size"
  else utils/subset_data_dir.sh --spk-list "$data/spk_$size" "$data/train" "$data/train_$size"
  fi
  settings "$out/for_teacher" "$size" $((2 * utts))
  settings "$out/for_students" "$size" "$utts"
  local/train_and_score.sh --cmd "$cuda_cmd" --model "conf/model/$teacher.conf" --head "$out/for_teacher/head.conf" \
    --train-config "$out/for_teacher/train.conf" --train-options "--seed 0" "$data/train_$size" "$data/test" "$data/test/trials" "$out/teacher"
  local/compare_kd.sh --cmd "$train_cmd" --kd-types "$kd_types" --students "$student" --seeds "$seeds" --jobs "$jobs" \
    --teachers "own=$out/teacher/final.pt" --head "$out/for_students/head.conf" --train-config "$out/for_students/train.conf" \
    "$data/train_$size" "$data/test" "$data/test/trials" "$out"
done
for size in $sizes; do
  printf '\n## %s speakers\n\n' "$size"
  cat "exp/speakers/$size/table.md"
done
