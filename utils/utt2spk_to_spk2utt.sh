#!/usr/bin/env bash
# Invert utt2spk: "utterance speaker" lines in, "speaker utterance utterance ..." lines out.
#
# Usage: utt2spk_to_spk2utt.sh [utt2spk] > spk2utt
#  e.g.: utils/utt2spk_to_spk2utt.sh data/train/utt2spk > data/train/spk2utt
#
# Without a file it reads standard input. Speakers come in the order in which they first occur, and their utterances in the
# order of the input.

. "$(dirname "$0")/data_lib.sh"

case "${1:-}" in --help | -h) show_help ;; esac
[ $# -le 1 ] || usage
[ $# -eq 0 ] || [ "$1" = - ] || [ -r "$1" ] || die "no such file: $1"

# Linked lists, not growing strings: one speaker may have a million utterances.
cat "${1:--}" | name=${1:-standard input} me=$0 awk '
  NF != 2 {
    printf "%s: %s:%d: \"%s\" is not \"utterance speaker\"\n", ENVIRON["me"], ENVIRON["name"], NR, $0 > "/dev/stderr"
    failed = 1
    exit 1
  }
  {
    utt[NR] = $1
    if ($2 in last) next_of[last[$2]] = NR
    else { speaker[++num] = $2; first[num] = NR }
    last[$2] = NR
  }
  END {
    if (failed) exit 1
    for (s = 1; s <= num; s++) {
      printf "%s", speaker[s]
      for (i = first[s]; i; i = next_of[i]) printf " %s", utt[i]
      print ""
    }
  }'
