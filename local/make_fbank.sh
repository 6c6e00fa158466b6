#!/usr/bin/env bash
# Filterbank features of a data directory, as Kaldi's arks: raw, without mean subtraction, so that they serve everybody.
#
# Usage: local/make_fbank.sh [options] <data-dir> [<log-dir> [<fbank-dir>]]
#   local/make_fbank.sh --nj 8 --fbank-config conf/fbank.conf data/train
# Options:
#   --nj 4                           number of jobs
#   --cmd utils/run_jobs.sh          what runs them (utils/slurm_jobs.sh, or Kaldi's run.pl, queue.pl, slurm.pl)
#   --fbank-config conf/fbank.conf   a file that compute-fbank-feats reads too
#   --compress true                  two bytes a value (CM2) instead of four; Kaldi reads either
#   --max-lost 5                     percent of the utterances that may be unusable before it is an error
#
# Reads wav.scp (paths and pipes) and, where they exist, segments, utt2aug and aug.scp.
# Writes feats.scp, utt2num_frames, utt2dur, frame_shift, conf/fbank.conf and lost_utts (utterance, reason) into the data
# directory, the arks and their conf file into <fbank-dir> (<data-dir>/data), logs into <log-dir> (<data-dir>/log). Run again,
# it keeps what is finished: a job's ark is made again only if its utterances, their recordings or the options have changed.
set -euo pipefail
export LC_ALL=C

nj=4
cmd=utils/run_jobs.sh
fbank_config=conf/fbank.conf
compress=true
max_lost=5

. utils/parse_options.sh
. local/part_lib.sh
data_words "$@"
check_words "$fbank_config"
recording_list
[ -f "$fbank_config" ] || fail "$fbank_config: no such file (--fbank-config)"
require_positive nj
require_whole max_lost
local/check_python.sh
utils/check_copies.sh "$data"
set_jobs "$list"
make_folders "$data" "$logs" "$out" "$data/conf"
hold_lock "$data/.features.lock" "another job makes features in $data; wait for it"

# A run that is cut short leaves no feats.scp that points at arks of another run.
rm -f "$data/feats.scp"
split_list "$list" "$logs/fbank_utts_$name"

# shellcheck disable=SC2086  # cmd may carry options
$cmd JOB=1:"$nj" "$logs/make_fbank_$name.JOB.log" \
  local/compute_fbank.py --fbank-config "$fbank_config" --compress "$compress" \
  "$data" "$logs/fbank_utts_$name.JOB" "$out/raw_fbank_$name.JOB"

made=$out/raw_fbank_$name   # .JOB.*
gather "$made" lost_utts "$data/lost_utts"
require_few_lost "$data/lost_utts" "are unusable"
gather "$made" utt2num_frames "$data/utt2num_frames"
gather "$made" utt2dur "$data/utt2dur"
sed 's/#.*//; s/=/ /' < "$fbank_config" |
  awk '{gsub("_", "-", $1)} $1 == "--frame-shift" {ms = $2} END {print (ms ? ms : 10) / 1000}' > "$data/frame_shift"
[ "$fbank_config" -ef "$data/conf/fbank.conf" ] || cp "$fbank_config" "$data/conf/fbank.conf"
remove_surplus "$made"
cp "$fbank_config" "$made.conf"   # beside the arks too: Kaldi's utils leave conf/ out of what they copy
gather "$made" scp "$data/feats.scp"   # last: it says that the rest is there
require_all "$data/feats.scp"
rm -f "${parts[@]}"
[ "$lost" -eq 0 ] || echo "$0: lost $lost of $total utterances (reasons in $data/lost_utts); utils/fix_data_dir.sh $data takes them out of the other files" >&2
say_kept "$logs/make_fbank_$name.JOB.log"
echo "$0: Succeeded creating filterbank features for $name: $total in, $((total - lost)) out, $lost lost"
