#!/usr/bin/env bash
# One system from training to scores: runs train.sh, extract_xvectors.sh and score.py. Finished steps are skipped.
#
# Usage: local/train_and_score.sh [options] <train-dir> <test-dir> <trials> <exp-dir>
#   local/train_and_score.sh --kd conf/kd/enskd.conf --teacher exp/t/final.pt data/train_all data/test data/test/trials exp/a
# Options:
#   --cmd utils/run_jobs.sh              command that runs the jobs
#   --model conf/model/xvector.conf      conf file of the model
#   --kd conf/kd/none.conf               conf file of the method
#   --head conf/head.conf                conf file of the classifier
#   --teacher ""                         final.pt or xvector.scp, for methods with a teacher
#   --vectors ""                         further inputs of the method: name=file,...
#   --train-config conf/train.conf       conf file of the optimisation
#   --train-options ""                   more options of local/train.py
#   --gpus 0                             number of GPUs to train on
#   --nj 1                               number of jobs of the extraction
#   --scores ""                          folder of the scores; default: <exp-dir>/scores, with <test-dir> data/dev scores_dev
#
# <trials> may be several lists, joined by commas. No mean is subtracted.
set -euo pipefail
export LC_ALL=C

cmd=utils/run_jobs.sh
model=conf/model/xvector.conf
kd=conf/kd/none.conf
head=conf/head.conf
teacher=
vectors=
train_config=conf/train.conf
train_options=
gpus=0
nj=1
scores=

. utils/parse_options.sh
. local/lib.sh
[ $# -eq 4 ] || { "$0" --help >&2; exit 1; }
train=${1%/}
test=${2%/}
trials=$3
out=${4%/}

xvectors=$out/xvectors_$(basename "$test")
if [ -z "$scores" ]; then
  scores=$out/scores
  [ "$(basename "$test")" != dev ] || scores+=_dev
fi
if [ ! -s "$out/final.pt" ]; then
  local/train.sh --cmd "$cmd" --model "$model" --kd "$kd" --head "$head" --teacher "$teacher" --vectors "$vectors" \
    --train-config "$train_config" --train-options "$train_options" --gpus "$gpus" "$train" "$out"
fi
if ! current "$xvectors/mean.vec" "$out/final.pt" "$test/feats.scp"; then
  local/extract_xvectors.sh --nj "$nj" --cmd "$cmd" --gpus "$gpus" "$out/final.pt" "$test" "$xvectors"
fi
for list in ${trials//,/ }; do
  found=$scores/${list##*/}.cosine
  current "$found" "$xvectors/xvector.scp" "$list" ||
    local/score.py --plots false "$list" "$xvectors/xvector.scp" "$xvectors/xvector.scp" "$scores"
done
