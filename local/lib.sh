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
