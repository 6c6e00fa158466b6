#!/usr/bin/env bash
# Measures what a face teacher gains (kd_type=vgsr), and what its margin and its weights by quality add: one table.
#
# Usage: ./compare_faces.sh [options]     after ./run.sh --stop_stage 2
#   ./compare_faces.sh                             # 45 systems; some 25 minutes on two cores
#   ./compare_faces.sh --seeds 0 --bad_share 0.3
# Options:
#   --students "xvector_tiny"          conf/model/<student>.conf
#   --kd_types "none vgsr_cosine vgsr_margin vgsr_quality vgsr"   conf/kd/<kd_type>.conf
#   --seeds "0 1 2 3 4"                random seeds of the training
#   --reference "none vgsr_cosine"     kd_types to compare the others with
#   --noise ""                         20,10,0: also score with noise at these SNRs in dB
#   --bad_share 0.1                    share of bad faces of the second teacher: half a stranger's, half of low quality
#   --jobs 2                           number of systems at the same time, one thread each
#
# The teachers are made-up faces: those of data/train, and the same with some bad ones. Copies at other speeds count as
# speakers without a face: they are classified, but left out of the distillation. If it was stopped, it goes on from there.
# exp/faces/<bad share>/table.md is the table; with --noise there is also table_noise.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

students=xvector_tiny
kd_types="none vgsr_cosine vgsr_margin vgsr_quality vgsr"
seeds="0 1 2 3 4"
reference="none vgsr_cosine"
noise=
bad_share=0.1
jobs=2

. utils/parse_options.sh
[ $# -eq 0 ] || { echo "$0: unexpected argument '$1' (see --help)" >&2; exit 1; }
. ./cmd.sh
. ./path.sh
[ -s data/train_all/feats.scp ] || { echo "$0: data/train_all/feats.scp is missing; run ./run.sh --stop_stage 2 first" >&2; exit 1; }

out=exp/faces/$bad_share
if [ ! -e "$out/data/.done" ]; then
  speakers=$(wc -l < data/train/spk2utt)
  ./prepare_data.py --num-train-speakers "$speakers" --bad-face-share "$bad_share" --nj "$jobs" "$out/data"
  cmp -s data/train/utt2spk "$out/data/train/utt2spk" || { echo "$0: data was not made by ./run.sh" >&2; exit 1; }
  rm -rf "$out/data/wav"   # the voices are the same
  touch "$out/data/.done"
fi
bad=$out/data/train
local/compare_kd.sh --cmd "$train_cmd" --kd-types "$kd_types" --reference "$reference" --noise "$noise" \
  --students "$students" --seeds "$seeds" --jobs "$jobs" \
  --teachers "faces=data/train/face.scp,quality=data/train/utt2quality bad=$bad/face.scp,quality=$bad/utt2quality" \
  --train-config conf/train_short.conf --head conf/head_short.conf --train-options "--missing zero" \
  data/train_all data/test data/test/trials "$out"
