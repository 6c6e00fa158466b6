#!/usr/bin/env bash
# All tests: lint, then pytest. Makes the environment that they need.
#
# Usage: tests/run.sh [pytest arguments]
#   tests/run.sh                      # everything, a file on each core
#   tests/run.sh tests/test_fbank.py  # without lint
set -euo pipefail

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case "${1:-}" in --help | -h) . "$root/utils/parse_options.sh" --help ;; esac
cd "$root"
# shellcheck disable=SC2034  # read by env.sh
extras="dev plot onnx face app export"
. tools/env.sh

[ $# -eq 0 ] || exec python3 -m pytest "$@"
tools/lint.sh
# Files side by side, a core each; what a test starts is then on one core as well.
cores=$(nproc)
export OMP_NUM_THREADS=1
exec python3 -m pytest -n $((cores < 8 ? cores : 8)) --dist loadfile --durations 40 --durations-min 10
