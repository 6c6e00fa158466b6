#!/usr/bin/env bash
# Split a list (an scp file, utt2spk, any text with one item per line) into parts of nearly equal size.
#
# Usage: split_scp.sh [--utt2spk=<utt2spk>] <in> <out1> <out2> ...
#    or: split_scp.sh -j <num-parts> <part> [--one-based] [--utt2spk=<utt2spk>] <in> [<out>]
#  e.g.: utils/split_scp.sh --utt2spk=data/train/utt2spk data/train/feats.scp feats.1.scp feats.2.scp
#        utils/split_scp.sh -j 8 3 --one-based data/train/wav.scp | head
#
# The order of the lines is kept: the parts are consecutive pieces of the list. With --utt2spk all lines of a speaker stay
# in one part; there must be at least as many speakers as parts. With -j only one part is written, to <out> or standard
# output. Parts are counted from 0, or from 1 with --one-based.

. "$(dirname "$0")/data_lib.sh"

num=0 part=0 utt2spk='' base=0
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h) show_help ;;
    -j)
      [ $# -ge 3 ] || usage
      num=$2 part=$3
      shift 3
      ;;
    --one-based) base=1; shift ;;
    --utt2spk=*) utt2spk=${1#*=}; shift ;;
    -?*) die "no option '$1' (allowed: -j --one-based --utt2spk=)" ;;
    *) break ;;
  esac
done

[ $# -ge 1 ] || usage
in=$1
shift
[ -r "$in" ] || die "no such file: $in"
[ -z "$utt2spk" ] || [ -r "$utt2spk" ] || die "--utt2spk: no such file: $utt2spk"
if [ "$num" = 0 ]; then
  [ $# -ge 1 ] || usage
  num=$#
  outs=("$@")
else
  [[ $num =~ ^[0-9]+$ && $part =~ ^[0-9]+$ ]] || die "-j takes two numbers, not '$num' and '$part'"
  [ $# -le 1 ] || usage
  [ $((part - base)) -ge 0 ] && [ $((part - base)) -lt "$num" ] ||
    die "part $part is not in $base..$((num - 1 + base)) (parts count from 0, or from 1 with --one-based)"
  for ((i = 0; i < num; i++)); do outs[i]=/dev/null; done
  outs[part - base]=${1:-/dev/stdout}
fi

# Plain files are written under another name first; devices, pipes and "-" as they are.
names=()
for out in "${outs[@]}"; do
  if [ "$out" = - ]; then
    names+=(/dev/stdout)
  elif [ -e "$out" ] && [ ! -f "$out" ]; then
    names+=("$out")
  else
    names+=("$out.tmp.$$")
  fi
done
trap 'for i in "${!names[@]}"; do [ "${names[i]}" != "${outs[i]}.tmp.$$" ] || rm -f "${names[i]}"; done' EXIT

# The first pass reads the sizes of the groups (speakers, or single lines), the second writes. A group goes to the
# part in which its middle falls; the bounds keep every part from being empty.
me=$0 in=$in utt2spk=$utt2spk awk '
  function fail(text) { print ENVIRON["me"] ": " text > "/dev/stderr"; failed = 1; exit 1 }
  BEGIN {
    in_file = ENVIRON["in"]
    num = ARGC - 1
    for (i = 1; i < ARGC; i++) { out[i - 1] = ARGV[i]; ARGV[i] = "" }
    if (ENVIRON["utt2spk"] != "") {
      by_speaker = 1
      while ((getline < ENVIRON["utt2spk"]) > 0) speaker[$1] = $2
      close(ENVIRON["utt2spk"])  # it may be the same file as the one that is split
    }
    while ((getline < in_file) > 0) {
      total++
      if (!by_speaker) continue
      if (!($1 in speaker)) fail(in_file ":" total ": utterance " $1 " is not in " ENVIRON["utt2spk"])
      s = speaker[$1]
      if (s != previous || total == 1) {
        if (s in group_of) fail(in_file ":" total ": speaker " s " comes back after others; sort the list, with speakers as prefixes of their utterances")
        group_of[s] = ++groups
        previous = s
      }
      size[groups]++
    }
    close(in_file)
    if (!total) fail(in_file " is empty")
    if (!by_speaker) groups = total
    if (groups < num)
      fail("cannot split the " groups (by_speaker ? " speakers" : " lines") " of " in_file " into " num " parts; use fewer" (by_speaker ? ", or split by utterance" : ""))

    if (!by_speaker) {
      for (p = 0; p < num; p++) {
        lines = int(total / num) + (p < total % num)
        for (i = 0; i < lines; i++) { getline < in_file; print > out[p] }
        if (out[p] != "/dev/null" && out[p] != "/dev/stdout") close(out[p])
      }
      exit
    }
    p = -1
    for (g = 1; g <= groups; g++) {
      want = int((before + size[g] / 2) * num / total)
      before += size[g]
      if (want > p + 1) want = p + 1
      if (want < p) want = p
      if (want < num - 1 - (groups - g)) want = num - 1 - (groups - g)
      if (want < 0) want = 0
      if (want != p && p >= 0 && out[p] != "/dev/null" && out[p] != "/dev/stdout") close(out[p])
      p = want
      for (i = 0; i < size[g]; i++) { getline < in_file; print > out[p] }
    }
  }
  END { if (failed) exit 1 }' "${names[@]}" < /dev/null

for i in "${!names[@]}"; do
  [ "${names[i]}" != "${outs[i]}.tmp.$$" ] || mv "${names[i]}" "${outs[i]}"
done
