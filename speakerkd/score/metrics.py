"""Error rates and costs of scores: exact, by one sort.

A trial is accepted if its score is at or above the threshold. The EER is where the ROC crosses p_miss = p_fa; the points
of the ROC are joined by straight lines, as in most toolkits. kaldi_eer is the figure of compute-eer, which goes in steps
from target to target. Costs follow NIST: minDCF is divided by the cost of accepting always or never, whichever is less.
"""

from typing import NamedTuple

import numpy as np

PRIORS = (0.01, 0.05, 0.001)  # prior probabilities of a target, for the detection costs; both errors cost 1


class Roc(NamedTuple):
    """p_fa falls, p_miss rises: point k accepts scores of threshold[k] or more; the last point accepts nothing."""

    threshold: np.ndarray
    p_miss: np.ndarray
    p_fa: np.ndarray


class Groups(NamedTuple):
    """Trials in rising order of their scores, cut into groups between which a threshold can stand."""

    order: np.ndarray  # (N,) trial numbers
    starts: np.ndarray  # (G,) first place of each group in the order
    scores: np.ndarray  # (G,) lowest score of each group


def group_scores(scores: np.ndarray, target: np.ndarray, merge: bool = False) -> Groups:
    """Equal scores form a group. merge also joins neighbours of the same kind: no threshold between them is better."""
    if not len(scores):
        raise ValueError("there are no scores; error rates need target and nontarget trials")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinite values")
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    if merge:
        sizes = np.diff(starts, append=len(scores))
        targets = np.add.reduceat(target[order].astype(np.int64), starts)
        kind = np.where(targets == sizes, 1, np.where(targets == 0, -1, 0))
        starts = starts[np.concatenate([[True], (kind[1:] != kind[:-1]) | (kind[1:] == 0)])]
    return Groups(order, starts, ordered[starts])


def roc(scores: np.ndarray, target: np.ndarray) -> Roc:
    groups = group_scores(scores, target)
    ordered = target[groups.order].astype(np.float64)
    return roc_of_groups(
        groups.scores, np.add.reduceat(ordered, groups.starts), np.add.reduceat(1 - ordered, groups.starts)
    )


def roc_of_groups(scores: np.ndarray, target_weight: np.ndarray, nontarget_weight: np.ndarray) -> Roc:
    miss = np.concatenate([[0.0], np.cumsum(target_weight)])
    rejected = np.concatenate([[0.0], np.cumsum(nontarget_weight)])
    if miss[-1] <= 0 or rejected[-1] <= 0:
        raise ValueError("error rates need target and nontarget trials")
    return Roc(np.concatenate([scores, [np.inf]]), miss / miss[-1], 1 - rejected / rejected[-1])


def eer(curve: Roc) -> tuple[float, float]:
    """The equal error rate, as a fraction, and the threshold of the point of the ROC nearest to it."""
    above = int(np.argmax(curve.p_miss >= curve.p_fa))
    gaps = curve.p_fa[above - 1] - curve.p_miss[above - 1], curve.p_miss[above] - curve.p_fa[above]
    share = gaps[0] / (gaps[0] + gaps[1])
    value = curve.p_miss[above - 1] + share * (curve.p_miss[above] - curve.p_miss[above - 1])
    nearest = above if share > 0.5 and np.isfinite(curve.threshold[above]) else above - 1
    return float(value), float(curve.threshold[nearest])


def min_dcf(curve: Roc, prior: float) -> tuple[float, float]:
    """The normalised cost at the best threshold, and that threshold (infinite: accept nothing)."""
    cost = (prior * curve.p_miss + (1 - prior) * curve.p_fa) / min(prior, 1 - prior)
    best = int(np.argmin(cost))
    return float(cost[best]), float(curve.threshold[best])


def act_dcf(ratios: np.ndarray, target: np.ndarray, prior: float) -> float:
    """The normalised cost of log likelihood ratios at the threshold that theory gives."""
    accepted = ratios >= np.log((1 - prior) / prior)
    cost = prior * (~accepted[target]).mean() + (1 - prior) * accepted[~target].mean()
    return float(cost / min(prior, 1 - prior))


def cllr(ratios: np.ndarray, target: np.ndarray) -> float:
    """Bruemmer's cost of log likelihood ratios, in bits: 0 is perfect, 1 is knowing nothing."""
    miss = np.logaddexp(0, -ratios[target].astype(np.float64)).mean()
    alarm = np.logaddexp(0, ratios[~target].astype(np.float64)).mean()
    return float((miss + alarm) / (2 * np.log(2)))


def min_cllr(scores: np.ndarray, target: np.ndarray) -> float:
    """Cllr after the best monotonic map from scores to log likelihood ratios (pool adjacent violators)."""
    groups = group_scores(scores, target, merge=True)
    ordered = target[groups.order].astype(np.int64)
    targets = np.add.reduceat(ordered, groups.starts)
    others = np.add.reduceat(1 - ordered, groups.starts)
    blocks: list[tuple[int, int]] = []
    for block in zip(targets.tolist(), others.tolist(), strict=True):
        hits, misses = block
        # The share of targets must rise from block to block. While it does not, join the block with the one before.
        while blocks and blocks[-1][0] * misses >= hits * blocks[-1][1]:
            before = blocks.pop()
            hits, misses = hits + before[0], misses + before[1]
        blocks.append((hits, misses))
    hits_of, misses_of = np.array(blocks, dtype=np.float64).T
    with np.errstate(divide="ignore", invalid="ignore"):  # log 0 and 0 * infinity occur; where() does not take them
        ratios = np.log(hits_of) - np.log(misses_of) - np.log(hits_of.sum() / misses_of.sum())
        miss = np.where(hits_of > 0, hits_of * np.logaddexp(0, -ratios), 0).sum() / hits_of.sum()
        alarm = np.where(misses_of > 0, misses_of * np.logaddexp(0, ratios), 0).sum() / misses_of.sum()
    return float((miss + alarm) / (2 * np.log(2)))


def kaldi_eer(scores: np.ndarray, target: np.ndarray) -> float:
    """The figure of Kaldi's compute-eer, as a fraction: float32, without interpolation, a multiple of 1 / targets."""
    targets = np.sort(scores[target].astype(np.float32))
    others = np.sort(scores[~target].astype(np.float32))
    place = np.arange(len(targets) - 1)
    opposite = np.maximum(len(others) - 1 - (len(others) * place / len(targets)).astype(np.int64), 0)
    crossed = np.flatnonzero(others[opposite] < targets[:-1])
    return float((crossed[0] if len(crossed) else len(targets) - 1) / len(targets))
