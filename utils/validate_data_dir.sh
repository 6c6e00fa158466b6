#!/usr/bin/env bash
# Check a data directory: is each file well formed, and do the files agree with each other?
#
# Usage: validate_data_dir.sh [--no-feats] [--no-wav] [--no-text] [--no-spk-sort] [--non-print] <data>
#  e.g.: utils/validate_data_dir.sh --no-feats data/train
#
#   --no-feats     feats.scp may be missing (it is checked if it is there)
#   --no-wav       the same for wav.scp
#   --no-text      accepted as in Kaldi, without effect: text is never required here, but checked if it is there
#   --no-spk-sort  speakers need not be prefixes of their utterances
#   --non-print    allow characters that don't print (but never invalid UTF-8)
#
# Every fault is reported with the file, the first line that has it, and the remedy. The exit status is then 1.

. "$(dirname "$0")/data_lib.sh"

no_feats=false no_wav=false no_spk_sort=false non_print=false
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h) show_help ;;
    --no-feats) no_feats=true; shift ;;
    --no-wav) no_wav=true; shift ;;
    --no-text) shift ;;
    --no-spk-sort) no_spk_sort=true; shift ;;
    --non-print) non_print=true; shift ;;
    -*) die "no option '$1' (allowed: --no-feats --no-wav --no-text --no-spk-sort --non-print)" ;;
    *) break ;;
  esac
done
[ $# -eq 1 ] || usage
data=${1%/}
[ -d "$data" ] || die "no such directory: $data"
fix="$utils/fix_data_dir.sh $data"

tmp=$(temporary_folder "${TMPDIR:-/tmp}/speakerkd.validate")
trap 'rm -rf "$tmp"' EXIT
faults=0
fault() {
  warn "$*"
  faults=$((faults + 1))
}

# check_bytes FILE: UTF-8 without control characters, and a newline at the end.
check_bytes() {
  local line
  [ -z "$(tail -c 1 "$1")" ] || fault "$1: the last line has no newline at its end; $fix"
  # Printable ASCII, tabs and line ends are all that most files have.
  [ "$(tr -d '\11\12\15\40-\176' < "$1" | head -c 1 | wc -c)" -gt 0 ] || return 0
  line=$(LC_ALL=C.UTF-8 grep -naxvm 1 '.*' "$1" | cut -d: -f1) || true
  if [ -n "$line" ]; then
    fault "$1:$line: the line is not UTF-8; iconv -f ISO-8859-1 -t UTF-8 $1 (or whatever it was written in)"
  elif ! $non_print; then
    line=$(LC_ALL=C.UTF-8 grep -nam 1 '[^[:print:][:space:]]' "$1" | cut -d: -f1) || true
    [ -z "$line" ] || fault "$1:$line: the line has a character that does not print; remove it, or give --non-print"
  fi
}

# check FILE: all that can be said of it by itself; leaves its first column in $tmp/<name>.
check() {
  local name looks='' least most report line
  name=$(basename "$1")
  if [ ! -s "$1" ]; then
    case "$name" in
      trials* | utt2aug) : > "$tmp/$name" ;;  # nothing to try, nothing to change
      *) fault "$1 is empty; make it again, or remove it" ;;
    esac
    return
  fi
  check_bytes "$1"
  case "$name" in trials*) ;; *) looks='sorted' ;; esac
  if $no_spk_sort; then looks="$looks unprefixed"; fi
  read -r least most < <(fields_of "$name")
  report=$(check_lines "$1" "$least" "$most" "$tmp/$name" "$looks")
  [ -n "$report" ] || return 0
  while IFS= read -r line; do fault "$line"; done <<< "$report"
  : > "$tmp/$name.bad"
}

