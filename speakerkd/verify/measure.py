"""Thresholds of an exported model: its scores on speakers that it was not trained on, by length of speech and by noise."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from speakerkd.audio.recordings import AudioError
from speakerkd.score.bootstrap import draw_speakers, replicate
from speakerkd.score.calibrate import fit
from speakerkd.score.cosine import length_normalise, score_trials
from speakerkd.score.intervals import estimate, share_interval
from speakerkd.score.metrics import eer, roc
from speakerkd.score.trials import Speakers, Trials
from speakerkd.verify.encoder import Encoder
from speakerkd.verify.recording import speech_of

LENGTHS = (1.0, 2.0, 4.0, 0.0)  # seconds; 0 is the whole recording
RATES = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001)
LEAST_ACCEPTS = 10  # a false-acceptance rate is measured only with this many false accepts
Wave = Callable[[str], np.ndarray]
Change = Callable[[np.ndarray, str], np.ndarray]


class Heard(NamedTuple):
    vectors: np.ndarray  # (N, D); a row of zeros where there is none
    present: np.ndarray  # (N,) bool
    speech: np.ndarray  # (N,) seconds
    snr: np.ndarray  # (N,) dB


def hear(
    encoder: Encoder, ids: Sequence[str], wave_of: Wave, change: Change | None, seconds: float, seed: int
) -> Heard:
    """Embeddings of one stretch of each recording, at a random place (by seed). Shorter recordings are left out."""
    vectors = np.zeros((len(ids), encoder.dim), np.float32)
    present, speech, snr = np.zeros(len(ids), bool), np.zeros(len(ids)), np.zeros(len(ids))
    size = round(seconds * encoder.rate)
    for index, name in enumerate(ids):
        try:
            wave = wave_of(name)
        except AudioError:
            continue
        if size:
            room = len(wave) - size
            if room < 0:
                continue
            start = int(np.random.default_rng([seed, index]).integers(room + 1))
            wave = wave[start : start + size]
        if change is not None:
            wave = change(wave, name)
        speech[index], snr[index] = speech_of(wave, encoder.rate)
        vectors[index], present[index] = encoder(wave), True
    return Heard(vectors, present, speech, snr)


def measure(
    encoder: Encoder, trials: Trials, speakers: Speakers, wave_of: Wave, noises: dict[str, Change | None], seed: int
) -> tuple[list[dict[str, Any]], float]:
    """The conditions of a card, and the signal-to-noise ratio that separates the clean from the noisy recordings.

    Both sides of a trial have the same length and noise. If fewer than half of the trials are left for a length, it is
    not measured.
    """
    ids = sorted({*trials.enroll_ids, *trials.test_ids})
    place = {name: index for index, name in enumerate(ids)}
    enroll = np.array([place[name] for name in trials.enroll_ids])[trials.enroll]
    test = np.array([place[name] for name in trials.test_ids])[trials.test]
    found: list[dict[str, Any]] = []
    snrs: dict[str, list[float]] = {}
    for noise, change in noises.items():
        for seconds in LENGTHS:
            heard = hear(encoder, ids, wave_of, change, seconds, seed)
            keep = heard.present[enroll] & heard.present[test]
            target = trials.target[keep]
            if keep.sum() < 0.5 * len(trials) or target.all() or not target.any():
                continue
            scores = score_trials(heard.vectors, heard.vectors, enroll[keep], test[keep])
            label = f"{seconds:g} s" if seconds else "whole recordings"
            speech = float(np.median(heard.speech[heard.present]))
            found.append(condition(scores, target, speakers.select(keep).count, label, noise, speech))
            snrs.setdefault(noise, []).append(float(np.median(heard.snr[heard.present])))
    medians = {noise: float(np.mean(values)) for noise, values in snrs.items()}
    noisy = [value for noise, value in medians.items() if noise != "clean"]
    split = (medians["clean"] + max(noisy)) / 2 if "clean" in medians and noisy else -1e9
    return found, round(split, 1)


def condition(
    scores: np.ndarray, target: np.ndarray, count: int, label: str, noise: str, speech: float
) -> dict[str, Any]:
    line = fit(scores, target)
    nontarget = np.sort(scores[~target])[::-1]
    rates = [rate for rate in RATES if rate * len(nontarget) >= LEAST_ACCEPTS]
    accepts = [(rate, round(float(nontarget[int(rate * len(nontarget))]), 5)) for rate in rates]
    return {
        "seconds": round(speech, 2),
        "label": label,
        "noise": noise,
        "scale": round(line.scale, 5),
        "offset": round(line.offset, 5),
        "eer": round(100 * eer(roc(scores, target))[0], 3),
        "false_accepts": accepts,
        "speakers": count,
        "target": int(target.sum()),
        "nontarget": int((~target).sum()),
    }


def error_rates(
    matrices: dict[str, np.ndarray],
    trials: Trials,
    enroll: np.ndarray,
    test: np.ndarray,
    speakers: Speakers,
    num_bootstrap: int,
    seed: int,
) -> list[dict[str, Any]]:
    """EER in percent of each system, with its 95 % interval over the speakers. Trial i compares rows enroll[i], test[i]."""
    draws = draw_speakers(speakers.count, num_bootstrap, seed) if num_bootstrap else None
    found: list[dict[str, Any]] = []
    for system, vectors in matrices.items():
        matrix = length_normalise(vectors)
        scores = score_trials(matrix, matrix, enroll, test)
        value = eer(roc(scores, trials.target))[0]
        low = high = None
        if draws is not None:
            rates = replicate(scores, trials.target, speakers, draws)[:, 0]
            ends = share_interval(estimate([value], rates, speakers.count))
            if not np.isnan(ends.low):  # unknown if there is no error among the trials, or too few speakers
                low, high = round(100 * ends.low, 3), round(100 * ends.high, 3)
        rate = round(100 * value, 3)
        about = {"trials": trials.path, "speakers": speakers.count, "system": system}
        found.append(about | {"eer": rate, "low": low, "high": high})
    return found
