#!/usr/bin/env bash
# Speaker verification on real recorded speech of 50 people, in minutes on a CPU.
#
# Usage: ./run.sh [--stage 1] [--stop_stage 2] [options]
#   ./run.sh                             # everything
#   ./run.sh --stage 2 --stop_stage 2    # the features again
# Options:
#   --nj 2        jobs side by side
#   --debs ""     folder that holds the Debian packages; without it they are downloaded (365 MB)
#   --seed 0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=1
stop_stage=2
nj=2
debs=
seed=0

. utils/parse_options.sh
. ./cmd.sh
. ./path.sh

if [ "$stage" -le 1 ] && [ "$stop_stage" -ge 1 ]; then
  echo "$0: stage 1: data directories, and what is to be done to the copies for augmentation"
  ./prepare_data.py --debs "$debs" --nj "$nj" --seed "$seed" data
  local/augment_data_dir.py --seed "$seed" data/train data/train_aug
  for x in train test train_aug; do utils/validate_data_dir.sh --no-feats data/$x; done
fi

if [ "$stage" -le 2 ] && [ "$stop_stage" -ge 2 ]; then
  echo "$0: stage 2: filterbank features"
  for x in train test train_aug; do
    local/make_fbank.sh --nj "$nj" --cmd "$train_cmd" data/$x
    utils/fix_data_dir.sh data/$x
  done
  local/compute_vad.sh --nj "$nj" --cmd "$train_cmd" data/test
  utils/combine_data.sh data/train_all data/train data/train_aug
  for x in train test train_all; do utils/validate_data_dir.sh data/$x; done
fi
