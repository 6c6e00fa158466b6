#!/usr/bin/env bash
# Speaker verification on VoxCeleb: trained on VoxCeleb2-dev, tried on VoxCeleb1-O, E and H. The papers' setting.
#
# Usage: ./run.sh --voxceleb1 /corpora/VoxCeleb1 --voxceleb2 /corpora/VoxCeleb2 [--stage 1] [--stop_stage 6] [options]
#   ./run.sh --nj 32 --gpus 2                        # everything
#   ./run.sh --stage 4 --kd_type enskd --gpus 2      # another method; conf/kd has them, README.md the papers' settings
#   ./run.sh --stage 4 --kd_type vgsr --teacher data/train/face.scp --vectors quality=data/train/utt2quality
#   ./run.sh --stage 7 --enroll_system xvector_none_s0 --test_system resnet34_s0
#   ./run.sh --stage 8                   # the student as ONNX; needs tools/setup.sh --extras "export app"
# Defaults here: --teacher resnet34 --student xvector --nj 16
# Options of this recipe:
#   --voxceleb1, --voxceleb2 folder  as unpacked: wav/idXXXXX/<video>/00001.wav, dev/aac/idXXXXX/<video>/00001.m4a
#   --lists ""                       folder of veri_test2.txt, list_test_all2.txt, ...; "": --voxceleb1 or its meta/
#   --musan, --rirs /corpora/...     folders musan and RIRS_NOISES; "": noise and rooms are made up
#   --speeds ""                       speeds of which copies are made, as more speakers: 0.9,1.1
#   --copies 2                       copies of each utterance on average, 4 at most: with noise, music, babble, in a room
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. local/options.sh

voxceleb1=/corpora/VoxCeleb1
voxceleb2=/corpora/VoxCeleb2
lists=
musan=/corpora/musan
rirs=/corpora/RIRS_NOISES
speeds=
copies=2
teacher=resnet34
student=xvector
nj=16

. utils/parse_options.sh
. local/stages.sh

if runs 1 "data directories"; then
  ./prepare_data.py --nj "$nj" --lists "$lists" "$voxceleb1" "$voxceleb2" data
  validate --no-feats train test
fi

if runs 2 "filterbank features, and those of augmented copies"; then
  features train test   # this tells how long the recordings are, which the copies must know
  augment train train_aug
  features train_aug
  utils/combine_data.sh data/train_all data/train data/train_aug
  utils/subset_data_dir.sh --utt-list data/train/cohort_utts data/train data/cohort
  validate train_all test cohort
fi

if runs 3 "the teacher, $teacher"; then train_teacher; fi
if runs 4 "the student, $student, with kd_type=$kd_type"; then train_student; fi
if runs 5 "embeddings"; then extract cohort test; fi

if runs 6 "scores"; then
  mean=(--mean SYSTEM/xvectors_cohort/mean.vec)
  # Calibrated on pairs of training speakers, who are better known than those of the trials: see README.md.
  score cohort data/cohort/trials_calibration "${mean[@]}"
  for trials in data/test/trials_*; do
    score test "$trials" "${mean[@]}" --calibration SYSTEM/scores/trials_calibration.cosine.calibration
    score test "$trials" "${mean[@]}" --norm asnorm --cohort SYSTEM/xvectors_cohort/xvector.scp --cohort-spk2utt data/cohort/spk2utt
  done
  collect
fi

if runs 7 "maps between two systems, $enroll_system and $test_system" && pair; then
  out=exp/${enroll_system}_${test_system}_nessa
  for trials in data/test/trials_*; do   # the first list has the maps trained, the others find them there
    maps cohort "$trials" --out "$out"
    for x in md tsv; do mv "$out/matrix.$x" "$out/matrix_${trials##*/trials_}.$x"; done
  done
fi

if runs 8 "the student for use elsewhere: ONNX, thresholds, a card"; then
  export_student cohort --data "VoxCeleb2-dev" --trials data/test/trials_O --calibration-trials data/test/trials_O
fi
