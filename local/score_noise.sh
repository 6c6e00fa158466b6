#!/usr/bin/env bash
# Scores systems on noisy speech. Noise is added to a test set at several SNRs, and a table compares the error rates.
#
# Usage: local/score_noise.sh [options] <data-test-dir> <trials> <out-dir> <exp-dir> [<exp-dir> ...]
#   local/score_noise.sh data/test data/test/trials exp/noise exp/xvector_none_s0 exp/xvector_skdfe_s0
#   local/score_noise.sh --musan /corpora/musan --kinds noise,babble data/test data/test/trials exp/noise exp/xvector_none_s0
# Options:
#   --snrs 20,15,10,5,0       SNRs in dB
#   --clean true              also score the clean test set
#   --kinds noise             noise, music, babble, or a combination such as reverb+noise. Each kind makes one condition
#                             per SNR. telephone and reverb have no SNR, so each makes one condition
#   --musan ""                folder MUSAN; without it sounds are generated, and babble is other speakers of the test set
#   --rirs ""                 folder RIRS_NOISES; without it rooms are simulated
#   --seed 0                  random seed of the noise; an utterance gets the same noise at every SNR
#   --nj 2                    number of jobs
#   --cmd utils/run_jobs.sh   what runs them
#   --gpus 0                  number of GPUs that the jobs share
#   --cohort ""               data directory of training speakers: also score by AS-norm with their clean mean vectors
#   --top-n 300               number of the closest cohort speakers, or all if there are fewer
#   --score-opts "..."        more options of local/score.py for all systems, such as --num-bootstrap 0. If a run.sh
#                             subtracts each system's own cohort mean, its figures differ from the clean ones here
#
# Both sides of a trial are noisy. Babble is the sum of five other speakers; the SNR is that of the sum. Utterances keep
# their ids, so all conditions have the same trials.
#
# Writes one data directory per condition beside <data-test-dir>: <data-test-dir>_noise20 and so on, each with its utt2aug.
# Writes noise.md and noise.tsv (the table), <system>/xvectors_<condition> and <system>/scores_<condition> into <out-dir>.
# What was made before from the same files is kept.
set -euo pipefail
export LC_ALL=C

snrs=20,15,10,5,0
clean=true
kinds=noise
musan=
rirs=
seed=0
nj=2
cmd=utils/run_jobs.sh
gpus=0
cohort=
top_n=300
score_opts=

. utils/parse_options.sh
[ $# -ge 4 ] || { "$0" --help >&2; exit 1; }
data=${1%/}
trials=$2
out=${3%/}
shift 3

. local/lib.sh
. utils/temporary_lib.sh
# shellcheck disable=SC2086  # several options
check_words "$data" "$trials" "$out" "$@" "$cohort" $score_opts
talkers=5         # of babble
talkers_db=6.99   # 10 log10 of their number
for file in "$data/wav.scp" "$data/utt2spk"; do [ -s "$file" ] || fail "$file is missing or empty; run stage 1"; done
for file in "$data/feats.scp" "$data/conf/fbank.conf"; do
  [ -s "$file" ] || fail "$file is missing or empty; run local/make_fbank.sh $data (stage 2)"
done
[ -s "$trials" ] || fail "$trials is missing or empty; run stage 1"
cohort=${cohort%/}
[ -z "$cohort" ] || [ -s "$cohort/feats.scp" ] || fail "--cohort: $cohort/feats.scp is missing or empty; run local/make_fbank.sh $cohort"
[ -z "$cohort" ] || [ -s "$cohort/spk2utt" ] || fail "--cohort: $cohort/spk2utt is missing or empty"
if [ -n "$cohort" ]; then
  [[ " $score_opts" != *" --"@(name|norm|cohort|top)* ]] || fail "--score-opts can't have --name, --norm, --cohort and --top-n beside --cohort"
fi
[[ $top_n =~ ^[0-9]+$ ]] && [ "$top_n" -gt 1 ] || fail "--top-n '$top_n' is not a number from 2 on"
IFS=, read -ra levels <<< "$snrs"
IFS=, read -ra sounds <<< "$kinds"
[ ${#levels[@]} -gt 0 ] && [ ${#sounds[@]} -gt 0 ] || fail "--snrs and --kinds must name one at least"
for snr in "${levels[@]}"; do
  [[ $snr =~ ^-?[0-9]+(\.[0-9]+)?$ ]] || fail "--snrs: '$snr' is not a number of dB"
done
conditions=()
! $clean || conditions=(clean)
levels_of() { # kind: the SNRs at which it is a condition; without an SNR "-"
  case "+$1+" in
    *+noise+* | *+music+* | *+babble+*) printf '%s\n' "${levels[@]}" ;;
    *) echo - ;;
  esac
}
for kind in "${sounds[@]}"; do
  for snr in $(levels_of "$kind"); do
    [ "$snr" != - ] || snr=
    case " ${conditions[*]-} " in *" $kind$snr "*) fail "--kinds and --snrs name $kind$snr twice" ;; esac
    conditions+=("$kind$snr")
  done
done
systems=()
for exp in "$@"; do
  [ -s "$exp/final.pt" ] || fail "$exp/final.pt: no such checkpoint; run stage 3 or 4"
  system=$(basename "$exp")
  case " ${systems[*]-} " in *" $system "*) fail "two systems are called $system; their folders must differ in the last part" ;; esac
  systems+=("$system")
