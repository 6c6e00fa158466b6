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
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from speakerkd.conf import build, opt, parse_args, read_conf, run
from speakerkd.data.audio import AudioError, mono, read_audio, resample
from speakerkd.data.augment import Augmenter
from speakerkd.data.fbank import Fbank, FbankConf
from speakerkd.data.kaldi import ArkWriter
from speakerkd.data.tables import Segment, read_lines, read_segments, read_table, write_table


@dataclass
class Options:
    fbank_config: str = opt("", "conf file with Kaldi's options of compute-fbank-feats")
    compress: bool = opt(True, "store two bytes a value (CM2) instead of four")
    report_every: float = opt(10.0, "seconds between lines of progress")


class Recordings:
    """Waves by utterance, mono and at one rate. The last recording is kept, for its segments and copies that follow."""

    def __init__(self, data_dir: Path, rate: int, channel: int) -> None:
        self._sources = read_table(data_dir / "wav.scp")
        has_segments = (data_dir / "segments").exists()
        self._segments = read_segments(data_dir / "segments") if has_segments else None
        self._rate, self._channel = rate, channel
        self._source, self._wave = "", np.zeros(0, np.float32)
        self.notes: Counter[str] = Counter()

    def wave(self, utterance: str) -> np.ndarray:
        if self._segments is None:
            return self._recording(utterance)
        segment = self._segments.get(utterance)
        if segment is None:
            raise AudioError("has no line in segments")
        return self._cut(self._recording(segment.recording), segment)

    def _recording(self, name: str) -> np.ndarray:
        source = self._sources.get(name)
        if source is None:
            raise AudioError(f"recording {name} has no line in wav.scp")
        if source != self._source:
            samples, rate = read_audio(source)
            if samples.shape[1] > 1 and self._channel < 0:
                self.notes[f"{samples.shape[1]} channels: the first is taken (--channel chooses)"] += 1
            if rate != self._rate:
                self.notes[f"{rate} Hz: resampled to {self._rate} Hz"] += 1
            self._wave, self._source = resample(mono(samples, self._channel), rate, self._rate), source
        return self._wave

    def _cut(self, wave: np.ndarray, segment: Segment) -> np.ndarray:
        seconds = len(wave) / self._rate
        if segment.start >= seconds:
            raise AudioError(f"its segment starts at {segment.start:.2f} s, the recording has {seconds:.2f} s")
        if segment.end > seconds + 0.5:  # Kaldi's tolerance for an end past the end
            raise AudioError(f"its segment ends at {segment.end:.2f} s, the recording has {seconds:.2f} s")
        end = len(wave) if segment.end < 0 else round(segment.end * self._rate)
        return wave[round(segment.start * self._rate) : end]


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
    recordings = Recordings(folder, fbank.rate, conf.channel)
    utterances = [line.split()[0] for _, line in read_lines(utterance_list)]
    texts = read_table(folder / "utt2aug") if (folder / "utt2aug").exists() else {}
    sources = read_table(folder / "aug.scp") if (folder / "aug.scp").exists() else {}
    augmenter = Augmenter(sources, fbank.rate)

    lost: dict[str, str] = {}
    frames: dict[str, int] = {}
    durations: dict[str, str] = {}
    progress = Progress(len(utterances), options.report_every)
    with ArkWriter(prefix, options.compress) as write:
        for utterance in utterances:
            seconds = 0.0
            try:
                wave = recordings.wave(utterance)
                if utterance in texts:
                    wave = changed(augmenter, wave, texts[utterance], f"{folder}/utt2aug: {utterance}")
                features = compute(fbank, wave, zlib.crc32(utterance.encode()))
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
    for note, count in recordings.notes.items():
        logging.warning("%d recording(s) have %s", count, note)
    logging.info("%d in, %d out, %d lost, %s", len(utterances), len(frames), len(lost), progress.speed())


def changed(augmenter: Augmenter, wave: np.ndarray, text: str, where: str) -> np.ndarray:
    try:
        return augmenter(wave, text)
    except AudioError:
        raise  # of this utterance alone
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def compute(fbank: Fbank, wave: np.ndarray, seed: int) -> np.ndarray:
    seconds = len(wave) / fbank.rate
    if seconds < fbank.conf.min_duration:
        raise AudioError(f"is shorter than --min-duration ({seconds:.2f} s)")
    features = fbank(wave, seed)
    if len(features) == 0:
        raise AudioError(f"is shorter than a frame ({len(wave)} samples)")
    if not np.isfinite(features.sum(dtype=np.float64)):
        raise AudioError("gives features that are not finite")
    return features


if __name__ == "__main__":
    run(main)
