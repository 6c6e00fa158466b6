#!/usr/bin/env bash
# Options of every recipe:
#   --stage 1                  first stage
#   --stop_stage 6             last stage; if --stage is 7 or 8, only this stage is run
#   --teacher name             one of these:
#                              - a model of conf/model: stage 3 trains it
#                              - a folder of exp with a final.pt, such as local/import_checkpoint.py makes
#                              - a file: a final.pt or an scp of vectors; name=file also gives its name in the folders of exp
#                              - several of these: resnet_tiny,face=data/train/face.scp. Their losses are averaged
#                                (--train_options "--teacher-weights resnet_tiny=1,face=0.5")
#   --student name             model of the student: conf/model/<student>.conf
#   --kd_type none             method: conf/kd/<kd_type>.conf
#   --vectors ""               further inputs of the method (vectors or figures): name=file,...
#   --train_config ""          optimisation of the student; default: conf/train_<kd_type>.conf if it exists, otherwise
#                              conf/train.conf
#   --train_options ""         more options of local/train.py for the student, such as "--num-epochs 5"
#   --source feats             what the student's crops are made of: feats (feats.scp) or waves (wave archives; stage 4 makes
#                              them if they are missing). With waves, an imported teacher can hear the student's crop
#   --hear ""                  what an imported teacher hears, since it has features of its own:
#                              - crop: the student's crop (needs --source waves; the default with waves)
#                              - places: fixed crops, whose vectors teach; the student's crops are drawn from the same
#                                places (the default with feats)
#                              - utterance: whole utterances; one vector per utterance teaches
#   --num_crops 4              for --hear places: largest number of crops per utterance
#   --large_margin false       true: also fine-tune the student on longer crops with a larger margin (conf/train_lm.conf and
#                              conf/head_large.conf, which voxceleb and cnceleb have)
#   --seed 0                   random seed of the training; the table averages the results of several seeds
#   --enroll_system ""         stage 7: folder in exp of the system that enrols
#   --test_system ""           stage 7: folder in exp of the system that verifies
#   --nj 4                     number of jobs at the same time
#   --gpus 0                   number of GPUs to train and extract on; 0: one GPU trains if there is one, and the CPU extracts
#   --processes 0              number of processes that train on a CPU; 0: one. Two processes with a thread each can be faster
#                              than one with two threads. GPUs have a process each
# A trained system is called <student>_<kd_type>[_<teacher>]_s<seed>, and this is also its folder in exp.

# A run.sh sources this file first and then sets its own defaults. utils/parse_options.sh then knows both. local/stages.sh
# acts on these options.
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
processes=0
