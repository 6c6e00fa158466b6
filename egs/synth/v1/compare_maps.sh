#!/usr/bin/env bash
# Enrol with one model, verify with another (stage 7): how much the maps gain from more speakers to learn from.
#
# Usage: ./compare_maps.sh [options]
#   ./compare_maps.sh                          # models with classifiers and contrastive ones, maps from 20 to 1000 speakers
#   ./compare_maps.sh --sizes "20 60" --methods ge2e
# Options:
#   --sizes "20 60 200 600 1000"   speakers that the maps learn from; the new model's are as many as the largest number
#   --old_speakers 60           those that the old model was trained on
#   --old xvector_micro         conf/model/<old>.conf
#   --new xvector               conf/model/<new>.conf
#   --methods "none ge2e"       the models' training: with a classifier, contrastive
#   --closed_forms "ridge procrustes logits"
#   --kd_types "nessa"          maps to train
#   --utts 60000                utterances that the old model hears in all
#   --new_utts 360000           and the new one
#   --test_speakers 60          made-up test speakers, of 15 utterances each: the more of them, the narrower the intervals
#   --seed 0                    of the models
#   --chunk_frames 0            >0: the maps learn from pieces of so many frames, not from whole utterances
#   --jobs 2                    jobs side by side
#   --data exp/speakers/data    compare_speakers.sh's
#
# exp/maps/table_<method>.md are the tables, or table_<method>_c<frames>.md. What is there already is not done again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

sizes="20 60 200 600 1000"
old_speakers=60
old=xvector_micro
new=xvector
methods="none ge2e"
closed_forms="ridge procrustes logits"
kd_types="nessa"
chunk_frames=0
utts=60000
new_utts=360000
test_speakers=60
seed=0
jobs=2
data=exp/speakers/data

. utils/parse_options.sh
[ $# -eq 0 ] || { echo "$0: unexpected argument '$1' (see --help)" >&2; exit 1; }
. ./cmd.sh
. ./path.sh
. ./speakers.sh
make_speakers
for size in $sizes $old_speakers; do make_subset "$size"; done
settings exp/maps/for_old "$old_speakers" "$utts"
settings exp/maps/for_new "$largest" "$new_utts"
test=exp/maps/data/test$test_speakers
if [ ! -s "$test/feats.scp" ]; then
  ./prepare_data.py --num-train-speakers 1 --num-test-speakers "$test_speakers" --utts-per-speaker 15 --nj "$jobs" exp/maps/data
  rm -rf "$test" && mv exp/maps/data/test "$test" && rm -f "$test"/face.*
  local/make_fbank.sh --nj "$jobs" --cmd "$train_cmd" "$test"
  utils/fix_data_dir.sh "$test"
fi

model() { # folder, conf of the model, method, settings, speakers
  local/train_and_score.sh --cmd "$cuda_cmd" --model "conf/model/$2.conf" --kd "conf/kd/$3.conf" --head "$4/head.conf" \
    --train-config "$4/train.conf" --train-options "--seed $seed" "$data/train_$5" "$test" "$test/trials" "$1"
}
of=
[ "$chunk_frames" -eq 0 ] || of=_c$chunk_frames
for method in $methods; do
  model "exp/maps/old_$method" "$old" "$method" exp/maps/for_old "$old_speakers"
  model "exp/maps/new_$method" "$new" "$method" exp/maps/for_new "$largest"
  for system in exp/maps/{old,new}_"$method"; do
    [ -s "$system/xvectors_train/mean.vec" ] ||
      local/extract_xvectors.sh --nj "$jobs" --cmd "$train_cmd" "$system/final.pt" "$data/train" "$system/xvectors_train"
    for size in $sizes; do ln -sfn xvectors_train "$system/xvectors_train_$size"; done
  done
  done=()
  for size in $sizes; do
    out=exp/maps/${method}_$size$of
    [ -s "$out/matrix.tsv" ] || local/align.sh --nj "$jobs" --cmd "$train_cmd" --out "$out" --closed-forms "$closed_forms" \
      --kd-types "$kd_types" --chunk-frames "$chunk_frames" exp/maps/old_"$method" exp/maps/new_"$method" \
      "$data/train_$size" "$test" "$test/trials"
    done+=("$size=$out")
  done
  local/collect_maps.py "${done[@]}" > "exp/maps/table_$method$of.md"
done
for method in $methods; do
  printf '\n## Models trained by kd_type=%s; the first column is the number of speakers of the maps\n\n' "$method"
  cat "exp/maps/table_$method$of.md"
done