done
local/check_python.sh
mkdir -p "$out" || fail "can't make $out; check the rights of the folder"
hold_lock "$out/.noise.lock" "another run scores noisy speech in $out; wait for it, or give another folder"

planned="wav.scp segments utt2spk utt2aug"   # the tables of a condition that are made of those of the copies
plan() { # kind, SNR, folder: the data directory of a condition, without features, under the utterances' own ids
  local cut=$((${#1} + 1)) table babble_snr
  babble_snr=$(awk -v snr="$2" -v more="$talkers_db" 'BEGIN {print snr + more}')
  rm -rf "$3.copies"
  local/augment_data_dir.py --kinds "$1" --seed "$seed" --musan "$musan" --rirs "$rirs" --noise-snrs "$2" --music-snrs "$2" \
    --babble-snrs "$babble_snr" --babble-speakers "$talkers" "$data" "$3.copies" 2> "$3.log" ||
    { cat "$3.log" >&2; return 1; }
  grep -h "can't be read" "$3.log" >&2 || true
  for table in $planned; do
    [ -f "$3.copies/$table" ] || continue
    if [ "$table" = wav.scp ] && [ -f "$3.copies/segments" ]; then cp "$3.copies/wav.scp" "$3/wav.scp"; continue; fi
    awk -v cut="$cut" '{print substr($1, 1, length($1) - cut) substr($0, length($1) + 1)}' < "$3.copies/$table" |
      sort -k1,1 > "$3/$table"
  done
  [ ! -f "$3.copies/aug.scp" ] || cp "$3.copies/aug.scp" "$3/aug.scp"
  utils/utt2spk_to_spk2utt.sh "$3/utt2spk" | sort -k1,1 > "$3/spk2utt"
  mkdir "$3/conf"
  cp "$data/conf/fbank.conf" "$3/conf/fbank.conf"
}

same() { # folder, folder: of the same tables?
  local table
  for table in $planned aug.scp conf/fbank.conf; do
    [ -f "$1/$table" ] || [ -f "$2/$table" ] || continue
    cmp -s "$1/$table" "$2/$table" || return 1
  done
}

new=$(temporary_folder "${TMPDIR:-/tmp}/speakerkd.noise")
trap 'rm -rf "$new"' EXIT
for kind in "${sounds[@]}"; do
  for snr in $(levels_of "$kind"); do
    [ "$snr" != - ] || snr=
    condition=$kind$snr
    noisy=${data}_$condition
    mkdir "$new/$condition"
    plan "$kind" "${snr:-0}" "$new/$condition"
    (   # other runs take the same folder
      hold_lock "$(dirname "$noisy")/.${noisy##*/}.lock" "another run makes $noisy; waiting for it" wait
      if [ -s "$noisy/feats.scp" ] && same "$new/$condition" "$noisy"; then
        echo "$0: $noisy has its features already"
        exit
      fi
      [ ! -e "$noisy" ] || [ -f "$noisy/.score_noise" ] || fail "$noisy is there and was not made by this script; move it away"
      rm -rf "$noisy"
      mkdir "$noisy"
      touch "$noisy/.score_noise"
      cp -r "$new/$condition/." "$noisy"
      local/make_fbank.sh --nj "$nj" --cmd "$cmd" --fbank-config "$noisy/conf/fbank.conf" "$noisy"
    )
  done
done

choose_gpus "$gpus" "$nj" "$cmd"
run_table() { # name, options of score_condition.sh: a job for each line of the table
  local name=$1
  shift
  # shellcheck disable=SC2086  # cmd may carry options
  $cmd --max-jobs-run "$nj" "${gpu[@]}" JOB=1:"$(wc -l < "$table")" "$out/log/$name.JOB.log" \
    local/score_condition.sh --gpus "$((gpus > 0))" "$@" "$table" JOB "$trials"
}
if [ -n "$cohort" ]; then   # the vectors of the cohort, before the conditions need them
  table=$out/log/cohort_jobs
  mkdir -p "$out/log"
  for exp in "$@"; do
    echo "$exp/final.pt $cohort $out/$(basename "$exp")/cohort_${cohort##*/} -"
  done > "$table"
  run_table cohort
  for system in "${systems[@]}"; do   # speakers without vectors are not among the closest
    speakers=$(wc -l < "$out/$system/cohort_${cohort##*/}/spk_xvector.scp")
    [ "$top_n" -le "$speakers" ] || top_n=$speakers
  done
fi

# A job for each system in each condition: a line of the table.
table=$out/log/jobs
rm -rf "$table"
mkdir -p "$out/log"
for exp in "$@"; do
  place=$out/$(basename "$exp")
  for condition in "${conditions[@]}"; do
    noisy=${data}_$condition
    [ "$condition" != clean ] || noisy=$data
    echo "$exp/final.pt $noisy $place/xvectors_$condition $place/scores_$condition"
  done
done > "$table"
run_table noise --utt2spk "$data/utt2spk" --score-opts "$score_opts" --cohort "$cohort" --top-n "$top_n"
local/noise_table.py "$out" "$(IFS=,; echo "${conditions[*]}")" "${systems[@]}"
