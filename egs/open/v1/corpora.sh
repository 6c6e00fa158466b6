#!/usr/bin/env bash
# What is done with the corpora: leaves some out, scores each one's trials, says what a system was trained on.
# To be sourced by run.sh after local/stages.sh, and by the comparisons for the choice of the corpora.
# shellcheck disable=SC2154  # the options are variables of run.sh

known_corpora="commands ocean libri voice mini folder"   # the first part of a speaker's name

trained_on() { # data directory, system: writes the corpora of its training speakers, for the table's column "corpus met"
  sed -E 's/^[^ ]* (sp[0-9]+\.[0-9]+-)?([a-z]+)-.*/\2/' "$1/utt2spk" | sort -u | paste -sd ' ' > "$2/trained_on"
}

without_corpora() { # names joined by +, utt2spk: its lines without these corpora, at any speed
  [[ $1 =~ ^([a-z]+(\+[a-z]+)*)?$ ]] || fail "--leave_out '$1': names of corpora, joined by +"
  local x
  for x in ${1//+/ }; do [[ " $known_corpora " == *" $x "* ]] || fail "--leave_out '$1': no corpus '$x'; known: $known_corpora"; done
  if [ -z "$1" ]; then cat "$2"; else grep -Ev " (sp[0-9]+\.[0-9]+-)?(${1//+/|})-" "$2" || fail "--leave_out $1: nothing is left"; fi
}

at_own_speed() { # utt2spk: its lines without voices at other speeds
  grep -Ev " sp[0-9]+\.[0-9]+-" "$1"
}

speakers_by_hash() { # utt2spk: its speakers in the order of a hash of their names, so that the first ones are always the same
  awk '{ print $2 }' "$1" | sort -u | while read -r speaker; do echo "$(md5sum <<< "$speaker" | cut -c -12) $speaker"; done |
    sort | awk '{ print $2 }'
}

trials_of() { # data directory, corpora: puts their lists of trials into the array lists, those that exist
  local x data=$1
  shift
  lists=()
  for x; do [ ! -s "$data/trials_$x" ] || lists+=("$data/trials_$x"); done
  [ ${#lists[@]} -gt 0 ] || fail "$data has no trials of these corpora: $*"
}

leave_corpora_out() { # train_set and $cohort without the speakers of the corpora of --leave_out
  local x
  for x in train_all:"$train_set" cohort:"data/$cohort"; do
    without_corpora "$leave_out" "data/${x%%:*}/utt2spk" > "data/.kept.$$"
    utils/subset_data_dir.sh --utt-list "data/.kept.$$" "data/${x%%:*}" "${x#*:}"
    rm "data/.kept.$$"
  done
}

score_corpora() { # dev and test trials of all corpora, by the cosine and by AS-norm with the cohort
  local top x trials options
  top=$(wc -l < "data/$cohort/spk2utt")   # AS-norm takes the 300 closest training speakers, if there are so many
  [ "$top" -le 300 ] || top=300
  for x in dev test; do   # settings are chosen on dev alone
    [ -d "data/$x" ] || continue
    for trials in "data/$x"/trials_*; do
      options=(--mean "SYSTEM/xvectors_$cohort/mean.vec")
      [[ $trials != *_enroll3 ]] || options+=(--enroll-spk2utt "data/$x/enroll3_spk2utt")
      score "$x" "$trials" "${options[@]}"
      score "$x" "$trials" "${options[@]}" --norm asnorm --top-n "$top" --cohort "SYSTEM/xvectors_$cohort/xvector.scp" \
        --cohort-spk2utt "data/$cohort/spk2utt"
    done
  done
}

main_trials() { # the trials of stages 7 and 8, of the first of these corpora that is there
  local x
  for x in ocean libri voice commands folder; do
    if [ -s "data/dev/trials_$x" ] && [ -s "data/test/trials_$x" ]; then echo "trials_$x"; return; fi
  done
  fail "no corpus has trials in both data/dev and data/test"
}

calibration_trials() { # writes the dev trials of all corpora into one list, and prints its name
  local trials
  for trials in data/dev/trials_*; do
    case $trials in *_enroll3 | *_hard) ;; *) cat "$trials" ;; esac
  done | sort > data/dev/calibration_trials
  echo data/dev/calibration_trials
}

about() { # name of a corpus or a teacher: what the card says of it
  case $1 in
    commands) echo "Speech Commands v0.02 (CC BY 4.0)" ;;
    ocean) echo "speechocean762 (free for commercial and non-commercial use)" ;;
    libri) echo "LibriSpeech (CC BY 4.0)" ;;
    voice) echo "Common Voice (CC0)" ;;
    mini) echo "recordings of egs/mini (licences in its README)" ;;
    folder) echo "recordings of a folder" ;;
    campplus) echo "CAM++ of 3D-Speaker (6.9 M parameters, Apache-2.0)" ;;
    ecapa) echo "ECAPA-TDNN of SpeechBrain (MIT)" ;;
    dvector) echo "d-vector of Resemblyzer (Apache-2.0)" ;;
  esac
}

all_about() { # system: the corpora that it was trained on, for its card
  local x corpora said=""
  read -ra corpora < "$1/trained_on"
  for x in "${corpora[@]}"; do said+="${said:+, }$(about "$x")"; done
  echo "$said"
}
