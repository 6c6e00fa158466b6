import numpy as np
import pytest
from score_data import GOLDEN

from speakerkd.score.metrics import (
    PRIORS,
    act_dcf,
    cllr,
    eer,
    group_scores,
    kaldi_eer,
    min_cllr,
    min_dcf,
    roc,
)
from speakerkd.score.trials import read_scores, read_trials


def rates(scores: np.ndarray, target: np.ndarray, threshold: float) -> tuple[float, float]:
    """p_miss, p_fa, counted."""
    return float((scores[target] < threshold).mean()), float((scores[~target] >= threshold).mean())


def some_scores(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.random(300) < 0.3
    scores = rng.normal(size=300) + 1.5 * target
    return (np.round(scores, 1) if ties else scores), target


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_costs_equal_a_search_over_all_thresholds(seed: int, ties: bool) -> None:
    scores, target = some_scores(seed, ties)
    curve = roc(scores, target)
    thresholds = [*np.unique(scores), np.inf]
    counted = [rates(scores, target, threshold) for threshold in thresholds]
    np.testing.assert_allclose(np.column_stack([curve.p_miss, curve.p_fa]), counted, atol=1e-12)
    for prior in PRIORS:
        cost, threshold = min_dcf(curve, prior)
        costs = [(prior * miss + (1 - prior) * alarm) / prior for miss, alarm in counted]
        assert cost == pytest.approx(min(costs))
        miss, alarm = rates(scores, target, threshold)
        assert (prior * miss + (1 - prior) * alarm) / prior == pytest.approx(cost)
    value, threshold = eer(curve)
    # The line between the points on both sides of p_miss = p_fa.
    after = next(number for number, (miss, alarm) in enumerate(counted) if miss >= alarm)
    (miss0, alarm0), (miss1, alarm1) = counted[after - 1], counted[after]
    share = (alarm0 - miss0) / ((alarm0 - miss0) + (miss1 - alarm1))
    assert value == pytest.approx(miss0 + share * (miss1 - miss0))
    assert value == pytest.approx(alarm0 + share * (alarm1 - alarm0))
    assert threshold in thresholds[after - 1 : after + 1]


def test_eer_by_hand() -> None:
    # Rejecting below 3 misses 1 of 4 targets and lets pass 1 of 4 nontargets.
    scores = np.array([2.0, 4, 5, 6, 0, 1, 2.5, 3])
    target = np.array([True] * 4 + [False] * 4)
    assert eer(roc(scores, target))[0] == 0.25
    assert eer(roc(np.array([1.0, 0]), np.array([True, False]))) == (0.0, 1.0)
    assert eer(roc(np.array([0.0, 1]), np.array([True, False])))[0] == 1.0
    assert eer(roc(np.array([0.0, 0]), np.array([True, False])))[0] == 0.5


@pytest.mark.parametrize("name", ["cosine", "plda"])
def test_compute_eer_is_kaldis(name: str) -> None:
    trials = read_trials(GOLDEN / "trials")
    scores, others = read_scores(GOLDEN / f"scores_{name}", trials)
    assert others == 0
    assert f"{100 * kaldi_eer(scores, trials.target):.4g}" == (GOLDEN / f"eer_{name}.txt").read_text()


@pytest.mark.parametrize("seed", range(3))
def test_compute_eer_is_its_loop(seed: int) -> None:
    scores, target = some_scores(seed, ties=False)
    targets, others = np.sort(scores[target]), np.sort(scores[~target])
    place = 0
    while place + 1 < len(targets):
        if others[max(len(others) - 1 - int(len(others) * place / len(targets)), 0)] < targets[place]:
            break
        place += 1
    assert kaldi_eer(scores, target) == place / len(targets)


def test_actual_cost_and_cllr_by_hand() -> None:
    target = np.array([True, True, False, False])
    ratios = np.log(np.array([200.0, 10, 150, 0.1]))
    # At 0.01 the threshold is log 99: one miss of two, one alarm of two.
    assert act_dcf(ratios, target, 0.01) == pytest.approx((0.01 * 0.5 + 0.99 * 0.5) / 0.01)
    assert act_dcf(ratios, target, 0.001) == pytest.approx(1.0)  # log 999: nothing is accepted
    bits = [np.log2(1 + 1 / 200), np.log2(1 + 1 / 10), np.log2(1 + 150), np.log2(1.1)]
    assert cllr(ratios, target) == pytest.approx(sum(bits) / 4)
    assert cllr(np.zeros(4), target) == pytest.approx(1.0)


def test_min_cllr_by_hand_and_bounds() -> None:
    # Rising: nontarget | target nontarget (pooled, ratio 0 of 1/1 against 2/2) | target.
    scores, target = np.array([0.0, 1, 2, 3]), np.array([False, True, False, True])
    assert min_cllr(scores, target) == pytest.approx((0.5 * 1 + 0.5 * 1) / 2)
    assert min_cllr(np.array([0.0, 1]), np.array([False, True])) == 0
    assert min_cllr(np.array([0.0, 0]), np.array([False, True])) == pytest.approx(1)
    scores, target = some_scores(0, ties=True)
    least = min_cllr(scores, target)
    assert least == pytest.approx(min_cllr(np.exp(scores), target))  # any rising map
    for scale in (0.5, 1, 1.5, 2):
        for offset in (-2, -1, 0):
            assert least <= cllr(scale * scores + offset, target)


def test_merged_groups_lose_nothing() -> None:
    for ties in (False, True):
        scores, target = some_scores(5, ties)
        groups = group_scores(scores, target, merge=True)
        assert len(groups.starts) < len(np.unique(scores))
        ordered = target[groups.order].astype(int)
        sums = np.add.reduceat(ordered, groups.starts), np.add.reduceat(1 - ordered, groups.starts)
        miss = np.cumsum(sums[0]) / target.sum()
        assert sums[0].sum() == target.sum() and sums[1].sum() == (~target).sum() and miss[-1] == 1


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        roc(np.array([0.0, np.nan]), np.array([True, False]))
    with pytest.raises(ValueError, match="target and nontarget"):
        roc(np.array([0.0, 1]), np.array([True, True]))


@pytest.mark.parametrize("target", [[], [True, True], [False, False]])
def test_an_roc_of_no_trials_or_of_one_kind_is_an_error_in_a_sentence(target: list[bool]) -> None:
    with pytest.raises(ValueError, match="error rates need target and nontarget trials"):
        roc(np.arange(len(target), dtype=np.float64), np.array(target, bool))
