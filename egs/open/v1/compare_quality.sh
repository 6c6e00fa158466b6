#!/usr/bin/env bash
# Measures what the margin and the weights by quality of VGSR (kd_type=mkd) gain if some vectors of the teacher are bad.
#
# Usage: ./compare_quality.sh [options]     after ./run.sh --stop_stage 3
#   ./compare_quality.sh --dev true --seeds 0 --shares 0.1      # on the dev speakers, to choose settings
#   ./compare_quality.sh --noise 20,10,0
# Options:
#   --shares "0 0.1"                   shares of bad vectors: half are a stranger's, half have noise (./spoil_vectors.py --help)
#   --figure agreement                 figure of quality: agreement, snr or length (local/measure_quality.py --help)
#   --cap 0.25                         quantile at which the figures are capped: only the poor ones lose weight; 1: no cap
#   --teacher campplus                 exp/<teacher>/xvectors_train_originals
#   --kd_types "none cosine mkd_margin mkd_quality mkd_both"   conf/kd/<kd_type>.conf
#   --students "xvector"               conf/model/<student>.conf
#   --seeds "0 1 2"                    random seeds of the training
#   --reference "none cosine"          kd_types to compare the others with
#   --leave_out ocean                  corpora not to train on, joined by +
#   --dev false                        true: score dev speakers instead of test speakers
#   --noise ""                         20,10,0: also score the first list with noise at these SNRs in dB
#   --jobs 2                           number of systems at the same time, one thread each
#   --out exp/quality                  the folder of the comparison
#   --train_options ""                 more options of local/train.py
#
# In the table a teacher is called campplus if its vectors are as they are, campplus_bad10 if 10 % of them are bad. With another
# figure than agreement its name follows: campplus_bad10_snr. So does another cap than 0.25: campplus_bad10_cap1. A comparison that was stopped goes on.
# <out>/table.md and table_<list>.md are the tables, or table_dev.md and table_dev_<list>.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

shares="0 0.1"
figure=agreement
cap=0.25
teacher=campplus
kd_types="none cosine mkd_margin mkd_quality mkd_both"
students=xvector
seeds="0 1 2"
reference="none cosine"
leave_out=ocean
dev=false
noise=
jobs=2
out=exp/quality
train_options=

. utils/parse_options.sh
. ./path.sh
. local/lib.sh
. ./corpora.sh
[ $# -eq 0 ] || fail "unexpected argument '$1' (see --help)"
vectors=exp/$teacher/xvectors_train_originals/xvector.scp
[ -s "$vectors" ] || fail "$vectors is missing; run ./run.sh --stop_stage 3 --teacher $teacher first"

# The figures are of the vectors that teach, and of their speakers' other vectors: those of the data that is trained on.
mkdir -p "$out/vectors"
hold_lock "$out/vectors/.lock" "another comparison is at work in $out; wait for it, or give another --out"
set=$out/vectors/.pieces
mkdir -p "$set"
at_own_speed data/train_pieces/utt2spk > "$set/own"
without_corpora "$leave_out" "$set/own" > "$set/utt2spk"
if [ "$figure" != agreement ]; then
  awk 'NR == FNR { kept[$1] = 1; next } $1 in kept' "$set/utt2spk" data/train_pieces/feats.scp > "$set/feats.scp"
  mkdir -p "$set/conf"
  cp data/train_pieces/conf/fbank.conf "$set/conf"
fi
# Methods that take no figures, alone, are a comparison too.
words=$(for kd_type in $kd_types; do local/kd_info.py --words true "conf/kd/$kd_type.conf"; done)
takes=false
[[ $words != *may-have:quality* ]] || takes=true
teachers=
for share in $shares; do
  name=$teacher scp=$vectors
  folder=$out/vectors/$teacher${leave_out:+_no_$leave_out}/$share
  if [ "$share" != 0 ]; then
    name+=_bad$(awk -v share="$share" 'BEGIN { print 100 * share }')
    scp=$folder/xvector.scp
    current "$scp" "$vectors" data/train_pieces/utt2spk || ./spoil_vectors.py --share "$share" "$set/utt2spk" "$vectors" "$folder"
  fi
  mkdir -p "$folder"
  quality=$folder/utt2$figure
  [ "$cap" = 1 ] || quality+=_cap$cap
  if ! current "$quality" "$scp" data/train_pieces/feats.scp; then
    if [ "$figure" = agreement ]; then local/measure_quality.py --cap "$cap" --vectors "$scp" "$set" "$quality"
    else local/measure_quality.py --cap "$cap" --figure "$figure" "$set" "$quality"; fi
  fi
  [ "$figure" = agreement ] || name+=_$figure
  [ "$cap" = 0.25 ] || name+=_cap$cap
  teachers+=$name=$scp
  ! $takes || teachers+=,quality=$quality
  teachers+=' '
done
rm -rf "$set"
./compare.sh --kd_types "$kd_types" --students "$students" --seeds "$seeds" --reference "$reference" --leave_out "$leave_out" \
  --teachers "$teachers" --dev "$dev" --noise "$noise" --jobs "$jobs" --out "$out" --train_options "$train_options"
