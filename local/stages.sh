#!/usr/bin/env bash
# Shared by the run.sh of all recipes. A run.sh sources it after it has parsed its options. It checks the options, starts the
# stages, and lets local/plan.py find out what is trained with what.
#
# A run.sh is then a list of "if runs <number> <title>; then ... fi". The last number is the last stage. It may use
#   features, validate, augment           in stages 1 and 2
#   train_teacher, train_student, extract  in stages 3, 4 and 5
#   score, collect                        in stage 6
#   pair, maps, export_student            in stages 7 and 8
#   systems teacher_dirs student_dir taught_by needs ...   variables of the plan; local/plan.py --help lists them
# Before it sources this file, a run.sh may set spare_vectors (name=file,... for methods that can use such vectors). It may also
# define before_plan, a function that fetches what the plan needs. Before stage 3 it may set train_set, the data directory to
# train on; the default is data/train_all.
# shellcheck disable=SC2154  # the options and the plan are variables of run.sh

. local/lib.sh

[ $# -eq 0 ] || fail "unexpected argument '$1' (see --help)"
last_stage=$(sed -n 's/^if runs \([0-9][0-9]*\) .*/\1/p' "./${0##*/}" | sort -n | tail -n 1)
# --stage 7 or 8 alone means that stage; without it, the run ends with the scores.
[[ " ${_po_arguments[*]}" == *" --stop"[_-]stage* ]] || [ "$stage" -le "$stop_stage" ] || stop_stage=$stage
for option in stage stop_stage; do
  [ "${!option}" -ge 1 ] && [ "${!option}" -le "$last_stage" ] || fail "--$option ${!option}: the stages are 1 to $last_stage"
done
[ "$stage" -le "$stop_stage" ] || fail "--stage $stage comes after --stop_stage $stop_stage: give --stop_stage $stage as well"
for option in nj gpus processes seed; do [ "${!option}" -ge 0 ] || fail "--$option ${!option} must not be negative"; done
[ "$nj" -ge 1 ] || fail "--nj $nj must be 1 or more"

# The stages run in a process of their own, and this one waits for it. So a signal to run.sh ends everything that it started.
# Otherwise bash would act on the signal only after its current command has ended, or die and leave its children running.
if [ -z "${_stages_of:-}" ]; then
  # shellcheck disable=SC2329  # it is, by the traps
  end_stages() { # signal
    local tries
    trap '' INT TERM HUP
    kill -s TERM -- "-$stages" 2> /dev/null || true
    for ((tries = 0; tries < 150; tries++)); do
      kill -s 0 -- "-$stages" 2> /dev/null || break
      sleep 0.1
    done
    kill -s KILL -- "-$stages" 2> /dev/null || true
    echo "$0: stopped by SIG$1, with all that it had started; the same command goes on from there" >&2
    trap - "$1"
    kill -s "$1" $$
  }
  set -m   # a process group, which a signal can be sent to
  _stages_of=$$ "$BASH" "./${0##*/}" "${_po_arguments[@]}" < /dev/null &
  stages=$!
  set +m
  trap 'end_stages INT' INT
  trap 'end_stages TERM' TERM
  trap 'end_stages HUP' HUP
  code=0
  wait "$stages" || code=$?
  exit "$code"
fi
unset _stages_of

. ./cmd.sh
. ./path.sh
! declare -F before_plan > /dev/null || before_plan
plan=$(local/plan.py --stage "$stage" --stop-stage "$stop_stage" --teacher "$teacher" --student "$student" --kd-type "$kd_type" \
  --vectors "$vectors" --spare-vectors "${spare_vectors:-}" --train-config "$train_config" --train-options "$train_options" \
  --source "$source" --hear "$hear" --large-margin "$large_margin" --seed "$seed" --enroll-system "$enroll_system" --test-system "$test_system")
eval "$plan"

runs() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ] && echo "$0: stage $1: $2"; } # number, title

validate() { # options of validate_data_dir.sh, names of data directories
  local options=()
  while [[ $1 == -* ]]; do options+=("$1"); shift; done
  for x; do utils/validate_data_dir.sh "${options[@]}" "data/$x"; done
}

augment() { # names of a data directory and of that of its copies; the recipe has --musan, --rirs, --speeds and --copies
  local total=$(($(wc -l < "data/$1/utt2spk") * (1 + $(wc -w <<< "${speeds//,/ }"))))
  local/augment_data_dir.py --musan "$musan" --rirs "$rirs" --speeds "$speeds" --num-utts $((copies * total)) "data/$1" "data/$2"
}

features() { # names of data directories
  for x; do
    local/make_fbank.sh --nj "$nj" --cmd "$train_cmd" "data/$x"
    utils/fix_data_dir.sh "data/$x"
  done
}

print_lines() { # a text of several lines
  while IFS= read -r line; do echo "$0:   $line"; done <<< "$1"
}

cpu_processes() { # --processes, or 0 where a GPU trains: there, local/train.sh starts one for each GPU
  if [ "$processes" -gt 0 ] && { [ "$gpus" -gt 0 ] || python3 -c 'import torch; raise SystemExit(not torch.cuda.is_available())'; }; then
    echo 0
  else
    echo "$processes"
  fi
}

train() { # folder, name of the model's conf, name of the method's conf, further options of train.sh
  local/train.sh --cmd "$cuda_cmd" --gpus "$gpus" --processes "$(cpu_processes)" --model "conf/model/$2.conf" --kd "conf/kd/$3.conf" "${@:4}" "${train_set:-data/train_all}" "$1"
}

