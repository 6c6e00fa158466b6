import numpy as np
import pytest
from score_data import made_up

from speakerkd.score.bootstrap import draw_speakers, replicate
from speakerkd.score.calibrate import cross_validate, deal_folds, fit
from speakerkd.score.metrics import PRIORS, act_dcf, cllr, eer, min_dcf, roc
from speakerkd.score.trials import Speakers


@pytest.mark.parametrize("ties", [False, True])
def test_a_replicate_is_the_trial_list_written_out(ties: bool) -> None:
    scores, one, other = made_up(np.random.default_rng(3), 6, 4)
    scores = np.round(scores, 1) if ties else scores
    draws = draw_speakers(6, 20, seed=1)
    assert (draws[:, :6].sum(axis=1) == 6).all()
    values = replicate(scores, one == other, Speakers(one, other, 6), draws)
    for draw, row in zip(draws, values, strict=True):
        times = np.where(one == other, draw[one], draw[one] * draw[other])
        trials = np.repeat(np.arange(len(scores)), times)
        target = (one == other)[trials]
        if target.all():
            assert np.isnan(row).all()
            continue
        curve = roc(scores[trials], target)
        expected = [eer(curve)[0], *(min_dcf(curve, prior)[0] for prior in PRIORS)]
        np.testing.assert_allclose(row, expected, atol=1e-12)


def test_one_speaker_is_too_few() -> None:
    with pytest.raises(ValueError, match="at least two speakers"):
        draw_speakers(1, 10, 0)


def test_fit_finds_the_known_line() -> None:
    """Scores N(1, 1) and N(-1, 1): the log likelihood ratio is 2 * score."""
    rng = np.random.default_rng(0)
    target = rng.random(200000) < 0.2
    scores = rng.normal(size=200000) + np.where(target, 1, -1)
    line = fit(3 * scores + 5, target)
    assert line.scale * 3 == pytest.approx(2, rel=0.02)
    assert line.scale * 5 + line.offset == pytest.approx(0, abs=0.02)
    odd, hit = np.append(3 * scores + 5, 1e6), np.append(target, True)  # one extreme score is no matter
    assert np.allclose(fit(odd, hit), line, rtol=1e-3)
    assert np.allclose(fit(odd[-2000:], hit[-2000:]), fit(odd[-2000:-1], hit[-2000:-1]), rtol=5e-3)
    few = fit(scores[:15000], target[:15000])  # not pooled
    nudged = [
        cllr(few(scores[:15000]) * scale + offset, target[:15000]) for scale in (0.98, 1.02) for offset in (0.02, -0.02)
    ]
    assert cllr(few(scores[:15000]), target[:15000]) < min(nudged)


def test_fit_of_separable_scores_is_finite() -> None:
    line = fit(np.array([0.0, 1, 2, 3]), np.array([False, False, True, True]))
    assert np.isfinite(line).all() and line.scale > 0
    with pytest.raises(ValueError, match="all scores are the same"):
        fit(np.ones(4), np.array([False, True, False, True]))


def test_no_trial_is_calibrated_by_its_own_speakers() -> None:
    scores, one, other = made_up(np.random.default_rng(4), 12, 4)
    target, speakers = one == other, Speakers(one, other, 12)
    before = cross_validate(scores, target, speakers)
    assert before is not None
    moved = scores.copy()
    touched = (one == 3) | (other == 3)
    moved[touched & target] -= 0.3
    moved[touched & ~target] += 0.2
    after = cross_validate(moved, target, speakers)
    assert after is not None
    fold = deal_folds(speakers, 5)
    # Trials of the fold of speaker 3 got their line without that speaker: the same score, the same ratio.
    same = ((fold[one] == fold[3]) | (fold[other] == fold[3])) & ~touched
    np.testing.assert_allclose(after[same], before[same])
    assert not np.allclose(after[~same & ~touched], before[~same & ~touched])


def test_cross_validation_is_about_right_and_needs_speakers() -> None:
    scores, one, other = made_up(np.random.default_rng(5), 30, 5)
    target = one == other
    ratios = cross_validate(scores, target, Speakers(one, other, 30))
    assert ratios is not None
    cheat = fit(scores, target)(scores)
    assert cllr(cheat, target) <= cllr(ratios, target) < 1.1 * cllr(cheat, target)
    assert act_dcf(ratios, target, 0.05) < 1.3 * min_dcf(roc(scores, target), 0.05)[0]
    scores, one, other = made_up(np.random.default_rng(5), 5, 6)
    assert cross_validate(scores, one == other, Speakers(one, other, 5)) is None
