#!/usr/bin/env bash
# Wave archives of a data directory, for training on crops of waves (local/train.py --source waves).
#
# Usage: local/make_wave_ark.sh [options] <data-dir> [<log-dir> [<wave-dir>]]
#   local/make_wave_ark.sh --nj 8 --fbank-config conf/fbank.conf data/train_all
# Options:
#   --nj 4                           number of jobs
#   --cmd utils/run_jobs.sh          what runs them (utils/slurm_jobs.sh, or Kaldi's run.pl, queue.pl, slurm.pl)
#   --fbank-config conf/fbank.conf   the features' conf file: its rate, channel and shortest duration hold for the waves
#   --max-lost 5                     percent of the utterances that may be unusable before it is an error
#
# The archives are Kaldi's own (wav-copy and wav-to-duration read them). Each utterance is resampled, mono, with 16 bits a
# sample: 115 MB an hour at 16 kHz. Segments are cut, and what utt2aug says is done to the waves.
# Reads wav.scp (paths and pipes) and, if they exist, segments, utt2aug and aug.scp. Writes waves.scp, utt2num_samples and
# lost_waves (utterance, reason) into the data directory, and utt2dur and conf/fbank.conf if they are missing; the archives
# into <wave-dir> (<data-dir>/data), logs into <log-dir> (<data-dir>/log). Run again, it keeps what is finished: a job's
# archive is made again only if its utterances, their recordings or the options have changed.
set -euo pipefail
export LC_ALL=C

nj=4
cmd=utils/run_jobs.sh
fbank_config=conf/fbank.conf
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
rate() { sed 's/#.*//; s/=/ /' < "$1" | awk '{gsub("_", "-", $1)} $1 == "--sample-frequency" {r = $2} END {print (r ? r : 16000) + 0}'; }
if [ -f "$data/feats.scp" ] && [ -f "$data/conf/fbank.conf" ]; then
  [ "$(rate "$fbank_config")" = "$(rate "$data/conf/fbank.conf")" ] ||
    fail "$fbank_config has $(rate "$fbank_config") Hz, the features of $data have $(rate "$data/conf/fbank.conf") Hz: give --fbank-config $data/conf/fbank.conf"
fi
set_jobs "$list"
make_folders "$data" "$logs" "$out" "$data/conf"
hold_lock "$data/.waves.lock" "another job makes wave archives of $data; wait for it"

rm -f "$data/waves.scp"   # a run that is cut short leaves none
split_list "$list" "$logs/wave_utts_$name"

# shellcheck disable=SC2086  # cmd may carry options
$cmd JOB=1:"$nj" "$logs/make_wave_ark_$name.JOB.log" \
  local/make_wave_ark.py --fbank-config "$fbank_config" "$data" "$logs/wave_utts_$name.JOB" "$out/raw_wave_$name.JOB"

made=$out/raw_wave_$name   # .JOB.*
gather "$made" lost_utts "$data/lost_waves"
require_few_lost "$data/lost_waves" "are unusable"
gather "$made" utt2num_samples "$data/utt2num_samples"
[ -f "$data/utt2dur" ] || gather "$made" utt2dur "$data/utt2dur"
[ -f "$data/conf/fbank.conf" ] || cp "$fbank_config" "$data/conf/fbank.conf"
remove_surplus "$made"
gather "$made" scp "$data/waves.scp"   # last: it says that the rest is there
require_all "$data/waves.scp"
rm -f "${parts[@]}"
[ "$lost" -eq 0 ] || echo "$0: lost $lost of $total utterances (reasons in $data/lost_waves); utils/fix_data_dir.sh $data takes them out of the other files" >&2
say_kept "$logs/make_wave_ark_$name.JOB.log"
echo "$0: Succeeded creating wave archives for $name: $total in, $((total - lost)) out, $lost lost"
