#!/usr/bin/env bash
# Make a data directory from some of the utterances of another.
#
# Usage: subset_data_dir.sh [--first|--last|--per-spk|--shortest|--speakers] <src> <n> <dest>
#    or: subset_data_dir.sh --spk-list <file> <src> <dest>
#    or: subset_data_dir.sh --utt-list <file> <src> <dest>
#  e.g.: utils/subset_data_dir.sh --per-spk data/train 2 data/train_2_per_spk
#
#   (default)        <n> utterances, evenly spread over the directory
#   --first, --last  the first or last <n>
#   --per-spk        at most <n> of each speaker, evenly spread over the speaker's
#   --shortest       the <n> shortest, by utt2num_frames, utt2dur or segments
#   --speakers       all utterances of some speakers, drawn at random (the same ones each time), until there are <n>
#   --spk-list, --utt-list   those named in the first column of a file

. "$(dirname "$0")/data_lib.sh"

mode=--spread list=
case "${1:-}" in
  --help | -h) show_help ;;
  --first | --last | --per-spk | --shortest | --speakers) mode=$1; shift ;;
  --spk-list | --utt-list)
    [ $# -ge 2 ] || usage
    mode=$1 list=$2
    [ -s "$list" ] || die "$mode: $list is missing or empty"
    shift 2
    ;;
  -*) die "no option '$1' (allowed: --first --last --per-spk --shortest --speakers --spk-list --utt-list)" ;;
esac
if [ -n "$list" ]; then
  [ $# -eq 2 ] || usage
  set -- "$1" 0 "$2"
else
  [ $# -eq 3 ] || usage
  [[ $2 =~ ^[1-9][0-9]*$ ]] || die "the number of utterances must be a positive integer, not '$2'"
fi
src=${1%/} num=$2 dest=${3%/}
need_data_dir "$src"
[ ! "$src" -ef "$dest" ] || die "$src cannot be its own subset; name another directory"
total=$(count "$src/utt2spk")
case "$mode" in
  --spk-list | --utt-list | --per-spk) ;;
  *) [ "$num" -le "$total" ] || die "$src has only $total utterances, not $num" ;;
esac

new_dir "$dest"
keep=$tmp/.keep

# by_length: "utterance length" lines from whatever file has the lengths.
by_length() {
  if [ -f "$src/utt2num_frames" ]; then cat "$src/utt2num_frames"
  elif [ -f "$src/utt2dur" ]; then cat "$src/utt2dur"
  elif [ -f "$src/segments" ]; then
    ! awk '$4 < 0 { found = 1 } END { exit !found }' < "$src/segments" ||
      die "--shortest needs $src/utt2num_frames or utt2dur: segments has ends of -1, the end of the recording"
    awk '{ print $1, $4 - $3 }' < "$src/segments"
  else die "--shortest needs $src/utt2num_frames (made with the features), utt2dur or segments"
  fi
}

case "$mode" in
  --first) head -n "$num" "$src/utt2spk" ;;
  --last) tail -n "$num" "$src/utt2spk" ;;
  --spread) awk -v num="$num" -v total="$total" 'int(NR * num / total) > int((NR - 1) * num / total)' < "$src/utt2spk" ;;
  --per-spk)
    spks=$src/utt2spk awk -v num="$num" '
      BEGIN { while ((getline < ENVIRON["spks"]) > 0) total[$2]++ }
      { i = ++seen[$2]; n = total[$2] }
      n <= num || int(i * num / n) > int((i - 1) * num / n)' < "$src/utt2spk"
    ;;
  --shortest) by_length | sort -s -k2,2g | awk -v num="$num" 'NR <= num' ;;
  --speakers)
    # In an order that a hash of the names gives, as random as Kaldi's shuffle and the same with every awk. A speaker
    # keeps its place when others are added.
    awk '
      BEGIN { for (i = 1; i < 256; i++) code[sprintf("%c", i)] = i }
      function hash(name,   i, x) {
        x = 777
        for (i = 1; i <= length(name); i++) x = (x * 65599 + code[substr(name, i, 1)]) % 2147483647
        for (i = 0; i < 4; i++) x = (x % 46339 * int(x / 46339) + x * 16807) % 2147483647  # not linear, so well mixed
        return x
      }
      !($2 in total) { name[++num] = $2 }
      { total[$2]++ }
      END { for (i = 1; i <= num; i++) printf "%.0f %s %d\n", hash(name[i]), name[i], total[name[i]] }
      ' < "$src/utt2spk" | sort -k1,1n -k2,2 | awk -v num="$num" 'sum < num { print $2; sum += $3 }' > "$tmp/.spks"
    filter "$tmp/.spks" 2 < "$src/utt2spk"
    ;;
  --spk-list) filter "$list" 2 < "$src/utt2spk" ;;
  --utt-list) filter "$list" < "$src/utt2spk" ;;
esac > "$keep"

if [ -n "$list" ]; then
  field=1
  [ "$mode" = --utt-list ] || field=2
  awk -v f="$field" '{ print $f }' < "$src/utt2spk" | sort -u > "$tmp/.have"
  first_column "$list" | sort -u | comm -23 - "$tmp/.have" > "$tmp/.unknown"
  [ ! -s "$tmp/.unknown" ] || warn "WARNING: $(count "$tmp/.unknown") ids of $list are not in $src" \
    "(the first: $(head -n 1 "$tmp/.unknown"))"
  [ -s "$keep" ] || die "none of the ids of $list is in $src/utt2spk"
fi

filter_dir "$src" "$keep" "$tmp"
say_left_out "$src" "$tmp"
rm -f "$tmp"/.[!.]*
[ "$(count "$tmp/utt2spk")" -gt 0 ] || die "no utterance of $src was chosen; do its files agree? $utils/validate_data_dir.sh $src"
log "kept $(count "$tmp/utt2spk") of $total utterances of $src, $(count "$tmp/spk2utt") speakers, in $dest"
install_dir "$dest"
