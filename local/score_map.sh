#!/usr/bin/env bash
# Applies one map to both systems' vectors and scores all combinations of enrolling and verifying system. A job of align.sh.
#
# Usage: local/score_map.sh [options] <list of maps> <line> <enroll-exp> <test-exp> <vectors> <cohort> <trials> <out>
#   local/score_map.sh exp/a_b_nessa/log/maps 2 exp/a exp/b xvectors_test xvectors_train data/test/trials exp/a_b_nessa
# Options:
#   --utt2spk ""              speakers of the utterances, for the intervals
#   --enroll-spk2utt ""       enrolment models and their utterances, if the trials name models
#   --top-n 0                 also AS-norm by this many vectors of <cohort>, each mapped as its side is
#
# <vectors> and <cohort> are names of folders that both systems have. <trials> may be several lists, joined by commas. Each line
# of <list of maps> is the name of a map. <out>/<map> has enroll.mat and test.mat, or enroll.pt and test.pt. The first line is
# raw: the vectors without a map.
set -euo pipefail
export LC_ALL=C

utt2spk=
enroll_spk2utt=
top_n=0

. utils/parse_options.sh
[ $# -eq 8 ] || { "$0" --help >&2; exit 1; }
. local/lib.sh
map=$(sed -n "$2p" "$1")
[ -n "$map" ] || fail "$1 has no line $2"
systems=([0]="$3" [1]="$4")
sides=(enroll test)
vectors=$5 cohort=$6 out=$8
IFS=, read -r -a lists <<< "$7"

for side in 0 1; do
  tested[side]=${systems[side]}/$vectors/xvector.scp
  others[side]=${systems[side]}/$cohort/xvector.scp
  [ "$map" != raw ] || continue
  file=$out/$map/${sides[side]}.mat
  [ -f "$file" ] || file=$out/$map/${sides[side]}.pt
  local/map_vectors.py "$file" "${tested[side]}" "$out/$map/${sides[side]}_test"
  tested[side]=$out/$map/${sides[side]}_test/xvector.scp
  [ "$top_n" -gt 0 ] || continue
  local/map_vectors.py "$file" "${others[side]}" "$out/$map/${sides[side]}_train"
  others[side]=$out/$map/${sides[side]}_train/xvector.scp
done
how=(local/score.py --num-bootstrap 0 --plots false --enroll-spk2utt "$enroll_spk2utt" --utt2spk "$utt2spk")
for one in 0 1; do
  for other in 0 1; do
    # Vectors as they are can be compared with the other system's only if the dimensions are the same.
    [ "$map" != raw ] || [ $one = $other ] || [ -f "$out/raw/test.mat" ] || continue
    for trials in "${lists[@]}"; do
      what=("$trials" "${tested[one]}" "${tested[other]}" "$out/$map/scores")
      "${how[@]}" --name "${sides[one]}-${sides[other]}" "${what[@]}"
      [ "$top_n" -eq 0 ] || "${how[@]}" --name "${sides[one]}-${sides[other]}.asnorm" --norm asnorm --top-n "$top_n" \
        --enroll-cohort "${others[one]}" --cohort "${others[other]}" "${what[@]}"
    done
  done
done
