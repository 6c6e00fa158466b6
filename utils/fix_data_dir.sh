#!/usr/bin/env bash
# Make a data directory consistent: sort every file, and keep the utterances that are in all of them.
#
# Usage: fix_data_dir.sh <data>
#  e.g.: utils/fix_data_dir.sh data/train
#
# If several lines have the same id, the first one is kept. It removes empty lines, recordings and speakers that no utterance
# needs any more, and trials of removed utterances. spk2utt is made from utt2spk. Files that change are first copied to
# <data>/.backup/. Some faults can't be fixed by a rule (a line with the wrong number of fields, CR LF). Such a fault is an
# error, and so is a directory of which nothing would be left. In both cases nothing is changed.

. "$(dirname "$0")/data_lib.sh"

case "${1:-}" in
  --help | -h) show_help ;;
  -*) die "no option '$1' (it has none)" ;;
esac
[ $# -eq 1 ] || usage
data=${1%/}
need_data_dir "$data"
new_dir "$data"  # everything is made in $tmp, beside the directory
mkdir "$tmp/old" "$tmp/new" "$tmp/keys"

# 1. Sorted, each id once.
broken=false
for f in $utt_files $part_files $reco_files $spk_files; do
  [ -f "$data/$f" ] || continue
  read -r least most < <(fields_of "$f")
  report=$(check_lines "$data/$f" "$least" "$most" "$tmp/keys/$f" form)
  if [ -n "$report" ]; then
    while IFS= read -r line; do warn "$line"; done <<< "$report"
    broken=true
    continue
  fi
  # The awk gives the last line its newline.
  awk 'NF' < "$data/$f" | sort -s -u -k1,1 > "$tmp/old/$f"
  dropped=$(($(count "$tmp/keys/$f") - $(count "$tmp/old/$f")))
  if [ "$dropped" != 0 ]; then
    conflicts=$(($(awk 'NF' < "$data/$f" | sort -u | wc -l) - $(count "$tmp/old/$f")))
    log "$data/$f: dropped $dropped lines whose id was there before (the first: $(
      sort "$tmp/keys/$f" | uniq -d | head -n 1))"
    [ "$conflicts" = 0 ] || warn "WARNING: $data/$f: $conflicts of them said something else than the line that was kept"
  fi
  first_column "$tmp/old/$f" > "$tmp/keys/$f"
done
if $broken; then die "nothing was changed; correct these lines first"; fi
for f in "$data"/trials*; do
  [ ! -f "$f" ] || cp "$f" "$tmp/old/"
done

# 2. The utterances that every file has, with their recordings and speakers.
keep=$tmp/keep
cp "$tmp/keys/utt2spk" "$keep"
num_before=$(count "$keep")

# only_with NAME LIST: reduces $keep to the utterances in the sorted LIST, and says how many that costs.
only_with() {
  local lost
  comm -23 "$keep" "$2" > "$tmp/lost"
  lost=$(count "$tmp/lost")
  [ "$lost" != 0 ] || return 0
  log "$data/$1 lacks $lost utterances, which are removed (the first: $(head -n 1 "$tmp/lost"))"
  comm -12 "$keep" "$2" > "$keep.new"
  mv "$keep.new" "$keep"
}
for f in $utt_files; do
  [ ! -f "$tmp/old/$f" ] || only_with "$f" "$tmp/keys/$f"
done
for f in $reco_files; do
  [ -f "$tmp/old/$f" ] || continue
  if [ -f "$tmp/old/segments" ]; then
    filter "$tmp/keys/$f" 2 < "$tmp/old/segments" > "$tmp/part"
    first_column "$tmp/part" > "$tmp/with"
  else
    cp "$tmp/keys/$f" "$tmp/with"
  fi
  only_with "$f" "$tmp/with"
done
for f in $spk_files; do
  [ -f "$tmp/old/$f" ] || continue
  filter "$tmp/keys/$f" 2 < "$tmp/old/utt2spk" > "$tmp/part"
  first_column "$tmp/part" > "$tmp/with"
  only_with "$f" "$tmp/with"
done
[ -s "$keep" ] || die "no utterance is in all files of $data; nothing was changed" \
  "(do the ids of its files come from one naming? head -n 1 $data/*)"

# 3. Only files that change are replaced, so that what was made from the others stays up to date.
filter_dir "$tmp/old" "$keep" "$tmp/new"
where=
for new in "$tmp"/new/*; do
  f=$(basename "$new")
  if [ -f "$data/$f" ]; then
    ! cmp -s "$new" "$data/$f" || continue
    log "$data/$f: $(count "$data/$f") lines before, $(count "$new") now"
    mkdir -p "$data/.backup"
    cp -p "$data/$f" "$data/.backup/$f"
    where=" (the old files are in $data/.backup)"
  fi
  mv "$new" "$data/$f"
done
log "kept $(count "$keep") of $num_before utterances in $data$where"
