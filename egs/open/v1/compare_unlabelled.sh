#!/usr/bin/env bash
# Compares methods that need no labels of speakers, and students that are trained on their clusters.
#
# Usage: ./compare_unlabelled.sh [options]     after ./run.sh --stop_stage 2
#   ./compare_unlabelled.sh                                          # 18 trainings; RESULTS.md says how long they take
#   ./compare_unlabelled.sh --dev true --seeds 0 --kd_types "sdpn dino"     # on the dev speakers, to choose settings
#   ./compare_unlabelled.sh --per_speaker 2 --out exp/unlabelled_even       # do equal amounts of speech change the order?
# Options:
#   --kd_types "sdpn dino sdpn_no_memax sdpn_no_koleo sdpn_no_sinkhorn none"   conf/kd/<kd_type>.conf; none has the labels
#   --students "xvector"               conf/model/<student>.conf
#   --seeds "0 1 2"                    random seeds of the training
#   --reference "dino"                 kd_types to compare the others with
#   --clusters_of ""                   also cluster the vectors of this method's nets, and train each student on the clusters
#   --num_clusters 1000                number of clusters
#   --leave_out ocean                  corpora not to train on, joined by +
#   --per_speaker 0                    most utterances of a speaker (this uses the labels); 0: all
#   --kinds reverb,noise,music,babble  augmented copies of each utterance, which are views too; "": views differ in their crop only
#   --dev false                        true: score dev speakers instead of test speakers
#   --jobs 2                           number of systems at the same time, one thread each
#   --out exp/unlabelled               the folder of the comparison
#   --train_config conf/train_unlabelled.conf      optimisation
#   --train_options ""                 more options of local/train.py
#   --label_config conf/train_compare.conf         optimisation of kd_type none, and of the students of the clusters
#   --label_epochs 24                  their number of epochs; an epoch takes each utterance once, or one of its copies
#
# The trainings take whole utterances of data/train. The trials are trials_commands and trials_ocean, if they exist. A comparison
# that was stopped goes on. <out>/table.md and table_<trials>.md are the tables, with _dev for the dev speakers. The students of
# clusters have tables of their own in <out>/clusters/<student>_<method>_<number of clusters>_s<seed>, for each net has others.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

kd_types="sdpn dino sdpn_no_memax sdpn_no_koleo sdpn_no_sinkhorn none"
students=xvector
seeds="0 1 2"
reference=dino
clusters_of=
num_clusters=1000
leave_out=ocean
per_speaker=0
kinds=reverb,noise,music,babble
dev=false
jobs=2
out=exp/unlabelled
train_config=conf/train_unlabelled.conf
train_options=
label_config=conf/train_compare.conf
label_epochs=24

. utils/parse_options.sh
. ./cmd.sh
. ./path.sh
. local/lib.sh
. ./corpora.sh
[ $# -eq 0 ] || fail "unexpected argument '$1' (see --help)"
[ -s data/train/wav.scp ] || fail "data/train is missing; run ./run.sh --stop_stage 2 first"
[ "$clusters_of" != none ] || fail "--clusters_of none: these nets have learnt from the labels"
[ -z "$clusters_of" ] || [[ " $kd_types " == *" $clusters_of "* ]] || fail "--clusters_of $clusters_of is not among --kd_types"

set=data/unlabelled
[ -z "$leave_out" ] || set+=_no_${leave_out//+/_}
[ "$per_speaker" -eq 0 ] || set+=_$per_speaker
case $kinds in reverb,noise,music,babble) ;; "") set+=_clean ;; *) set+=_${kinds//,/_} ;; esac
mkdir -p "$out"
make_set() {
  without_corpora "$leave_out" data/train/utt2spk > "$out/kept"
  rm -rf "$set" "$out/kept.data"
  utils/subset_data_dir.sh --utt-list "$out/kept" data/train "$out/kept.data"
  if [ "$per_speaker" -gt 0 ]; then utils/subset_data_dir.sh --per-spk "$out/kept.data" "$per_speaker" "$set"
  else mv "$out/kept.data" "$set"; fi
  rm -rf "$out/kept.data" "$out/kept"
  local/make_fbank.sh --nj "$jobs" --cmd "$train_cmd" "$set"
  sets=("$set")
  if [ -n "$kinds" ]; then
    rm -rf "${set}_copies"
    local/augment_data_dir.py --kinds "$kinds" "$set" "${set}_copies"
    local/make_fbank.sh --nj "$jobs" --cmd "$train_cmd" "${set}_copies"
    sets+=("${set}_copies")
  fi
  utils/combine_data.sh "${set}_all" "${sets[@]}"
}
(   # other comparisons take the same set
  hold_lock "data/.${set#data/}.lock" "another comparison makes ${set}_all; waiting for it" wait
  if ! current "${set}_all/feats.scp" data/train/utt2spk data/train/wav.scp; then make_set; fi
)

test="test"
! $dev || test=dev
trials_of "data/$test" commands ocean
compare() { # folder, training set, kd_types, seeds, reference, optimisation
  local more=$train_options
  [ "$3" != none ] || more+=" --num-epochs $label_epochs"
  local/compare_kd.sh --cmd "$train_cmd" --kd-types "$3" --seeds "$4" --reference "$5" --students "$students" --jobs "$jobs" \
    --train-config "$6" --train-options "${more# }" "$2" "data/$test" "$(IFS=,; echo "${lists[*]}")" "$1"
}

without=
for kd_type in $kd_types; do [ "$kd_type" = none ] || without+="$kd_type "; done
[ -z "$without" ] || compare "$out" "${set}_all" "$without" "$seeds" "$reference" "$train_config"
[[ " $kd_types " != *" none "* ]] || compare "$out/labels" "${set}_all" none "$seeds" none "$label_config"
if [ -n "$clusters_of" ]; then
  for seed in $seeds; do
    for student in $students; do
      system=$out/${student}_${clusters_of}_s$seed
      current "$system/xvectors_train/mean.vec" "$system/final.pt" "$set/feats.scp" ||
        local/extract_xvectors.sh --nj "$jobs" --cmd "$train_cmd" "$system/final.pt" "$set" "$system/xvectors_train"
      clusters=$out/clusters/${student}_${clusters_of}_${num_clusters}_s$seed
      current "$clusters/data/feats.scp" "$system/xvectors_train/xvector.scp" "${set}_all/feats.scp" ||
        local/cluster_xvectors.py --num-clusters "$num_clusters" --follow true \
          "$system/xvectors_train/xvector.scp" "${set}_all" "$clusters/data"
      students=$student compare "$clusters" "$clusters/data" none "$seed" none "$label_config"
    done
  done
fi
