"""Attention transfer: the formula by loops, which stages meet, sizes that differ, every pair of models, what is refused."""

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_kd import NAMES, batch_of, method_of, net_of, vector_teacher
from torch import Tensor
from toy import DIM, command

from speakerkd.batches.utterances import Utterances
from speakerkd.conf import typed_conf
from speakerkd.files.kaldi import ArkWriter
from speakerkd.kd import METHODS, Clock
from speakerkd.kd.attention import spread, stage_distance
from speakerkd.kd.skdfe import feature_loss
from speakerkd.kd.teacher import NetTeacher
from speakerkd.losses.margin import MarginConf
from speakerkd.models import make_net
from speakerkd.train.assemble import load_teachers
from speakerkd.train.options import RunOptions

Run = Callable[..., subprocess.CompletedProcess[str]]
CONF = ROOT / "egs/mini/v1/conf/kd/attention.conf"
CLOCK = Clock(3.0, 4)
SMALL = {
    "xvector": "channels=8 stats-channels=12",
    "resnet": "base-channels=4 blocks=1:1:1:1",
    "ecapa": "channels=8 joined-channels=12 scale=2 se-channels=4 attention-channels=4",
    "campplus": "front-channels=4 channels=8 growth=4 bottleneck=2 layers=1:1:1",
    "dvector": "hidden=8 layers=2",
}


def attention(maps: np.ndarray) -> np.ndarray:
    """φ of one sample (C, F, T) or (C, T) by loops."""
    points = maps.reshape(len(maps), -1)
    values = [sum(float(channel[at]) ** 2 for channel in points) / len(points) for at in range(points.shape[1])]
    return np.array(values) / np.sqrt(sum(value**2 for value in values))


@pytest.mark.parametrize("shape", [(4, 5), (6,)])
def test_by_loops(shape: tuple[int, ...]) -> None:
    student, teacher = torch.randn(3, 7, *shape), torch.randn(3, 2, *shape)
    found = stage_distance(student, teacher)
    for sample in range(3):
        gap = attention(student[sample].numpy()) - attention(teacher[sample].numpy())
        assert found[sample].item() == pytest.approx((gap**2).mean(), rel=1e-4)
    torch.testing.assert_close(found.mean(), feature_loss([student], [teacher]))
    assert stage_distance(student, -3 * student).max() < 1e-12, "neither scale nor sign"


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = torch.randn(2, 3, 4, 5, requires_grad=True), torch.randn(2, 3, 4, 5, requires_grad=True)
    stage_distance(student, teacher).sum().backward()
    assert student.grad is not None and student.grad.abs().max() > 0 and teacher.grad is None


def test_sizes_that_differ_meet_at_the_smaller_one() -> None:
    coarse = torch.rand(2, 3, 4, 5)
    fine = coarse.repeat_interleave(2, 2).repeat_interleave(3, 3)  # the same picture in smaller points
    assert stage_distance(fine, coarse).max() < 1e-12
    crossed = coarse.repeat_interleave(2, 2), coarse.repeat_interleave(3, 3)  # finer along one axis each
    assert stage_distance(*crossed).max() < 1e-12
    over_time = coarse.square().mean((1, 2)).sqrt().unsqueeze(1)  # (B, 1, T), its squares the mean over C and F
    assert stage_distance(fine, over_time).max() < 1e-12 and stage_distance(over_time, fine).max() < 1e-12
    odd = stage_distance(torch.rand(2, 3, 7, 11), torch.rand(2, 5, 4, 6))
    assert odd.shape == (2,) and odd.isfinite().all()


def test_silent_maps_are_finite() -> None:
    student = torch.zeros(2, 3, 4, 5, requires_grad=True)
    value = stage_distance(student, torch.rand(2, 3, 4, 5))
    value.sum().backward()
    assert student.grad is not None and value.isfinite().all() and student.grad.isfinite().all()


@pytest.mark.parametrize(
    ("counts", "pairs"),
    [
        ((4, 4), [(1, 1), (2, 2), (3, 3), (4, 4)]),
        ((5, 4), [(2, 1), (3, 2), (4, 3), (5, 4)]),
        ((3, 5), [(1, 2), (2, 4), (3, 5)]),
        ((4, 2), [(2, 1), (4, 2)]),
        ((1, 3), [(1, 3)]),
        ((4, 0), []),
    ],
)
def test_which_stages_meet(counts: tuple[int, int], pairs: list[tuple[int, int]]) -> None:
    assert spread(*counts) == pairs


