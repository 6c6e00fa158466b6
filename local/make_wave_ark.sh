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
[ $# -ge 1 ] && [ $# -le 3 ] || { "$0" --help >&2; exit 1; }
data=${1%/}
logs=${2:-$data/log}
out=${3:-$data/data}
name=$(basename "$data")

. local/lib.sh
check_words "$data" "$logs" "$out"
[ -d "$data" ] || fail "$data: no such data directory; run stage 1"
[ -s "$data/wav.scp" ] || fail "$data/wav.scp is missing or empty; run stage 1"
[ -f "$fbank_config" ] || fail "$fbank_config: no such file (--fbank-config)"
[[ $nj =~ ^[1-9][0-9]*$ ]] || fail "--nj '$nj' is not a positive number"
[[ $max_lost =~ ^[0-9]+$ ]] || fail "--max-lost '$max_lost' is not a whole number of percent"
local/check_python.sh
rate() { sed 's/#.*//; s/=/ /' < "$1" | awk '{gsub("_", "-", $1)} $1 == "--sample-frequency" {r = $2} END {print (r ? r : 16000) + 0}'; }
if [ -f "$data/feats.scp" ] && [ -f "$data/conf/fbank.conf" ]; then
  [ "$(rate "$fbank_config")" = "$(rate "$data/conf/fbank.conf")" ] ||
    fail "$fbank_config has $(rate "$fbank_config") Hz, the features of $data have $(rate "$data/conf/fbank.conf") Hz: give --fbank-config $data/conf/fbank.conf"
fi
list=$data/wav.scp
[ ! -f "$data/segments" ] || list=$data/segments
total=$(awk 'NF {n++} END {print n + 0}' < "$list")
[ "$total" -gt 0 ] || fail "$list is empty; run stage 1"
[ "$nj" -le "$total" ] || { echo "$0: $total utterances, so $total jobs instead of $nj" >&2; nj=$total; }
{ mkdir -p "$logs" "$out" "$data/conf" && [ -w "$data" ] && [ -w "$logs" ] && [ -w "$out" ]; } 2>/dev/null ||
  fail "can't write into $data, $logs or $out; check the rights of the folders"
if command -v flock >/dev/null; then
  exec 9> "$data/.waves.lock"
  flock -n 9 || fail "another job makes wave archives of $data; wait for it"
fi

rm -f "$data/waves.scp"   # a run that is cut short leaves none
parts=()
for ((job = 1; job <= nj; job++)); do parts+=("$logs/wave_utts_$name.$job"); done
utils/split_scp.sh "$list" "${parts[@]}"

# shellcheck disable=SC2086  # cmd may carry options
$cmd JOB=1:"$nj" "$logs/make_wave_ark_$name.JOB.log" \
  local/make_wave_ark.py --fbank-config "$fbank_config" "$data" "$logs/wave_utts_$name.JOB" "$out/raw_wave_$name.JOB"

gather() { # what the jobs wrote, in the order of the jobs, is in the order of the data directory
  for ((job = 1; job <= nj; job++)); do cat "$out/raw_wave_$name.$job.$1"; done > "$data/.$2.tmp"
  mv "$data/.$2.tmp" "$data/$2"
}
gather lost_utts lost_waves
lost=$(wc -l < "$data/lost_waves")
if [ $((lost * 100)) -gt $((total * max_lost)) ]; then
  fail "$lost of $total utterances are unusable, more than $max_lost %: see $data/lost_waves, for example: $(head -n 1 "$data/lost_waves")"
fi
gather utt2num_samples utt2num_samples
[ -f "$data/utt2dur" ] || gather utt2dur utt2dur
[ -f "$data/conf/fbank.conf" ] || cp "$fbank_config" "$data/conf/fbank.conf"
for file in "$out/raw_wave_$name".*; do   # of an earlier run with more jobs
  [[ ${file#"$out/raw_wave_$name".} =~ ^([0-9]+)\.(ark|scp|utt2num_samples|utt2dur|lost_utts|made)$ ]] || continue
  [ "${BASH_REMATCH[1]}" -le "$nj" ] || rm -f "$file"
done
gather scp waves.scp   # last: it says that the rest is there
made=$(wc -l < "$data/waves.scp")
[ $((made + lost)) -eq "$total" ] || { rm "$data/waves.scp"; fail "$made utterances made and $lost lost are not the $total of $list; run it again"; }
rm -f "${parts[@]}"
[ "$lost" -eq 0 ] || echo "$0: lost $lost of $total utterances (reasons in $data/lost_waves); utils/fix_data_dir.sh $data takes them out of the other files" >&2
kept=0
for ((job = 1; job <= nj; job++)); do ! grep -qs 'is kept, which was made' "$logs/make_wave_ark_$name.$job.log" || kept=$((kept + 1)); done
[ "$kept" -eq 0 ] || echo "$0: $kept of $nj jobs were finished before"
echo "$0: Succeeded creating wave archives for $name: $total in, $made out, $lost lost"