# same NAME EXPECTED WHAT WHERE: the first column of the file NAME is the list EXPECTED, of WHAT, which comes from WHERE.
same() {
  local name=$1 expected=$2 lacks extra
  if cmp -s "$expected" "$tmp/$name"; then return; fi
  comm -23 "$expected" "$tmp/$name" > "$tmp/.lacks"
  comm -13 "$expected" "$tmp/$name" > "$tmp/.extra"
  lacks=$(count "$tmp/.lacks")
  extra=$(count "$tmp/.extra")
  [ "$lacks" = 0 ] || [ "$name" = utt2aug ] || fault "$data/$name lacks $lacks of the $(count "$expected") $3 of $4" \
    "(the first: $(head -n 1 "$tmp/.lacks")); $fix keeps what is in all files"
  [ "$extra" = 0 ] || fault "$data/$name has $extra $3 that $4 does not" \
    "(the first: $(head -n 1 "$tmp/.extra")); $fix removes them"
}

for f in utt2spk spk2utt; do
  [ -f "$data/$f" ] || fault "$data/$f is missing; make it in the data preparation$(
    [ "$f" = utt2spk ] || echo ", or $utils/utt2spk_to_spk2utt.sh $data/utt2spk > $data/spk2utt")"
done
[ -f "$data/wav.scp" ] || { $no_wav && [ ! -f "$data/segments" ]; } ||
  fault "$data/wav.scp is missing; make it in the data preparation, or give --no-wav if there should be none"
[ -f "$data/feats.scp" ] || $no_feats ||
  fault "$data/feats.scp is missing; make the features first, or give --no-feats"
[ "$faults" = 0 ] || exit 1

for f in $utt_files $part_files $reco_files $spk_files spk2utt; do
  [ ! -f "$data/$f" ] || check "$data/$f"
done
for f in "$data"/trials*; do
  [ ! -f "$f" ] || check "$f"
done
[ "$faults" = 0 ] || exit 1  # comparing broken lists would only mislead

for f in $utt_files $part_files; do
  [ ! -f "$data/$f" ] || same "$f" "$tmp/utt2spk" utterances utt2spk
done
recos=utt2spk from=utt2spk
if [ -f "$data/segments" ]; then
  recos=.recos from=segments
  awk '{ print $2 }' < "$data/segments" | sort -u > "$tmp/.recos"
fi
for f in $reco_files; do
  [ ! -f "$data/$f" ] || same "$f" "$tmp/$recos" recordings "$from"
done
awk '{ print $2 }' < "$data/utt2spk" | sort -u > "$tmp/.spks"
for f in $spk_files; do
  [ ! -f "$data/$f" ] || same "$f" "$tmp/.spks" speakers utt2spk
done

if ! "$utils/utt2spk_to_spk2utt.sh" "$data/utt2spk" | sort -k1,1 > "$tmp/.inverse" ||
  ! tr -s ' \t' ' ' < "$data/spk2utt" | sed 's/ $//' | cmp -s - "$tmp/.inverse"; then
  fault "$data/spk2utt is not the inverse of utt2spk in the same order;" \
    "$utils/utt2spk_to_spk2utt.sh $data/utt2spk > $data/spk2utt"
fi
for f in "$data"/trials*; do
  [ -f "$f" ] || continue
  line=$(utts=$tmp/utt2spk awk '
    BEGIN { while ((getline line < ENVIRON["utts"]) > 0) utt[line] }
    !($2 in utt) { print NR ": the test utterance " $2; exit }' < "$f")
  [ -z "$line" ] || fault "$f:$line is not in utt2spk; $fix removes such trials"
done
[ "$faults" = 0 ] || exit 1

"$utils/check_copies.sh" "$data" 2> "$tmp/.copies" || true  # the features that are there may be right
[ ! -s "$tmp/.copies" ] || warn "WARNING: do not make features in $data: $(sed 's/^[^ ]*: //; s/^WARNING: //' "$tmp/.copies")"
[ "$(count "$tmp/.spks")" -gt 1 ] || warn "WARNING: $data has one speaker only"
log "$data is valid: $(count "$tmp/utt2spk") utterances of $(count "$tmp/.spks") speakers"
