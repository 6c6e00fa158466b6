"""95 % intervals and tests from the replicates of bootstrap.py: over speakers, and over the seeds of the training.

Speakers and seeds are crossed: all seeds are scored with the same speakers. The variance of a mean over seeds is
    (variance between the seeds) / seeds + (covariance of two seeds' values over draws of the speakers)
The first term is what the seeds add: all noise that differs between seeds. The second term is the noise that all seeds
share. Obuchowski and Rockette use this analysis for several readers and several cases ("Hypothesis testing of diagnostic
accuracy for multiple readers and multiple tests", Communications in Statistics B 24, 1995). The first term has
seeds - 1 degrees of freedom, the second speakers - 1. Satterthwaite's formula gives those of the sum. It gives too many
if few seeds make most of the variance. Therefore the seeds' term counts 1.5 times in the formula, and the result is never
below the smaller of the two numbers. For normal variables, `tests/simulate_statistics.py grid 20000` gives the lowest and
the highest rate of false positives over 21 mixtures of the two variances, with 3 or 5 seeds and 16, 40 or 300 speakers:

    weight of the seeds' term   1            1.25         1.5          1.75         2
    false positives in %        4.6 to 7.9   4.5 to 7.2   4.3 to 6.5   3.9 to 6.0   3.6 to 5.6

The test of a difference is Student's t. Its interval comes from the same t: p is below 0.05 exactly if 0 is outside.

tests/simulate_statistics.py measures both. False positives at 5 %, for two equal methods, in % of 500 comparisons per
case (200 with 300 speakers), for four kinds of noise between seeds (none, by speaker, of quality, all):

    speakers   3 seeds              5 seeds
    16         4.0, 5.8, 3.4, 4.8   4.0, 4.4, 3.4, 3.8
    40         2.6, 4.8, 3.2, 5.4   2.6, 5.8, 3.0, 4.6
    300        4.0, 3.0, 3.5, 5.0   4.0, 2.0, 5.5, 6.0

Chance alone moves these figures by 1.9 (300 speakers: 3.0). The three lowest cases were simulated again, more often. Two of
them are the same: without noise between seeds, the number of seeds has no influence. In % with a 95 % interval:

    tests/simulate_statistics.py size 3000 40 speakers, 3 seeds, noise none        3.6 [3.0, 4.3]
    tests/simulate_statistics.py size 1000 300 speakers, 5 seeds, noise speakers   3.8 [2.8, 5.2]

So no case is known to be below 3 %. A rate somewhat below 5 % is expected: drawing speakers counts the noise of single
trials more than once (Owen 2007, see bootstrap.py). In the first of the two cases the mean of the estimated variances is
1.10 times the true variance. Without noise between seeds the weight has no influence.

95 % intervals that contain the true value, in % of 600, with 5 utterances per speaker; the true EER is 7.3 and 1.8 %:

    speakers   EER          minDCF(0.01)   minDCF(0.05)   minDCF(0.001)
    16         93.7, 95.5   97.3, 96.5     97.0, 98.3     74.2, 83.2
    40         95.3, 93.2   95.3, 96.3     95.7, 95.8     86.7, 92.0
    100        94.5, 92.7   96.2, 96.7     96.3, 95.7     87.7, 88.7

minDCF(0.001) has too narrow an interval for want of nontarget trials: 3,000 with 16 speakers, then 20,000. One false alarm
adds 999 / 3,000 = 0.33 to it there, so the best threshold lies above all nontarget scores (it allows 0.0 of them on
average), and no draw of the speakers can tell how many would come. score.py says so below 24,975 nontarget trials.

With more nontarget trials (`tests/simulate_statistics.py coverage 600 40 speakers x 6` and so on, 400 in the last two
lines). Chance alone moves the figures by 2 to 3. The last case was simulated with the EER of 7.3 % only:

    speakers x utterances   nontarget trials   EER          minDCF(0.01)   minDCF(0.05)   minDCF(0.001)
    40 x 6                            28,080   93.5, 91.7   95.2, 96.0     95.8, 94.0     89.8, 94.8
    125 x 2                           31,000   94.3, 90.2   97.2, 97.8     95.0, 96.7     90.7, 94.2
    40 x 12                          112,320   94.5, 90.5   92.0, 95.0     92.5, 94.5     92.5, 94.5
    125 x 5                          193,750   93.5         94.5           94.5           96.0

Just above 24,975 the best threshold allows one false alarm on average, and the interval of minDCF(0.001) holds the truth
in 90 to 95 % of cases; score.py says this too. From 99,900 on (one false alarm adds 0.01) it is as good as the others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from speakerkd.score.student import student_cdf, student_quantile

CONFIDENCE = 0.95
MIN_SEEDS = 3  # for a test over seeds: with two seeds, t has one degree of freedom and the test has hardly any power
_SEEDS_WEIGHT = 1.5  # see above
_MOST_LOST = 0.1  # at most this share of the draws may have no target or no nontarget trial


class Interval(NamedTuple):
    low: float
    high: float


UNKNOWN = Interval(math.nan, math.nan)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, its standard error, and its bias as resampling estimates it."""

    value: float
    bias: float
    error: float
    freedom: float

    @property
    def reach(self) -> float:
        """How many standard errors lie between the value and an end of the interval."""
        return student_quantile((1 + CONFIDENCE) / 2, self.freedom)


