#!/usr/bin/env bash
# Speech decisions for each frame of a data directory, by Kaldi's energy rule. They equal those of Kaldi's compute-vad
# on MFCCs with the same vad.conf.
#
# Usage: local/compute_vad.sh [options] <data-dir> [<log-dir> [<vad-dir>]]
#   local/compute_vad.sh --nj 8 --vad-config conf/vad.conf data/train
# Options:
#   --nj 4                       number of jobs
#   --cmd utils/run_jobs.sh      what runs them
#   --vad-config conf/vad.conf   a file that Kaldi's compute-vad reads too
#
# Reads feats.scp and conf/fbank.conf of the data directory. Features that were made with --use-energy=true have a column
# for the log energy, and so have features of Kaldi's own (MFCCs; no conf/fbank.conf). For all others it is computed from
# the recordings: wav.scp and, if they exist, segments, utt2aug and aug.scp. It is the raw energy, which Kaldi takes by
# default: before pre-emphasis and window.
# Writes vad.scp into the data directory and its arks into <vad-dir> (<data-dir>/data): vectors of 1 (speech) and 0.
set -euo pipefail
export LC_ALL=C

nj=4
cmd=utils/run_jobs.sh
vad_config=conf/vad.conf

. utils/parse_options.sh
. local/part_lib.sh
data_words "$@"
check_words "$vad_config"
[ -s "$data/feats.scp" ] || fail "$data/feats.scp is missing or empty; run local/make_fbank.sh $data"
[ -f "$vad_config" ] || fail "$vad_config: no such file (--vad-config)"
require_positive nj
local/check_python.sh
utils/check_copies.sh "$data"
set_jobs "$data/feats.scp"
make_folders "$data" "$logs" "$out"
hold_lock "$data/.features.lock" "another job makes features in $data; wait for it"

rm -f "$data/vad.scp"
split_list "$data/feats.scp" "$logs/vad_feats_$name"
# shellcheck disable=SC2086  # cmd may carry options
$cmd JOB=1:"$nj" "$logs/compute_vad_$name.JOB.log" \
  local/compute_vad.py --vad-config "$vad_config" "$data" "$logs/vad_feats_$name.JOB" "$out/vad_$name.JOB"
gather "$out/vad_$name" scp "$data/vad.scp"
rm -f "${parts[@]}"
sed -n 's/^compute_vad.py: log energy: /log energy: /p' "$logs/compute_vad_$name.1.log" | sed "1!d; s|^|$0: |"
share=$(for ((job = 1; job <= nj; job++)); do cat "$logs/compute_vad_$name.$job.log"; done |
  awk '/^compute_vad.py: [0-9]+ utterances, / { frames += $4; speech += $6 } END { printf "%.1f", 100 * speech / frames }')
echo "$0: Succeeded creating speech decisions for $name: $(wc -l < "$data/vad.scp") of $total utterances, $share % speech"
