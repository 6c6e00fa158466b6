#!/usr/bin/env bash
# Does distillation gain from more training speakers? One table of methods for each number of made-up speakers.
#
# Usage: ./compare_speakers.sh [options]
#   ./compare_speakers.sh                      # 60, 200 and 600 speakers; hours on two cores
#   ./compare_speakers.sh --sizes "60 1000" --seeds 0 --kd_types "none enskd"
# Options:
#   --sizes "60 200 600"               numbers of training speakers; smaller sets are the first speakers of the largest one
#   --kd_types "none kld enskd cosine" conf/kd/<kd_type>.conf
#   --seeds "0 1 2 3 4"                random seeds of the students
#   --teacher xvector                  conf/model/<teacher>.conf, trained on the same speakers, seed 0
#   --student xvector_micro            conf/model/<student>.conf
#   --utts 60000                       total number of training crops of a student, for any number of speakers
#   --jobs 2                           number of systems at the same time, one thread each
#   --data exp/speakers/data           data of this comparison, separate from that of run.sh
#
# Every student makes the same number of steps. So with ten times as many speakers, each utterance is used a tenth as often.
# Teachers are trained on twice as many crops. If it was stopped, it goes on from there. The tables are
# exp/speakers/<size>/table.md.
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
