#!/usr/bin/env python3
"""Writes a figure of quality for each utterance, for methods that weight their samples: --vectors quality=<utt2quality>.

Usage: local/measure_quality.py [options] <data-dir> <utt2quality>
  local/measure_quality.py --figure snr data/train data/train/utt2snr
  local/measure_quality.py --vectors exp/campplus/xvectors_train/xvector.scp data/train exp/campplus/utt2agreement
  local/train.sh --kd conf/kd/vgsr_quality.conf --teacher exp/campplus/xvectors_train/xvector.scp \\
    --vectors quality=exp/campplus/utt2agreement data/train exp/taught

--figure is one of
  agreement   the cosine of the utterance's vector to the mean of the other vectors of its speaker, all of length 1. It tells
              which of a teacher's vectors are wrong or poor. If a speaker has one vector, it gets the mean of all figures.
  snr         an estimate of the signal-to-noise ratio in dB. The noise is each filter's mean power in its quietest tenth of
              the frames. It ranks utterances; it is not calibrated: for noise at 0, 5, 10 and 15 dB in copies of egs/open's
              pieces (1.5 s) it gave 12, 17, 20 and 24 dB on average, and 38 dB for the pieces themselves.
  length      seconds of speech: the frames within 30 dB of the utterance's loudest one.
snr and length are computed from feats.scp, which must be log mel filterbanks (conf/fbank.conf).

With --cap 0.25, figures above their 25 % quantile are lowered to it. The best three quarters then weigh alike, and only poor
utterances lose weight.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.conf import build, opt, parse_args, read_conf, run
from speakerkd.feats.fbank import FbankConf
from speakerkd.feats.source import feature_conf
from speakerkd.files.kaldi import Scp
from speakerkd.files.tables import read_utt2spk, write_table
from speakerkd.files.vectors import read_vectors

FIGURES = ("agreement", "snr", "length")
QUIET = 0.1  # the share of the frames that tell the noise
RANGE = 30.0  # dB below the loudest frame; what is quieter is no speech
LOWEST, HIGHEST = -20.0, 60.0  # dB; the estimates are cut there


@dataclass
class Options:
    figure: str = opt("agreement", "figure: agreement, snr or length")
    vectors: str = opt("", "xvector.scp with the teacher's vectors, for agreement")
    cap: float = opt(1.0, "quantile of the figures, 0 to 1; higher figures are lowered to it")


def agreement(matrix: np.ndarray, speakers: np.ndarray) -> tuple[np.ndarray, int]:
    """(N, D) vectors and their speakers' numbers -> (N,) figures, and how many speakers have a single vector."""
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    unit = matrix / np.maximum(lengths, 1e-12)
    sums = np.zeros((speakers.max() + 1, matrix.shape[1]))
    order = np.argsort(speakers, kind="stable")
    starts = np.flatnonzero(np.diff(speakers[order], prepend=-1))
    sums[speakers[order[starts]]] = np.add.reduceat(unit[order], starts, axis=0, dtype=np.float64)
    others = sums[speakers] - unit
    figures = (unit * others).sum(1) / np.maximum(np.linalg.norm(others, axis=1), 1e-12)
    alone = np.bincount(speakers)[speakers] == 1
    figures[alone] = figures[~alone].mean() if not alone.all() else 0.0
    return figures, int(alone.sum())


def powers(path: str | Path, conf: FbankConf) -> Iterator[tuple[str, np.ndarray]]:
    """Utterance, (frames, filters) of power."""
    scp = Scp(path, pipes=True)
    for index, utterance in enumerate(scp):
        rows = scp.read(index).astype(np.float64)
        if rows.ndim != 2 or rows.shape[1] != conf.num_mel_bins + conf.use_energy or not len(rows):
            raise ValueError(f"{path}: '{utterance}' has the shape {rows.shape}, but conf/fbank.conf says "
                             f"{conf.num_mel_bins} filters; was the file copied from another data directory?")  # fmt: skip
        if conf.use_energy:
            rows = rows[:, :-1] if conf.htk_compat else rows[:, 1:]
        if conf.use_log_fbank:
            rows = np.exp(rows)
        yield utterance, rows if conf.use_power else rows**2


def snr(power: np.ndarray) -> float:
    """The estimate in dB, of (frames, filters) of power."""
    quiet = max(1, round(QUIET * len(power)))
    noise = np.partition(power, quiet - 1, axis=0)[:quiet].mean(0).sum()
    speech = power.mean(0).sum() - noise
    return float(np.clip(10 * np.log10(max(speech, 1e-12) / max(noise, 1e-12)), LOWEST, HIGHEST))


def seconds_of_speech(power: np.ndarray, shift: float) -> float:
    loudness = power.sum(1)
    return float((loudness >= loudness.max() * 10 ** (-RANGE / 10)).sum() * shift)


def main(argv: list[str]) -> None:
    options, (data_dir, out) = parse_args(Options, argv, __doc__, 2)
    if options.figure not in FIGURES:
        raise ValueError(f"--figure={options.figure} is not one of: {' '.join(FIGURES)}")
    if (options.figure == "agreement") != bool(options.vectors):
        raise ValueError("--figure=agreement needs --vectors, the teacher's xvector.scp; snr and length take none")
    if not 0 < options.cap <= 1:
        raise ValueError(f"--cap={options.cap} is above 0 and at most 1")
    folder = Path(data_dir)
    figures: dict[str, float] = {}
    if options.figure == "agreement":
        utt2spk = read_utt2spk(folder / "utt2spk")
        vectors = read_vectors(options.vectors, utt2spk)
        numbers = {speaker: number for number, speaker in enumerate(sorted(set(utt2spk.values())))}
        owners = np.array([numbers[utt2spk[utterance]] for utterance in vectors.ids])
        found, alone = agreement(vectors.matrix.astype(np.float64), owners)
        figures = dict(zip(vectors.ids, found.tolist(), strict=True))
        if alone:
            logging.warning("%d speakers have one vector only; they get the mean figure", alone)
        if len(figures) < len(utt2spk):
            logging.warning("%s: %d utterances of %s have no vector, so no figure; train with --missing zero",
                            options.vectors, len(utt2spk) - len(figures), data_dir)  # fmt: skip
    else:
        path = feature_conf(folder)
        if path is None or not (folder / "feats.scp").exists():
            raise ValueError(f"{data_dir}: feats.scp or conf/fbank.conf is missing; run local/make_fbank.sh {data_dir}")
        conf = build(FbankConf, read_conf(path), str(path))
        for utterance, power in powers(folder / "feats.scp", conf):
            figures[utterance] = (
                snr(power) if options.figure == "snr" else seconds_of_speech(power, conf.frame_shift / 1000)
            )
    highest = float(np.quantile(list(figures.values()), options.cap))
    write_table(out, {utterance: f"{min(figure, highest):.4f}" for utterance, figure in figures.items()})
    low, middle, high = np.quantile(list(figures.values()), (0.1, 0.5, 0.9))
    logging.info("%s: %s of %d utterances; 10 %%, 50 %%, 90 %% of them are below %.3g, %.3g, %.3g",
                 out, options.figure, len(figures), low, middle, high)  # fmt: skip


if __name__ == "__main__":
    run(main)
