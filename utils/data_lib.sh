#!/usr/bin/env bash
# What the data directory tools of utils/ share: which files a data directory has, and how they are filtered
# and put in place. To be sourced first: . "$(dirname "$0")/data_lib.sh"

set -euo pipefail
export LC_ALL=C
utils=$(dirname "${BASH_SOURCE[0]}")
# shellcheck disable=SC1091
. "$utils/temporary_lib.sh"

log() { echo "$0: $*"; }
warn() { echo "$0: $*" >&2; }
die() { warn "$@"; exit 1; }

# read_data_files: sets utt_files, part_files, reco_files, spk_files, whole_files and report_files, the files of a data
# directory by what their lines are keyed by, and num_fields. The table describes them. A data directory may also have
# trials*, with lines "enrolment test target|nontarget".
read_data_files() {
  local name key fields table=$utils/../speakerkd/files/datadir.txt
  [ -f "$table" ] || die "$table is missing: utils/ and speakerkd/ must stay beside each other (use a link to utils)"
  utt_files='' part_files='' reco_files='' spk_files='' whole_files='' report_files='' num_fields=''
  while read -r name key fields _; do
    [[ $name == [a-z]* ]] || continue
    case $key in
      utterance) utt_files+=" $name" ;;
      some-utterances) part_files+=" $name" ;;
      recording) reco_files+=" $name" ;;
      speaker) spk_files+=" $name" ;;
      whole) whole_files+=" $name" ;;
      report) report_files+=" $name" ;;
    esac
    num_fields+=" $name=$fields "
  done < "$table"
}
read_data_files

# The comment at the head of the script, in the words of parse_options.sh.
show_help() {
  # shellcheck disable=SC1091
  . "$utils/parse_options.sh" --help
}

usage() {
  (show_help) >&2
  exit 1
}

# count FILE: its number of lines.
count() { wc -l < "$1" | tr -d ' '; }

# first_column FILE. Files come by stdin wherever awk reads them: it takes an operand such as snr=10/wav.scp for an assignment.
first_column() { awk '{ print $1 }' < "$1"; }

need_data_dir() {
  local f
  [ -d "$1" ] || die "no such directory: $1"
  for f in utt2spk ${2:-}; do
    [ -s "$1/$f" ] || die "$1/$f is missing or empty; a data directory needs it (make it in the data preparation)"
  done
}

# filter KEYS [FIELD]: the lines of stdin whose FIELD (1) is in the file KEYS.
filter() {
  keys=$1 awk -v field="${2:-1}" '
    BEGIN { while ((getline line < ENVIRON["keys"]) > 0) { split(line, part); keep[part[1]] } }
    $field in keep'
}

# The trials that can still be run: the test utterance is there, and the enrolment side, which may be a model from
# another directory, is not one of the utterances or speakers that were taken out.
# filter_trials KEPT_UTT2SPK SOURCE_UTT2SPK < trials
filter_trials() {
  kept=$1 source=$2 awk '
    BEGIN {
      while ((getline line < ENVIRON["kept"]) > 0) { split(line, part); keep[part[1]]; spk[part[2]] }
      while ((getline line < ENVIRON["source"]) > 0) {
        split(line, part)
        if (!(part[1] in keep)) gone[part[1]]
        if (!(part[2] in spk) && !(part[2] in keep)) gone[part[2]]
      }
    }
    $2 in keep && ($1 in keep || !($1 in gone))'
}

