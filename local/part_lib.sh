#!/usr/bin/env bash
# Shared by stage scripts whose jobs each make a part of the result; finished parts are kept. To be sourced:
# . local/part_lib.sh
#
# The functions read the options $nj and $max_lost. set_jobs sets $total, the number of utterances, and split_list sets $parts.
# shellcheck disable=SC2034,SC2154  # the scripts set and read these variables

. local/lib.sh

# require_positive NAME ..., require_whole NAME ...: these options are whole numbers from 1 up, or from 0 up.
require_positive() { local each; for each; do [[ ${!each} =~ ^[1-9][0-9]*$ ]] || fail "--${each//_/-} '${!each}' is not a positive number"; done; }
require_whole() { local each; for each; do [[ ${!each} =~ ^[0-9]+$ ]] || fail "--${each//_/-} '${!each}' is not a whole number"; done; }

# data_words <data-dir> [<log-dir> [<archive-dir>]]: the arguments of a script that adds files to a data directory. Sets
# $data, $logs, $out and $name, the name of the data directory.
data_words() {
  [ $# -ge 1 ] && [ $# -le 3 ] || { "$0" --help >&2; exit 1; }
  data=${1%/} logs=${2:-${1%/}/log} out=${3:-${1%/}/data}
  name=$(basename "$data")
  check_words "$data" "$logs" "$out"
}

# recording_list: sets $list, the file that names the utterances of $data.
recording_list() {
  [ -d "$data" ] || fail "$data: no such data directory; run stage 1"
  [ -s "$data/wav.scp" ] || fail "$data/wav.scp is missing or empty; run stage 1"
  list=$data/wav.scp
  [ ! -f "$data/segments" ] || list=$data/segments
}

# model_words <final.pt> <data-dir> <xvector-dir>: the arguments of a script that extracts vectors. Sets $model, $data and $out,
# and $list, the file that names the utterances.
model_words() {
  local file
  [ $# -eq 3 ] || { "$0" --help >&2; exit 1; }
  model=$1 data=${2%/} out=${3%/}
  check_words "$model" "$data" "$out"
  [ -s "$model" ] || fail "$model: no such checkpoint; run stage 3 or 4"
  list=$data/feats.scp
  for file in wav.scp segments feats.scp; do [ ! -f "$data/$file" ] || list=$data/$file; done
  [ -s "$list" ] || fail "$list is missing or empty; run stage 2"
}

# set_jobs LIST: counts the utterances of LIST. There are no more jobs than utterances.
set_jobs() {
  total=$(awk 'NF {n++} END {print n + 0}' < "$1")
  [ "$total" -gt 0 ] || fail "$1 is empty; run stage 1"
  [ "$nj" -le "$total" ] || { echo "$0: $total utterances, so $total jobs instead of $nj" >&2; nj=$total; }
}

# make_folders FOLDER ...: they are there, and can be written into.
make_folders() {
  local each
  mkdir -p "$@" 2> /dev/null || fail "can't write into $*; check the rights of the folders"
  for each; do [ -w "$each" ] || fail "can't write into $each; check the rights of the folder"; done
}

# split_list LIST PREFIX: the lines of LIST in $nj parts, PREFIX.1 and so on.
split_list() {
  local job
  parts=()
  for ((job = 1; job <= nj; job++)); do parts+=("$2.$job"); done
  utils/split_scp.sh "$1" "${parts[@]}"
}

# gather PREFIX SUFFIX FILE: what the jobs wrote, PREFIX.JOB.SUFFIX, one behind the other: in the order of the list.
gather() {
  local job new
  new=$(dirname "$3")/.$(basename "$3").tmp
  for ((job = 1; job <= nj; job++)); do cat "$1.$job.$2"; done > "$new"
  mv "$new" "$3"
}

# piece_speakers UTT2SPK SCP FOLDER: utt2spk and spk2utt of pieces, named <utterance>-<first frame>-<frame after the last>.
piece_speakers() {
  # By the environment, since awk would take the file a=b/utt2spk for an assignment.
  utt2spk=$1 awk 'BEGIN { while ((getline < ENVIRON["utt2spk"]) > 0) speaker[$1] = $2 }
    { print $1, speaker[substr($1, 1, length($1) - 18)] }' < "$2" > "$3/utt2spk"
  utils/utt2spk_to_spk2utt.sh "$3/utt2spk" | sort -k1,1 > "$3/spk2utt"
}

# require_few_lost FILE WHAT: sets $lost, the number of lines in FILE. More than --max-lost percent is an error.
require_few_lost() {
  lost=$(wc -l < "$1")
  [ $((lost * 100)) -le $((total * max_lost)) ] ||
    fail "$lost of $total utterances $2, more than $max_lost %: see $1, for example: $(head -n 1 "$1")"
}

# require_all SCP: it has all the utterances that are not lost.
require_all() {
  local made
  made=$(wc -l < "$1")
  [ $((made + lost)) -eq "$total" ] ||
    { rm "$1"; fail "$made utterances made and $lost lost are not the $total of $list; run it again"; }
}

# remove_surplus PREFIX: the files PREFIX.JOB.* of an earlier run with more jobs.
remove_surplus() {
  local file
  for file in "$1".*; do
    [[ ${file#"$1".} =~ ^([0-9]+)\.[a-z0-9_]+$ ]] || continue
    [ "${BASH_REMATCH[1]}" -le "$nj" ] || rm -f "$file"
  done
}

# say_kept LOGS: how many of the jobs, whose logs are LOGS with JOB for the number, kept what they had made before.
say_kept() {
  local job kept=0
  for ((job = 1; job <= nj; job++)); do ! grep -qs 'is kept, which was made' "${1//JOB/$job}" || kept=$((kept + 1)); done
  [ "$kept" -eq 0 ] || echo "$0: $kept of $nj jobs were finished before, and what they made is kept"
}
