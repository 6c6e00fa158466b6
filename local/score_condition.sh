#!/usr/bin/env bash
# Scores one system in one condition; extracts the vectors if they are missing. A job of local/score_noise.sh.
#
# Usage: local/score_condition.sh [options] <table> <line> <trials>
#   local/score_condition.sh --utt2spk data/test/utt2spk exp/noise/log/jobs 3 data/test/trials
# Options:
#   --gpus 0                  1: extract on a GPU
#   --utt2spk ""              speakers of the utterances, for the intervals
#   --cohort ""               data directory of training speakers, for AS-norm too; its vectors are beside the others
#   --top-n 300               number of the closest cohort speakers
#   --score-opts "..."        more options of local/score.py
#
# A line of <table> has four fields: final.pt, data directory, folder of the vectors, folder of the scores (-: none).
set -euo pipefail
export LC_ALL=C

gpus=0
utt2spk=
cohort=
top_n=300
score_opts=

. utils/parse_options.sh
[ $# -eq 3 ] || { "$0" --help >&2; exit 1; }
. local/lib.sh
trials=$3
if [ "$gpus" -gt 0 ]; then   # the lines share the GPUs in turn
  IFS=, read -ra seen <<< "${CUDA_VISIBLE_DEVICES:-}"
  [ ${#seen[@]} -lt 2 ] || export CUDA_VISIBLE_DEVICES=${seen[($2 - 1) % ${#seen[@]}]}
fi
read -r model data vectors scores < <(sed -n "$2p" "$1") || fail "$1 has no line $2"

# If the features were made again, the scp may be the same, but its time differs.
made_of="$(md5sum < "$model") $(md5sum < "$data/feats.scp") $(stat -c %Y "$data/feats.scp")"
if [ "$(cat "$vectors/made_of" 2> /dev/null)" != "$made_of" ]; then
  rm -f "$vectors/made_of"
  local/extract_xvectors.sh --nj 1 --gpus "$gpus" "$model" "$data" "$vectors"
  echo "$made_of" > "$vectors/made_of"
fi
[ "$scores" != - ] || exit 0
rm -f "$scores/metrics.tsv"
mkdir -p "$scores"
score() { # more options
  # shellcheck disable=SC2086  # several options
  local/score.py --utt2spk "$utt2spk" $score_opts "$@" "$trials" "$vectors/xvector.scp" "$vectors/xvector.scp" "$scores"
}
score
[ -z "$cohort" ] || score --norm asnorm --top-n "$top_n" --cohort "${vectors%/*}/cohort_${cohort##*/}/xvector.scp" \
  --cohort-spk2utt "$cohort/spk2utt"
