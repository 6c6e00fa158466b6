#!/usr/bin/env bash
# Look for augmented copies whose utt2aug has been lost: their features would be computed from the unchanged recordings.
#
# Usage: check_copies.sh <data>
#  e.g.: utils/check_copies.sh data/train_aug
#
# A copy made by local/augment_data_dir.py has the recording of its original in wav.scp, and utt2aug says how it is changed.
# Kaldi's own copy_data_dir.sh, subset_data_dir.sh, combine_data.sh and split_data.sh don't know utt2aug and leave it
# out; the scripts of the same names in this folder keep it.
#
# The exit status is 1 if there is no utt2aug and two copies of one utterance have the same recording: they would be
# identical. (Copies are known by utt2uniq, or by a speed such as sp0.9- before the id.) If each copy is the only one with
# its recording, the recording may have been changed beforehand; that is a warning. An empty utt2aug means that the
# recordings are used unchanged.

. "$(dirname "$0")/data_lib.sh"

case "${1:-}" in
  --help | -h) show_help ;;
  -*) die "no option '$1' (it has none)" ;;
esac
[ $# -eq 1 ] || usage
data=${1%/}
if [ -e "$data/utt2aug" ] || [ ! -s "$data/wav.scp" ]; then exit 0; fi
list=$data/wav.scp
[ ! -s "$data/segments" ] || list=$data/segments
# By their names, most directories have no copies.
if [ ! -s "$data/utt2uniq" ] && ! grep -q '^sp[0-9]*\.[0-9]*-' "$list"; then exit 0; fi

found=$(data=$data list=$list awk '
  # What is left of a line without its first field.
  function rest(line) { sub(/^[^ \t]+[ \t]+/, "", line); sub(/[ \t]+$/, "", line); return line }
  BEGIN {
    list = ENVIRON["list"]
    uniqs = ENVIRON["data"] "/utt2uniq"
    recordings = ENVIRON["data"] "/wav.scp"
    while ((getline < uniqs) > 0) original[$1] = $2
    if (list != recordings) while ((getline < recordings) > 0) audio[$1] = rest($0)
    while ((getline < list) > 0) {
      base = $1 in original ? original[$1] : $1
      while (sub(/^sp[0-9]+\.[0-9]+-/, "", base)) {}
      heard = rest($0)
      pipe = (list == recordings ? heard : audio[$2]) ~ /\|$/
      if ((base, heard) in first) { same++; if (same == 1) example = first[base, heard] " and " $1 }
      else {
        first[base, heard] = $1
        if (base != $1 && !pipe) { plain++; if (plain == 1) single = $1 }
      }
    }
    if (same) print "same", same, example
    else if (plain) print "plain", plain, single
  }' < /dev/null)
remedy="copy utt2aug and aug.scp from the directory that the copies were made in and run $utils/fix_data_dir.sh $data,
or make $data again with the scripts of $utils, which keep them"
case "$found" in
  same*)
    read -r _ number example <<< "$found"
    die "$data has augmented copies but no utt2aug, which says how they differ from their originals: $example have the" \
      "same recording ($number such). Kaldi's own utils leave it out. Remedy: ${remedy/$'\n'/ }"
    ;;
  plain*)
    read -r _ number example <<< "$found"
    warn "WARNING: $data has no utt2aug, and $number utterances are named as copies (the first: $example). If their" \
      "recordings are those of the originals, ${remedy/$'\n'/ }; if they are changed already, say so: : > $data/utt2aug"
    ;;
esac
