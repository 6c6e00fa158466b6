#!/usr/bin/env bash
# Enrols with one model and verifies with another (stage 7): how much of a better model's gain do the maps keep?
#
# Usage: ./compare_maps.sh [options]     after ./run.sh --stop_stage 3
#   ./compare_maps.sh                                        # 6 trainings and 20 sets of maps
#   ./compare_maps.sh --pairs "own contrastive" --sizes 0
#   ./compare_maps.sh --dev true --pairs own --sizes 0       # on the dev speakers, to choose settings
# Options:
#   --pairs "own pretrained contrastive halves campplus"   an old and a new model each, see below; met and unmet too
#   --sizes "50 200 700 0"      numbers of training speakers that the maps learn from, drawn by a hash of their names; 0: all
#   --leave_out ""              corpora that the models are not trained on, joined by +
#   --learn_without same        corpora that the maps do not learn from, joined by +; same: those of --leave_out
#   --old xvector               conf/model/<old>.conf, the small model
#   --new ecapa_small           conf/model/<new>.conf, the better one
#   --learn pieces              the maps learn from vectors of these: pieces (of 1.5 s), speeds (pieces at other speeds too, which
#                               count as other speakers) or whole (four whole utterances of each speaker)
#   --closed_forms "ridge cca procrustes logits"
#   --kd_types "nessa nessa_linear"   maps to train: conf/kd/<kd_type>.conf
#   --init ridge                closed form that the training of the maps starts from (cca: for kd_type nessa alone); "" for the identity
#   --dev false                 true: score dev speakers instead of test speakers
#   --pretrained pretrained/model.onnx   the new model of the pair pretrained
#   --teacher exp/campplus      the folder of CAM++; xvectors_train_originals in it has the vectors of the pieces
#   --seed 0                    random seed of the models
#   --jobs 2                    number of jobs at the same time
#   --out exp/maps              the folder of the comparison
#   --train_config conf/train_compare.conf   optimisation of the models
#   --align_config conf/train_align.conf     optimisation of the maps
#   --align_options ""          more options of local/train.py for the maps; a tenth of the speakers, 60 at most, is held out
#   --label ""                  a name for other settings of the maps; it is added to the names of the results
#   --num_bootstrap 1000        how often the speakers are resampled for the intervals
#
# The pairs. own: the old model without a teacher, the new one taught by CAM++ (kd_type=cosine). pretrained: the old model of own,
# and the exported ECAPA of pretrained/, which was taught by CAM++ in a longer training (it needs tools/setup.sh --extras onnx).
# contrastive: both trained with kd_type=ge2e. halves: as own, but each model is trained on another half of the speakers.
# campplus: the old model of own, and CAM++ itself as the new one. met and unmet: as own, but both models are trained on one half
# of the speakers. The maps learn from the same half (met), or from the other, which neither model has met (unmet). Models are
# trained here on pieces at their own speed, without augmented copies.
#
# The trials are trials_ocean and trials_commands, if they exist. The tables are <out>/table_<trials>.md, with _dev, _<learn> (if
# it is not pieces) and _<label> after it. Finished parts are not done again. Other models (--leave_out, --old, --new, --seed,
# --train_config) or data need another --out. With other --closed_forms or --kd_types their maps are added; other options of the
# maps (--init, --align_config, --align_options) need another --label.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

pairs="own pretrained contrastive halves campplus"
sizes="50 200 700 0"
leave_out=
learn_without=same
old=xvector
new=ecapa_small
learn=pieces
closed_forms="ridge cca procrustes logits"
kd_types="nessa nessa_linear"
init=ridge
dev=false
pretrained=pretrained/model.onnx
teacher=exp/campplus
seed=0
jobs=2
out=exp/maps
train_config=conf/train_compare.conf
align_config=conf/train_align.conf
align_options=
label=
num_bootstrap=1000

. utils/parse_options.sh
. ./cmd.sh
. ./path.sh
. local/lib.sh
. ./corpora.sh
[ $# -eq 0 ] || fail "unexpected argument '$1' (see --help)"
for pair in $pairs; do
  case $pair in own | pretrained | contrastive | halves | campplus | met | unmet) ;; *) fail "--pairs: no '$pair'; see --help" ;; esac
