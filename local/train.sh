#!/usr/bin/env bash
# Trains a model: a teacher, a baseline or a student. If a run was stopped, it goes on from there.
#
# Usage: local/train.sh [options] <data-dir> <exp-dir>
#   local/train.sh --model conf/model/xvector.conf --train-config conf/train.conf data/train_all exp/xvector
# Options:
#   --cmd utils/run_jobs.sh              command that runs the job
#   --model conf/model/xvector.conf      conf file of the model
#   --kd conf/kd/none.conf               conf file of the method
#   --head conf/head.conf                conf file of the classifier
#   --teacher ""                         final.pt of a net, or an xvector.scp, for methods with a teacher; several: name=file,...
#   --source feats                       what crops are made of: feats (feats.scp) or waves (waves.scp, else wav.scp)
#   --vectors ""                         further inputs of the method: name=file,..., such as quality=data/train/utt2quality
#   --train-config conf/train.conf       conf file of the optimisation
#   --train-options ""                   more options of local/train.py, such as "--seed 1 --num-epochs 5"
#   --gpus 0                             number of GPUs of a node, one process for each; 0: one GPU if there is one, else the CPU
#   --processes 0                        number of processes of a node, if it is not the number of GPUs
#   --nodes 1                            number of machines; all must see <exp-dir>
#
# <exp-dir>/final.pt is the result. <exp-dir>/log/train.1.log shows the progress, log.tsv and log/curves.png the whole training.
# Logs of earlier runs in this folder are in log/earlier.
set -euo pipefail
export LC_ALL=C

cmd=utils/run_jobs.sh
model=conf/model/xvector.conf
kd=conf/kd/none.conf
head=conf/head.conf
teacher=
source=feats
vectors=
train_config=conf/train.conf
train_options=
gpus=0
processes=0
nodes=1

. utils/parse_options.sh
[ $# -eq 2 ] || { "$0" --help >&2; exit 1; }
data=${1%/}
out=${2%/}

. local/lib.sh
# shellcheck disable=SC2086  # several options
check_words "$data" "$out" "$model" "$kd" "$head" "$teacher" "$vectors" "$train_config" $train_options
local/check_python.sh
[ -s "$data/feats.scp" ] || [ "$source" = waves ] || { [ -n "$vectors" ] && [ -s "$data/utt2spk" ]; } || fail "$data/feats.scp is missing or empty; run stage 2"
for file in "$model" "$kd" "$head" "$train_config"; do
  [ -f "$file" ] || fail "$file: no such file; there are: $(cd "$(dirname "$file")" 2>/dev/null && echo *)"
done
mkdir -p "$out/log" || fail "can't make $out; check the rights of the folder"
# The log belongs to the run in progress. A second call must not start it again. This script holds .train.lock until its
# training ends. Every training holds .lock, however it was started.
if command -v flock > /dev/null; then
  for lock in .lock .train.lock; do
    exec 8>> "$out/$lock"
    code=0
    flock --nonblock --conflict-exit-code 75 8 2> /dev/null || code=$?
    [ "$code" -ne 75 ] || fail "$out: another run is at work in this folder; wait for it or choose another one"
  done
fi
[ "$processes" -gt 0 ] || processes=$((gpus > 0 ? gpus : 1))
gpu=()
[ "$gpus" -eq 0 ] || gpu=(--gpu "$gpus")
[ "$nodes" -eq 1 ] || gpu+=(--max-jobs-run "$nodes")   # nodes wait for each other, so all must run at once
# What earlier runs told, or one that is going on from there, is kept.
for log in "$out"/log/train.*.log; do
  [ -f "$log" ] || continue
  mkdir -p "$out/log/earlier"
  name=$(basename "$log" .log)
  mv "$log" "$out/log/earlier/$name.$(date -r "$log" +%Y%m%dT%H%M%S).log"
done
launcher=()
rm -f "$out/log/rendezvous"
[ "$processes" -eq 1 ] && [ "$nodes" -eq 1 ] || launcher=(local/launch.sh JOB "$nodes" "$processes" "$out")

# shellcheck disable=SC2086  # cmd may carry options, and train_options are several
$cmd "${gpu[@]}" JOB=1:"$nodes" "$out/log/train.JOB.log" \
  "${launcher[@]}" local/train.py --config "$train_config" --model "$model" --kd "$kd" --head "$head" \
  --teacher "$teacher" --source "$source" --vectors "$vectors" $train_options "$data" "$out"
echo "$0: $(grep -h 'is ready\|complete already' "$out"/log/train.*.log | tail -n 1 | sed 's/^[^:]*: //'); the log is $out/log/train.1.log"
