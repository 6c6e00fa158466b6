#!/usr/bin/env bash
# All tests: lint, then pytest. It makes the environment that it needs.
#
# Usage: tests/run.sh [pytest arguments]
#   tests/run.sh                      # everything
#   tests/run.sh tests/test_fbank.py  # without lint
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck disable=SC2034  # read by env.sh
extras="dev plot"
. tools/env.sh

[ $# -gt 0 ] || tools/lint.sh
exec python3 -m pytest "$@"
