#!/usr/bin/env bash
# Options of every recipe:
#   --stage 1                  first stage
#   --stop_stage 6             last stage; --stage 7 or 8 alone is that stage
#   --teacher name             a model of conf/model, which stage 3 trains; or exp/<name>/final.pt, which is there already
#                              (local/import_checkpoint.py makes such a folder); or a file: final.pt, or an scp of vectors.
#                              name=file gives a file the name that it has in the folders of exp
#   --student name             conf/model/<student>.conf
#   --kd_type none             method: conf/kd/<kd_type>.conf
#   --vectors ""               further vectors or figures that the method takes: name=file,...
#   --train_config ""          optimisation of the student; default: conf/train_<kd_type>.conf if there is one, else
#                              conf/train.conf
#   --train_options ""         more options of local/train.py for the student, such as "--num-epochs 5"
#   --source feats             what the student's crops are made of: feats (feats.scp) or waves (wave archives, which stage 4
#                              makes if they are missing); from waves, an imported teacher hears the very crop
#   --hear ""                  what an imported teacher, which has features of its own, hears: crop (with --source waves),
#                              places (vectors of fixed crops; the student's crops are drawn from these) or utterance
#                              (a vector for each utterance); default: crop from waves, places from feats
#   --num_crops 4              for places: most crops of an utterance
#   --large_margin false       true: fine-tune the student on longer crops with a larger margin as well, by
#                              conf/train_lm.conf and conf/head_large.conf
#   --seed 0                   random seed of the training; the table averages the results of several seeds
#   --enroll_system ""         stage 7: the system that enrols, a folder of exp
#   --test_system ""           stage 7: the system that verifies, a folder of exp
#   --nj 4                     number of jobs at the same time
#   --gpus 0                   number of GPUs to train and extract on; 0: the CPU
# The name of a trained system is <student>_<kd_type>[_<teacher>]_s<seed>, and so is its folder in exp.

# To be sourced at the head of a run.sh, before the defaults of its own. utils/parse_options.sh then knows both, and
# local/stages.sh does what they say.
# shellcheck disable=SC2034  # they are read elsewhere
set -euo pipefail
_po_shared=local/options.sh
_po_arguments=("$@")   # parse_options.sh takes them away

stage=1
stop_stage=6
teacher=
student=
kd_type=none
vectors=
train_config=
train_options=
source=feats
hear=
num_crops=4
large_margin=false
seed=0
enroll_system=
test_system=
nj=4
gpus=0
