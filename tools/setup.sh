#!/usr/bin/env bash
# Make the Python environment of the recipes, tools/venv, from the pins in requirements.txt.
#
# Usage: tools/setup.sh [--extras "dev onnx"] [--python python3.11]
#   tools/setup.sh                # what the recipes need, pictures too
#   tools/setup.sh --extras dev   # and what the tests need
# Options:
#   --extras "a b"   extras of pyproject.toml: face, onnx, app, export, dev (plot adds nothing: matplotlib is always there)
#   --python x       the interpreter to use; default: the first of python3.12, 3.11, 3.10, python3 that is suitable
#
# It can be run at any time. If the environment is complete, it does nothing. If something is missing, it adds it. If an
# earlier run was killed, it starts again from the beginning. The recipes and tests/run.sh call it themselves.
set -euo pipefail

extras=
python=

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/utils/parse_options.sh"
[ $# -eq 0 ] || { echo "$0: unexpected argument '$1' (see --help)" >&2; exit 1; }

venv=$root/tools/venv
done_file=$venv/.speakerkd-setup   # written last: its absence means that a set-up was cut short
# shellcheck disable=SC2086  # words
wanted=$(printf '%s\n' $extras | LC_ALL=C sort -u | tr '\n' ' ')
for extra in $wanted; do
  case "$extra" in
    plot | face | onnx | app | export | dev) ;;
    *) echo "$0: no extra '$extra' (there are: plot face onnx app export dev)" >&2; exit 1 ;;
  esac
done

pins() { cat "$root/requirements.txt" "$root/requirements-extras.txt" | cksum; }

# Sets complete (an environment stands here), have (its extras) and missing (it is not all that is wanted).
look() {
  complete=false have='' missing=true
  [ -f "$done_file" ] && "$venv/bin/python" -c '' 2>/dev/null || return 0
  complete=true missing=false
  have=$(sed -n 2p "$done_file")
  [ "$(head -n 1 "$done_file")" = "$(pins)" ] || missing=true
  for extra in $wanted; do
    case " $have " in *" $extra "*) ;; *) missing=true ;; esac
  done
}
look
$missing || exit 0

# One set-up at a time: recipes started together wait for the first one's.
if command -v flock >/dev/null; then
  exec 9>"$root/tools/.venv.lock" || { echo "$0: can't write into $root/tools; make the environment as its owner" >&2; exit 1; }
  flock -n 9 || { echo "$0: waiting for another set-up of this folder" >&2; flock 9; }
  look
  $missing || exit 0
fi

will_do() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }
if [ -n "$python" ]; then
  will_do "$python" || {
    echo "$0: '$python' is not a Python 3.10 to 3.12 with the modules venv and ensurepip" >&2; exit 1; }
else
  for candidate in python3.12 python3.11 python3.10 python3; do
    if will_do "$candidate"; then python=$candidate; break; fi
  done
  [ -n "$python" ] || {
    echo "$0: found no Python 3.10 to 3.12 with the modules venv and ensurepip." >&2
    echo "$0: On Debian or Ubuntu: apt-get install python3-venv. Elsewhere name one: tools/setup.sh --python /path/to/python3.11" >&2
    exit 1; }
fi

# A complete environment is added to; a new one that fails is taken away.
fail() {
  local words
  read -r words <<< "$wanted" || true
  if ! $complete; then rm -rf "$venv"; fi
  echo "$0: set-up failed; the reason is above. When it is mended, run: tools/setup.sh${words:+ --extras \"$words\"}" >&2
  exit 1
}
trap fail INT TERM HUP

if ! $complete; then
  rm -rf "$venv"
  "$python" -m venv "$venv" || fail
fi
# shellcheck disable=SC2086  # words
wanted=$(printf '%s\n' $have $wanted | LC_ALL=C sort -u | tr '\n' ' ')
wanted=${wanted% }
spec=$root
[ -z "$wanted" ] || spec="${root}[${wanted// /,}]"
echo "$0: installing into tools/venv (some 5 GB with PyTorch; a few minutes): ${wanted:-no extras}" >&2
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  -r "$root/requirements.txt" -c "$root/requirements-extras.txt" -e "$spec" >&2 || fail
"$venv/bin/python" "$root/tools/check_env.py" --quiet true >&2 || fail
{ pins; echo "$wanted"; } > "$done_file.tmp"
mv "$done_file.tmp" "$done_file"
trap - INT TERM HUP
echo "$0: tools/venv is ready" >&2
