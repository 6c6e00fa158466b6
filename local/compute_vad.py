#!/usr/bin/env python3
"""Speech decisions of some utterances by Kaldi's energy rule: one job of compute_vad.sh.

Usage: local/compute_vad.py [options] <feats.scp> <out-prefix>
  local/compute_vad.py --vad-config conf/vad.conf data/train/log/feats.1 data/train/data/vad_train.1

Written are <out-prefix>.ark and .scp: a vector of 1 (speech) and 0 for each utterance.
"""

import logging
from dataclasses import dataclass

from speakerkd.conf import build, opt, parse_args, read_conf, run
from speakerkd.feats.fbank import Fbank, FbankConf
from speakerkd.feats.vad import VadConf, energy_vad, log_energy_of_fbank
from speakerkd.files.kaldi import ArkWriter, Scp


@dataclass
class Options:
    vad_config: str = opt("", "conf file with Kaldi's options of compute-vad")
    fbank_config: str = opt(
        "", "how the features were made; without it the first column is the log energy, as in Kaldi"
    )


def main(argv: list[str]) -> None:
    options, (feats, prefix) = parse_args(Options, argv, __doc__, 2)
    conf = build(VadConf, read_conf(options.vad_config), options.vad_config) if options.vad_config else VadConf()
    padded, column = 0, 0
    if options.fbank_config:
        fbank = build(FbankConf, read_conf(options.fbank_config), options.fbank_config)
        if not fbank.use_energy:
            padded = Fbank(fbank).padded
        elif fbank.htk_compat:
            column = -1
    logging.info("log energy: %s", "the sum of the filters" if padded else f"column {column}")
    scp = Scp(feats)
    frames = speech = 0
    with ArkWriter(prefix, ragged=True) as write:
        for index, utterance in enumerate(scp):
            features = scp.read(index)
            if features.ndim != 2:
                raise ValueError(f"{feats}: '{utterance}' is a vector, not a matrix of features")
            energy = log_energy_of_fbank(features, padded) if padded else features[:, column]
            decisions = energy_vad(energy, conf)
            write(utterance, decisions)
            frames += len(decisions)
            speech += int(decisions.sum())
    logging.info("%d utterances, %d frames, %.1f %% speech", len(scp), frames, 100 * speech / frames)


if __name__ == "__main__":
    run(main)
