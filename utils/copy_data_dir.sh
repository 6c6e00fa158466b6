#!/usr/bin/env bash
# Copy a data directory; with options, change the ids of utterances and speakers.
#
# Usage: copy_data_dir.sh [options] <src> <dest>
#  e.g.: utils/copy_data_dir.sh --utt-suffix -noise data/train data/train_noise
#
#   --spk-prefix p  --spk-suffix s   put before or after each speaker id
#   --utt-prefix p  --utt-suffix s   put before or after each utterance id
#   --validate-opts "..."            more options for validate_data_dir.sh, which checks the copy
#
# If there are segments, recordings keep their names. utt2uniq has the old name of each new utterance. If you add a prefix to
# the speakers, add it to the utterances too, so that utterances still begin with their speaker.

. "$(dirname "$0")/data_lib.sh"

spk_prefix=
spk_suffix=
utt_prefix=
utt_suffix=
validate_opts=
# shellcheck disable=SC1091
. "$utils/parse_options.sh"

[ $# -eq 2 ] || usage
src=${1%/} dest=${2%/}
need_data_dir "$src"
[ ! "$src" -ef "$dest" ] || die "$src cannot be copied to itself; name another directory"
for affix in "$spk_prefix" "$spk_suffix" "$utt_prefix" "$utt_suffix"; do
  [[ $affix != *[[:space:]]* ]] || die "'$affix' has a space, which an id cannot have"
done

new_dir "$dest"
export spk_prefix spk_suffix utt_prefix utt_suffix  # by the environment, since awk -v reads backslashes

rename() {  # rename utt|spk FIELD: gives the ids in that field of stdin their prefix and suffix
  awk -v kind="$1" -v field="$2" '
    BEGIN { pre = ENVIRON[kind "_prefix"]; post = ENVIRON[kind "_suffix"] }
    field == 1 { match($0, /^[^ \t]+/); print pre substr($0, 1, RLENGTH) post substr($0, RLENGTH + 1); next }
    { $field = pre $field post; print }'
}

for f in $utt_files $part_files; do
  [ ! -f "$src/$f" ] || rename utt 1 < "$src/$f" | sort -k1,1 > "$tmp/$f"
done
rename spk 2 < "$tmp/utt2spk" > "$tmp/.utt2spk"
mv "$tmp/.utt2spk" "$tmp/utt2spk"
for f in $reco_files; do
  [ -f "$src/$f" ] || continue
  if [ -f "$src/segments" ]; then cp "$src/$f" "$tmp/$f"; else rename utt 1 < "$src/$f" | sort -k1,1 > "$tmp/$f"; fi
done
for f in $spk_files; do
  [ ! -f "$src/$f" ] || rename spk 1 < "$src/$f" | sort -k1,1 > "$tmp/$f"
done
"$utils/utt2spk_to_spk2utt.sh" "$tmp/utt2spk" | sort -k1,1 > "$tmp/spk2utt"
if [ ! -f "$src/utt2uniq" ] && [ -n "$utt_prefix$utt_suffix" ]; then
  awk '{ print $1, $1 }' < "$src/utt2spk" | rename utt 1 | sort -k1,1 > "$tmp/utt2uniq"
fi
for f in "$src"/trials*; do
  [ -f "$f" ] || continue
  # shellcheck disable=SC2094
  utt2spk=$src/utt2spk awk '
    function renamed(id) {
      if (id in utt) return ENVIRON["utt_prefix"] id ENVIRON["utt_suffix"]
      return id in spk ? ENVIRON["spk_prefix"] id ENVIRON["spk_suffix"] : id
    }
    BEGIN { while ((getline < ENVIRON["utt2spk"]) > 0) { utt[$1]; spk[$2] } }
    { print renamed($1), renamed($2), $3 }' < "$f" > "$tmp/$(basename "$f")"
done
copy_whole "$src" "$tmp"
say_left_out "$src" "$tmp"

install_dir "$dest"
log "copied $(count "$dest/utt2spk") utterances of $(count "$dest/spk2utt") speakers from $src to $dest"
# shellcheck disable=SC2086
"$utils/validate_data_dir.sh" --no-feats --no-wav $validate_opts "$dest"
