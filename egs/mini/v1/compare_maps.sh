#!/usr/bin/env bash
# Enrols with one model and verifies with another (stage 7), for several pairs of models.
#
# Usage: ./compare_maps.sh [options]     after ./run.sh
# Options:
#   --old xvector_tiny      conf/model/<old>.conf, the small model
#   --new resnet_tiny       conf/model/<new>.conf, the better one
#   --seed 0                random seed of run.sh's models, and of those made here
#   --foreign exp/campplus_3dspeaker   an imported model, used if it exists (local/README.md says how to import it)
#   --train data/train_all  data directory that the maps learn from; its copies at other speeds count as other speakers
#   --closed_forms "ridge procrustes logits"
#   --kd_types "nessa nessa_linear"
#   --chunk_frames 0        >0: the maps learn from pieces of this many frames, not from whole utterances
#   --nj 2                  number of jobs at the same time
#
# Pairs: old and new, trained with classifiers; the same, trained contrastively (kd_type=ge2e); a teacher and its student
# (kd_type=enskd); models of different halves of the speakers; two seeds of the old one; a foreign model and the new one.
# The table is exp/maps/table.md, or table_c<frames>.md. Finished parts are not done again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

old=xvector_tiny
new=resnet_tiny
seed=0
foreign=exp/campplus_3dspeaker
train=data/train_all
closed_forms="ridge procrustes logits"
kd_types="nessa nessa_linear"
chunk_frames=0
nj=2

. utils/parse_options.sh
[ $# -eq 0 ] || { echo "$0: unexpected argument '$1' (see --help)" >&2; exit 1; }
. ./cmd.sh
. ./path.sh
. local/lib.sh
out=exp/maps
teacher=exp/${new}_s$seed
student=exp/${old}_none_s$seed
for system in "$teacher" "$student"; do
  [ -s "$system/final.pt" ] || { echo "$0: $system/final.pt is missing; run ./run.sh first" >&2; exit 1; }
done

model() { # name, conf of the model, method, teacher, training set, seed
  local/train_and_score.sh --cmd "$cuda_cmd" --model "conf/model/$2.conf" --kd "conf/kd/$3.conf" --teacher "$4" \
    --train-config conf/train.conf --train-options "--seed $6" "$5" data/test data/test/trials "$out/$1"
}
of=
[ "$chunk_frames" -eq 0 ] || of=_c$chunk_frames
done=()
pair() { # label, enrolment's system, verification's system
  align_once "$out/$1$of" "$2/final.pt" "$3/final.pt" --nj "$nj" --cmd "$train_cmd" -- --closed-forms "$closed_forms" \
    --kd-types "$kd_types" --chunk-frames "$chunk_frames" "$2" "$3" "$train" data/test data/test/trials
  done+=("$1=$out/$1$of")
}

# Halves of the speakers, with their copies.
mkdir -p "$out"
for half in 0 1; do
  [ -s "$out/train_$half/feats.scp" ] || {
    awk -v half=$half 'NR % 2 == half {print $1, "sp0.9-" $1, "sp1.1-" $1}' data/train/spk2utt | tr ' ' '\n' | sort > "$out/spk_$half"
    utils/subset_data_dir.sh --spk-list "$out/spk_$half" data/train_all "$out/train_$half"
  }
done
model old_ge2e "$old" ge2e "" data/train_all "$seed"
model new_ge2e "$new" ge2e "" data/train_all "$seed"
model student_enskd "$old" enskd "$teacher/final.pt" data/train_all "$seed"
model old_half "$old" none "" "$out/train_0" "$seed"
model new_half "$new" none "" "$out/train_1" "$seed"
model old_again "$old" none "" data/train_all $((seed + 100))

pair old_new "$student" "$teacher"
pair old_new_ge2e "$out/old_ge2e" "$out/new_ge2e"
pair student_teacher "$out/student_enskd" "$teacher"
pair halves "$out/old_half" "$out/new_half"
pair seeds "$student" "$out/old_again"
if [ -s "$foreign/final.pt" ]; then pair new_foreign "$teacher" "$foreign"
else echo "$0: $foreign is not there: no pair with a foreign model"
fi
local/collect_maps.py "${done[@]}" | tee "$out/table$of.md"
