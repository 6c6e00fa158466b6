#!/usr/bin/env bash
# Scores trials by LDA, length normalisation and PLDA: with Kaldi's binaries if KALDI_ROOT has them, otherwise with numpy.
#
# Usage: local/score_plda.sh [options] <train-data-dir> <train-xvector-dir> <trials> <enroll xvector.scp> <test xvector.scp> <out-dir>
#   local/score_plda.sh --lda-dim 150 data/train exp/ecapa/xvectors_train data/test/trials \
#     exp/ecapa/xvectors_test/xvector.scp exp/ecapa/xvectors_test/xvector.scp exp/ecapa/scores
# Options:
#   --lda-dim 0                     dimensions that LDA keeps; 0: the smallest of 150, dimensions - 1 and speakers - 1
#   --total-covariance-factor 0.0   the option of ivector-compute-lda
#   --smoothing 0.0                 the option of ivector-copy-plda
#   --enroll-spk2utt file           enrolment models and their utterances, if the trials name models
#   --num-utts file                 num_utts.ark, if <enroll xvector.scp> is a spk_xvector.scp of averages
#   --name plda                     name of the scoring in files and tables
#   --score-opts "..."              more options of local/score.py, such as --num-bootstrap 0 or --utt2spk file
#   --stage 1                       1: train and score; 2: only score, with the existing mean.vec, transform.mat and plda
#
# It writes transform.mat and plda into <train-xvector-dir>, as Kaldi's recipes do, and mean.vec if it is missing. Into
# <out-dir> it writes the files of local/score.py: <trials>.<name>, metrics.tsv and so on. Kaldi and numpy use the same files.
set -euo pipefail
export LC_ALL=C

lda_dim=0
total_covariance_factor=0.0
smoothing=0.0
enroll_spk2utt=
num_utts=
name=plda
score_opts=
stage=1

