#!/usr/bin/env bash
# Compares methods: trains each method with each student, teacher and seed on one data set, and makes one table of all.
# A system that has its scores is not trained again. So a comparison that was stopped goes on, and a comparison can be
# widened: call it again with more. It is an error if a system was trained with other options or data than this call and the
# conf files say now, or than the other systems.
#
# Usage: local/compare_kd.sh [options] <train-dir> <test-dir> <trials> <exp-dir>
#   local/compare_kd.sh --kd-types "none enskd" --students "xvector" --seeds "0 1 2" --teachers own=exp/resnet_tiny_s0/final.pt \
#     data/train_all data/test data/test/trials exp/compare
# Options:
#   --kd-types "none kld enskd cosine mse"   conf/kd/<kd_type>.conf
#   --reference "none"                       kd_types to compare the others with; a method with a teacher is compared
#                                            with the reference that has the same teacher, if the reference has one
#   --students "xvector"                     conf/model/<student>.conf
#   --seeds "0 1 2 3 4"                      random seeds of the trainings
#   --teachers ""                            name=file ...; a file is a final.pt, or an xvector.scp of the training utterances.
#                                            name=file,quality=file: kd_type=vgsr also gets these figures
#   --vectors ""                             name=file,...; a file has one vector per training utterance. A method gets it
#                                            if it takes vectors of that name (local/kd_info.py says which)
#   --noise ""                               20,10,0: also score with noise at these SNRs in dB (local/score_noise.sh)
#   --cmd utils/run_jobs.sh                  what runs a system; on a cluster utils/slurm_jobs.sh
#   --jobs 2                                 systems at the same time
#   --gpus 0                                 GPUs of each system
#   --threads 1                              CPU threads of each system
#   --head conf/head.conf                    the classifier
#   --train-config conf/train.conf           optimisation
#   --train-options ""                       more options of local/train.py, such as "--amp bf16"
#
# A system's folder is <exp-dir>/<student>_<kd_type>[_<teacher>]_s<seed>; the table is <exp-dir>/table.md, and printed. Beside it
# are table.tsv, table.tex, systems.tsv (a line per seed) and figures (eer, cost, det as .png and .pdf). With
# --noise there is a second one, table_noise.md.
#
# <trials> may be several lists, joined by commas. The first one has the files above, each other one table_<its name>.md.
# With <test-dir> data/dev, scores are in a system's folder scores_dev instead of scores, and the tables are table_dev.md and
# so on: settings are chosen there.
set -euo pipefail
export LC_ALL=C

kd_types="none kld enskd cosine mse"
reference=none
students=xvector
seeds="0 1 2 3 4"
teachers=
vectors=
noise=
cmd=utils/run_jobs.sh
jobs=2
gpus=0
threads=1
head=conf/head.conf
train_config=conf/train.conf
train_options=

