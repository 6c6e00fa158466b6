#!/usr/bin/env bash
# Checks that need a GPU, as one table: training in float32, bf16 and fp16 against the CPU, a resumed run, two processes,
# vectors, and the crops per second of four models beside bare steps. It takes about five minutes. Without a GPU it says so.
#
# Usage: tests/gpu.sh [options of tools/bench.py]
#   tests/gpu.sh                       # the table on the screen; status 1 if a check has failed
#   tests/gpu.sh --seconds 20          # longer measurements of the speed
#   tests/gpu.sh --device cpu --toy true    # shows that the program works, nothing else
set -euo pipefail

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case "${1:-}" in --help | -h) . "$root/utils/parse_options.sh" --help ;; esac
. "$root/tools/env.sh"

if ! printf '%s\n' "$@" | grep -qx -e cpu -e '--device=cpu' && ! python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "$0: PyTorch sees no GPU here; nothing was tried"
  exit 0
fi
export SPEAKERKD_BENCH=started
exec timeout 480 python3 "$root/tools/bench.py" --seconds 8 "$@" gpu
