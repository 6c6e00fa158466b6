"""Log likelihood ratios from scores: ratio = scale * score + offset, by logistic regression at a prior of 0.5.

If the same trials trained the calibration and were then judged by it, the costs would be too low. So by default, each
trial is calibrated by a line that was trained without its two speakers. The speakers are divided into folds. A trial
between folds a and b gets the line trained on the trials that have no speaker of a or b. To know what a deployed system
would reach, calibrate on other data (read_calibration).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from speakerkd.conf import read_conf
from speakerkd.files.tables import replacing
from speakerkd.score.trials import Speakers

NUM_FOLDS = 5
_SLICES = 5000
_TAIL = 0.01  # share of the scores at either end that does not decide their scale
_RIDGE = 1e-6  # keeps the scale finite if all targets score above all nontargets


class Calibration(NamedTuple):
    scale: float
    offset: float

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        return self.scale * scores.astype(np.float64) + self.offset


def fit(scores: np.ndarray, target: np.ndarray, max_steps: int = 100) -> Calibration:
    """Newton's method for scale and offset. All targets together weigh as much as all nontargets."""
    if target.all() or not target.any():
        raise ValueError("a calibration needs target and nontarget trials")
    values, shares = _pooled(scores, target)
    if np.ptp(scores) == 0:
        raise ValueError("all scores are the same: there is nothing to calibrate")
    low, centre, high = np.quantile(scores.astype(np.float64), [_TAIL, 0.5, 1 - _TAIL])
    size = float((high - low) / 4 or scores.std(dtype=np.float64))
    x = np.tile((values - centre) / size, 2)
    signs = np.repeat([1.0, -1.0], len(values))
    weights = np.concatenate([0.5 * shares[0], 0.5 * shares[1]])
    line = np.zeros(2)

    def loss(line: np.ndarray) -> float:
        return float(weights @ np.logaddexp(0, -signs * (line[0] * x + line[1])) + 0.5 * _RIDGE * (line @ line))

    value = loss(line)
    for _ in range(max_steps):
        wrong = 1 / (1 + np.exp(np.clip(signs * (line[0] * x + line[1]), -500, 500)))
        pull, curve = weights * signs * wrong, weights * wrong * (1 - wrong)
        gradient = np.array([pull @ x, pull.sum()]) - _RIDGE * line
        cross = curve @ x
        hessian = np.array([[curve @ (x * x), cross], [cross, curve.sum()]]) + _RIDGE * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        share = 1.0
        while loss(line + share * step) > value and share > 1e-6:  # a full step may overshoot far from the optimum
            share /= 2
        line = line + share * step
        before, value = value, loss(line)
        if before - value < 1e-12:
            break
    return Calibration(float(line[0] / size), float(line[1] - line[0] * centre / size))


def _pooled(scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (G,), and the share of the targets and of the nontargets at each value (2, G).

    Many scores are pooled into thin slices, each at its mean: the line is the same to five digits and a hundred times
    cheaper. The highest and lowest scores stay single, since one extreme score would make all slices thick.
    """
    slices = np.arange(len(scores))
    if len(scores) > 4 * _SLICES:
        low, high = np.quantile(scores, [_TAIL / 10, 1 - _TAIL / 10])
        inside = (scores >= low) & (scores <= high)
        width = float(high - low) or 1.0
        slices[inside] = ((scores[inside] - low) * (_SLICES / width)).astype(np.int64).clip(0, _SLICES - 1)
        slices[~inside] = _SLICES + np.arange(np.sum(~inside))
    counts = np.bincount(slices)
    hits = np.bincount(slices, target)
    values = np.bincount(slices, scores) / np.maximum(counts, 1)
    shares = np.stack([hits / hits.sum(), (counts - hits) / (counts - hits).sum()])
    return values[counts > 0], shares[:, counts > 0]


def deal_folds(speakers: Speakers, num_folds: int) -> np.ndarray:
    """The fold of each speaker: the one with the most trials first, each into the fold with the fewest trials."""
    trials = np.bincount(speakers.enroll, minlength=speakers.count) + np.bincount(
        speakers.test, minlength=speakers.count
    )
    fold, load = np.empty(speakers.count, np.int64), np.zeros(num_folds)
    for speaker in np.argsort(-trials, kind="stable"):
        fold[speaker] = load.argmin()
        load[fold[speaker]] += trials[speaker]
    return fold


def cross_validate(scores: np.ndarray, target: np.ndarray, speakers: Speakers) -> np.ndarray | None:
    """Ratios of all trials, each by a line trained without its speakers; None if there are too few speakers."""
    num_folds = min(NUM_FOLDS, speakers.count // 2)
    if num_folds < 3:
        return None
    fold = deal_folds(speakers, num_folds)
    of_enroll, of_test = fold[speakers.enroll], fold[speakers.test]
    ratios = np.empty(len(scores))
    for one in range(num_folds):
        for other in range(one, num_folds):
            judged = ((of_enroll == one) & (of_test == other)) | ((of_enroll == other) & (of_test == one))
            apart = (of_enroll != one) & (of_enroll != other) & (of_test != one) & (of_test != other)
            if not judged.any():
                continue
            if not target[apart].any() or target[apart].all() or np.ptp(scores[apart]) == 0:
                return None
            ratios[judged] = fit(scores[apart], target[apart])(scores[judged])
    return ratios


def write_calibration(path: str | Path, calibration: Calibration) -> None:
    with replacing(path) as file:
        file.write(f"--scale={calibration.scale!r}  # log likelihood ratio = scale * score + offset\n")
        file.write(f"--offset={calibration.offset!r}\n")


def read_calibration(path: str | Path) -> Calibration:
    pairs = read_conf(path)
    try:
        return Calibration(float(pairs["scale"]), float(pairs["offset"]))
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: needs --scale=number and --offset=number, as score.py writes them") from error
