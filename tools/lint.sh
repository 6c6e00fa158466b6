#!/usr/bin/env bash
# What every commit must pass: ruff (style and format), mypy (types), shellcheck (shell).
#
# Usage: tools/lint.sh [--fix true]
#   --fix true   first correct what ruff can correct
set -euo pipefail

fix=false

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/utils/parse_options.sh"
[ $# -eq 0 ] || { echo "$0: unexpected argument '$1' (see --help)" >&2; exit 1; }
cd "$root"
extras=dev
. tools/env.sh

if $fix; then
  ruff check --quiet --fix .
  ruff format --quiet .
fi
status=0
ruff check --quiet . || status=1
ruff format --quiet --check . || { echo "$0: not formatted; tools/lint.sh --fix true mends it" >&2; status=1; }
mypy --no-error-summary || status=1
# Files, not the links to them that recipes hold.
find . -path ./tools/venv -prune -o -path './egs/*/*/data' -prune -o -path './egs/*/*/exp' -prune -o -type f -name '*.sh' -print0 |
  xargs -0 shellcheck --severity=style || status=1
shellcheck --severity=style .ci/run || status=1
[ "$status" -ne 0 ] || echo "$0: clean"
exit "$status"
