#!/usr/bin/env bash
# Make one data directory of several.
#
# Usage: combine_data.sh [--extra-files "file1 file2"] [--skip-fix true|false] <dest> <src1> <src2> ...
#  e.g.: utils/combine_data.sh data/train_all data/train data/train_aug
#
#   --extra-files   more files to combine, with a line for each utterance or recording
#   --skip-fix      do not run fix_data_dir.sh on the result (default: false)
#
# A file is combined if all sources have it. Other files are left out, and their names are printed. There are exceptions. A
# source without utt2uniq has only originals. A source without utt2aug or aug.scp has nothing to add. If a source has no
# segments, they are made from utt2dur. A line that two sources share is taken once. Two different lines for one id are an
# error.

. "$(dirname "$0")/data_lib.sh"

extra_files=
skip_fix=false
# shellcheck disable=SC1091
. "$utils/parse_options.sh"

[ $# -ge 2 ] || usage
dest=${1%/}
shift
srcs=()
for src; do
  need_data_dir "$src"
  [ ! "$src" -ef "$dest" ] || die "$src cannot be combined into itself; name another directory"
  srcs+=("${src%/}")
done
new_dir "$dest"

# have FILE: how many sources have it.
have() {
  local src n=0
  for src in "${srcs[@]}"; do [ ! -e "$src/$1" ] || n=$((n + 1)); done
  echo "$n"
}

# merge NAME: stdin, sorted and without repeated lines, to $tmp/NAME.
merge() {
  local clash
  sort -u -k1,1 -k2 > "$tmp/$1"
  clash=$(first_column "$tmp/$1" | uniq -d | head -n 1)
  [ -z "$clash" ] || die "the sources have different lines for $clash in $1:" \
    "$(key=$clash awk '$1 == ENVIRON["key"] { printf "\"%s\" ", $0 }' < "$tmp/$1")(copy_data_dir.sh --utt-prefix renames)"
}

# lines FILE SOURCE: a source's lines of a file, or lines made in their place.
lines() {
  local f=$1 src=$2
  if [ -f "$src/$f" ]; then
    awk 'NF' < "$src/$f"  # and a newline at the end, even if the file has none
  elif [ "$f" = utt2uniq ]; then
    awk '{ print $1, $1 }' < "$src/utt2spk"
  elif [ "$f" = segments ]; then
    [ -f "$src/utt2dur" ] || die "$src has no segments but other sources do; $src/utt2dur is needed to make them"
    # A copy at another speed has another length than its recording, so its segment lasts to the end: -1.
    touch "$tmp/speeds"
    [ ! -f "$src/utt2aug" ] || awk '/ speed=/ { print $1 }' < "$src/utt2aug" > "$tmp/speeds"
    awk 'FILENAME == ARGV[1] { fast[$1] = 1; next } { print $1, $1, 0, $1 in fast ? -1 : $2 }' "$tmp/speeds" "$src/utt2dur"
    rm "$tmp/speeds"
  fi
}

for f in $utt_files $part_files $reco_files $spk_files aug.scp $extra_files; do
  case "$(have "$f")" in
    0)
      [[ " $extra_files " != *" $f "* ]] || warn "left out $f: no source has it"
      continue
      ;;
    "${#srcs[@]}") ;;
    *)
      case "$f" in
        utt2uniq | utt2aug | aug.scp | segments) ;;
        *)
          for src in "${srcs[@]}"; do [ -f "$src/$f" ] || warn "left out $f: $src has none"; done
          continue
          ;;
      esac
      ;;
  esac
  for src in "${srcs[@]}"; do lines "$f" "$src"; done | merge "$f"
done
"$utils/utt2spk_to_spk2utt.sh" "$tmp/utt2spk" | sort -k1,1 > "$tmp/spk2utt"

for src in "${srcs[@]}"; do
  for f in "$src"/trials*; do
    # shellcheck disable=SC2094
    [ ! -f "$f" ] || awk 'NF' < "$f" >> "$tmp/$(basename "$f")"
  done
  # If sources differ in these, they were made in different ways and can't be combined.
  for f in $whole_files; do
    [ -e "$src/$f" ] && [ "$f" != aug.scp ] || continue
    [ ! -e "$tmp/$f" ] || diff -r "$src/$f" "$tmp/$f" > /dev/null ||
      die "$src/$f differs from that of another source; make them in the same way, or remove them if it does not matter"
    [ -e "$tmp/$f" ] || cp -rL "$src/$f" "$tmp/$f"
  done
  say_left_out "$src" "$tmp"
done

sum=0
for src in "${srcs[@]}"; do sum=$((sum + $(count "$src/utt2spk"))); done
install_dir "$dest"
log "combined $sum utterances of ${#srcs[@]} directories to $(count "$dest/utt2spk") of $(count "$dest/spk2utt") speakers in $dest"
if ! $skip_fix; then "$utils/fix_data_dir.sh" "$dest"; fi
