"""Schedules equal those of the official code at every step.

The frozen numbers are what the official code gives for 7 steps an epoch: WeSpeaker dfa7419 and ENSKD 5c77ff4 (learning rate,
margin), 3D-Speaker 09e7806 (SDPN) and WeSpeaker's DINO (learning rate, momentum, temperature).
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from speakerkd.conf import build, read_conf, typed_conf
from speakerkd.kd import METHODS, Clock
from speakerkd.kd.ema import momentum
from speakerkd.losses.margin import MarginConf, margin_ramp, require_margin_schedule
from speakerkd.schedules import half_cosine, learning_rate, line_in_epochs, rise
from speakerkd.train.options import TrainConf

VOXCELEB = ROOT / "egs/voxceleb/v1/conf"
PER_EPOCH = 7


def rates(path: Path, **changed: int) -> np.ndarray:
    conf = build(TrainConf, read_conf(path) | {name: str(value) for name, value in changed.items()}, str(path))
    steps = conf.num_epochs * PER_EPOCH
    return np.array(
        [learning_rate(conf.schedule, conf.lr, conf.final_lr, conf.warmup, step, steps) for step in range(steps)]
    )


def margins(path: Path, num_epochs: int) -> np.ndarray:
    conf = build(MarginConf, read_conf(path), str(path))
    clocks = [Clock(step / PER_EPOCH, num_epochs) for step in range(num_epochs * PER_EPOCH)]
    return np.array([conf.margin * margin_ramp(conf, clock.part) for clock in clocks])


def exponential(epochs: int, peak: float, final: float, warm: float) -> np.ndarray:
    step = np.arange(epochs * PER_EPOCH)
    fall = np.exp(step / len(step) * np.log(final / peak))
    return np.asarray(peak * fall * np.minimum(step / (warm * PER_EPOCH), 1))


def cosine(epochs: int, peak: float, final: float, warm: int) -> np.ndarray:
    falling = (epochs - warm) * PER_EPOCH
    fall = final + (peak - final) * np.cos(np.pi / 2 * np.arange(falling) / falling) ** 2
    return np.concatenate([np.linspace(0, peak, warm * PER_EPOCH), fall])


@pytest.mark.parametrize(
    ("name", "formula", "frozen"),
    [
        (
            "train",
            lambda: exponential(150, 0.4, 2e-4, 6),
            {0: 0, 1: 0.009455116032, 41: 0.290199858214, 42: 0.295133692539, 500: 0.010718671122, 1049: 0.000201453044},
        ),
        ("train_enskd", lambda: exponential(150, 1.2, 6e-4, 6), {41: 3 * 0.290199858214, 500: 3 * 0.010718671122}),
        ("train_enskd_xvector", lambda: exponential(150, 2.4, 1.2e-3, 6), {41: 6 * 0.290199858214}),
        ("train_lm", lambda: exponential(5, 2e-4, 5e-5, 1), {0: 0}),
        (
            "train_sdpn",
            lambda: cosine(150, 0.6, 1e-5, 10),
            {0: 0, 1: 0.008695652174, 68: 0.591304347826, 69: 0.6, 70: 0.6, 71: 0.599998458544, 500: 0.357351632817,
             1049: 1.1541456391e-05},
        ),
        (
            "train_dino",
            lambda: cosine(150, 0.1, 2.5e-5, 20),
            {1: 0.000719424460, 138: 0.099280575540, 140: 0.1, 141: 0.099999702115, 500: 0.066114495584,
             1049: 2.5297884531e-05},
        ),
    ],
)  # fmt: skip
def test_learning_rates(name: str, formula: Callable[[], np.ndarray], frozen: dict[int, float]) -> None:
    found = rates(VOXCELEB / f"{name}.conf")
    np.testing.assert_allclose(found, formula(), atol=1e-9)
    for step, value in frozen.items():
        assert found[step] == pytest.approx(value, abs=1e-9), step


@pytest.mark.parametrize("corpus", ["voxceleb", "cnceleb"])
def test_margins(corpus: str) -> None:
    """20 and 40 of 150 epochs, counted from 1, are 19 and 39 that are over."""
    found = margins(ROOT / f"egs/{corpus}/v1/conf/head.conf", 150)
    step = np.arange(150 * PER_EPOCH)
    way = np.clip((step - 19 * PER_EPOCH) / (20 * PER_EPOCH), 0, 1)
    expected = np.where(way < 1, 0.2 * (1 - np.exp(way * math.log(1e-3))), 0.2)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    frozen = {
        132: 0,
        133: 0,
        134: 0.009628723879,
        140: 0.058410850203,
        200: 0.192666428981,
        272: 0.199789884478,
        273: 0.2,
    }
    for place, value in frozen.items():
        assert found[place] == pytest.approx(value, abs=1e-7), place  # they write log(1e-3 / (1 + 1e-6))
    assert found[273] == found[-1] == 0.2


def test_a_third_of_the_epochs_has_the_same_curves() -> None:
    """What a user does who has each utterance at three speeds: nothing is unfinished, no peak is lost."""
    for name in ("train", "train_sdpn"):
        whole, third = rates(VOXCELEB / f"{name}.conf"), rates(VOXCELEB / f"{name}.conf", num_epochs=50)
        assert third.max() == pytest.approx(whole.max(), rel=0.02)
        np.testing.assert_allclose(third, whole[::3], atol=0.05 * whole.max())
    whole, third = (margins(VOXCELEB / "head.conf", epochs) for epochs in (150, 50))
    np.testing.assert_allclose(third, whole[::3], atol=1e-12)
    five = rates(VOXCELEB / "train.conf", num_epochs=5, average=1)
    assert five.max() > 0.2 and five[-1] < 3e-4


def test_momentum_and_temperature_of_the_self_taught() -> None:
    clocks = [Clock(step / PER_EPOCH, 150) for step in range(150 * PER_EPOCH)]
    found = np.array([momentum(0.996, clock) for clock in clocks])
    np.testing.assert_allclose(found, 1 - 0.004 * np.cos(np.pi / 2 * np.arange(1050) / 1050) ** 2, atol=1e-12)
    assert found[[0, 1, 525, 1049]] == pytest.approx([0.996, 0.996000008952, 0.998, 0.999999991048], abs=1e-12)
    temperatures = [line_in_epochs(int(clock.epoch), 150, 0.04, 0.07, 0.2) for clock in clocks]
    expected = np.repeat(np.concatenate([np.linspace(0.04, 0.07, 30), np.full(120, 0.07)]), PER_EPOCH)
    np.testing.assert_allclose(temperatures, expected, atol=1e-12)
    conf = typed_conf(VOXCELEB / "kd/dino.conf", METHODS)[2]
    still = [clock.before(conf.freeze_last_layer) for clock in clocks]
    assert still.index(False) == PER_EPOCH and not any(still[PER_EPOCH:])


def test_weight_of_the_distance() -> None:
    """ENSKD: 1/20 in the first of 150 epochs, 1 from the twentieth on."""
    conf = typed_conf(VOXCELEB / "kd/enskd.conf", METHODS)[2]
    found = [Clock(step / PER_EPOCH, 150).rise_in_epochs(conf.warmup) for step in range(1050)]
    np.testing.assert_allclose(found, np.repeat(np.minimum(np.arange(1, 151) / 20, 1), PER_EPOCH), atol=1e-12)


def test_rises() -> None:
    assert rise(0.5, 0, 0) == rise(0, 0, 0) == 1 and rise(0.1, 0.2, 0.2) == 0 and rise(0.2, 0.2, 0.2) == 1
    assert rise(0.5, 0.4, 0.6) == pytest.approx(0.5)
    assert rise(0.42, 0.4, 0.6, "exponential") == pytest.approx(0.5, abs=0.01)
    assert half_cosine(3.0, 1.0, 0.5) == pytest.approx(2.0) and half_cosine(3.0, 1.0, 2.0) == 1.0
    assert learning_rate("cosine", 1.0, 0.1, 0.0, 0, 10) == 1.0
    assert [learning_rate("cosine", 1.0, 0.1, 0.1, step, 10) for step in (0, 1)] == [0.0, 1.0]


def test_a_schedule_that_does_not_fit_the_run_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"--warmup=6: not a part of the run, .* for 6 of 150 epochs write --warmup=6/150"
    ):
        TrainConf(warmup=6)
    for start, end in ((20, 40), (0.1, 40), (-0.1, 0.2)):
        with pytest.raises(ValueError, match=r"--margin-(start|end)=.*: not a part of the run"):
            require_margin_schedule(MarginConf(margin_start=start, margin_end=end))
    with pytest.raises(ValueError, match=r"--margin-start=0\.4 lies after --margin-end=0\.2"):
        require_margin_schedule(MarginConf(margin_start=0.4, margin_end=0.2))
    with pytest.raises(ValueError, match="--warmup=20: not a part"):
        METHODS["skdfe"].Conf(warmup=20)
    with pytest.raises(ValueError, match="--freeze-last-layer=3: not a part"):
        METHODS["dino"].Conf(freeze_last_layer=3)
