#!/usr/bin/env bash
# What a teacher is, how good it is, and whether it can serve a student and a method.
#
# Usage: local/check_teacher.sh [options] <final.pt or xvector.scp> <train-dir>
#   local/check_teacher.sh --kd conf/kd/enskd.conf --model conf/model/xvector.conf \
#     --test data/test --trials data/test/trials exp/campplus_3dspeaker/final.pt data/train_all
# Options:
#   --kd conf/kd/enskd.conf              the method
#   --model conf/model/xvector.conf      the student
#   --head conf/head.conf                the classifier
#   --source feats                       what the student's crops are made of: feats or waves (waves.scp, else wav.scp)
#   --hear ""                            what a teacher model hears: crop, places or utterance; default: crop
#   --centroids ""                       spk_xvector.scp with the training speakers' mean vectors, instead of a classifier;
#                                        of several teachers: name=file,...
#   --missing error                      what to do with utterances without a vector: error or zero (train without teacher)
#   --test ""                            data directory on which the teacher's error rate is measured
#   --trials ""                          its trials; if the teacher is a file of vectors, final.pt is in the folder above
#   --nj 2                               jobs of the extraction
#
# Several teachers are given as name=file,...; then leave out --test and --trials.
# If the teacher can't serve, the exit status is 1, and the reason and the remedy are printed.
set -euo pipefail
export LC_ALL=C

kd=conf/kd/enskd.conf
model=conf/model/xvector.conf
head=conf/head.conf
source=feats
hear=
centroids=
missing=error
test=
trials=
nj=2

. utils/parse_options.sh
[ $# -eq 2 ] || { "$0" --help >&2; exit 1; }
teacher=$1
data=${2%/}

. local/lib.sh
local/check_python.sh
IFS=, read -r -a files <<< "$teacher"
for file in "${files[@]}"; do
  [ -s "${file##*=}" ] || fail "${file##*=}: no such teacher; run stage 3, or local/import_checkpoint.py"
done
[ "${#files[@]}" -le 1 ] || [ -z "$test$trials" ] || fail "--test and --trials are for one teacher; leave them out for several"
teacher_file=${teacher##*=}
for file in "$kd" "$model" "$head"; do
  [ -f "$file" ] || fail "$file: no such file; there are: $(cd "$(dirname "$file")" 2>/dev/null && echo *)"
done
if [ -n "$test$trials" ]; then
  [ -d "$test" ] && [ -s "$trials" ] || fail "--test '$test' and --trials '$trials' must both be there"
  net=$teacher_file
  [[ $net != *.scp ]] || net=$(dirname "$(dirname "$net")")/final.pt
  if [ -s "$net" ]; then
    out=$(dirname "$net")
    local/train_and_score.sh --nj "$nj" "$data" "$test" "$trials" "$out" > "$out/check_teacher.log" 2>&1 \
      || fail "it can't be scored: $out/check_teacher.log"
    echo "error rate on $trials, in percent, with the interval over speakers:"
    local/collect_results.py --trials "$(basename "$trials")" --scoring cosine "$(dirname "$out")" \
      | awk -v name="$(basename "$out")" 'NR <= 2 || $2 == name { print } !NF { exit }'
  else
    echo "no final.pt above $teacher_file, so its error rate isn't known"
  fi
fi
status=0
local/check_teacher.py --kd "$kd" --model "$model" --head "$head" --source "$source" --hear "$hear" --centroids "$centroids" --missing "$missing" "$teacher" "$data" \
  || status=1
exit $status
