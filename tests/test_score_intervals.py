"""Intervals and tests over speakers and seeds: closed forms, and how often they are right on scores whose truth is known."""

import math

import numpy as np
import pytest
from score_data import made_up
from simulate_statistics import Population, holds, p_of_equal_methods

from speakerkd.score.bootstrap import draw_speakers, replicate
from speakerkd.score.intervals import (
    Estimate,
    difference_interval,
    estimate,
    p_value,
    percentile_interval,
    share_interval,
)
from speakerkd.score.metrics import eer, roc
from speakerkd.score.student import student_cdf, student_quantile
from speakerkd.score.trials import Speakers


def test_student_from_a_table() -> None:
    for freedom, quantile in ((1, 12.706), (5, 2.571), (15, 2.131), (100, 1.984)):
        assert student_quantile(0.975, freedom) == pytest.approx(quantile, abs=2e-3)
        assert student_cdf(-quantile, freedom) == pytest.approx(0.025, abs=1e-4)
    for value in (-3.0, 0.4, 7.0):  # closed forms
        assert student_cdf(value, 1) == pytest.approx(0.5 + math.atan(value) / math.pi, abs=1e-6)
        assert student_cdf(value, 2) == pytest.approx(0.5 + value / (2 * math.sqrt(2 + value**2)), abs=1e-6)
    steps, width = np.linspace(-2.0, 0.0, 200001, retstep=True)  # a fraction of a degree: the density, summed
    density = math.gamma(1.25) / (math.sqrt(1.5 * math.pi) * math.gamma(0.75)) * (1 + steps**2 / 1.5) ** -1.25
    area = (density.sum() - density[[0, -1]].mean()) * width
    assert student_cdf(-2.0, 1.5) == pytest.approx(0.5 - area, abs=1e-5)


def test_the_variance_is_that_of_seeds_and_speakers() -> None:
    """Values that sum an effect of the speaker, one of the seed and one of both: their variances are known."""
    rng = np.random.default_rng(0)
    speakers, seeds, draws = 40, 4, draw_speakers(40, 500, 1)[:, :40]
    pairs = []
    for _ in range(300):
        table = rng.normal(0, 1.0, speakers) + rng.normal(0, 0.2, (seeds, 1)) + rng.normal(0, 0.7, (seeds, speakers))
        about = estimate(table.mean(1), (table @ draws.T) / speakers, speakers)
        pairs.append((about.value, about.error))
    values, errors = np.array(pairs).T
    expected = 1.0 / speakers + 0.2**2 / seeds + 0.7**2 / (seeds * speakers)
    assert np.mean(errors**2) == pytest.approx(expected, rel=0.1)
    assert values.var() == pytest.approx(expected, rel=0.25)


def test_one_seed_or_nothing_but_seeds_or_speakers() -> None:
    column = np.random.default_rng(0).normal(0.1, 0.02, 1000)
    one = estimate([0.1], column, 16)
    assert one.error == pytest.approx(column.std(ddof=1) * math.sqrt(16 / 15)) and one.freedom == 15
    # The speakers make no difference: the ordinary t test over seeds.
    points = np.array([0.01, 0.03, 0.02])
    about = estimate(points, np.repeat(points[:, None], 100, 1), 16)
    assert about.error == pytest.approx(points.std(ddof=1) / math.sqrt(3)) and about.freedom == 2
    assert p_value(about) == pytest.approx(2 * student_cdf(-0.02 / about.error, 2))
    # The seeds make no difference: the ordinary t test over speakers.
    same = estimate([0.1] * 3, np.stack([column] * 3), 16)
    assert same.error == pytest.approx(one.error) and same.freedom == pytest.approx(15)


