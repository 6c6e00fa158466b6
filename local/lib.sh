#!/usr/bin/env bash
# What the stage scripts share. To be sourced once the options are parsed: . local/lib.sh

fail() { echo "$0: $*" >&2; exit 1; }

# check_words WORD ...: for the words that a job runner is given. Runners, Kaldi's as well, hand their command to bash, which
# would act on "$(...)", ";" and the like; and they put the number of the job wherever JOB stands.
check_words() {
  local LC_ALL=C word
  for word; do
    case "$word" in
      *[!A-Za-z0-9_./+=,:@%~-]*) fail "'$word' has a character that bash may act on; names of files and folders, and options" \
        "handed on, may hold letters, digits and _./+=,:@%~- (rename it, or use a link)" ;;
      *JOB*) fail "'$word' holds JOB, in place of which the job runner puts the number of the job; rename it, or use a link" ;;
    esac
  done
}

# hold_lock FILE MESSAGE [wait]: only one run at a time, until this script (or subshell) and all that it has started have ended.
# A second run fails with the message; with the word wait, it tells the message and waits.
hold_lock() {
  local code=0
  command -v flock > /dev/null || return 0
  exec 9> "$1"
  flock -n -E 75 9 2> /dev/null || code=$?
  if [ "$code" -eq 75 ] && [ "${3:-}" = wait ]; then
    echo "$0: $2"
    code=0
    flock 9 2> /dev/null || code=$?
  fi
  case $code in
    0) ;;
    75) fail "$2" ;;
    *) echo "$0: WARNING: $1 can't be locked on this file system: don't start two runs into this folder at once" >&2 ;;
  esac
}

# current FILE SOURCE ...: is FILE there, and not older than what it is made of?
current() {
  local made=$1 source
  [ -s "$made" ] || return 1
  shift
  for source; do [ ! "$source" -nt "$made" ] || return 1; done
}

# align_once FOLDER SOURCE ... [options of the runner] -- WORD ...: local/align.sh with these words, unless FOLDER/matrix.tsv was
# made with the same words and the same confs, and no source is newer. If one is newer, all maps are made again.
align_once() {
  local folder=$1 sources=() runner=() word file settings
  shift
  while [[ $1 != --* ]]; do sources+=("$1"); shift; done
  while [ "$1" != -- ]; do runner+=("$1"); shift; done
  shift
  settings=$*
  for word in $settings train_align; do   # the confs among the words, and those that align.sh finds by their names
    for file in "$word" "conf/$word.conf" "conf/kd/$word.conf"; do
      [[ $file != *.conf ]] || [ ! -f "$file" ] || settings+=" $(md5sum < "$file")"
    done
  done
  if [ -s "$folder/matrix.tsv" ] && ! current "$folder/matrix.tsv" "${sources[@]}"; then rm -rf "$folder"; fi   # maps of other models
  if [ "$settings" != "$(cat "$folder/made_with" 2> /dev/null)" ] || [ ! -s "$folder/matrix.tsv" ]; then
    local/align.sh --out "$folder" "${runner[@]}" "$@"
    echo "$settings" > "$folder/made_with"
  fi
}

# choose_gpus GPUS JOBS RUNNER: jobs that share GPUS graphics cards. Sets $device (cuda or cpu) and $gpu, options of the runner.
# shellcheck disable=SC2034  # they are for the script that sources this
choose_gpus() {
  gpu=() device=cpu
  [ "$1" -gt 0 ] || return 0
  device=cuda
  case $3 in
    *run_jobs.sh* | *run.pl*)   # on this machine: all jobs at once, on the first GPUs that there are
      if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
        CUDA_VISIBLE_DEVICES=$(cut -d , -f "1-$1" <<< "$CUDA_VISIBLE_DEVICES")
      else
        CUDA_VISIBLE_DEVICES=$(seq -s , 0 $(($1 - 1)))
      fi
      export CUDA_VISIBLE_DEVICES
      gpu=(--max-jobs-run "$2")
      ;;
    *) gpu=(--gpu 1 --max-jobs-run "$1") ;;
  esac
}
