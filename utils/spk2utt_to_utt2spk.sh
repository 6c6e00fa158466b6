#!/usr/bin/env bash
# Invert spk2utt: "speaker utterance utterance ..." lines in, "utterance speaker" lines out.
#
# Usage: spk2utt_to_utt2spk.sh [spk2utt] > utt2spk
#  e.g.: utils/spk2utt_to_utt2spk.sh data/train/spk2utt > data/train/utt2spk
#
# Without a file it reads standard input. The order is that of the input. If the speakers are not prefixes of their
# utterances, sort the result.

. "$(dirname "$0")/data_lib.sh"

case "${1:-}" in --help | -h) show_help ;; esac
[ $# -le 1 ] || usage
[ $# -eq 0 ] || [ "$1" = - ] || [ -r "$1" ] || die "no such file: $1"

cat "${1:--}" | name=${1:-standard input} me=$0 awk '
  NF < 2 {
    printf "%s: %s:%d: \"%s\" is not \"speaker utterance ...\"\n", ENVIRON["me"], ENVIRON["name"], NR, $0 > "/dev/stderr"
    exit 1
  }
  { for (i = 2; i <= NF; i++) print $i, $1 }'