def test_p_and_interval_agree() -> None:
    rng = np.random.default_rng(2)
    for _ in range(2000):
        about = Estimate(rng.normal(0, 2), 0.0, rng.uniform(0.1, 2), rng.uniform(1, 40))
        low, high = difference_interval(about)
        assert (p_value(about) < 0.05) == (not low <= 0 <= high)
    zeros = estimate([0.0, 0.0, 0.0], np.zeros((3, 100)), 16)
    assert p_value(zeros) == 1 and difference_interval(zeros) == (0, 0)
    for few in (3, 4, 5):  # speakers: when draws were counted, p could not be below 0.128, 0.075 and 0.051
        assert p_value(estimate([0.1], np.random.default_rng(0).normal(0.1, 0.001, 1000), few)) < 0.001


def test_what_is_unknown() -> None:
    # With two speakers half of the draws have no nontarget trial.
    scores, one, other = made_up(np.random.default_rng(0), 2, 3)
    values = replicate(scores, one == other, Speakers(one, other, 2), draw_speakers(2, 100, 0))
    about = estimate([0.1], values[:, 0], 2)
    assert all(math.isnan(end) for end in (*share_interval(about), *difference_interval(about), p_value(about)))
    assert math.isnan(percentile_interval(values[:, 0], 2).low)
    assert math.isnan(share_interval(estimate([0.0], np.zeros(100), 16)).low)  # no error was seen
    constant = estimate([0.1], np.full(100, 0.1), 16)
    assert math.isnan(p_value(constant)) and math.isnan(difference_interval(constant).low)


def test_the_interval_of_a_share_holds_the_value_and_stays_within_its_bounds() -> None:
    rng = np.random.default_rng(1)
    for value in (0.0005, 0.02, 0.5, 0.97, 1.0):
        replicates = np.clip(value + rng.normal(-0.02, 0.05, 400), 0, 1)
        low, high = share_interval(estimate([value], replicates, 20))
        assert 0 <= low <= value <= high <= 1 and low < high


def test_percentiles_are_moved_out() -> None:
    low, high = percentile_interval(np.random.default_rng(0).normal(size=200000), 10)
    reach = 2.262 * math.sqrt(10 / 9)
    assert (-low, high) == (pytest.approx(reach, rel=0.03), pytest.approx(reach, rel=0.03))


def test_drawing_speakers_holds_the_truth_and_drawing_trials_does_not() -> None:
    rng = np.random.default_rng(0)
    truth = np.mean(
        [eer(roc(scores, one == other))[0] for scores, one, other in (made_up(rng, 150, 6) for _ in range(8))]
    )
    held, naive, num = 0, 0, 50
    for seed in range(num):
        scores, one, other = made_up(rng, 16, 6)
        target = one == other
        rates = replicate(scores, target, Speakers(one, other, 16), draw_speakers(16, 200, seed))[:, 0]
        interval = share_interval(estimate([eer(roc(scores, target))[0]], rates, 16))
        held += interval.low <= truth <= interval.high
        picks = (rng.integers(0, len(scores), len(scores)) for _ in range(40))
        low, high = np.quantile([eer(roc(scores[pick], target[pick]))[0] for pick in picks], [0.025, 0.975])
        naive += low <= truth <= high
    assert held >= 0.86 * num
    assert naive < held - 0.15 * num


@pytest.mark.parametrize("kind", ["none", "speakers", "quality"])
def test_equal_methods_seldom_differ(kind: str) -> None:
    """With the right size, more than 10 of 80 happen in 0.2 % of cases. The earlier test would find 10 to 19."""
    rng = np.random.default_rng(11)
    below = [p_of_equal_methods(Population(16, 3), 3, kind, rng, 80) < 0.05 for _ in range(80)]
    assert sum(below) <= 10


def test_intervals_hold_the_truth() -> None:
    """The earlier interval held minDCF(0.01) in 70 % of cases. With 95 %, fewer than 84 of 100 happen in 0.001 %."""
    rng = np.random.default_rng(12)
    shares = np.mean([holds(Population(16, 5), rng, 200) for _ in range(100)], 0)
    assert (shares[:3] >= 0.84).all()