# filter_dir SOURCE UTTS OUT: every file of SOURCE, reduced to the utterances in the file UTTS, into the folder OUT.
filter_dir() {
  local src=$1 utts=$2 out=$3 f
  for f in $utt_files $part_files; do
    [ ! -f "$src/$f" ] || filter "$utts" < "$src/$f" > "$out/$f"
  done
  "$utils/utt2spk_to_spk2utt.sh" "$out/utt2spk" | sort -k1,1 > "$out/spk2utt"
  for f in $spk_files; do
    [ ! -f "$src/$f" ] || filter "$out/spk2utt" < "$src/$f" > "$out/$f"
  done
  if [ -f "$out/segments" ]; then awk '{ print $2 }' < "$out/segments" > "$out/.recos"; else cp "$out/utt2spk" "$out/.recos"; fi
  for f in $reco_files; do
    [ ! -f "$src/$f" ] || filter "$out/.recos" < "$src/$f" > "$out/$f"
  done
  rm "$out/.recos"
  for f in "$src"/trials*; do
    # shellcheck disable=SC2094
    [ ! -f "$f" ] || filter_trials "$out/utt2spk" "$src/utt2spk" < "$f" > "$out/$(basename "$f")"
  done
  copy_whole "$src" "$out"
}

copy_whole() {
  local f
  for f in $whole_files; do
    [ ! -e "$1/$f" ] || cp -rL "$1/$f" "$2/$f"
  done
}

# say_left_out SOURCE OUT: names the plain files of SOURCE that have no counterpart in OUT.
say_left_out() {
  local f name
  for f in "$1"/*; do
    name=$(basename "$f")
    [[ " $report_files " != *" $name "* ]] || continue
    [ ! -f "$f" ] || [ -e "$2/$name" ] || warn "left out $f: not one of the files this script knows or can keep"
  done
}

# new_dir DEST: sets $tmp to an empty folder beside DEST, removed at exit. Everything is written there, so that DEST
# is never half made. Folders that scripts killed on this machine left are removed.
new_dir() {
  [ -n "$1" ] || die "the name of the new directory is empty"
  mkdir -p "$(dirname "$1")"
  tmp=$(temporary_folder "$(dirname "$1")/.$(basename "$1")")
  chmod "$(printf '%o' $((0777 & ~$(umask))))" "$tmp"
  trap 'rm -rf "$tmp"' EXIT
}

# install_dir DEST: moves $tmp's files to DEST. Files of an older DEST that have no successor go to DEST/.backup, since
# they would not fit the new ones. What else lives there (arks, logs) stays.
install_dir() {
  local dest=$1 f old
  mkdir -p "$dest"
  # shellcheck disable=SC2206
  old=($utt_files $part_files $reco_files $spk_files $whole_files)
  for f in "$dest"/trials*; do old+=("$(basename "$f")"); done
  for f in "${old[@]}"; do
    if [ -e "$dest/$f" ] && [ ! -e "$tmp/$f" ]; then
      mkdir -p "$dest/.backup"
      rm -rf "$dest/.backup/$f"
      mv "$dest/$f" "$dest/.backup/$f"
      warn "moved the old $dest/$f to $dest/.backup/: the new directory has none"
    fi
  done
  for f in "$tmp"/*; do
    [ ! -d "$f" ] || rm -rf "${dest:?}/$(basename "$f")"
    mv "$f" "$dest/"
  done
}

# check_lines FILE LEAST MOST KEYS [looks]: writes what is wrong with the lines of FILE, one report a kind of fault with
# its first line and the remedy, and the first column to the file KEYS. LEAST and MOST are numbers of fields (MOST 0:
# no limit). "looks" is a list of words: form (only what fix_data_dir.sh cannot mend), sorted, unprefixed (speakers need
# not be prefixes of their utterances).
check_lines() {
  # shellcheck disable=SC2094
  file=$1 dir=$(dirname "$1") keys=$4 awk -v least="$2" -v most="$3" -v looks=" ${5:-} " -v name="$(basename "$1")" \
    -f "$utils/check_lines.awk" < "$1"
}

# fields_of NAME: the least and most fields of a line of that file (most 0: no limit).
fields_of() {
  local fields=${num_fields#*" $1="}
  fields=${fields%% *}
  [[ $1 != trials* ]] || fields=3
  if [[ $fields == *+ ]]; then echo "${fields%+} 0"; else echo "$fields $fields"; fi
}
