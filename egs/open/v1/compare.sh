#!/usr/bin/env bash
# Compares methods at home and abroad: the training leaves a corpus out, and the tests are of that corpus too.
#
# Usage: ./compare.sh [options]     after ./run.sh --stop_stage 3
#   ./compare.sh                                            # 18 trainings, one to seven minutes each
#   ./compare.sh --kd_types "none cosine" --seeds "0 1 2 3 4"
#   ./compare.sh --dev true --kd_types "none enskd" --seeds 0   # on the dev speakers, to choose settings
# Options:
#   --kd_types "none kld enskd cosine mse relation"   conf/kd/<kd_type>.conf
#   --students "xvector"               conf/model/<student>.conf
#   --seeds "0 1 2"                    random seeds of the training
#   --reference "none"                 kd_types to compare the others with
#   --leave_out ocean                  corpora not to train on, joined by +
#   --speakers 0                       train on so many speakers only, drawn by a hash of their names; 0: all
#   --teachers "campplus=exp/campplus/xvectors_train_originals/xvector.scp"   name=file ...: teachers' vectors of the pieces,
#                                      or a final.pt; name=file,quality=file gives a method figures of quality as well
#   --dev false                        true: score dev speakers instead of test speakers
#   --noise ""                         20,10,0: also score the first list with noise at these SNRs in dB
#   --jobs 2                           number of systems at the same time, one thread each
#   --out ""                           the folder of the comparison; default: exp/compare/<set>
#   --train_config conf/train_compare.conf
#   --train_options ""                 more options of local/train.py
#
# The trainings take the pieces at their own speed, without augmented copies. The lists are trials_commands and trials_ocean,
# if they exist. A comparison that was stopped goes on. <out>/table.md and table_<list>.md are the tables, or table_dev.md and
# table_dev_<list>.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

kd_types="none kld enskd cosine mse relation"
students=xvector
seeds="0 1 2"
reference=none
leave_out=ocean
speakers=0
teachers="campplus=exp/campplus/xvectors_train_originals/xvector.scp"
dev=false
noise=
out=
jobs=2
train_config=conf/train_compare.conf
train_options=

. utils/parse_options.sh
. ./cmd.sh
. ./path.sh
. local/lib.sh
. ./corpora.sh
[ $# -eq 0 ] || fail "unexpected argument '$1' (see --help)"
[ -s data/train_pieces/feats.scp ] || fail "data/train_pieces/feats.scp is missing; run ./run.sh --stop_stage 3 first"
[[ $speakers =~ ^[0-9]+$ ]] || fail "--speakers '$speakers' is not a number"

name=all
[ -z "$leave_out" ] || name=no_${leave_out//+/_}
[ "$speakers" -eq 0 ] || name+=_$speakers
set=data/compare_$name
if [ ! -s "$set/feats.scp" ] || [ data/train_pieces/feats.scp -nt "$set/feats.scp" ]; then
  part=data/.$name.$$   # another comparison may be at work
  trap 'rm -f "$part".*' EXIT
  at_own_speed data/train_pieces/utt2spk > "$part.own"
  without_corpora "$leave_out" "$part.own" > "$part.kept"
  if [ "$speakers" -gt 0 ]; then
    speakers_by_hash "$part.kept" | awk -v number="$speakers" 'NR <= number' > "$part.speakers"
    [ "$(wc -l < "$part.speakers")" -eq "$speakers" ] || fail "--speakers $speakers: there are only $(wc -l < "$part.speakers")"
    awk 'NR == FNR { kept[$1] = 1; next } $2 in kept' "$part.speakers" "$part.kept" > "$part.less"
    mv "$part.less" "$part.kept"
  fi
  utils/subset_data_dir.sh --utt-list "$part.kept" data/train_pieces "$set"
fi

test="test"
! $dev || test=dev
trials_of "data/$test" commands ocean
local/compare_kd.sh --cmd "$train_cmd" --kd-types "$kd_types" --reference "$reference" --noise "$noise" \
  --students "$students" --seeds "$seeds" --jobs "$jobs" --teachers "$teachers" \
  --train-config "$train_config" --train-options "$train_options" \
  "$set" "data/$test" "$(IFS=,; echo "${lists[*]}")" "${out:-exp/compare/$name}"
