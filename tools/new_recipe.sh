#!/usr/bin/env bash
# Start a recipe for your own corpus: egs/<name>/v1. It takes a folder with a folder of recordings for each speaker.
#
# Usage: tools/new_recipe.sh <name>
#   tools/new_recipe.sh mycorpus
#   egs/mycorpus/v1/run.sh --corpus /corpora/mycorpus
#
# If your corpus has other folders, write one function: find_recordings in egs/<name>/v1/prepare_data.py. The new folder's
# README.md says what comes next. Its run.sh has the stages of egs/mini; its conf files are copies of egs/mini's.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/../utils/parse_options.sh"
[ $# -eq 1 ] || { "$0" --help >&2; exit 1; }
name=$1
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mini=$root/egs/mini/v1

fail() { echo "$0: $*" >&2; exit 1; }
[[ $name =~ ^[a-z][a-z0-9_]*$ ]] || fail "'$name' must be a name of lower-case letters, digits and _, such as mycorpus"
[ ! -e "$root/egs/$name" ] || fail "$root/egs/$name is there already; choose another name, or remove it"

temporary=$root/egs/.$name.tmp.$$
trap 'rm -rf "$temporary"' EXIT
mkdir -p "$temporary/v1"
cp "$mini/cmd.sh" "$mini/path.sh" "$temporary/v1/"
cp -RL "$mini/conf" "$temporary/v1/conf"   # copies: a new recipe's settings are its own
ln -s ../../../local ../../../utils "$temporary/v1/"
for file in run.sh prepare_data.py README.md RESULTS.md; do
  sed "s/@NAME@/$name/g" "$root/tools/new_recipe/$file" > "$temporary/v1/$file"
done
chmod +x "$temporary/v1/run.sh" "$temporary/v1/prepare_data.py"
mv "$temporary" "$root/egs/$name"
echo "$0: egs/$name/v1 is ready; egs/$name/v1/README.md says what comes next"
