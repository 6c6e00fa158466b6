"""Resampling of speakers: EER and minDCF of the same trials, for many random draws of the speakers.

Trials that share a speaker are not independent. Therefore speakers are drawn, not trials. The speakers of both sides of
the trials are one list, so one draw serves both sides. If a speaker is drawn m times, each of its target trials counts
m times. If two speakers are drawn m and n times, each trial between them counts m * n times (Snijders and Borgatti,
"Non-parametric standard errors and tests for network statistics", Connections 22, 1999; for crossed factors in general
Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1, 2007). intervals.py makes intervals and tests of these
replicates.
"""

import numpy as np

from speakerkd.score.metrics import PRIORS, eer, group_scores, min_dcf, roc_of_groups
from speakerkd.score.trials import Speakers


def draw_speakers(count: int, num_replicates: int, seed: int) -> np.ndarray:
    """(R, count + 1): how often each speaker is drawn; the last column is 1, for 'no second speaker'."""
    if count < 2:
        raise ValueError(f"intervals resample the speakers of the trials and need at least two speakers, not {count}")
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=num_replicates)
    return np.hstack([draws, np.ones((num_replicates, 1), draws.dtype)]).astype(np.int32)


def replicate(scores: np.ndarray, target: np.ndarray, speakers: Speakers, draws: np.ndarray) -> np.ndarray:
    """(R, 1 + priors): EER and minDCF of each draw; NaN if a draw has no target or no nontarget trial.

    The scores are sorted once. Neighbours of the same kind are pooled: neither EER nor minDCF can lie between them.
    """
    groups = group_scores(scores, target, merge=True)
    first = speakers.enroll[groups.order]
    second = np.where(target, speakers.count, speakers.test)[groups.order]
    kind = target[groups.order]
    mixed = np.add.reduceat(kind.astype(np.int64), groups.starts)
    pure = bool(((mixed == 0) | (mixed == np.diff(groups.starts, append=len(scores)))).all())
    values = np.full((len(draws), 1 + len(PRIORS)), np.nan)
    for row, draw in enumerate(draws):
        weights = draw[first]
        weights *= draw[second]
        sums = np.add.reduceat(weights, groups.starts)
        of_target = np.where(mixed > 0, sums, 0) if pure else np.add.reduceat(weights * kind, groups.starts)
        if of_target.any() and (sums != of_target).any():
            curve = roc_of_groups(groups.scores, of_target, sums - of_target)
            values[row] = [eer(curve)[0], *(min_dcf(curve, prior)[0] for prior in PRIORS)]
    return values
