#!/usr/bin/env bash
# Speaker verification on real recorded speech of 50 people: teacher, student, embeddings, scores, in minutes on a CPU.
#
# Usage: ./run.sh [--stage 1] [--stop_stage 6] [options]
#   ./run.sh                             # everything
#   ./run.sh --stage 4 --kd_type enskd   # another method; conf/kd has them
#   ./run.sh --stage 4 --student ecapa_tiny
#   ./run.sh --stage 7 --stop_stage 7 --enroll_system xvector_tiny_none_s0 --test_system resnet_tiny_s0
# Options:
#   --teacher resnet_tiny       conf/model/<teacher>.conf, or a model that is there: exp/<name> of local/import_checkpoint.py
#   --student xvector_tiny      conf/model/<student>.conf
#   --kd_type none              conf/kd/<kd_type>.conf
#   --seed 0                    of the training; results of several seeds are averaged in the table
#   --enroll_system ""          stage 7, when asked for: maps between this system, a folder of exp,
#   --test_system ""            and this one, to enrol with the one and verify with the other
#   --nj 2                      jobs side by side
#   --gpus 0                    GPUs to train on; 0: the CPU
#   --debs ""                   folder that holds the Debian packages; without it they are downloaded (365 MB)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=1
stop_stage=6
teacher=resnet_tiny
student=xvector_tiny
kd_type=none
seed=0
enroll_system=
test_system=
nj=2
gpus=0
debs=

. utils/parse_options.sh
[ $# -eq 0 ] || { echo "$0: unexpected argument '$1' (see --help)" >&2; exit 1; }
. ./cmd.sh
. ./path.sh
teacher_dir=exp/${teacher}_s$seed
student_dir=exp/${student}_${kd_type}_s$seed
imported=false
if [ ! -f "conf/model/$teacher.conf" ] && [ -f "exp/$teacher/final.pt" ]; then imported=true teacher_dir=exp/$teacher; fi
systems=("$teacher_dir" "$student_dir")
taught_by=
if [ "$kd_type" != none ] && [ "$stop_stage" -ge 3 ]; then
  needs=$(local/kd_info.py --words true "conf/kd/$kd_type.conf")
  systems=("$student_dir")
  if [[ $needs == *teacher* ]]; then
    taught_by=$teacher_dir/final.pt
    ! $imported || taught_by=$teacher_dir/xvectors_train_all/xvector.scp  # it has a front end of its own: learn from its vectors
    student_dir=exp/${student}_${kd_type}_${teacher}_s$seed
    systems=("$teacher_dir" "$student_dir")
  fi
fi
runs() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ] && echo "$0: stage $1: $2"; }

if runs 1 "data directories, and what is to be done to the copies for augmentation"; then
  ./prepare_data.py --debs "$debs" --nj "$nj" data
  # Test speech here is as clean as training speech: noise and rooms cost accuracy (RESULTS.md). Speeds make speakers.
  local/augment_data_dir.py --speeds 0.9,1.1 --kinds "" data/train data/train_aug
  for x in train test train_aug; do utils/validate_data_dir.sh --no-feats data/$x; done
fi

if runs 2 "filterbank features"; then
  for x in train test train_aug; do
    local/make_fbank.sh --nj "$nj" --cmd "$train_cmd" data/$x
    utils/fix_data_dir.sh data/$x
  done
  utils/combine_data.sh data/train_all data/train data/train_aug
  for x in train test train_all; do utils/validate_data_dir.sh data/$x; done
fi

train() { # name of the model's conf, name of the method's conf, teacher, folder
  local config=conf/train.conf
  [ ! -f "conf/train_$2.conf" ] || config=conf/train_$2.conf
  local/train.sh --cmd "$cuda_cmd" --gpus "$gpus" --model "conf/model/$1.conf" --kd "conf/kd/$2.conf" --teacher "$3" \
    --train-config "$config" --train-options "--seed $seed" data/train_all "$4"
}
if runs 3 "the teacher, $teacher"; then
  if [ ${#systems[@]} -eq 1 ]; then echo "$0: kd_type=$kd_type needs no teacher"
  elif $imported; then
    for x in train train_aug; do
      local/extract_xvectors.sh --nj "$nj" --cmd "$train_cmd" "$teacher_dir/final.pt" data/$x "$teacher_dir/xvectors_$x"
    done
    mkdir -p "$(dirname "$taught_by")"
    sort "$teacher_dir"/xvectors_{train,train_aug}/xvector.scp > "$taught_by"
  else train "$teacher" none "" "$teacher_dir"
  fi
fi
if runs 4 "the student, $student, with kd_type=$kd_type"; then train "$student" "$kd_type" "$taught_by" "$student_dir"; fi

if runs 5 "embeddings"; then
  for system in "${systems[@]}"; do
    for x in train test; do
      local/extract_xvectors.sh --nj "$nj" --cmd "$train_cmd" "$system/final.pt" data/$x "$system/xvectors_$x"
    done
  done
fi

if runs 6 "scores"; then
  for system in "${systems[@]}"; do
    test=$system/xvectors_test/xvector.scp
    cohort=$system/xvectors_train
    local/score.py data/test/trials "$test" "$test" "$system/scores"
    local/score.py --norm asnorm --top-n 50 --cohort "$cohort/xvector.scp" data/test/trials "$test" "$test" "$system/scores"
    local/score.py --enroll-spk2utt data/test/enroll3_spk2utt data/test/trials_enroll3 "$test" "$test" "$system/scores"
  done
  local/collect_results.py exp
fi

if runs 7 "maps between two systems, $enroll_system and $test_system"; then
  [ -n "$enroll_system" ] && [ -n "$test_system" ] || { echo "$0: stage 7 needs --enroll_system and --test_system" >&2; exit 1; }
  local/align.sh --nj "$nj" --cmd "$train_cmd" "exp/$enroll_system" "exp/$test_system" data/train data/test data/test/trials
fi