done
for size in $sizes; do
  [[ $size =~ ^[0-9]+$ ]] || fail "--sizes: '$size' is not a number"
  [ "$size" -eq 0 ] || [ "$size" -ge 20 ] || fail "--sizes $size: a tenth is held out, and that must be two speakers at least, so give 20 or more"
done
[ -s data/train_pieces/feats.scp ] || fail "data/train_pieces/feats.scp is missing; run ./run.sh --stop_stage 3 first"
taught=$teacher/xvectors_train_originals
test="test" of=
if $dev; then test=dev of=_dev; fi
[ "$learn_without" != same ] || learn_without=$leave_out
case $learn in
  pieces) source=$out/train ;;
  speeds) source=data/train_pieces ;;
  whole) source=data/cohort ;;
  *) fail "--learn '$learn': pieces, speeds or whole" ;;
esac
[ "$learn" = pieces ] || of+=_$learn
if [ "$learn_without" != "$leave_out" ]; then   # another set, and other names
  [[ " $pairs " != *met\ * ]] || fail "--learn_without: the pairs met and unmet need the corpora of the models"
  [ "$learn" != pieces ] || source=$out/pieces_without_${learn_without//+/_}
  of+=_without_${learn_without//+/_} learn+=_without_${learn_without//+/_}
fi
of+=${label:+_$label}
trials_of "data/$test" ocean commands
trials=$(IFS=,; echo "${lists[*]}")

# Speakers at their own speed, ordered by a hash of their names: of the models, and of the maps.
mkdir -p "$out"
hold_lock "$out/.compare.lock" "another comparison is at work in $out; wait for it, or give another --out"
sum=$(md5sum < data/train_pieces/utt2spk)
made_with="--leave_out '$leave_out' --old $old --new $new --seed $seed --train_config $train_config, data/train_pieces/utt2spk ${sum:0:12}"
[ -e "$out/made_with" ] || echo "$made_with" > "$out/made_with"
[ "$(cat "$out/made_with")" = "$made_with" ] ||
  fail "$out was made with $(cat "$out/made_with"), not $made_with; give another --out for other models"
ordered() { # corpora to leave out, file to write
  ! current "$2" data/train_pieces/utt2spk || return 0
  at_own_speed data/train_pieces/utt2spk > "$out/.own"
  without_corpora "$1" "$out/.own" > "$out/.kept"
  speakers_by_hash "$out/.kept" > "$out/.speakers"
  rm "$out/.own" "$out/.kept"
  mv "$out/.speakers" "$2"
}
ordered "$leave_out" "$out/speakers"
learners=$out/speakers
if [ "$learn_without" != "$leave_out" ]; then
  learners=$out/learners_without_${learn_without//+/_}
  ordered "$learn_without" "$learners"
fi
largest=$(wc -l < "$learners")
most=$largest
[[ " $pairs " != *met\ * ]] || most=$((largest / 2))   # half of the speakers
[ "$most" -ge 20 ] || fail "there are only $most speakers for the maps to learn from; at least 20 are needed"
for size in $sizes; do [ "$size" -le "$most" ] || fail "--sizes $size: there are only $most speakers"; done

subset() { # list of speakers, source, condition on NR of the speakers, their copies too (0 or 1), new set
  ! current "$5/feats.scp" "$2/feats.scp" || return 0
  awk -v copies="$4" 'NR == FNR { if ('"$3"') kept[$1] = 1; next }
    { name = $2; if (copies) sub(/^sp[0-9]+\.[0-9]+-/, "", name) } name in kept' "$1" "$2/utt2spk" > "$5.utts"
  [ -s "$5.utts" ] || fail "$5: no utterances"
  utils/subset_data_dir.sh --utt-list "$5.utts" "$2" "$5"
}
model() { # name, conf of the model, method, training set
  local of_teacher=
  [ "$3" != cosine ] || of_teacher=$taught/xvector.scp
  local/train_and_score.sh --cmd "$cuda_cmd" --model "conf/model/$2.conf" --kd "conf/kd/$3.conf" --teacher "$of_teacher" \
    --train-config "$train_config" --train-options "--seed $seed --threads 1" "$4" "data/$test" "$trials" "$out/$1"
}
onnx_vectors() { # data directory, folder
  ! current "$2/xvector.scp" "$pretrained" "$1/feats.scp" || return 0
  { echo "--type=kaldi"; cat conf/fbank.conf; } > "$out/front_end.conf"
  local/extract_vectors_onnx.py --front-end "$out/front_end.conf" "$pretrained" "$1" "$2"
}
vectors() { # name of the system: those that the maps learn from
  local found=$out/$1/xvectors_$learn
  if [ "$1" = pretrained ]; then
    onnx_vectors "$source" "$found"
    onnx_vectors "data/$test" "$out/$1/xvectors_$test"
  fi
  if [ "$1" = campplus ]; then
    mkdir -p "$out/campplus"
    ln -sfn "$(realpath "$teacher/final.pt")" "$out/campplus/final.pt"
    [ ! -s "$teacher/xvectors_$test/mean.vec" ] || ln -sfn "$(realpath "$teacher/xvectors_$test")" "$out/campplus/xvectors_$test"
    if [[ $learn != whole* ]]; then   # stage 3 keeps these up to date
      [ -s "$taught/xvector.scp" ] || fail "$taught/xvector.scp is missing; run ./run.sh --stage 3 --stop_stage 3 first"
      ln -sfn "$(realpath "$taught")" "$found"
      return
    fi
  fi
  current "$found/xvector.scp" "$out/$1/final.pt" ||
    local/extract_xvectors.sh --nj "$jobs" --cmd "$train_cmd" --amp fast "$out/$1/final.pt" "$source" "$found"
}
finished=()
compare() { # pair, old system, new system, "" or the half of the speakers that the maps learn from
  local size system set folder number chosen held align half=${4:+_half$4}
  vectors "$2"
  vectors "$3"
  for size in $sizes; do
    set=$out/${learn}_$size$half
    folder=$out/maps/${1}_$size$of
    number=$size
    [ "$size" -gt 0 ] || number=$((${#half} > 0 ? (largest + ${4:-0}) / 2 : largest))
    chosen="NR <= $number"
    [ -z "$half" ] || chosen="NR % 2 == $4 && NR <= 2 * $number"
    subset "$learners" "$source" "$chosen" 1 "$set"
    held=$((number / 10 < 60 ? number / 10 : 60))
    for system in "$2" "$3"; do ln -sfn "xvectors_$learn" "$out/$system/xvectors_${learn}_$size$half"; done
    align=(--closed-forms "$closed_forms" --kd-types "$kd_types" --init "$init" --train-config "$align_config"
      --train-options "--valid-speakers $held $align_options" --num-bootstrap "$num_bootstrap"
      "$out/$2" "$out/$3" "$set" "data/$test" "$trials")
    align_once "$folder" "$out"/{"$2","$3"}/xvectors_{"$learn","$test"}/xvector.scp --nj "$jobs" --cmd "$train_cmd" -- "${align[@]}"
    finished+=("$1 $number=$folder")
  done
}

subset "$out/speakers" data/train_pieces 1 0 "$out/train"
[[ $source != "$out"/pieces_* ]] || subset "$learners" data/train_pieces 1 0 "$source"
for pair in $pairs; do
  case $pair in
    own | pretrained | campplus) model old_none "$old" none "$out/train" ;;
    contrastive)
      model old_ge2e "$old" ge2e "$out/train"
      model new_ge2e "$new" ge2e "$out/train"
      ;;
    halves | met | unmet)
      for half in 0 1; do subset "$out/speakers" data/train_pieces "NR % 2 == $half" 0 "$out/train_half$half"; done
      model old_half "$old" none "$out/train_half0"
      if [ "$pair" = halves ]; then model new_half "$new" cosine "$out/train_half1"
      else model new_same_half "$new" cosine "$out/train_half0"; fi
      ;;
  esac
  case $pair in
    own)
      model new_cosine "$new" cosine "$out/train"
      compare own old_none new_cosine
      ;;
    contrastive) compare contrastive old_ge2e new_ge2e ;;
    halves) compare halves old_half new_half ;;
    met) compare met old_half new_same_half 0 ;;
    unmet) compare unmet old_half new_same_half 1 ;;
    *) compare "$pair" old_none "$pair" ;;
  esac
done
for list in "${lists[@]}"; do
  table=matrix
  [ "$list" = "${lists[0]}" ] || table+=_${list##*/}
  printf '\n## %s; the number of training speakers that the maps learn from is beside the pair\n\n' "${list##*/}"
  local/collect_maps.py --table "$table" "${finished[@]}" | tee "$out/table_${list##*/}$of.md"
done
