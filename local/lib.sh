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
