# The faults of the lines of one file of a data directory: one report a kind of fault, with the first line that has it
# and the remedy. Run by check_lines in data_lib.sh, which says what the variables mean.

function bad(kind, text) { if (!(kind in text_of)) { kinds[++num] = kind; text_of[kind] = NR ": " text } times[kind]++ }
function seconds(x) { return x ~ /^[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?$/ || x ~ /^[0-9]+\.$/ }
BEGIN {
  fix = "utils/fix_data_dir.sh " ENVIRON["dir"]
  in_place = "sed -i '%s' " ENVIRON["file"]
  form = index(looks, " form ")
  sorted = index(looks, " sorted ")
  prefixed = name == "utt2spk" && !index(looks, " unprefixed ")
  path = name ~ /\.scp$/
  keys = ENVIRON["keys"]
  printf "" > keys
}
/\r$/ {
  bad("crlf", "the line ends in CR LF; " sprintf(in_place, "s/\\r$//"))
  sub(/\r$/, "")
}
NR == 1 && /^\357\273\277/ { bad("bom", "the file starts with a byte-order mark; " sprintf(in_place, "1s/^...//")) }
NF == 0 {
  if (sorted) bad("empty", "the line is empty; " fix)
  next
}
/^[ \t]/ { bad("blank", "the line starts with a blank; " sprintf(in_place, "s/^[ \\t]*//")) }
{ print $1 > keys }
NF < least || (most && NF > most) {
  bad("fields", "\"" substr($0, 1, 80) "\" has " NF " fields where " (most == least ? "" : "at least ") least \
      " belong (an id has no spaces); correct the line where the file is made, or delete it and run " fix)
  next
}
form { next }
sorted {
  if (NR > 1 && ($1 "") <= before) {
    if (($1 "") == before) bad("twice", $1 " is there twice; " fix)
    else bad("order", $1 " comes after " before ", which is not the order of LC_ALL=C sort; " fix)
  }
  before = $1 ""
}
prefixed {
  if (index($1, $2) != 1)
    bad("prefix", "speaker " $2 " is not the start of utterance " $1 "; name utterances speaker-..., or give --no-spk-sort")
  else if (($2 "") < speaker)
    bad("spk_order", "the order of utterances is not that of speakers (" $2 " comes after " speaker \
        "); give speaker ids one length, or give --no-spk-sort")
  speaker = $2 ""
}
path && substr($2, 1, 1) == "~" { bad("tilde", "~ is not expanded in " $2 "; write the whole path") }
name == "segments" {
  open_end = $4 ~ /^-[0-9.]+$/   # to the end of the recording, as in Kaldi's extract-segments
  if (!seconds($3) || !(seconds($4) || open_end)) bad("number", "\"" $3 " " $4 "\" are not two times in seconds")
  else if (!open_end && $4 + 0 <= $3 + 0) bad("span", $1 " ends at " $4 ", not after its start " $3)
}
(name == "utt2num_frames" || name == "utt2num_samples") && ($2 !~ /^[0-9]+$/ || $2 + 0 == 0) { bad("number", "\"" $2 "\" is not a positive whole number") }
name ~ /2dur$/ && (!seconds($2) || $2 + 0 == 0) { bad("number", "\"" $2 "\" is not a positive number of seconds") }
name == "spk2gender" && $2 != "m" && $2 != "f" { bad("gender", "\"" $2 "\" is neither m nor f") }
name ~ /^trials/ && $3 != "target" && $3 != "nontarget" { bad("label", "\"" $3 "\" is neither target nor nontarget") }
END {
  for (k = 1; k <= num; k++) {
    kind = kinds[k]
    more = times[kind] > 1 ? " [" times[kind] " such lines]" : ""
    print ENVIRON["file"] ":" text_of[kind] more
  }
}
