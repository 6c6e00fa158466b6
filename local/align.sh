#!/usr/bin/env bash
# Enrols with one model and verifies with another: makes maps between the embeddings of two systems, and scores them (stage 7).
#
# Usage: local/align.sh [options] <enroll-exp> <test-exp> <train-dir> <test-dir> <trials>
#   local/align.sh exp/xvector_none_s0 exp/resnet_tiny_s0 data/train data/test data/test/trials
#   local/align.sh --out exp/profiles --enroll-spk2utt data/test/enroll3_spk2utt \
#     exp/xvector_none_s0 exp/resnet_tiny_s0 data/train data/test data/test/trials_enroll3
# Options:
#   --out ""                       folder of the results; default: <enroll-exp>_<the test's name>_nessa
#   --closed-forms "leastsquares ridge procrustes cca logits logits_centred"   maps that need no training
#   --kd-types "nessa nessa_onesided nessa_linear"   maps to train, conf/kd/<kd_type>.conf; "" for closed forms alone
#   --train-config conf/train_align.conf             optimisation of the maps, and the number of speakers held out
#   --train-options ""             more options of local/train.py, such as "--seed 1 --valid-speakers 100"
#   --init procrustes              closed-form map that the training starts from (cca: two-sided maps only); "" for the identity
#   --enroll-spk2utt ""            enrolment models and their utterances, if the trials name models
#   --chunk-frames 0               >0: cut <train-dir> into pieces of this many frames, and learn from the pieces' vectors
#   --top-n 0                      >0: also AS-norm with this many vectors of <train-dir>, mapped like the side they belong to
#   --num-bootstrap 1000           how often the speakers are resampled for the intervals
#   --nj 2                         number of jobs at the same time
#   --cmd utils/run_jobs.sh        what runs them
#
# Both systems need xvectors_<train-dir's name> and xvectors_<test-dir's name>. If these are missing, the system's final.pt
# makes them. With an augmented <train-dir>, such as data/train_all, the maps learn from clean and augmented speech.
# Writes <out>/<map>/: enroll.mat and test.mat (closed forms), or enroll.pt, test.pt and, if linear, transform.mat; the mapped
# vectors and <map>/scores; <out>/matrix.md and matrix.tsv: EERs of each map by who enrols and who verifies.
# <trials> may be several lists, joined by commas. The first one has these files, each other one matrix_<its name>.md and .tsv.
set -euo pipefail
export LC_ALL=C

out=
closed_forms="leastsquares ridge procrustes cca logits logits_centred"
kd_types="nessa nessa_onesided nessa_linear"
train_config=conf/train_align.conf
train_options=
init=procrustes
enroll_spk2utt=
chunk_frames=0
top_n=0
num_bootstrap=1000
nj=2
cmd=utils/run_jobs.sh

