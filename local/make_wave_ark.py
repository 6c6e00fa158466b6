#!/usr/bin/env python3
"""Writes the waves of some utterances into a Kaldi wave archive: one job of make_wave_ark.sh.

Usage: local/make_wave_ark.py [options] <data-dir> <utterances> <out-prefix>
  local/make_wave_ark.py --fbank-config conf/fbank.conf data/x data/x/log/wave_utts_x.1 data/x/data/raw_wave_x.1

<utterances> is a table whose first column names the utterances, such as a part of wav.scp. It reads wav.scp of the data
directory, and segments, utt2aug and aug.scp if they exist. It writes <out-prefix>.ark and .scp, and beside them
.utt2num_samples, .utt2dur and .lost_utts (utterance, reason). Unusable recordings are listed there; the others are
used. If <out-prefix> was made from the same recordings in the same way, it is kept.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from speakerkd.audio.recordings import AudioError
from speakerkd.audio.waveark import WaveArkWriter
from speakerkd.audio.waves import Waves
from speakerkd.conf import build, opt, parse_args, read_conf, run
from speakerkd.feats.fbank import FbankConf
from speakerkd.files.made import Part, origin_in_recordings
from speakerkd.files.tables import read_lines, write_table


@dataclass
class Options:
    fbank_config: str = opt("", "conf file of the features; only its rate, channel and shortest duration are used")


def main(argv: list[str]) -> None:
    options, (data_dir, utterance_list, prefix) = parse_args(Options, argv, __doc__, 3)
    torch.set_num_threads(1)  # the jobs run side by side
    folder = Path(data_dir)
    conf = FbankConf()
    if options.fbank_config:
        conf = build(FbankConf, read_conf(options.fbank_config), options.fbank_config)
    rate = round(conf.sample_frequency)
    utterances = [line.split()[0] for _, line in read_lines(utterance_list)]
    origin = origin_in_recordings(folder, utterances, f"{rate} {conf.channel} {conf.min_duration}")
    part = Part(prefix, origin, ("utt2num_samples", "utt2dur", "lost_utts"))
    if part.kept():
        logging.info("%d utterances: %s.ark is kept, which was made from the same recordings", len(utterances), prefix)
        return

    waves = Waves(folder, rate, conf.channel, set(utterances))
    lost: dict[str, str] = {}
    unread: list[str] = []
    samples: dict[str, int] = {}
    with WaveArkWriter(prefix, rate) as write:
        for utterance in utterances:
            wave = None
            try:
                wave = waves(utterance)
                if len(wave) == 0:
                    raise AudioError("holds no samples")
                if len(wave) < conf.min_duration * rate:
                    raise AudioError(f"is shorter than --min-duration ({len(wave) / rate:.2f} s)")
                write(utterance, wave)
            except AudioError as error:
                lost[utterance] = str(error)
                unread += [utterance] if wave is None else []
                logging.warning("%s %s", utterance, error)
            else:
                samples[utterance] = len(wave)
    write_table(f"{prefix}.utt2num_samples", samples)
    write_table(f"{prefix}.utt2dur", {utterance: f"{count / rate:.3f}" for utterance, count in samples.items()})
    write_table(f"{prefix}.lost_utts", lost)
    part.finish(unread, folder)
    waves.log_warnings()
    if write.quieter:
        logging.warning("%d utterance(s) were louder than 16 bits hold, and were scaled down", write.quieter)
    logging.info("%d in, %d out, %d lost", len(utterances), len(samples), len(lost))


if __name__ == "__main__":
    run(main)
