#!/usr/bin/env bash
# Enrols with one model and verifies with another (stage 7): how much do the maps gain from more training speakers?
#
# Usage: ./compare_maps.sh [options]
#   ./compare_maps.sh                          # models with classifiers and contrastive ones, maps from 20 to 1000 speakers
#   ./compare_maps.sh --sizes "20 60" --methods ge2e
# Options:
#   --sizes "20 60 200 600 1000"   numbers of speakers that the maps learn from; the new model has the largest number
#   --old_speakers 60           number of speakers of the old model's training
#   --old xvector_micro         conf/model/<old>.conf
#   --new xvector               conf/model/<new>.conf
#   --methods "none ge2e"       training of the models: none: with a classifier; ge2e: contrastive
#   --closed_forms "ridge procrustes logits"
#   --kd_types "nessa"          maps to train
#   --utts 60000                total number of training crops of the old model
#   --new_utts 360000           total number of training crops of the new model
#   --test_speakers 60          made-up test speakers with 15 utterances each; more speakers give narrower intervals
#   --seed 0                    random seed of the models
#   --chunk_frames 0            >0: the maps learn from pieces of this many frames, not from whole utterances
#   --jobs 2                    number of jobs at the same time
#   --data exp/speakers/data    data of compare_speakers.sh
#
# The tables are exp/maps/table_<method>.md, or table_<method>_c<frames>.md. Finished parts are not done again.
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
. local/lib.sh
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
    align_once "$out" exp/maps/{old,new}_"$method"/final.pt --nj "$jobs" --cmd "$train_cmd" -- --closed-forms "$closed_forms" \
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
