#!/usr/bin/env bash
# Speaker verification on VoxCeleb: trained on VoxCeleb2-dev, tried on VoxCeleb1-O, E and H. The papers' setting.
#
# Usage: ./run.sh --voxceleb1 /corpora/VoxCeleb1 --voxceleb2 /corpora/VoxCeleb2 [--stage 1] [--stop_stage 6] [options]
#   ./run.sh --nj 32 --gpus 2                        # everything
#   ./run.sh --stage 4 --kd_type enskd --gpus 2      # another method; conf/kd has them, README.md the papers' settings
#   ./run.sh --stage 4 --kd_type vgsr --teacher data/train/face.scp --vectors quality=data/train/utt2quality
#   ./run.sh --stage 7 --stop_stage 7 --enroll_system xvector_none_s0 --test_system resnet34_s0
# Options:
#   --voxceleb1, --voxceleb2 folder  as unpacked: wav/idXXXXX/<video>/00001.wav, dev/aac/idXXXXX/<video>/00001.m4a
#   --lists ""                       folder of veri_test2.txt, list_test_all2.txt, ...; "": --voxceleb1 or its meta/
#   --musan, --rirs /corpora/...     folders musan and RIRS_NOISES; "": noise and rooms are made up
#   --speeds ""                       speeds of which copies are made, as more speakers: 0.9,1.1
#   --copies 2                       copies of each utterance with noise, music, babble or a room, of these 4 on the average
#   --teacher resnet34               conf/model/<teacher>.conf, an exp/<name> of local/import_checkpoint.py, or an scp of vectors
#   --vectors ""                     what the kd_type takes besides: name=file,...
#   --student xvector                conf/model/<student>.conf
#   --kd_type none                   conf/kd/<kd_type>.conf
#   --train_config conf/train.conf   optimisation of the student
#   --train_options ""               more options of local/train.py for it: "--missing zero", where not all have a face
#   --large_margin false             true: fine-tune the student on longer crops with a larger margin as well
#   --seed 0                         of the training; results of several seeds are averaged in the table
#   --enroll_system ""               stage 7, when asked for: maps between this system, a folder of exp,
#   --test_system ""                 and this one, to enrol with the one and verify with the other
#   --nj 16                          jobs side by side
#   --gpus 0                         GPUs to train on; 0: the CPU
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=1
stop_stage=6
voxceleb1=/corpora/VoxCeleb1
voxceleb2=/corpora/VoxCeleb2
lists=
musan=/corpora/musan
rirs=/corpora/RIRS_NOISES
speeds=
copies=2
teacher=resnet34
vectors=
student=xvector
kd_type=none
train_config=conf/train.conf
train_options=
large_margin=false
seed=0
enroll_system=
test_system=
nj=16
gpus=0

. utils/parse_options.sh
[ $# -eq 0 ] || { echo "$0: unexpected argument '$1' (see --help)" >&2; exit 1; }
. ./cmd.sh
. ./path.sh
teacher_dir=exp/${teacher}_s$seed
student_dir=exp/${student}_${kd_type}_s$seed
kind=trained
if [[ $teacher == *.scp ]]; then kind=vectors
elif [ ! -f "conf/model/$teacher.conf" ] && [ -f "exp/$teacher/final.pt" ]; then kind=imported teacher_dir=exp/$teacher; fi
systems=("$teacher_dir" "$student_dir")
taught_by=
if [ "$kd_type" != none ] && [ "$stop_stage" -ge 3 ]; then
  needs=$(local/kd_info.py --words true "conf/kd/$kd_type.conf")
  systems=("$student_dir")
  if [[ $needs == *teacher* ]]; then
    student_dir=exp/${student}_${kd_type}_$(basename "$teacher" .scp)_s$seed
    systems=("$teacher_dir" "$student_dir")
    case $kind in
      trained) taught_by=$teacher_dir/final.pt ;;
      imported) taught_by=$teacher_dir/xvectors_train_all.scp ;;  # it has a front end of its own: learn from its vectors
      vectors) taught_by=$teacher systems=("$student_dir") ;;
    esac
  fi
