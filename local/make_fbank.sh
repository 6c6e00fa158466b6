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
[ $# -ge 1 ] && [ $# -le 3 ] || { "$0" --help >&2; exit 1; }
data=${1%/}
logs=${2:-$data/log}
out=${3:-$data/data}
name=$(basename "$data")

. local/part_lib.sh
check_words "$data" "$logs" "$out" "$fbank_config"
[ -d "$data" ] || fail "$data: no such data directory; run stage 1"
[ -s "$data/wav.scp" ] || fail "$data/wav.scp is missing or empty; run stage 1"
[ -f "$fbank_config" ] || fail "$fbank_config: no such file (--fbank-config)"
[[ $nj =~ ^[1-9][0-9]*$ ]] || fail "--nj '$nj' is not a positive number"
[[ $max_lost =~ ^[0-9]+$ ]] || fail "--max-lost '$max_lost' is not a whole number of percent"
local/check_python.sh
utils/check_copies.sh "$data"
list=$data/wav.scp
[ ! -f "$data/segments" ] || list=$data/segments
total=$(awk 'NF {n++} END {print n + 0}' < "$list")
[ "$total" -gt 0 ] || fail "$list is empty; run stage 1"
[ "$nj" -le "$total" ] || { echo "$0: $total utterances, so $total jobs instead of $nj" >&2; nj=$total; }
{ mkdir -p "$logs" "$out" "$data/conf" && [ -w "$data" ] && [ -w "$logs" ] && [ -w "$out" ]; } 2>/dev/null ||
  fail "can't write into $data, $logs or $out; check the rights of the folders"
hold_lock "$data/.features.lock" "another job makes features in $data; wait for it"

# A run that is cut short leaves no feats.scp that points at arks of another run.
rm -f "$data/feats.scp"
parts=()
for ((job = 1; job <= nj; job++)); do parts+=("$logs/fbank_utts_$name.$job"); done
utils/split_scp.sh "$list" "${parts[@]}"

# shellcheck disable=SC2086  # cmd may carry options
$cmd JOB=1:"$nj" "$logs/make_fbank_$name.JOB.log" \
  local/compute_fbank.py --fbank-config "$fbank_config" --compress "$compress" \
  "$data" "$logs/fbank_utts_$name.JOB" "$out/raw_fbank_$name.JOB"

gather() { # what the jobs wrote, in the order of the jobs, is in the order of the data directory
  for ((job = 1; job <= nj; job++)); do cat "$out/raw_fbank_$name.$job.$1"; done > "$data/.$1.tmp"
  mv "$data/.$1.tmp" "$data/$2"
}
gather lost_utts lost_utts
lost=$(wc -l < "$data/lost_utts")
if [ $((lost * 100)) -gt $((total * max_lost)) ]; then
  fail "$lost of $total utterances are unusable, more than $max_lost %: see $data/lost_utts, for example: $(head -n 1 "$data/lost_utts")"
fi
gather utt2num_frames utt2num_frames
gather utt2dur utt2dur
sed 's/#.*//; s/=/ /' < "$fbank_config" |
  awk '{gsub("_", "-", $1)} $1 == "--frame-shift" {ms = $2} END {print (ms ? ms : 10) / 1000}' > "$data/frame_shift"
[ "$fbank_config" -ef "$data/conf/fbank.conf" ] || cp "$fbank_config" "$data/conf/fbank.conf"
for file in "$out/raw_fbank_$name".*; do   # of an earlier run with more jobs
  [[ ${file#"$out/raw_fbank_$name".} =~ ^([0-9]+)\.(ark|scp|utt2num_frames|utt2dur|lost_utts|made)$ ]] || continue
  [ "${BASH_REMATCH[1]}" -le "$nj" ] || rm -f "$file"
done
cp "$fbank_config" "$out/raw_fbank_$name.conf"   # beside the arks too: Kaldi's utils leave conf/ out of what they copy
gather scp feats.scp   # last: it says that the rest is there
made=$(wc -l < "$data/feats.scp")
[ $((made + lost)) -eq "$total" ] || { rm "$data/feats.scp"; fail "$made utterances made and $lost lost are not the $total of $list; run it again"; }
rm -f "${parts[@]}"
[ "$lost" -eq 0 ] || echo "$0: lost $lost of $total utterances (reasons in $data/lost_utts); utils/fix_data_dir.sh $data takes them out of the other files" >&2
kept=$(count_kept "$logs/make_fbank_$name.JOB.log" "$nj")
[ "$kept" -eq 0 ] || echo "$0: $kept of $nj jobs were finished before, and their arks are kept"
echo "$0: Succeeded creating filterbank features for $name: $total in, $made out, $lost lost"
