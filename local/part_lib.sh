#!/usr/bin/env bash
# What stage scripts share whose jobs each make a part of the result, and keep a part that is finished. To be sourced:
# . local/part_lib.sh

. local/lib.sh

# hold_lock FILE MESSAGE: only one run at a time, until this script and all that it has started have ended.
hold_lock() {
  local code=0
  command -v flock > /dev/null || return 0
  exec 9> "$1"
  flock -n -E 75 9 2> /dev/null || code=$?
  case $code in
    0) ;;
    75) fail "$2" ;;
    *) echo "$0: WARNING: $1 can't be locked on this file system: don't start two runs into this folder at once" >&2 ;;
  esac
}

# count_kept LOGS N: how many of the jobs 1 to N, whose logs are LOGS with JOB for the number, kept what they had made before.
count_kept() {
  local job kept=0
  for ((job = 1; job <= $2; job++)); do ! grep -qs 'is kept, which was made' "${1//JOB/$job}" || kept=$((kept + 1)); done
  echo "$kept"
}
