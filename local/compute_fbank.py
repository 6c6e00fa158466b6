#!/usr/bin/env python3
"""Computes the filterbank features of some utterances: one job of make_fbank.sh.

Usage: local/compute_fbank.py [options] <data-dir> <utterances> <out-prefix>
  local/compute_fbank.py --fbank-config conf/fbank.conf data/train data/train/log/utts.1 data/train/data/raw_fbank_train.1

<utterances> is a table whose first column names the utterances, such as a part of wav.scp. It reads wav.scp of the data
directory, and segments, utt2aug and aug.scp if they exist. It writes <out-prefix>.ark and .scp, and beside them
.utt2num_frames, .utt2dur and .lost_utts (utterance, reason). Unusable recordings are listed there; the others are used.
If <out-prefix> was made from the same recordings with the same options, it is kept.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from speakerkd.audio.recordings import AudioError
from speakerkd.audio.waves import Waves
from speakerkd.conf import build, opt, parse_args, read_conf, run
from speakerkd.feats.fbank import Fbank, FbankConf
from speakerkd.feats.source import features_of
from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.made import Part, origin_in_recordings
from speakerkd.files.tables import read_lines, write_table
from speakerkd.progress import Progress

FORMAT = "fbank 1"  # change it when the same options compute something else


@dataclass
class Options:
    fbank_config: str = opt("", "conf file with Kaldi's options of compute-fbank-feats")
    compress: bool = opt(True, "store two bytes per value (CM2) instead of four")
    report_every: float = opt(10.0, "seconds between progress lines in the log")


def main(argv: list[str]) -> None:
    options, (data_dir, utterance_list, prefix) = parse_args(Options, argv, __doc__, 3)
    torch.set_num_threads(1)  # the jobs run side by side
    folder = Path(data_dir)
    conf = FbankConf()
    if options.fbank_config:
        conf = build(FbankConf, read_conf(options.fbank_config), options.fbank_config)
    fbank = Fbank(conf)
    # The tables are checked when they are read, with an unchecked list of utterances: an error then names its table.
    with open(utterance_list, "rb") as file:
        ids = {words[0].decode("utf-8", "replace") for words in map(bytes.split, file) if words}
    waves = Waves(folder, fbank.rate, conf.channel, ids)
    utterances = [line.split()[0] for _, line in read_lines(utterance_list)]
    settings = f"{FORMAT} {options.compress} {sorted(asdict(conf).items())}"
    part = Part(prefix, origin_in_recordings(folder, utterances, settings), ("utt2num_frames", "utt2dur", "lost_utts"))
    if part.kept():
        logging.info("%d utterances: %s.ark is kept, which was made from the same recordings", len(utterances), prefix)
        return

    lost: dict[str, str] = {}
    unread: list[str] = []
    frames: dict[str, int] = {}
    durations: dict[str, str] = {}
    progress = Progress(len(utterances), options.report_every)
    with ArkWriter(prefix, options.compress) as write:
        for utterance in utterances:
            seconds = 0.0
            wave = None
            try:
                wave = waves(utterance)
                features = compute(fbank, wave, utterance)
            except AudioError as error:
                lost[utterance] = str(error)
                unread += [utterance] if wave is None else []
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
    part.finish(unread, Path(data_dir))
    waves.log_warnings()
    logging.info("%d in, %d out, %d lost, %s", len(utterances), len(frames), len(lost), progress.speed())


def compute(fbank: Fbank, wave: np.ndarray, utterance: str) -> np.ndarray:
    seconds = len(wave) / fbank.rate
    if seconds < fbank.conf.min_duration:
        raise AudioError(f"is shorter than --min-duration ({seconds:.2f} s)")
    return features_of(wave, fbank, utterance)


if __name__ == "__main__":
    run(main)
