#!/usr/bin/env bash
# All stages of egs/voxceleb and egs/cnceleb, on small trees with the folders, names and formats of the corpora.
#
# Usage: tests/corpora.sh [--kd_types enskd] [--recipes "voxceleb cnceleb"] [--folder ""]
#   tests/corpora.sh                                     # some minutes on one core; m4a where ffmpeg is there
#   tests/corpora.sh --kd_types all                      # each conf/kd/*.conf, which takes several times as long
#   tests/corpora.sh --kd_types "vgsr nessa" --recipes voxceleb
# Options:
#   --kd_types enskd   methods of conf/kd, or all; data and teacher are made once. The first goes through all of run.sh with
#                      large-margin fine-tuning and PLDA, the others from stage 3 on; nessa* are stage 7.
#   --folder ""        folder to work in; default: a temporary folder, which is removed
#
# vgsr learns from pictures of faces if onnx and pillow are installed (voxceleb), otherwise from the vectors of stage 3's
# teacher. mse learns from the same teacher as if local/import_checkpoint.py had made it.
# Models and corpora are tiny, so the figures mean nothing. The test is whether everything runs, from the folders to the table.
# It is not part of tests/run.sh, which tests stage 1.
set -euo pipefail

kd_types=enskd
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
PYTHONPATH=$root/tests:$PYTHONPATH python3 "$root/tests/corpora.py" "$corpora"

fail() { echo "$0: $recipe: $*" >&2; exit 1; }
conf() { printf -- '--%s\n' "${@:2}" > "conf/$1.conf"; } # what the published settings give way to
more() { printf -- '--%s\n' "${@:2}" >> "conf/kd/$1.conf"; }
small_conf() {
  local epochs=80
  [ "$recipe" != cnceleb ] || epochs=27   # three times as long, since it has three speeds
  rm -f conf/train*.conf conf/head.conf
  conf train num-epochs=$epochs batch-size=16 num-frames=150 optimizer=adamw lr=1e-3 final-lr=1e-4
  conf train_lm num-epochs=2 batch-size=16 num-frames=150 optimizer=adamw lr=1e-4
  conf train_sdpn num-epochs=30 batch-size=16 num-frames=160 optimizer=adamw lr=2e-3
  conf train_dino num-epochs=30 batch-size=16 num-frames=120 optimizer=adamw lr=2e-3
  conf train_align num-epochs=3 batch-size=8 optimizer=adamw lr=1e-3 valid-speakers=3 select=true
  conf head scale=12 margin=0.1
  cp -RL conf/kd conf/own && rm -rf conf/kd conf/model && mv conf/own conf/kd && mkdir conf/model
  conf model/xvector_tiny type=xvector channels=64 stats-channels=192 embedding-dim=16
  conf model/xvector_small type=xvector channels=96 stats-channels=192 embedding-dim=24
  more sdpn prototypes=32 head-dims=64:64:32 prototype-gradient=1 momentum=0.99
  more dino prototypes=256 head-dims=64:64:32 momentum=0.99
  for file in conf/kd/nessa*.conf; do more "$(basename "$file" .conf)" utts-per-speaker=2; done
}

# For vgsr: data/train/face.scp and utt2quality, as README.md makes them.
faces() {
  if [ "$recipe" = voxceleb ] && [ -f "$corpora/faces.onnx" ]; then
    ./prepare_faces.py "$corpora/faces" data/train
    local/extract_faces.py --face-config conf/face.conf --missing speaker "$corpora/faces.onnx" data/train/faces.scp \
      data/train data/train
  else
    local/extract_xvectors.sh exp/xvector_small_s0/final.pt data/train_all exp/faces
    cp exp/faces/xvector.scp data/train/face.scp
    awk '{ print $1, 1 + NR % 5 }' data/train_all/utt2spk > data/train/utt2quality
  fi
}

eer_of() { # trials; of cosine scores
  awk -v trials="$1" -F '\t' 'NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i }
    $column["trials"] == trials && $column["scoring"] == "cosine" { print $column["eer"] }' "$2/scores/metrics.tsv"
}