. utils/parse_options.sh
[ $# -eq 4 ] || { "$0" --help >&2; exit 1; }
train=${1%/}
test=${2%/}
trials=$3
out=${4%/}

. local/lib.sh
# shellcheck disable=SC2086  # several names in each
check_words "$train" "$test" "$trials" "$out" "$head" "$train_config" $students $kd_types $seeds $teachers $train_options
local/check_python.sh
IFS=, read -r -a lists <<< "$trials"
scores=scores dev=
[ "$(basename "$test")" != dev ] || scores=scores_dev dev=_dev
[ -s "$train/feats.scp" ] && [ -s "$test/feats.scp" ] || fail "$train/feats.scp or $test/feats.scp is missing; run stage 2"
[ ${#lists[@]} -gt 0 ] || fail "no trials are given"
for list in "${lists[@]}"; do [ -s "$list" ] || fail "$list: no such trials"; done
for student in $students; do [ -f "conf/model/$student.conf" ] || fail "conf/model/$student.conf: no such file"; done
declare -A file_of vectors_of
for teacher in $teachers; do
  [[ $teacher == ?*=?* ]] || fail "--teachers '$teacher' is not name=file"
  IFS=, read -r file more <<< "${teacher#*=}"
  [ -s "$file" ] || fail "$file: no such teacher; run stage 3"
  for entry in ${more//,/ }; do
    [[ $entry == ?*=?* ]] && [ -s "${entry#*=}" ] || fail "--teachers '$teacher': $entry is not name=file, or there is no such file"
  done
  file_of[${teacher%%=*}]=$file vectors_of[${teacher%%=*}]=$more
done
for entry in ${vectors//,/ }; do
  [[ $entry == ?*=?* ]] && [ -s "${entry#*=}" ] || fail "--vectors '$vectors': $entry is not name=file, or there is no such file"
done
[[ " $train_options" != *" --seed"[=\ ]* ]] || fail "--train-options '$train_options': the seeds are those of --seeds"
table=$out/log/jobs
mkdir -p "$out/log" || fail "can't make $out; check the rights of the folder"
hold_lock "$out/.compare.lock" "another comparison is at work in $out; wait for it, or give another folder"
rm -rf "$table"

takes() { [[ " ${needs_of[$1]} " =~ \ (vectors|may-have):$2\  ]]; } # kd_type, name of the vectors

# The table of the jobs has a line for each system that isn't scored yet.
systems=()
waiting=()
plan() { # student, kd_type, seed, teacher's name
  local name=${1}_$2${4:+_$4}_s$3 inputs='' entry need
  for entry in ${4:+${vectors_of[$4]//,/ }} ${vectors//,/ }; do
    takes "$2" "${entry%%=*}" || continue
    [[ ",$inputs" == *",${entry%%=*}="* ]] || inputs+=${inputs:+,}$entry
  done
  for need in ${needs_of[$2]}; do
    [[ $need != vectors:* ]] || [[ ",$inputs" == *",${need#vectors:}="* ]] ||
      fail "kd_type=$2 needs vectors '${need#vectors:}': give --vectors ${need#vectors:}=file"
  done
  systems+=("$name")
  # train_and_score.sh looks at the same files
  local list file=- made=$out/$name done=false xvectors=$out/$name/xvectors_${test##*/}
  ! current "$xvectors/mean.vec" "$made/final.pt" "$test/feats.scp" || done=true
  for list in "${lists[@]}"; do current "$made/$scores/${list##*/}.cosine" "$xvectors/xvector.scp" "$list" || done=false; done
  ! $done || return 0
  [ -z "$4" ] || file=${file_of[$4]}
  waiting+=("$1 $2 $3 $file ${inputs:--} $name")
}
taught=" "
declare -A needs_of
for kd_type in $kd_types; do
  needs=$(local/kd_info.py --words true "conf/kd/$kd_type.conf")
  needs_of[$kd_type]=$needs
  [[ " $needs " == *" audio "* ]] || fail "kd_type=$kd_type trains no encoder, so there is nothing to compare; see local/align.sh"
  [[ $needs != *teacher* ]] || taught+="$kd_type "
done
for entry in $(printf '%s ' "${vectors_of[@]}" "$vectors" | tr , ' '); do
  for kd_type in $kd_types; do ! takes "$kd_type" "${entry%%=*}" || continue 2; done
  fail "--teachers or --vectors: none of the methods takes ${entry%%=*}"
done
[ "$taught" = " " ] || [ -n "$teachers" ] || fail "teachers are needed for$taught: give --teachers name=file"
# Seed by seed, so that a comparison that was cut short has all methods.
for seed in $seeds; do
  for kd_type in $kd_types; do
    for student in $students; do
      if [[ $taught != *" $kd_type "* ]]; then plan "$student" "$kd_type" "$seed" ""; continue; fi
      for teacher in $teachers; do plan "$student" "$kd_type" "$seed" "${teacher%%=*}"; done
    done
  done
done
printf '%s\n' "${systems[@]}" > "$out/systems"
local/compare_kd_table.py --check "$train" --train-config "$train_config" --train-options "$train_options" "${lists[0]}" "$out"
echo "$0: ${#systems[@]} systems, ${#waiting[@]} of them to be trained or scored, $jobs at a time"

gpu=()
[ "$gpus" -eq 0 ] || gpu=(--gpu "$gpus")
if [ ${#waiting[@]} -gt 0 ]; then
  printf '%s\n' "${waiting[@]}" > "$table"
  export OMP_NUM_THREADS=$threads
  # shellcheck disable=SC2086  # cmd may carry options
  $cmd "${gpu[@]}" --max-jobs-run "$jobs" JOB=1:${#waiting[@]} "$out/log/system.JOB.log" \
    local/compare_kd_system.sh --gpus "$gpus" --threads "$threads" --head "$head" --train-config "$train_config" \
    --train-options "$train_options" "$table" JOB "$train" "$test" "$trials" "$out"
fi

# The same trials judge the teachers that are nets. Their scores have a folder here, because stage 6 of a recipe may subtract a mean.
judged=()
for teacher in $teachers; do
  net=${file_of[${teacher%%=*}]}
  [[ $net != *.scp ]] || net=$(dirname "$(dirname "$net")")/final.pt
  if [ ! -s "$net" ]; then echo "$0: ${teacher%%=*}: no final.pt, so its own error rate isn't known"; continue; fi
  local/train_and_score.sh --nj "$jobs" --scores "$out/teachers/${teacher%%=*}/$scores" "$train" "$test" "$trials" "$(dirname "$net")" > "$out/log/teacher.${teacher%%=*}.log" 2>&1 \
    || fail "the teacher ${teacher%%=*} can't be scored: $out/log/teacher.${teacher%%=*}.log"
  judged+=("${teacher%%=*}=$out/teachers/${teacher%%=*}")
done
tables=(--reference "$reference" --teachers "${judged[*]}" --scores "$scores")
for list in "${lists[@]:1}"; do
  local/compare_kd_table.py "${tables[@]}" --table "table${dev}_${list##*/}" --plots false "$list" "$out"
done
tables+=(--table "table$dev")
[ -z "$dev" ] || tables+=(--plots false)
if [ -n "$noise" ]; then
  folders=("${systems[@]/#/$out/}")
  local/score_noise.sh --snrs "$noise" --clean false --nj "$jobs" --cmd "$cmd" --gpus "$gpus" --score-opts "--num-bootstrap 0 --plots false" \
    "$test" "${lists[0]}" "$out/noise$dev" "${folders[@]}" > "$out/log/noise.log" 2>&1 || fail "no scores with noise: see $out/log/noise.log"
  tables+=(--noise "$out/noise$dev" --conditions "noise${noise//,/,noise}")
fi
local/compare_kd_table.py "${tables[@]}" "${lists[0]}" "$out"
