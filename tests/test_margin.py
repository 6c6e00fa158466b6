"""Margin softmax: closed forms, sub-centres, the schedule, gradients at the edges, autocast."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from speakerkd.losses.margin import MarginConf, MarginHead, margin_ramp

TYPES = ("am", "aam")


def make_head(conf: MarginConf, dim: int = 5, classes: int = 7) -> MarginHead:
    torch.manual_seed(0)
    return MarginHead(conf, dim, classes).double()


def batch(size: int = 40, dim: int = 5, classes: int = 7) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(size, dim, dtype=torch.float64), torch.randint(0, classes, (size,))


def head_with_cosine(conf: MarginConf, cosine: float) -> tuple[MarginHead, Tensor]:
    """A head of two classes in the plane and an embedding at this cosine to class 0."""
    head = MarginHead(conf, 2, 2).double()
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    angle = math.acos(cosine)
    return head, torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)


def test_aam_is_the_closed_form() -> None:
    conf = MarginConf(type="aam", scale=30, margin=0.3)
    head, (embedding, labels) = make_head(conf), batch()
    cosines = F.normalize(embedding) @ F.normalize(head.weight).T
    angles = torch.arccos(cosines)
    moved = torch.where(angles < math.pi - 0.3, torch.cos(angles + 0.3), cosines - (1 + math.cos(math.pi - 0.3)))
    expected = 30 * torch.where(F.one_hot(labels, 7).bool(), moved, cosines)
    torch.testing.assert_close(head(embedding, labels), expected)


def test_am_is_the_closed_form() -> None:
    head, (embedding, labels) = make_head(MarginConf(type="am", margin=0.3)), batch()
    expected = head(embedding) - 32 * 0.3 * F.one_hot(labels, 7).double()
    torch.testing.assert_close(head(embedding, labels), expected)


def test_easy_margin_leaves_negative_cosines() -> None:
    head, (embedding, labels) = make_head(MarginConf(easy_margin=True)), batch(200)
    plain = head(embedding).gather(1, labels[:, None])
    moved = head(embedding, labels).gather(1, labels[:, None])
    assert torch.equal(moved[plain < 0], plain[plain < 0]) and (moved[plain > 0] < plain[plain > 0]).all()


@pytest.mark.parametrize("kind", TYPES)
def test_no_margin_is_plain_cosines(kind: str) -> None:
    embedding, labels = batch()
    for conf, ramp in ((MarginConf(type=kind, margin=0.0), 1.0), (MarginConf(type=kind), 0.0)):
        head = make_head(conf)
        expected = 32 * F.normalize(embedding) @ F.normalize(head.weight).T
        torch.testing.assert_close(head(embedding), expected)
        torch.testing.assert_close(head(embedding, labels, ramp), expected)


@pytest.mark.parametrize("kind", TYPES)
def test_ramp_scales_the_margin(kind: str) -> None:
    embedding, labels = batch()
    half, full = make_head(MarginConf(type=kind, margin=0.1)), make_head(MarginConf(type=kind, margin=0.2))
    torch.testing.assert_close(full(embedding, labels, 0.5), half(embedding, labels))


def test_aam_falls_with_the_angle_and_is_continuous() -> None:
    angles = torch.linspace(0, math.pi, 2001, dtype=torch.float64)
    head = MarginHead(MarginConf(scale=1.0), 2, 2).double()
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    embedding = torch.stack([angles.cos(), angles.sin()], 1)
    steps = head(embedding, torch.zeros(2001, dtype=torch.long))[:, 0].diff()
    assert (steps[1:] < 0).all() and steps.abs().max() < 0.002


@pytest.mark.parametrize("kind", TYPES)
def test_sub_centres_count_by_their_closest(kind: str) -> None:
    conf = MarginConf(type=kind, sub_centers=3)
    head, (embedding, labels) = make_head(conf), batch()
    assert head.weight.shape == (21, 5)
    cosines = F.normalize(embedding) @ F.normalize(head.weight).T
    expected = 32 * torch.stack([cosines[:, 3 * each : 3 * each + 3].max(1).values for each in range(7)], 1)
    torch.testing.assert_close(head(embedding), expected)
    single = make_head(MarginConf(type=kind))
    with torch.no_grad():
        head.weight.copy_(single.weight.repeat_interleave(3, 0))
    torch.testing.assert_close(head(embedding, labels), single(embedding, labels))
    torch.testing.assert_close(head.class_vectors(), single.class_vectors())
    torch.testing.assert_close(single.class_vectors(), F.normalize(single.weight))


def test_softmax_is_an_affine_layer() -> None:
    head, (embedding, labels) = make_head(MarginConf(type="softmax")), batch()
    assert head.bias is not None
    torch.nn.init.normal_(head.bias)
    expected = embedding @ head.weight.T + head.bias
    torch.testing.assert_close(head(embedding, labels), expected)
    torch.testing.assert_close(head(embedding), expected)


@pytest.mark.parametrize("cosine", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_the_ends(cosine: float, kind: str, dtype: torch.dtype) -> None:
    head, embedding = head_with_cosine(MarginConf(type=kind), cosine)
    head, embedding = head.to(dtype), embedding.to(dtype).requires_grad_()
    F.cross_entropy(head(embedding, torch.tensor([0])), torch.tensor([0])).backward()
    assert embedding.grad is not None and embedding.grad.isfinite().all()
    assert head.weight.grad is not None and head.weight.grad.isfinite().all()


def test_an_embedding_of_zeros_has_finite_gradients() -> None:
    head = MarginHead(MarginConf(), 4, 3)
    embedding = torch.zeros(2, 4, requires_grad=True)
    F.cross_entropy(head(embedding, torch.tensor([0, 1])), torch.tensor([0, 1])).backward()
    assert embedding.grad is not None and embedding.grad.isfinite().all()


@pytest.mark.parametrize("kind", ("softmax", *TYPES))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_single_precision_under_autocast(kind: str, dtype: torch.dtype) -> None:
    head = MarginHead(MarginConf(type=kind), 16, 9)
    embedding, labels = torch.randn(6, 16), torch.randint(0, 9, (6,))
    with torch.autocast("cpu", dtype):
        found = head(embedding, labels)
        narrow = head(embedding.to(dtype), labels)
    assert found.dtype == narrow.dtype == torch.float32
    torch.testing.assert_close(found, head(embedding, labels))
    assert narrow.isfinite().all()


def test_the_ramp_at_its_ends_and_between() -> None:
    for shape in ("exponential", "linear"):
        conf = MarginConf(margin_start=20 / 60, margin_end=40 / 60, margin_shape=shape)
        values = [margin_ramp(conf, tenth / 600) for tenth in range(600)]
        assert values[0] == values[200] == 0 and values[400] == values[599] == 1
        assert all(low <= high for low, high in pairwise(values))
        assert values[399] == pytest.approx(1, abs=0.01)
    assert margin_ramp(MarginConf(margin_start=0.2, margin_end=0.4, margin_shape="linear"), 0.3) == pytest.approx(0.5)
    rising = MarginConf(margin_start=0.2, margin_end=0.4)
    assert margin_ramp(rising, 0.3) == pytest.approx(1 - 1e-3**0.5)
    assert margin_ramp(rising, 0.22) == pytest.approx(0.5, abs=0.01), "half of the rise after a tenth of the way"
    assert margin_ramp(MarginConf(), 0) == 1


@pytest.mark.parametrize(
    ("conf", "classes", "words"),
    [
        (MarginConf(type="arc"), 3, "allowed: softmax am aam"),
        (MarginConf(margin_shape="x"), 3, "--margin-shape=x"),
        (MarginConf(sub_centers=0), 3, "--sub-centers=0"),
        (MarginConf(type="softmax", sub_centers=2), 3, "--sub-centers=2"),
        (MarginConf(margin=2.0), 3, "--margin=2.0"),
        (MarginConf(scale=0.0), 3, "--scale=0.0"),
        (MarginConf(), 0, "needs speakers"),
    ],
)
def test_impossible_options_are_errors(conf: MarginConf, classes: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MarginHead(conf, 4, classes)


@pytest.mark.parametrize("kind", ("softmax", *TYPES))
def test_it_learns(kind: str) -> None:
    torch.manual_seed(0)
    head = MarginHead(MarginConf(type=kind, sub_centers=1 if kind == "softmax" else 2), 8, 4)
    embedding = torch.randn(64, 8)
    labels = embedding[:, :4].argmax(1)
    optimizer = torch.optim.SGD(head.parameters(), 0.1)
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(head(embedding, labels), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