# One method from stage $1 on; what it must have made is looked at.
try() { # first stage, kd_type, further options of run.sh
  local kd_type=$2 teacher=xvector_small options=("${@:3}") system file eer
  case $kd_type in
    vgsr) [ -f data/train/face.scp ] || faces
          teacher=data/train/face.scp options+=(--vectors quality=data/train/utt2quality) ;;
    mse) mkdir -p exp/imported && cp exp/xvector_small_s0/final.pt exp/imported/
         teacher=imported ;;
    sdpn | dino) options+=(--train_config "conf/train_$kd_type.conf") ;;
  esac
  ./run.sh "${where[@]}" --nj $(($1 == 1 ? 2 : 1)) --stage "$1" --kd_type "$kd_type" --teacher "$teacher" --student xvector_tiny \
    "${options[@]}" | tee run.log
  for system in "exp/xvector_tiny_${kd_type}"{,"_$(basename "$teacher" .scp)"}_s0; do [ ! -d "$system" ] || break; done
  for file in "$system/scores/$trials.asnorm" "$system/scores/trials_calibration.cosine.calibration"; do
    [ -s "$file" ] || fail "did not make $file"
  done
  grep -q "^| $(basename "$system") *|" run.log || fail "the table has no row of $system"
  # The speakers it was trained on must be told apart, else labels and recordings were mixed up on the way.
  eer=$(eer_of trials_calibration "$system")
  echo "$0: $recipe: $kd_type: the EER of the training speakers is $eer %"
  case $kd_type in
    sdpn | dino) ;; # had no labels
    *) awk -v eer="$eer" 'BEGIN { exit eer == "" || eer > 30 }' || fail "$kd_type: that is more than 30 %" ;;
  esac
}

for recipe in $recipes; do
  echo "$0: $recipe"
  cd "$folder/root/egs/$recipe/v1"
  methods=$kd_types
  if [ "$methods" = all ]; then methods="none $(basename -s .conf conf/kd/*.conf | grep -vx none | tr '\n' ' ')"; fi
  for kd_type in $methods; do [ -f "conf/kd/$kd_type.conf" ] || fail "conf/kd/$kd_type.conf: no such file"; done
  case $recipe in
    voxceleb) where=(--voxceleb1 "$corpora/VoxCeleb1" --voxceleb2 "$corpora/VoxCeleb2") trials=trials_O ;;
    cnceleb) where=(--cnceleb1 "$corpora/CN-Celeb_flac" --cnceleb2 "$corpora/CN-Celeb2_flac") trials=trials_avg ;;
  esac
  where+=(--musan "$corpora/musan" --rirs "$corpora/RIRS_NOISES")
  small_conf
  sed -i 's/--norm asnorm/--top-n 5 --norm asnorm/' run.sh   # there are ten speakers

  students=() maps=()
  if [[ " $methods" =~ " "(none|vgsr|mse|nessa) ]]; then students=(none); fi   # these need its systems
  for kd_type in $methods; do
    case $kd_type in
      none) ;;
      nessa*) maps+=("$kd_type") ;;
      *) students+=("$kd_type") ;;
    esac
  done
  try 1 "${students[0]}" --large_margin true
  [ -s data/train_all/utt2uniq ] || fail "did not make data/train_all/utt2uniq"
  fine_tuned=$(ls -d exp/xvector_tiny_"${students[0]}"*_lm_s0)
  test=$fine_tuned/xvectors_test/xvector.scp
  # The features can be read and scored by PLDA, as local_kaldi.md says.
  models=()
  if [ "$trials" = trials_avg ]; then models=(--enroll-spk2utt data/test/enroll_spk2utt); fi
  local/score_plda.sh --lda-dim 4 "${models[@]}" --score-opts "--num-bootstrap 0" data/cohort "$fine_tuned/xvectors_cohort" \
    "data/test/$trials" "$test" "$test" "$fine_tuned/scores"
  mkdir data/others
  find data/test -name 'trials_*' ! -name "$trials" -exec mv {} data/others/ \;  # one list is enough for the others
  for kd_type in "${students[@]:1}"; do try 3 "$kd_type"; done

  if [ ${#maps[@]} -gt 0 ]; then
    mv data/others/* data/test/
    pair=(--enroll_system "$(basename "$fine_tuned")" --test_system xvector_small_s0)
    fewer="--kd-types \"${maps[*]}\" --closed-forms procrustes --num-bootstrap 50"
    sed -i "s/local\/align.sh/& $fewer/" run.sh
    ./run.sh --stage 7 --stop_stage 7 --nj 2 "${pair[@]}"
    for kd_type in "${maps[@]}"; do
      for list in data/test/trials_*; do
        file=exp/$(basename "$fine_tuned")_xvector_small_s0_nessa/matrix_${list##*/trials_}.md
        grep -q "^| $kd_type *|" "$file" || fail "$file has no row of $kd_type"
      done
    done
  fi
  echo "$0: $recipe: ${students[*]} ${maps[*]}"
done
echo "$0: Succeeded"
