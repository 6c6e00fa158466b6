#!/usr/bin/env bash
# All stages of egs/voxceleb and egs/cnceleb, on small trees with the folders, names and formats of the corpora.
#
# Usage: tests/corpora.sh [--kd_type enskd] [--recipes "voxceleb cnceleb"] [--folder ""]
#   tests/corpora.sh                       # some minutes on one core; m4a where ffmpeg is there
#   tests/corpora.sh --kd_type skdfe --recipes voxceleb
# Options:
#   --folder ""    where to do it; without it a temporary folder, which is removed
#
# Models and corpora are tiny, so the figures mean nothing: it is the way from the folders to the table that is tried.
# It is no part of tests/run.sh, which tries stage 1.
set -euo pipefail

kd_type=enskd
recipes="voxceleb cnceleb"
folder=

. "$(dirname "${BASH_SOURCE[0]}")/../utils/parse_options.sh"
[ $# -eq 0 ] || { echo "$0: unexpected argument '$1' (see --help)" >&2; exit 1; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/tools/env.sh"
if [ -z "$folder" ]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
fi
[ ! -e "$folder/corpora" ] || { echo "$0: $folder/corpora is there already; remove it or name another --folder" >&2; exit 1; }

mkdir -p "$folder/root/egs"
for part in local utils tools speakerkd egs/mini; do ln -sfn "$root/$part" "$folder/root/$part"; done
for part in voxceleb cnceleb; do cp -R "$root/egs/$part" "$folder/root/egs/"; done
corpora=$folder/corpora
python3 "$root/tests/corpora.py" "$corpora"

for recipe in $recipes; do
  echo "$0: $recipe"
  cd "$folder/root/egs/$recipe/v1"
  rm conf/train.conf conf/train_lm.conf conf/head.conf
  printf -- '--num-epochs=120\n--batch-size=16\n--num-frames=80\n--optimizer=adamw\n--lr=5e-3\n--final-lr=1e-4\n' > conf/train.conf
  printf -- '--num-epochs=2\n--batch-size=16\n--num-frames=150\n--optimizer=adamw\n--lr=1e-4\n' > conf/train_lm.conf
  printf -- '--margin=0.1\n' > conf/head.conf
  rm -rf conf/model
  mkdir conf/model
  printf -- '--type=xvector\n--channels=64\n--stats-channels=192\n--embedding-dim=16\n' > conf/model/xvector_tiny.conf
  case $recipe in
    voxceleb) where=(--voxceleb1 "$corpora/VoxCeleb1" --voxceleb2 "$corpora/VoxCeleb2") trials=trials_O ;;
    cnceleb) where=(--cnceleb1 "$corpora/CN-Celeb_flac" --cnceleb2 "$corpora/CN-Celeb2_flac") trials=trials_avg ;;
  esac
  sed -i 's/--norm asnorm/--top-n 5 --norm asnorm/' run.sh   # there are ten speakers
  ./run.sh "${where[@]}" --musan "$corpora/musan" --rirs "$corpora/RIRS_NOISES" --nj 2 --kd_type "$kd_type" \
    --teacher xvector_tiny --student xvector_tiny --large_margin true
  # The features can be read and scored by PLDA, as local_kaldi.md says.
  system=$(ls -d exp/xvector_tiny_"$kd_type"*_lm_s0)
  test=$system/xvectors_test/xvector.scp
  for file in "$system/scores/$trials.asnorm" "$system/scores/trials_calibration.cosine.calibration" data/train_all/utt2uniq; do
    [ -s "$file" ] || { echo "$0: $recipe did not make $file" >&2; exit 1; }
  done
  # The speakers it was trained on must be told apart, else labels and recordings were mixed up on the way.
  awk -v recipe="$recipe" -F '\t' 'NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i }
    $column["trials"] == "trials_calibration" { eer = $column["eer"] }
    END { if (eer == "" || eer > 30) { print recipe ": the EER of the training speakers is " eer " %" > "/dev/stderr"; exit 1 } }' \
    "$system/scores/metrics.tsv"
  models=()
  if [ "$trials" = trials_avg ]; then models=(--enroll-spk2utt data/test/enroll_spk2utt); fi
  local/score_plda.sh --lda-dim 4 "${models[@]}" --score-opts "--num-bootstrap 0" data/cohort "$system/xvectors_cohort" \
    "data/test/$trials" "$test" "$test" "$system/scores"
done
echo "$0: Succeeded"
