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
. ./speakers.sh
make_speakers

for size in $sizes; do
  out=exp/speakers/$size
  make_subset "$size"
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
