#!/usr/bin/env bash
# Speaker verification on @NAME@: teacher, student, embeddings, scores.
#
# Usage: ./run.sh --corpus /corpora/@NAME@ [--stage 1] [--stop_stage 6] [options]
#   ./run.sh --corpus /corpora/@NAME@    # everything
#   ./run.sh --stage 4 --kd_type enskd   # another method: conf/kd has them
#   ./run.sh --stage 4 --student ecapa_tiny
#   ./run.sh --stage 7 --enroll_system xvector_tiny_none_s0 --test_system resnet_tiny_s0
#   ./run.sh --stage 8                   # the student as ONNX; needs tools/setup.sh --extras "export app"
# Defaults here: --teacher resnet_tiny --student xvector_tiny --nj 2
# Options of this recipe:
#   --corpus /corpora/@NAME@   folder with a folder of recordings for each speaker: see prepare_data.py
#   --test_share 0.1           share of the speakers that are kept for testing: 20 speakers or more tell something
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. local/options.sh

teacher=resnet_tiny
student=xvector_tiny
nj=2
corpus=/corpora/@NAME@
test_share=0.1

. utils/parse_options.sh
. local/stages.sh

if runs 1 "data directories, and what is to be done to the copies for augmentation"; then
  ./prepare_data.py --test-share "$test_share" "$corpus" data
  local/augment_data_dir.py --speeds 0.9,1.1 --kinds reverb,noise data/train data/train_aug
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
  collect
fi

if runs 7 "maps between two systems, $enroll_system and $test_system" && pair; then
  maps train data/test/trials
fi

if runs 8 "the student for use elsewhere: ONNX, thresholds, a card"; then
  export_student "" --data "@NAME@"
fi
