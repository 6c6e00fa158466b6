#!/usr/bin/env bash
# Speaker verification on CN-Celeb: trained on CN-Celeb1's dev set and CN-Celeb2, tried on CN-Celeb1's eval set.
#
# Usage: ./run.sh --cnceleb1 /corpora/CN-Celeb_flac --cnceleb2 /corpora/CN-Celeb2_flac [--stage 1] [--stop_stage 6] [options]
#   ./run.sh --nj 32 --gpus 2                        # everything
#   ./run.sh --stage 4 --kd_type enskd --gpus 2      # another method; conf/kd has them, README.md the papers' settings
#   ./run.sh --stage 4 --kd_type skdfe               # without a teacher
#   ./run.sh --stage 7 --enroll_system xvector_none_s0 --test_system resnet34_s0
#   ./run.sh --stage 8                   # the student as ONNX; needs tools/setup.sh --extras "export app"
# Defaults here: --teacher resnet34 --student xvector --nj 16
# Options of this recipe:
#   --cnceleb1, --cnceleb2 folder    as unpacked: CN-Celeb_flac with data/, dev/ and eval/, CN-Celeb2_flac with data/
#   --join_seconds 5.0               short training recordings are joined to utterances of this length; 0: they are not
#   --musan, --rirs /corpora/...     folders musan and RIRS_NOISES; "": noise and rooms are made up
#   --speeds "0.9,1.1"               speeds of which copies are made, as more speakers: 0.9,1.1
#   --copies 2                       copies of each utterance on average, 4 at most: with noise, music, babble, in a room
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. local/options.sh

cnceleb1=/corpora/CN-Celeb_flac
cnceleb2=/corpora/CN-Celeb2_flac
join_seconds=5.0
musan=/corpora/musan
rirs=/corpora/RIRS_NOISES
speeds=0.9,1.1
copies=2
teacher=resnet34
student=xvector
nj=16

. utils/parse_options.sh
. local/stages.sh

if runs 1 "data directories"; then
  ./prepare_data.py --nj "$nj" --join-seconds "$join_seconds" "$cnceleb1" "$cnceleb2" data
  validate --no-feats train test
fi

if runs 2 "filterbank features, and those of augmented copies"; then
  features train test   # this tells how long the recordings are, which the copies must know
  augment train train_aug
  features train_aug
  utils/combine_data.sh data/train_all data/train data/train_aug
  utils/subset_data_dir.sh --utt-list data/train/cohort_utts data/train data/cohort
  validate train_all test cohort
fi

if runs 3 "the teacher, $teacher"; then train_teacher; fi
if runs 4 "the student, $student, with kd_type=$kd_type"; then train_student; fi
if runs 5 "embeddings"; then extract cohort test; fi

if runs 6 "scores"; then
  mean=(--mean SYSTEM/xvectors_cohort/mean.vec)
  # Calibrated on pairs of training speakers, who are better known than those of the trials: see README.md.
  score cohort data/cohort/trials_calibration "${mean[@]}"
  for trials in data/test/trials_*; do
    options=("${mean[@]}")
    if [ "$trials" = data/test/trials_avg ]; then options+=(--enroll-spk2utt data/test/enroll_spk2utt); fi
    score test "$trials" "${options[@]}" --calibration SYSTEM/scores/trials_calibration.cosine.calibration
    score test "$trials" "${options[@]}" --norm asnorm --cohort SYSTEM/xvectors_cohort/xvector.scp --cohort-spk2utt data/cohort/spk2utt
  done
  collect
fi

if runs 7 "maps between two systems, $enroll_system and $test_system" && pair; then
  out=exp/${enroll_system}_${test_system}_nessa
  for trials in data/test/trials_*; do   # the first list has the maps trained, the others find them there
    options=()
    if [ "$trials" = data/test/trials_avg ]; then options=(--enroll-spk2utt data/test/enroll_spk2utt); fi
    maps cohort "$trials" --out "$out" "${options[@]}"
    for x in md tsv; do mv "$out/matrix.$x" "$out/matrix_${trials##*/trials_}.$x"; done
  done
fi

if runs 8 "the student for use elsewhere: ONNX, thresholds, a card"; then
  export_student cohort --data "CN-Celeb 1 and 2" --trials data/test/trials_concat --calibration-trials data/test/trials_concat
fi