. utils/parse_options.sh
[ $# -eq 6 ] || { "$0" --help >&2; exit 1; }
data=${1%/}
model=${2%/}
trials=$3
enroll=$4
test=$5
out=${6%/}

. local/lib.sh
. utils/temporary_lib.sh
check_words "$data" "$model" "$trials" "$enroll" "$test" "$out" "$enroll_spk2utt" "$num_utts" "$name"   # Kaldi runs its pipes by bash
for file in "$data/utt2spk" "$data/spk2utt" "$model/xvector.scp" "$trials" "$enroll" "$test"; do
  [ -s "$file" ] || fail "$file is missing or empty; run the earlier stages, or see --help for the order of the arguments"
done
for file in "$enroll_spk2utt" "$num_utts"; do
  [ -z "$file" ] || [ -s "$file" ] || fail "$file is missing or empty (--enroll-spk2utt, --num-utts)"
done
[ -z "$enroll_spk2utt" ] || [ -z "$num_utts" ] || fail "--enroll-spk2utt counts the utterances itself: leave --num-utts out"
[[ $lda_dim =~ ^[0-9]+$ ]] || fail "--lda-dim '$lda_dim' is not a number (0: the default)"
[ "$stage" = 1 ] || [ "$lda_dim $total_covariance_factor" = "0 0.0" ] ||
  echo "$0: --stage 2 takes the LDA that is there; --lda-dim and --total-covariance-factor have no effect"
[[ $stage =~ ^[12]$ ]] || fail "--stage '$stage' is not 1 or 2"
mkdir -p "$out" || fail "can't make $out; check the rights of the folder"

use_kaldi=false
if [ -n "${KALDI_ROOT:-}" ]; then
  PATH=$KALDI_ROOT/src/ivectorbin:$KALDI_ROOT/src/bin:$PATH
  use_kaldi=true
  for program in ivector-mean ivector-subtract-global-mean ivector-compute-lda ivector-compute-plda transform-vec \
    ivector-normalize-length ivector-copy-plda ivector-plda-scoring; do
    command -v "$program" > /dev/null || { echo "$0: KALDI_ROOT=$KALDI_ROOT has no $program: numpy instead"; use_kaldi=false; break; }
  done
fi
echo "$0: LDA and PLDA by $([ $use_kaldi = true ] && echo "Kaldi's binaries in $KALDI_ROOT" || echo "numpy")"

temporary=$(temporary_folder "$out/.score_plda")
trap 'rm -rf "$temporary"' EXIT

if [ "$stage" -le 1 ]; then
  if [ $use_kaldi = true ]; then
    lda_dim=$(local/plda_backend.py lda-dim --lda-dim "$lda_dim" "$model/xvector.scp" "$data/utt2spk")
    vectors=scp:$model/xvector.scp
    centred="ark:ivector-subtract-global-mean $vectors ark:-"
    [ -s "$model/mean.vec" ] || ivector-mean "$vectors" "$temporary/mean.vec"
    ivector-compute-lda --total-covariance-factor="$total_covariance_factor" --dim="$lda_dim" \
      "$centred |" "ark,t:$data/utt2spk" "$temporary/transform.mat"
    ivector-compute-plda "ark,t:$data/spk2utt" \
      "$centred | transform-vec $temporary/transform.mat ark:- ark:- | ivector-normalize-length ark:- ark:- |" \
      "$temporary/plda"
  else
    [ ! -s "$model/mean.vec" ] || cp "$model/mean.vec" "$temporary/"
    local/plda_backend.py train --lda-dim "$lda_dim" --total-covariance-factor "$total_covariance_factor" \
      "$model/xvector.scp" "$data/utt2spk" "$temporary"
  fi
  for file in mean.vec transform.mat plda; do
    [ ! -f "$temporary/$file" ] || { [ "$file" = mean.vec ] && [ -s "$model/mean.vec" ]; } || mv "$temporary/$file" "$model/"
  done
fi
for file in mean.vec transform.mat plda; do
  [ -s "$model/$file" ] || fail "$model/$file is missing or empty; run this script from --stage 1"
done
current "$model/plda" "$model/xvector.scp" || fail "$model/plda is older than the vectors there; run this script from --stage 1"

if [ $use_kaldi = true ]; then
  counts=${num_utts:+--num-utts=ark,t:$num_utts}
  enrolments=scp:$enroll
  if [ -n "$enroll_spk2utt" ]; then
    ivector-mean "ark,t:$enroll_spk2utt" "scp:$enroll" "ark:$temporary/enroll.ark" "ark,t:$temporary/num_utts.ark"
    counts=--num-utts=ark,t:$temporary/num_utts.ark
    enrolments=ark:$temporary/enroll.ark
  fi
  prepared() { # as the PLDA was trained, but with the training set's mean
    echo "ark:ivector-subtract-global-mean $model/mean.vec $1 ark:- | transform-vec $model/transform.mat ark:- ark:- | ivector-normalize-length ark:- ark:- |"
  }
  cut -d' ' -f1,2 "$trials" > "$temporary/pairs"
  ivector-plda-scoring --normalize-length=true ${counts:+"$counts"} \
    "ivector-copy-plda --smoothing=$smoothing $model/plda - |" \
    "$(prepared "$enrolments")" "$(prepared "scp:$test")" "$temporary/pairs" "$temporary/scores"
else
  local/plda_backend.py score --smoothing "$smoothing" --enroll-spk2utt "$enroll_spk2utt" --num-utts "$num_utts" \
    "$model" "$trials" "$enroll" "$test" "$temporary/scores"
fi

# shellcheck disable=SC2086  # several options in one variable
local/score.py --scores "$temporary/scores" --name "$name" --enroll-spk2utt "$enroll_spk2utt" $score_opts "$trials" "$out"
echo "$0: Succeeded scoring $trials by PLDA: $out/$(basename "$trials").$name"
