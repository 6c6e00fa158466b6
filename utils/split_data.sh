#!/usr/bin/env bash
# Split a data directory for parallel jobs: <data>/split<n>/1 ... <data>/split<n>/<n>, each a data directory.
#
# Usage: split_data.sh [--per-utt] <data> <n>
#  e.g.: utils/split_data.sh data/train 8
#
# The parts are consecutive, of nearly equal size, and never cut a speaker. With --per-utt speakers may be cut, and the
# folder is <data>/split<n>utt. Nothing is done if the parts are there and newer than the files they were made from.
# aug.scp, frame_shift and conf are linked; trials, which pair utterances of different parts, are not split.

. "$(dirname "$0")/data_lib.sh"

per_utt=false
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h) show_help ;;
    --per-utt) per_utt=true; shift ;;
    -*) die "no option '$1' (allowed: --per-utt)" ;;
    *) break ;;
  esac
done
[ $# -eq 2 ] || usage
data=${1%/}
num=$2
need_data_dir "$data"
[[ $num =~ ^[1-9][0-9]*$ ]] || die "the number of parts must be a positive integer, not '$num'"

dest=$data/split$num
if $per_utt; then dest=${dest}utt; fi

up_to_date() {
  local f
  [ -d "$dest/$num" ] || return 1
  for f in $utt_files $part_files $reco_files $spk_files; do
    if [ -f "$data/$f" ]; then
      [ -f "$dest/1/$f" ] && [ ! "$data/$f" -nt "$dest/1/$f" ] || return 1
    else
      [ ! -f "$dest/1/$f" ] || return 1
    fi
  done
  for f in $whole_files; do
    if [ -e "$data/$f" ]; then [ -e "$dest/1/$f" ] || return 1; else [ ! -L "$dest/1/$f" ] || return 1; fi
  done
}

# Two stages that run at once may want the same split.
if command -v flock > /dev/null; then
  exec 9> "$data/.split.lock"
  flock 9
fi
if up_to_date; then exit 0; fi

new_dir "$dest"
parts=()
for ((n = 1; n <= num; n++)); do
  mkdir "$tmp/$n"
  parts+=("$tmp/$n/utt2spk")
done

options=()
if ! $per_utt; then options=(--utt2spk="$data/utt2spk"); fi
"$utils/split_scp.sh" ${options[@]+"${options[@]}"} "$data/utt2spk" "${parts[@]}" ||
  die "cannot split $data into $num parts$($per_utt || echo ' (--per-utt may cut speakers; or use a smaller number of jobs)')"

# One pass over everything else. Files keyed by recording or speaker may belong to several parts. Appending lets a file
# be closed whenever the part changes, so that the number of open files stays small.
files=()
for f in $utt_files $part_files $reco_files $spk_files; do  # segments come before what is keyed by recording
  [ "$f" = utt2spk ] || [ ! -f "$data/$f" ] || files+=("$f")
done
data=$data tmp=$tmp num=$num by_speaker=$spk_files by_recording=$reco_files awk '
  function put(part, name,   path) {
    path = ENVIRON["tmp"] "/" part "/" name
    if (path != open) { if (open != "") close(open); open = path }
    print >> path
  }
  function put_all(list, name,   n, part, i) { n = split(list, part); for (i = 1; i <= n; i++) put(part[i], name) }
  function add(where, key, part) { if (!(key in where) || where[key] !~ (" " part "$")) where[key] = where[key] " " part }
  BEGIN {
    for (n = split(ENVIRON["by_speaker"], names); n > 0; n--) by_speaker[names[n]]
    for (n = split(ENVIRON["by_recording"], names); n > 0; n--) by_recording[names[n]]
    for (n = 1; n <= ENVIRON["num"]; n++) {
      path = ENVIRON["tmp"] "/" n "/utt2spk"
      while ((getline < path) > 0) { part_of[$1] = n; add(parts_of_spk, $2, n) }
      close(path)
    }
    for (a = 1; a < ARGC; a++) {
      name = ARGV[a]
      path = ENVIRON["data"] "/" name
      while ((getline < path) > 0) {
        if (name in by_speaker) put_all(parts_of_spk[$1], name)
        else if (segments && name in by_recording) put_all(parts_of_reco[$1], name)
        else if ($1 in part_of) {
          put(part_of[$1], name)
          if (name == "segments") add(parts_of_reco, $2, part_of[$1])
        }
      }
      if (name == "segments") segments = 1
    }
  }' ${files[@]+"${files[@]}"} < /dev/null

for ((n = 1; n <= num; n++)); do
  "$utils/utt2spk_to_spk2utt.sh" "$tmp/$n/utt2spk" | sort -k1,1 > "$tmp/$n/spk2utt"
  for f in ${files[@]+"${files[@]}"}; do : >> "$tmp/$n/$f"; done  # a part without any line of it
  for f in $whole_files; do
    [ ! -e "$data/$f" ] || ln -s "../../$f" "$tmp/$n/$f"
  done
done

rm -rf "$dest"
mv "$tmp" "$dest"
