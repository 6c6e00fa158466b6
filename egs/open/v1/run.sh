#!/usr/bin/env bash
# Speaker verification on free speech of 1,900 people and more: a public teacher, a student of at most 0.5 M parameters.
#
# Usage: ./run.sh --speech_commands <folder> --speechocean <folder> [--stage 1] [--stop_stage 6] [options]
#   ./run.sh --download true                            # fetches these two corpora (3 GB), and does everything
#   ./run.sh --stage 4 --student xvector_small          # another student: conf/model/xvector_small.conf
#   ./run.sh --stage 4 --kd_type none                   # the student without a teacher
#   ./run.sh --stage 4 --leave_out ocean                # trained without speechocean762, tested on it as well
# Defaults here: --teacher campplus --student ecapa_small --kd_type cosine --hear utterance --nj 2 --processes 2
# Options of this recipe:
#   --speech_commands, --speechocean, --librispeech, --common_voice, --folder, --mini ""
#                              folders of corpora, one at least; ./prepare_data.py --help has the layouts. --mini is the data
#                              folder of egs/mini/v1
#   --download false           true: fetch Speech Commands and speechocean762 if no folder is given for them
#   --teacher campplus         campplus, ecapa and dvector are fetched and imported (./fetch_teacher.sh --help); else as below
#   --leave_out ""             corpora not to train the student on, joined by +: commands, ocean, libri, voice, folder, mini;
#                              a teacher that is trained here hears all of them
#   --musan, --rirs ""         folders musan and RIRS_NOISES; "": noise and rooms are made up
#   --shift 1.5                seconds from a piece of an utterance to the next; a piece has 1.5 s
#   --speeds 0.8,0.9,1.1,1.25  speeds at which pieces are cut as well, as more speakers; "": none
#   --kinds reverb,noise,noise,music,babble,telephone   kinds of augmented copies
#   --copies 1                 augmented copies of each piece on average, such as 0.5; 0: none
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. local/options.sh

speech_commands=
speechocean=
librispeech=
common_voice=
folder=
mini=
download=false
leave_out=
musan=
rirs=
shift=1.5
speeds=0.8,0.9,1.1,1.25
kinds=reverb,noise,noise,music,babble,telephone
copies=1.0
teacher=campplus
student=ecapa_small
kd_type=cosine
hear=utterance
nj=2
processes=2

. utils/parse_options.sh
before_plan() {
  case $teacher in
    campplus | ecapa | dvector) [ -f "exp/$teacher/final.pt" ] || ./fetch_teacher.sh "$teacher" "exp/$teacher" ;;
  esac
}
. local/stages.sh
. ./corpora.sh

# A piece is an utterance here, and the teacher hears each one, augmented copies too: README.md says why.
if [ "${teacher_ears[0]:-}" != places ]; then
  teacher_vectors() { extract_vectors --amp fast "$teacher_dir/final.pt" data/train_all "$teacher_dir/xvectors_train_originals"; }
fi
cohort=cohort
less_set=data/train_all   # what the student is trained on
if [ -n "$leave_out" ]; then
  [[ $leave_out =~ ^[a-z]+(\+[a-z]+)*$ ]] || fail "--leave_out '$leave_out': names of corpora, joined by +"
  less_set=data/train_no_${leave_out//+/_}
  cohort=cohort_no_${leave_out//+/_}
  left=${student_dir%_s*}_no_${leave_out//+/_}_s$seed
  student_chain=${student_chain//$student_dir/$left}
  student_dir=$left
  systems[${#systems[@]} - 1]=$student_dir
fi

if runs 1 "data directories, and what is to be done to the copies for augmentation"; then
  if $download; then
    [ -n "$speech_commands" ] || { ./download.py download speech_commands; speech_commands=download/speech_commands; }
    [ -n "$speechocean" ] || { ./download.py download speechocean762; speechocean=download/speechocean762; }
  fi
  ./prepare_data.py --nj "$nj" --speech-commands "$speech_commands" --speechocean "$speechocean" --librispeech "$librispeech" \
    --common-voice "$common_voice" --folder "$folder" --mini "$mini" data
  ./cut_pieces.py --shift "$shift" --speeds "$speeds" data/train data/train_pieces
  sets=(train_pieces)
  rm -rf data/train_aug
  number=$(awk -v copies="$copies" 'END { print int(copies * NR) }' < data/train_pieces/utt2spk)
  if [ "$number" -gt 0 ]; then
    local/augment_data_dir.py --musan "$musan" --rirs "$rirs" --kinds "$kinds" --num-utts "$number" data/train_pieces data/train_aug
    sets+=(train_aug)
  fi
  utils/subset_data_dir.sh --per-spk data/train 4 data/cohort
  validate --no-feats train dev test cohort "${sets[@]}"
fi

if runs 2 "filterbank features"; then
  sets=(data/train_pieces)
  [ ! -d data/train_aug ] || sets+=(data/train_aug)
  features cohort dev test "${sets[@]#data/}"
  utils/combine_data.sh data/train_all "${sets[@]}"
  validate cohort dev test train_all
fi

if runs 3 "the teacher, $teacher"; then
  train_teacher
  [ "${teacher_kinds[0]:-}" != trained ] || trained_on data/train_all "${teacher_dirs[0]}"
fi

if runs 4 "the student, $student, with kd_type=$kd_type"; then
  # shellcheck disable=SC2034  # local/stages.sh reads it; a teacher of our own hears all corpora
  train_set=$less_set
  [ "$source" != waves ] || waves train_all
  [ -z "$leave_out" ] || leave_corpora_out
  train_student
  trained_on "$less_set" "$student_dir"
fi

if runs 5 "embeddings"; then extract "$cohort" dev test; fi

if runs 6 "scores"; then
  score_corpora
  collect
fi

if runs 7 "maps between two systems, $enroll_system and $test_system" && pair; then
  list=$(main_trials)
  maps "$cohort" "data/test/$list"
fi

if runs 8 "the student for use elsewhere: ONNX, thresholds, a card"; then
  list=$(main_trials)
  calibration=$(calibration_trials)
  export_student "$cohort" --data "$(all_about "$student_dir")" --taught-by "$([ -z "$taught_by" ] || about "$teacher")" \
    --trials "data/test/$list" --calibration-dir data/dev --calibration-trials "$calibration"
fi
