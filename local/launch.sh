#!/usr/bin/env bash
# Runs one node's part of a training in several processes: torchrun, which finds the other nodes through a file.
#
# Usage: local/launch.sh <node from 1> <nodes> <processes of a node> <exp-dir> <script> [arguments]
#   local/launch.sh 1 1 4 exp/x local/train.py --model conf/model/xvector.conf data/train exp/x
#
# local/train.sh calls it once for each node. The processes of a node share its cores: each gets the same number of threads,
# or OMP_NUM_THREADS. If there are several nodes, the first one writes its address into <exp-dir>/log/rendezvous, and the
# others wait up to 10 minutes for it.
set -euo pipefail

case "${1:-}" in --help | -h) . "$(dirname "$0")/../utils/parse_options.sh" --help ;; esac
[ $# -ge 5 ] || { "$0" --help >&2; exit 1; }
node=$1 nodes=$2 processes=$3 out=$4
shift 4

threads=${OMP_NUM_THREADS:-$((($(nproc) + processes - 1) / processes))}
export OMP_NUM_THREADS=$threads
if [ "$nodes" -eq 1 ]; then
  exec torchrun --standalone --nproc-per-node "$processes" "$@"
fi

# The first node says where it is; train.sh has removed what an earlier run said.
place=$out/log/rendezvous
if [ "$node" -eq 1 ]; then
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
  echo "$(hostname):$port" > "$place.tmp"
  mv "$place.tmp" "$place"
else
  waited=0
  until [ -f "$place" ]; do
    sleep 1
    waited=$((waited + 1))
    [ "$waited" -lt 600 ] || { echo "$0: the first node has not started within 10 minutes" >&2; exit 1; }
  done
fi
exec torchrun --nnodes "$nodes" --node-rank $((node - 1)) --nproc-per-node "$processes" \
  --rdzv-backend c10d --rdzv-endpoint "$(cat "$place")" --rdzv-id "$(cat "$place")" "$@"