. utils/parse_options.sh
[ $# -eq 5 ] || { "$0" --help >&2; exit 1; }
enroll=${1%/}
test=${2%/}
train_dir=${3%/}
test_dir=${4%/}
trials=$5

. local/lib.sh
# shellcheck disable=SC2086  # several names in each
check_words "$enroll" "$test" "$train_dir" "$test_dir" "$trials" "$out" "$train_config" "$enroll_spk2utt" $kd_types $train_options
local/check_python.sh
[[ $chunk_frames =~ ^[0-9]+$ ]] || fail "--chunk-frames '$chunk_frames' is not a number of frames"
IFS=, read -r -a lists <<< "$trials"
[ ${#lists[@]} -gt 0 ] || fail "no trials are given"
for file in "$train_dir/utt2spk" "$test_dir/utt2spk" "${lists[@]}"; do [ -s "$file" ] || fail "$file is missing or empty; run stage 1"; done
for system in "$enroll" "$test"; do [ -d "$system" ] || fail "$system: no such folder; run stages 3 to 5"; done
[ "$(realpath "$enroll")" != "$(realpath "$test")" ] || fail "$enroll is given twice: a system needs no map to itself"
if [ -f "$enroll/final.pt" ] && cmp -s "$enroll/final.pt" "$test/final.pt"; then fail "$enroll and $test hold the same final.pt: a system needs no map to itself"; fi
both=$(comm -12 <(awk '{print $2}' < "$train_dir/utt2spk" | sort -u) <(awk '{print $2}' < "$test_dir/utt2spk" | sort -u) | head -n 3 | tr '\n' ' ')
[ -z "$both" ] || fail "speakers of $test_dir are in $train_dir too ($both): maps must not learn from them"
for kd_type in $kd_types; do [ -f "conf/kd/$kd_type.conf" ] || fail "conf/kd/$kd_type.conf: no such file"; done
[ -f "$train_config" ] || fail "$train_config: no such file"
out=${out:-${enroll}_$(basename "$test")_nessa}
mkdir -p "$out/log" || fail "can't make $out; check the rights of the folder"
hold_lock "$out/.align.lock" "another run makes maps in $out; wait for it, or give another --out"

extract() { # system, data directory, folder of the vectors, frames of a chunk
  ! current "$1/$3/xvector.scp" "$1/final.pt" || return 0   # vectors from elsewhere have no final.pt
  [ -s "$1/final.pt" ] || fail "$1/$3/xvector.scp is missing, and there is no $1/final.pt to extract it with"
  local/extract_xvectors.sh --nj "$nj" --cmd "$cmd" --chunk-frames "$4" "$1/final.pt" "$2" "$1/$3"
}
train=xvectors_$(basename "$train_dir")
tested=xvectors_$(basename "$test_dir")
for system in "$enroll" "$test"; do
  extract "$system" "$test_dir" "$tested" 0
  if [ "$chunk_frames" -eq 0 ] || [ "$top_n" -gt 0 ]; then extract "$system" "$train_dir" "$train" 0; fi
  if [ "$chunk_frames" -gt 0 ]; then extract "$system" "$train_dir" "${train}_c$chunk_frames" "$chunk_frames"; fi
done
learn=$train/xvector.scp
learn_dir=$train_dir
if [ "$chunk_frames" -gt 0 ]; then
  learn=${train}_c$chunk_frames/xvector.scp
  learn_dir=$enroll/${train}_c$chunk_frames
fi

# The same speakers are held out from the closed forms and from the trained maps.
for list in "${lists[@]}"; do
  rm -f "$out"/{raw,leastsquares,ridge,procrustes,cca,logits,logits_centred}/{{enroll,test}.mat,scores/"${list##*/}".*}
done
local/align_maps.py --train-config "$train_config" --train-options "$train_options" "$learn_dir" "$enroll/$learn" "$test/$learn" "$out" \
  2>&1 | tee "$out/log/align_maps.log" >&2
maps=()
for form in $closed_forms; do
  [ -f "$out/$form/test.mat" ] || fail "--closed-forms: no '$form'; there are: $(cd "$out" && echo */test.mat)"
  maps+=("$form")
done
from=()
[ -z "$init" ] || from=(--init "$out/$init")
for kd_type in $kd_types; do
  # shellcheck disable=SC2086  # cmd may carry options, and train_options are several
  $cmd JOB=1:1 "$out/log/$kd_type.JOB.log" local/train.py --config "$train_config" --kd "conf/kd/$kd_type.conf" "${from[@]}" \
    --missing skip --vectors "enroll=$enroll/$learn,test=$test/$learn" --threads 1 $train_options "$learn_dir" "$out/$kd_type"
  maps+=("$kd_type")
done

# Each map is a job: both sides' vectors, then scores by who enrols and who verifies.
printf '%s\n' raw "${maps[@]}" > "$out/log/maps"
# shellcheck disable=SC2086  # cmd may carry options
$cmd --max-jobs-run "$nj" JOB=1:$((${#maps[@]} + 1)) "$out/log/score.JOB.log" \
  local/score_map.sh --utt2spk "$test_dir/utt2spk" --enroll-spk2utt "$enroll_spk2utt" --top-n "$top_n" \
  "$out/log/maps" JOB "$enroll" "$test" "$tested" "$train" "$trials" "$out"

scorings=cosine
[ "$top_n" -eq 0 ] || scorings=cosine,asnorm
for list in "${lists[@]}"; do
  table=matrix
  [ "$list" = "${lists[0]}" ] || table+=_${list##*/}
  local/align_table.py --utt2spk "$test_dir/utt2spk" --enroll-spk2utt "$enroll_spk2utt" --num-bootstrap "$num_bootstrap" \
    --scorings "$scorings" --table "$table" "$list" "$out" "$(basename "$enroll")" "$(basename "$test")" raw "${maps[@]}"
done