@pytest.mark.parametrize(("student", "teacher"), list(itertools.product(SMALL, SMALL)))
def test_every_pair_of_models(tmp_path: Path, student: str, teacher: str) -> None:
    torch.manual_seed(0)
    nets = []
    for number, kind in enumerate((student, teacher)):
        options = [f"type={kind}", "embedding-dim=6", *SMALL[kind].split()]
        (tmp_path / f"{number}.conf").write_text("".join(f"--{option}\n" for option in options))
        nets.append(make_net(tmp_path / f"{number}.conf", DIM, NAMES, MarginConf()))
    method = method_of(CONF, NetTeacher(nets[1], "t", NAMES), nets[0])
    outcome = method(batch_of(), CLOCK)
    count = min(len(net(torch.randn(2, 24, DIM)).stages) for net in nets)
    each = [value for name, value in outcome.metrics.items() if name.startswith("stage")]
    assert len(each) == count > 1
    assert outcome.losses["kd"].item() == pytest.approx(1000 * sum(float(value) for value in each), rel=1e-4)
    outcome.losses["kd"].backward()
    first = next(parameter for parameter in nets[0].encoder.parameters())  # type: ignore[attr-defined]
    assert first.grad is not None and first.grad.abs().max() > 0


def test_stages_that_are_given() -> None:
    net = net_of(0)
    method = method_of(CONF, NetTeacher(net, "t", NAMES), stages="1:2,4:3")
    outcome = method.eval()(batch_of(), CLOCK)
    with torch.no_grad():
        stages: list[tuple[Tensor, ...]] = [each.eval()(batch_of().feats[0]).stages for each in (method.student, net)]  # type: ignore[operator]
        expected = stage_distance(stages[0][0], stages[1][1]).mean() + stage_distance(stages[0][3], stages[1][2]).mean()
    assert outcome.losses["kd"].item() == pytest.approx(1000 * expected.item(), rel=1e-4)
    assert [name for name in outcome.metrics if name.startswith("stage")] == ["stage1:2", "stage4:3"]


@pytest.mark.parametrize("stages", ["1", "1:2;2:3", "0:1", "a:b", ""])
def test_pairs_that_are_none(stages: str) -> None:
    with pytest.raises(ValueError, match=r"--stages=.*: not pairs of stages, counted from 1, such as 2:1,4:3"):
        method_of(CONF, NetTeacher(net_of(0), "t", NAMES), stages=stages)


def test_a_stage_beyond_the_last(tmp_path: Path) -> None:
    method = method_of(CONF, NetTeacher(net_of(0), "exp/t/final.pt", NAMES), stages="9:1")
    with pytest.raises(ValueError, match=r"--stages=9:1: the student has 4 stages and the teacher exp/t/final\.pt 4"):
        method(batch_of(), CLOCK)


def test_vectors_are_refused_with_the_remedy(recipe: Path, data: Path, sh: Run) -> None:
    assert typed_conf(CONF, METHODS)[1].needs.teacher_net
    with pytest.raises(ValueError, match="this method compares stages, and vectors have none"):
        method_of(CONF, vector_teacher())
    with ArkWriter(recipe / "exp/v/xvector") as write:
        for key in Utterances(data).scp:
            write(key, np.ones(5, np.float32))
    words: list[Any] = ["--kd", "conf/kd/attention.conf", "--teacher", "exp/v/xvector.scp", "--valid-speakers", 0]
    done = sh(*command("exp/a", *words), fails=True)
    assert "exp/v/xvector.scp: this method compares stages" in done.stderr
    assert "Give a net, --teacher exp/<teacher>/final.pt. From vectors learn cosine, mse," in done.stderr
    assert not (recipe / "exp/a/last.pt").exists()
    chosen: Any = SimpleNamespace(name="attention", needs=typed_conf(CONF, METHODS)[1].needs)
    nothing: Any = None
    with pytest.raises(ValueError, match=r"--hear-frames=99: .*teacher and student must hear the same frames"):
        load_teachers(RunOptions(hear_frames=99, num_frames=24), chosen, nothing)
    info = sh("local/kd_info.py", "conf/kd/attention.conf").stdout
    assert info.split("needs ")[1] == "labels, teacher, teacher-net, audio\n"
