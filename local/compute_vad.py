#!/usr/bin/env python3
"""Speech decisions of some utterances by Kaldi's energy rule: one job of compute_vad.sh.

Usage: local/compute_vad.py [options] <data-dir> <feats.scp> <out-prefix>
  local/compute_vad.py --vad-config conf/vad.conf data/train data/train/log/feats.1 data/train/data/vad_train.1

<feats.scp> is that of the data directory or a part of it. The result is <out-prefix>.ark and .scp: for each utterance a
vector of 1 (speech) and 0. compute_vad.sh says where the energies come from.
"""

import logging
from dataclasses import dataclass

import torch

from speakerkd.conf import build, opt, parse_args, read_conf, run
from speakerkd.feats.vad import VadConf, energy_of, energy_vad
from speakerkd.files.kaldi import ArkWriter


@dataclass
class Options:
    vad_config: str = opt("", "conf file with Kaldi's options of compute-vad")


def main(argv: list[str]) -> None:
    options, (folder, listed, prefix) = parse_args(Options, argv, __doc__, 3)
    torch.set_num_threads(1)  # the jobs run side by side
    conf = build(VadConf, read_conf(options.vad_config), options.vad_config) if options.vad_config else VadConf()
    energy = energy_of(folder, listed)
    logging.info("log energy: %s", energy.what)
    utterances = frames = speech = 0
    with ArkWriter(prefix, ragged=True) as write:
        for utterance in energy:
            decisions = energy_vad(energy(utterance), conf)
            write(utterance, decisions)
            utterances += 1
            frames += len(decisions)
            speech += int(decisions.sum())
    logging.info("%d utterances, %d frames, %d of speech", utterances, frames, speech)


if __name__ == "__main__":
    run(main)
