#!/usr/bin/env bash
# One system of a comparison, from training to scores. A job of local/compare_kd.sh.
#
# Usage: local/compare_kd_system.sh [options] <table> <line> <train-dir> <test-dir> <trials> <exp-dir>
#   local/compare_kd_system.sh exp/compare/log/jobs 3 data/train_all data/test data/test/trials exp/compare
# Options:
#   --gpus 0                             number of GPUs to train on
#   --threads 1                          number of CPU threads
#   --head conf/head.conf                conf file of the classifier
#   --train-config conf/train.conf       conf file of the optimisation
#   --train-options ""                   more options of local/train.py
#
# A line of <table> has six fields: student, kd_type, random seed, teacher's file, vectors (name=file,...), name of the system.
# A field that is empty is "-". The system's folder is <exp-dir>/<name>. Finished steps are skipped.
set -euo pipefail
export LC_ALL=C

gpus=0
threads=1
head=conf/head.conf
train_config=conf/train.conf
train_options=

. utils/parse_options.sh
[ $# -eq 6 ] || { "$0" --help >&2; exit 1; }
. local/lib.sh
read -r student kd_type seed teacher vectors name < <(sed -n "$2p" "$1") || fail "$1 has no line $2"
[ "$teacher" != - ] || teacher=
[ "$vectors" != - ] || vectors=
local/train_and_score.sh --model "conf/model/$student.conf" --kd "conf/kd/$kd_type.conf" --teacher "$teacher" \
  --vectors "$vectors" --head "$head" --train-config "$train_config" \
  --train-options "--seed $seed --threads $threads $train_options" --gpus "$gpus" "$3" "$4" "$5" "$6/$name"