fi
fine_tuned=${student_dir%_s"$seed"}_lm_s$seed
if $large_margin; then systems+=("$fine_tuned"); fi
runs() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ] && echo "$0: stage $1: $2"; }
features() { local/make_fbank.sh --nj "$nj" --cmd "$train_cmd" "data/$1"; utils/fix_data_dir.sh "data/$1"; }
extract() { local/extract_xvectors.sh --nj "$nj" --cmd "$train_cmd" "$1/final.pt" "data/$2" "$1/xvectors_$2"; }

if runs 1 "data directories"; then
  ./prepare_data.py --nj "$nj" --lists "$lists" "$voxceleb1" "$voxceleb2" data
  for x in train test; do utils/validate_data_dir.sh --no-feats data/$x; done
fi

if runs 2 "filterbank features, and those of augmented copies"; then
  for x in train test; do features $x; done   # this tells how long the recordings are, which the copies must know
  total=$(($(wc -l < data/train/utt2spk) * (1 + $(wc -w <<< "${speeds//,/ }"))))
  local/augment_data_dir.py --musan "$musan" --rirs "$rirs" --speeds "$speeds" --num-utts $((copies * total)) data/train data/train_aug
  features train_aug
  utils/combine_data.sh data/train_all data/train data/train_aug
  utils/subset_data_dir.sh --utt-list data/train/cohort_utts data/train data/cohort
  for x in train_all test cohort; do utils/validate_data_dir.sh data/$x; done
fi

train() { # folder, name of the model's conf, name of the method's conf, further options
  local/train.sh --cmd "$cuda_cmd" --gpus "$gpus" --model "conf/model/$2.conf" --kd "conf/kd/$3.conf" "${@:4}" data/train_all "$1"
}
if runs 3 "the teacher, $teacher"; then
  if [[ ${systems[0]} == "$student_dir" ]]; then echo "$0: there is no teacher to train for kd_type=$kd_type"
  elif [ $kind = imported ]; then   # a copy is taught by the vector of its original, but for speeds
    for x in train ${speeds:+train_aug}; do
      extract "$teacher_dir" "$x" >&2
      cat "$teacher_dir/xvectors_$x/xvector.scp"
    done | sort > "$taught_by"
  else train "$teacher_dir" "$teacher" none --train-options "--seed $seed"
  fi
fi
if runs 4 "the student, $student, with kd_type=$kd_type"; then
  train "$student_dir" "$student" "$kd_type" --teacher "$taught_by" --vectors "$vectors" --train-config "$train_config" \
    --train-options "--seed $seed $train_options"
  if $large_margin; then
    train "$fine_tuned" "$student" none --head conf/head_large.conf --train-config conf/train_lm.conf \
      --train-options "--seed $seed --init $student_dir/final.pt"
  fi
fi

if runs 5 "embeddings"; then
  for system in "${systems[@]}"; do
    for x in cohort test; do extract "$system" $x; done
  done
fi

if runs 6 "scores"; then
  for system in "${systems[@]}"; do
    test=$system/xvectors_test/xvector.scp
    cohort=$system/xvectors_cohort
    # Calibrated on pairs of training speakers, who are better known than those of the trials: see README.md.
    local/score.py --mean "$cohort/mean.vec" data/cohort/trials_calibration "$cohort"/xvector.scp{,} "$system/scores"
    for trials in data/test/trials_*; do
      options=(--mean "$cohort/mean.vec")
      local/score.py "${options[@]}" --calibration "$system/scores/trials_calibration.cosine.calibration" \
        "$trials" "$test" "$test" "$system/scores"
      local/score.py "${options[@]}" --norm asnorm --cohort "$cohort/xvector.scp" --cohort-spk2utt data/cohort/spk2utt \
        "$trials" "$test" "$test" "$system/scores"
    done
  done
  local/collect_results.py exp
fi

if runs 7 "maps between two systems, $enroll_system and $test_system"; then
  [ -n "$enroll_system" ] && [ -n "$test_system" ] ||
    { echo "$0: stage 7 needs --enroll_system and --test_system" >&2; exit 1; }
  pair=exp/${enroll_system}_${test_system}_nessa
  for trials in data/test/trials_*; do   # the first list has the maps trained, the others find them there
    local/align.sh --nj "$nj" --cmd "$train_cmd" --out "$pair" \
      "exp/$enroll_system" "exp/$test_system" data/cohort data/test "$trials"
    for x in md tsv; do mv "$pair/matrix.$x" "$pair/matrix_${trials##*/trials_}.$x"; done
  done
fi