train_teacher() { # each of them
  print_lines "$teacher_chain"
  local number teacher_dir teacher_hears
  for number in "${!teacher_kinds[@]}"; do
    teacher_dir=${teacher_dirs[number]}
    teacher_hears=${teacher_ears[number]}
    case ${teacher_kinds[number]} in
      trained) train "$teacher_dir" "${teacher_models[number]}" none --train-config "$teacher_config" --train-options "--seed $seed" ;;
      imported) needs_no_vectors || teacher_vectors ;;
    esac
  done
}

# A teacher that doesn't teach, or that hears the crop and judges by a classifier of its own.
needs_no_vectors() {
  [ -z "$taught_by" ] || { [ "$teacher_hears" = crop ] && [[ $centroids != *"$teacher_dir/"* ]]; }
}

# Vectors of an imported teacher, which has its own front end. The vector of an original also teaches its noisy copies, so only
# originals go through the teacher. A copy at another speed is another speaker, and therefore an original. A teacher that hears
# the crop needs these vectors for the speakers' mean vectors, which are its classifier.
teacher_vectors() {
  local originals=data/train_originals list=data/.originals.$$ hours factor
  cp data/train_all/utt2spk "$list"
  [ ! -f data/train_all/utt2uniq ] || awk '$1 == $2' data/train_all/utt2uniq > "$list"
  utils/subset_data_dir.sh --utt-list "$list" data/train_all "$originals"
  rm "$list"
  hours=$(awk '{ sum += $2 } END { printf "%.1f", sum / 3600 }' < "$originals/utt2dur")
  factor=$(local/model_info.py --seconds 4 --runs 1 "$teacher_dir/final.pt" | awk 'END { print $NF }')
  echo "$0: $teacher_dir/final.pt makes vectors of the $(wc -l < "$originals/utt2spk") originals of $(wc -l < data/train_all/utt2spk)" \
    "utterances, $hours hours of speech: some $(awk -v hours="$hours" -v factor="$factor" -v nj="$nj" \
      'BEGIN { print int(hours * 60 * factor / nj) + 1 }') minutes with $nj jobs on as many cores"
  local out=$teacher_dir/xvectors_train_originals
  case $teacher_hears in
    places)
      local/extract_crop_xvectors.sh --nj "$nj" --cmd "$(extraction_cmd)" --gpus "$gpus" --num-crops "$num_crops" --crop-frames "$crop_frames" \
        "$teacher_dir/final.pt" "$originals" "$(dirname "${teacher_files[number]}")"
      ;;
    *) extract_vectors "$teacher_dir/final.pt" "$originals" "$out" ;;
  esac
}

extraction_cmd() { if [ "$gpus" -eq 0 ]; then echo "$train_cmd"; else echo "$cuda_cmd"; fi; }

extract_vectors() { # model, data directory, folder of the vectors
  local/extract_xvectors.sh --nj "$nj" --cmd "$(extraction_cmd)" --gpus "$gpus" "$@"
}

waves() { # names of data directories: wave archives, which are kept unless what they are made of is newer
  local x
  for x; do
    current "data/$x/waves.scp" data/"$x"/{wav.scp,segments,*aug*} ||
      local/make_wave_ark.sh --nj "$nj" --cmd "$train_cmd" "data/$x"
  done
}

train_student() {
  print_lines "$student_chain"
  local file
  for file in "${teacher_files[@]}"; do
    [ -z "$file" ] || [ -s "$file" ] || fail "$file: no such teacher; run stage 3"
  done
  [ "$source" != waves ] || waves train_all
  train "$student_dir" "$student" "$kd_type" --teacher "$taught_by" --vectors "$vectors" --train-config "$student_config" \
    --source "$source" --train-options "--seed $seed${centroids:+ --centroids $centroids}${train_options:+ $train_options}"
  if $large_margin; then
    train "$fine_tuned" "$student" none --head conf/head_large.conf --train-config conf/train_lm.conf \
      --train-options "--seed $seed --init $student_dir/final.pt"
  fi
}

extract() { # names of data directories
  local system x
  for system in "${systems[@]}"; do
    for x; do
      extract_vectors "$system/final.pt" "data/$x" "$system/xvectors_$x"
    done
  done
}

score() { # name of a data directory, trials, further options of score.py, in which SYSTEM stands for a system's folder
  local options=("${@:3}") system vectors out=scores
  [ "$1" != dev ] || out=scores_dev   # settings are chosen on dev, so its scores stand apart
  for system in "${systems[@]}"; do
    vectors=$system/xvectors_$1/xvector.scp
    local/score.py "${options[@]//SYSTEM/$system}" "$2" "$vectors" "$vectors" "$system/$out"
  done
}

collect() { # the table of all systems, and a page with pictures
  local/collect_results.py exp
  local/report.py exp
}

export_student() { # the data directory whose mean vector stage 6 subtracts, or ''; further options of export_onnx.py
  local system=$student_dir mean=()
  ! $large_margin || system=$fine_tuned
  [ -f "$system/final.pt" ] || fail "$system/final.pt: no such file; run stage 4 with the same options"
  [ -z "$1" ] || mean=(--mean "$system/xvectors_$1/mean.vec")
  local/export_onnx.py --train-dir data/train_all "${mean[@]}" "${@:2}" "$system" "$system/export"
}

maps() { # name of the data directory to learn from, trials of data/test, further options of align.sh
  local/align.sh --nj "$nj" --cmd "$train_cmd" "${@:3}" "exp/$enroll_system" "exp/$test_system" "data/$1" data/test "$2"
}

pair() { # are there two systems for stage 7?
  [ -n "$enroll_system" ] && [ -n "$test_system" ] || { echo "$0: left out: no --enroll_system and --test_system"; return 1; }
}
