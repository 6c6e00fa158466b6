#!/usr/bin/env bash
# Start a recipe for a corpus of your own: egs/<name>/v1, which runs on a folder with a folder of recordings for each speaker.
#
# Usage: tools/new_recipe.sh <name>
#   tools/new_recipe.sh mycorpus
#   egs/mycorpus/v1/run.sh --corpus /corpora/mycorpus
#
# For a corpus in other folders, one function is to be filled in: find_recordings of egs/<name>/v1/prepare_data.py. The new
# folder's README.md says what comes next. The stages are those of egs/mini, and so are the conf files, by links.
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
mkdir -p "$temporary/v1/conf"
cp "$mini/cmd.sh" "$mini/path.sh" "$temporary/v1/"
ln -s ../../../local ../../../utils "$temporary/v1/"
for file in "$mini"/conf/*; do ln -s "../../../mini/v1/conf/$(basename "$file")" "$temporary/v1/conf/"; done
for file in prepare_data.py README.md RESULTS.md; do
  sed "s/@NAME@/$name/g" "$root/tools/new_recipe/$file" > "$temporary/v1/$file"
done

# The story of egs/mini, told of another corpus.
# shellcheck disable=SC2016  # what stands in run.sh
sed -e "2s/.*/# Speaker verification on $name: teacher, student, embeddings, scores./" \
  -e "s|^#   \./run\.sh   .*|#   ./run.sh --corpus /corpora/$name   # everything|" \
  -e 's|^#   --debs .*|#   --corpus /corpora/'"$name"' folder with a folder of recordings for each speaker; see prepare_data.py|' \
  -e "s|^debs=.*|corpus=/corpora/$name|" \
  -e 's|--debs "$debs" --nj "$nj" data$|"$corpus" data|' \
  -e '/# Test speech here is as clean/d' -e 's|--kinds "" data/train|--kinds reverb,noise data/train|' \
  -e '/enroll3/d' "$mini/run.sh" > "$temporary/v1/run.sh"
# shellcheck disable=SC2016
for text in "corpus=/corpora/$name" './prepare_data.py "$corpus" data' '--kinds reverb,noise data/train'; do
  grep -qF -- "$text" "$temporary/v1/run.sh" || fail "egs/mini/v1/run.sh is no longer what is expected here: no place for '$text'"
done
! grep -q 'debs\|enroll3' "$temporary/v1/run.sh" || fail "egs/mini/v1/run.sh is no longer what is expected here: see debs, enroll3"
chmod +x "$temporary/v1/run.sh" "$temporary/v1/prepare_data.py"
mv "$temporary" "$root/egs/$name"
echo "$0: egs/$name/v1 is ready; egs/$name/v1/README.md says what comes next"
