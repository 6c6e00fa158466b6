#!/usr/bin/env python3
"""Compute the filterbank features of some utterances: one job of make_fbank.sh.

Usage: local/compute_fbank.py [options] <data-dir> <utterances> <out-prefix>
  local/compute_fbank.py --fbank-config conf/fbank.conf data/train data/train/log/utts.1 data/train/data/raw_fbank_train.1

<utterances> is a table whose first column names the utterances to do, such as a part of wav.scp. Of the data directory
wav.scp is read, and segments, utt2aug and aug.scp where they exist. Written are <out-prefix>.ark and .scp, and beside them
.utt2num_frames, .utt2dur and .lost_utts (utterance, reason). An unusable recording is listed there and the rest goes on.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from speakerkd.audio.recordings import AudioError
from speakerkd.audio.waves import Waves
from speakerkd.conf import build, opt, parse_args, read_conf, run
from speakerkd.feats.fbank import Fbank, FbankConf
from speakerkd.feats.source import features_of
from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.tables import read_lines, write_table


@dataclass
class Options:
    fbank_config: str = opt("", "conf file with Kaldi's options of compute-fbank-feats")
    compress: bool = opt(True, "store two bytes a value (CM2) instead of four")
    report_every: float = opt(10.0, "seconds between lines of progress")


class Progress:
    """A line now and then: how many are done, how fast, how long still."""

    def __init__(self, total: int, every: float) -> None:
        self.total, self.every = total, every
        self.done, self.seconds = 0, 0.0
        self.started = self.last = time.monotonic()

    def add(self, seconds: float) -> None:
        self.done += 1
        self.seconds += seconds
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            left = (now - self.started) * (self.total - self.done) / self.done
            logging.info("%d of %d, %s, %.0f s left", self.done, self.total, self.speed(), left)

    def speed(self) -> str:
        return f"{self.seconds / max(time.monotonic() - self.started, 1e-9):.0f} times real time"


def main(argv: list[str]) -> None:
    options, (data_dir, utterance_list, prefix) = parse_args(Options, argv, __doc__, 3)
    torch.set_num_threads(1)  # the jobs are the parallelism
    folder = Path(data_dir)
    conf = FbankConf()
    if options.fbank_config:
        conf = build(FbankConf, read_conf(options.fbank_config), options.fbank_config)
    fbank = Fbank(conf)
    with open(utterance_list, "rb") as file:  # unchecked: of a fault the table that the list is of is to be named
        ids = {words[0].decode("utf-8", "replace") for words in map(bytes.split, file) if words}
    waves = Waves(folder, fbank.rate, conf.channel, ids)
    utterances = [line.split()[0] for _, line in read_lines(utterance_list)]

    lost: dict[str, str] = {}
    frames: dict[str, int] = {}
    durations: dict[str, str] = {}
    progress = Progress(len(utterances), options.report_every)
    with ArkWriter(prefix, options.compress) as write:
        for utterance in utterances:
            seconds = 0.0
            try:
                wave = waves(utterance)
                features = compute(fbank, wave, utterance)
            except AudioError as error:
                lost[utterance] = str(error)
                logging.warning("%s %s", utterance, error)
            else:
                seconds = len(wave) / fbank.rate
                write(utterance, features)
                frames[utterance] = len(features)
                durations[utterance] = f"{seconds:.3f}"
            progress.add(seconds)
    write_table(f"{prefix}.utt2num_frames", frames)
    write_table(f"{prefix}.utt2dur", durations)
    write_table(f"{prefix}.lost_utts", lost)
    waves.say()
    logging.info("%d in, %d out, %d lost, %s", len(utterances), len(frames), len(lost), progress.speed())


def compute(fbank: Fbank, wave: np.ndarray, utterance: str) -> np.ndarray:
    seconds = len(wave) / fbank.rate
    if seconds < fbank.conf.min_duration:
        raise AudioError(f"is shorter than --min-duration ({seconds:.2f} s)")
    return features_of(wave, fbank, utterance)


if __name__ == "__main__":
    run(main)