def estimate(points: Sequence[float] | np.ndarray, replicates: np.ndarray, num_speakers: int) -> Estimate:
    """points (S,) are the values of the seeds, replicates (S, R) the values with the same R draws of the speakers."""
    points, replicates = np.asarray(points, np.float64), np.atleast_2d(replicates)
    usable = replicates[:, ~np.isnan(replicates).any(axis=0)]
    value = float(points.mean())
    if usable.shape[1] < max(2, (1 - _MOST_LOST) * replicates.shape[1]):
        return Estimate(value, math.nan, math.nan, 1)
    bias = float(usable.mean() - value)
    covariance = np.atleast_2d(np.cov(usable)) * num_speakers / (num_speakers - 1)
    seeds = len(points)
    if seeds == 1:
        return Estimate(value, bias, _rounded(math.sqrt(covariance[0, 0])), num_speakers - 1)
    by_seeds = float(points.var(ddof=1)) / seeds
    by_speakers = max(0.0, float(covariance.sum() - np.trace(covariance)) / (seeds * (seeds - 1)))
    variance = by_seeds + by_speakers
    if _rounded(math.sqrt(variance)) == 0:
        return Estimate(value, bias, 0.0, 1)
    freedom = freedom_of(np.asarray(by_seeds), np.asarray(by_speakers), seeds, num_speakers)
    return Estimate(value, bias, math.sqrt(variance), float(freedom))


def freedom_of(
    by_seeds: np.ndarray, by_speakers: np.ndarray, seeds: int, speakers: int, weight: float = _SEEDS_WEIGHT
) -> np.ndarray:
    """Degrees of freedom of the sum of two variances with seeds - 1 and speakers - 1 of them."""
    whole = (by_seeds + by_speakers) ** 2
    freedom = whole / (weight * by_seeds**2 / (seeds - 1) + by_speakers**2 / (speakers - 1))
    return np.maximum(freedom, min(seeds, speakers) - 1)


def _rounded(error: float) -> float:
    """Errors as small as rounding become 0: then the value was the same in all draws."""
    return 0.0 if error < 1e-12 else error


def share_interval(about: Estimate) -> Interval:
    """The interval of an error rate or a normalised cost, which lie between 0 and 1.

    With few speakers both are too low on average, minDCF most, because its threshold is chosen on the same trials. So the
    interval is centred at the value minus its bias, and the bias also adds to the error. The width is measured on the
    logit scale, whose slope is taken at the mean of the replicates. The interval always contains the value itself.
    """
    value, error = about.value, math.hypot(about.error, about.bias)
    if not about.error > 0:  # no wrong trial, or an unknown error: the width can't be estimated
        return UNKNOWN
    # Stay at least half an error away from 0 and 1: their logits are infinite.
    centre = min(max(value - about.bias, error / 2), 1 - error / 2)
    mean = min(max(value + about.bias, error / 4), 1 - error / 4)
    if not 0 < centre < 1 or not 0 < mean < 1:
        return Interval(0.0, 1.0)
    reach = about.reach * error / (mean * (1 - mean))
    low, high = (_logistic(math.log(centre / (1 - centre)) + side) for side in (-reach, reach))
    return Interval(min(low, value), max(high, value))


def _logistic(value: float) -> float:
    return 0.5 * (1 + math.tanh(value / 2))


def difference_interval(about: Estimate) -> Interval:
    if math.isnan(p_value(about)):
        return UNKNOWN
    return Interval(about.value - about.reach * about.error, about.value + about.reach * about.error)


def p_value(about: Estimate) -> float:
    """Two-sided, of the hypothesis that the true difference is 0; below 0.05 exactly if 0 is outside the interval."""
    if math.isnan(about.error):
        return math.nan
    if about.error == 0:  # the same in every draw: either the two systems have the same scores, or nothing can be said
        return 1.0 if about.value == 0 else math.nan
    return min(1.0, 2 * student_cdf(-abs(about.value) / about.error, about.freedom))


def percentile_interval(replicates: np.ndarray, num_speakers: int) -> Interval:
    """For (R,) replicates of a figure without a standard error, such as a ratio whose denominator may be near 0.

    The percentiles are moved out as Student's t asks ("expanded percentile interval": Hesterberg, "What teachers should
    know about the bootstrap", The American Statistician 69, 2015).
    """
    usable = replicates[~np.isnan(replicates)]
    if len(usable) < max(2, (1 - _MOST_LOST) * len(replicates)):
        return UNKNOWN
    reach = student_quantile((1 - CONFIDENCE) / 2, num_speakers - 1) * np.sqrt(num_speakers / (num_speakers - 1))
    tail = NormalDist().cdf(reach)
    low, high = np.quantile(usable, [tail, 1 - tail])
    return Interval(float(low), float(high))
