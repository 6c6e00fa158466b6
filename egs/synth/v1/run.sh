#!/usr/bin/env bash
# Speaker verification on made-up speakers: nothing to download. The tutorial, and the test of every kd_type.
#
# Usage: ./run.sh [--stage 1] [--stop_stage 6] [options]
#   ./run.sh                             # everything
#   ./run.sh --stage 4 --kd_type enskd   # another method: conf/kd has them
#   ./run.sh --stage 4 --kd_type vgsr --teacher faces
#   ./run.sh --stage 7 --enroll_system xvector_tiny_none_s0 --test_system xvector_s0
#   ./run.sh --stage 8                   # the student as ONNX; needs tools/setup.sh --extras "export app"
# Defaults here: --teacher xvector --student xvector_tiny --nj 2
# Options of this recipe:
#   --speakers 60              number of made-up speakers to train on
#   --teacher faces            the made-up face vectors of stage 1, for --kd_type vgsr
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. local/options.sh

teacher=xvector
student=xvector_tiny
nj=2
speakers=60

. utils/parse_options.sh
if [ "$teacher" = faces ]; then
  # Copies at other speeds are other speakers, whose faces nobody knows: these learn from their labels alone.
  teacher=faces=data/train/face.scp spare_vectors=quality=data/train/utt2quality train_options="--missing zero $train_options"
fi
. local/stages.sh

if runs 1 "data directories, and what is to be done to the copies for augmentation"; then
  ./prepare_data.py --num-train-speakers "$speakers" --nj "$nj" data
  local/augment_data_dir.py --speeds 0.9,1.1 --kinds reverb,noise --num-utts 1500 data/train data/train_aug
  validate --no-feats train test train_aug
fi

if runs 2 "filterbank features"; then
  features train test train_aug
  utils/combine_data.sh data/train_all data/train data/train_aug
  validate train test train_all
fi

if runs 3 "the teacher, $teacher"; then train_teacher; fi
if runs 4 "the student, $student, with kd_type=$kd_type"; then train_student; fi
if runs 5 "embeddings"; then extract train test; fi

if runs 6 "scores"; then
  score test data/test/trials
  score test data/test/trials --norm asnorm --top-n 50 --cohort SYSTEM/xvectors_train/xvector.scp
  score test data/test/trials_enroll3 --enroll-spk2utt data/test/enroll3_spk2utt
  collect
fi

if runs 7 "maps between two systems, $enroll_system and $test_system" && pair; then
  maps train data/test/trials
fi

if runs 8 "the student for use elsewhere: ONNX, thresholds, a card"; then
  export_student "" --data "made-up speakers, no recordings"
fi
