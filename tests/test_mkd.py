"""MKD and quality weights: the margin's edge, the base method inside it, weights of mean 1."""

import copy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_kd import NAMES, batch_of, net_of, vector_teacher
from toy import SPEAKERS

from speakerkd.batches.attached import attach
from speakerkd.batches.dataset import Batch
from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.names import Names
from speakerkd.kd import Clock, Components
from speakerkd.kd.embed import without_self
from speakerkd.kd.mkd import BASES, MKD, MKDConf, of_mean_one
from speakerkd.kd.teacher import NetTeacher, Teacher, VectorTeacher
from speakerkd.losses.margin import MarginConf
from speakerkd.losses.relation import cosine_relation
from speakerkd.models.base import Encoded

Run = Callable[..., subprocess.CompletedProcess[str]]
CLOCK = Clock(3.0, 4)


def mkd(teacher: Teacher | None = None, seed: int = 1, **changed: Any) -> MKD:
    torch.manual_seed(5)
    return MKD(MKDConf(**changed), Components(net_of(seed), NAMES, teacher or NetTeacher(net_of(0), "t", NAMES), {}))


def gradients(method: torch.nn.Module, batch: Batch) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    method.zero_grad()
    losses = method(batch, CLOCK).losses
    torch.stack(list(losses.values())).sum().backward()
    found = {name: each.grad for name, each in method.named_parameters() if each.grad is not None}
    return found, {name: value.item() for name, value in losses.items()}


@pytest.mark.parametrize("base", BASES)
def test_no_margin_and_no_weights_are_the_base_method(base: str) -> None:
    kind = BASES[base]
    plain = kind(kind.Conf(weight=1.5, warmup=0.0), Components(net_of(1), NAMES, NetTeacher(net_of(0), "t", NAMES), {}))
    wrapped = mkd(base=base, margin=0.0, weight=1.5)
    for module in (plain, wrapped):
        module.train()
    (one, losses), (other, found) = gradients(plain, batch_of()), gradients(wrapped, batch_of())
    assert found == pytest.approx(losses, rel=1e-6)
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("base", BASES)
def test_inside_the_margin_there_is_nothing(base: str) -> None:
    method = mkd(base=base, margin=1e4)
    found, losses = gradients(method, batch_of())
    alone, _ = gradients(mkd(base=base, margin=1e4, weight=0.0), batch_of())
    assert losses["kd"] == 0
    assert all(torch.equal(found[name], alone[name]) for name in alone)


class Fixed(NetTeacher):
    """Says what it is told to."""

    embedding: torch.Tensor

    def embed(self, batch: Batch) -> Encoded:
        return Encoded(self.embedding)


def test_each_sample_has_its_own_margin() -> None:
    """The mean of the hinges, not the hinge of the mean; slope and value as the base's beyond it."""
    teacher = Fixed(net_of(0), "t", NAMES)
    method = mkd(teacher, margin=0.3)
    method.eval()
    batch = batch_of()
    student = method.student(batch.feats[0]).embedding.detach()
    teacher.embedding = torch.cat([-student[:4], student[4:]])  # distances 2 and 0
    assert method(batch, CLOCK).losses["kd"].item() == pytest.approx(0.5 * (2 - 0.3), rel=1e-5)
    teacher.embedding = torch.randn(8, 6)
    distances = (1 - torch.cosine_similarity(student, teacher.embedding)).double().numpy()
    values = []
    for margin in (0.05, 0.5, 1.0, 1.5):
        value = mkd(teacher, margin=margin).eval()(batch, CLOCK).losses["kd"].item()
        assert value == pytest.approx(np.maximum(distances - margin, 0).mean(), rel=1e-4, abs=1e-6)
        values.append(value)
    assert values == sorted(values, reverse=True) and values[0] > values[1] > 0


def test_pairs_have_margins_of_their_own() -> None:
    student, teacher = torch.randn(5, 4), torch.randn(5, 7)
    pairs = cosine_relation(student, teacher, slice(None))
    by_hand = abs(
        torch.cosine_similarity(student[1], student[3], 0) - torch.cosine_similarity(teacher[1], teacher[3], 0)
    )
    assert pairs[1, 3].item() == pytest.approx(by_hand.item(), abs=1e-6)
    rest = without_self(pairs)
    for row in range(5):
        assert torch.equal(rest[row], torch.cat([pairs[row, :row], pairs[row, row + 1 :]]))
    method = mkd(base="relation", margin=0.4).eval()
    batch = batch_of()
    embeddings = [net(batch.feats[0]).embedding for net in (method.student, net_of(0).eval())]
    expected = (without_self(cosine_relation(*embeddings, slice(None))) - 0.4).clamp(min=0).mean()
    assert method(batch, CLOCK).losses["kd"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_margin_by_percentile() -> None:
    """Of one batch it is that batch's; over many their moving average; it stays when the model is judged."""
    teacher = Fixed(net_of(0), "t", NAMES)
    method = mkd(teacher, margin_percentile=50.0)
    distances = torch.linspace(0.1, 0.8, 8)
    assert float(method.margin(distances)) == pytest.approx(0.45)  # type: ignore[arg-type]
    assert float(method.margin(distances + 1)) == pytest.approx(0.99 * 0.45 + 0.01 * 1.45)  # type: ignore[arg-type]
    method.eval()
    before = float(method.edge.mean)
    assert float(method.margin(distances + 5)) == before  # type: ignore[arg-type]
    assert "edge.mean" in method.state_dict()


@pytest.mark.parametrize("base", BASES)
def test_a_percentile_is_of_the_distances_that_there_are(base: str) -> None:
    """Neither missing vectors nor speakers whom the teacher doesn't know lower it."""
    known = torch.arange(SPEAKERS) != 2
    teacher = VectorTeacher("t", NAMES, torch.randn(SPEAKERS - 1, 9), known, MarginConf())
    vectors = torch.randn(8, 9)
    vectors[5:] = 0
    batch = batch_of(teacher=vectors)
    method = mkd(teacher, base=base, margin_percentile=40.0, unknown_speakers="skip", quality="none")
    method.train()
    state = copy.deepcopy(method.state_dict())
    metrics = method(batch, CLOCK).metrics
    found = method.edge.mean.clone()
    method.load_state_dict(state)
    with torch.no_grad():
        student = method.student(batch.feats[0])
        logits = method.classify(student, batch, CLOCK)[1]
        distances = method._base[0].distance(student, logits, teacher.embed(batch), batch, {})
    there = torch.arange(8) < 5
    if base in ("kld", "dkd"):
        there &= known[batch.labels]
    if base == "relation":
        pairs = without_self(there[:, None] & there)
        assert pairs.sum() == 20
        there = pairs
    expected = distances[there]
    assert found.item() == pytest.approx(expected.quantile(0.4).item(), rel=1e-5) and found > 0
    assert metrics["distance"].item() == pytest.approx(expected.mean().item(), rel=1e-5)
    assert metrics["beyond"].item() == pytest.approx((expected > found).float().mean().item())


@pytest.mark.parametrize("base", BASES)
def test_beyond_the_margin_the_slope_is_the_base_s(base: str) -> None:
    plain = mkd(base=base, margin=0.0, weight=1.5)
    margin = 0.01 if base in ("dkd", "kld") else 1e-5  # less than the least distance, more than rounding
    beyond = mkd(base=base, margin=margin, weight=1.5)
    (one, losses), (other, found) = gradients(plain, batch_of()), gradients(beyond, batch_of())
    assert beyond(batch_of(), CLOCK).metrics["beyond"] == 1
    assert losses["kd"] - found["kd"] == pytest.approx(1.5 * margin, rel=0.1)
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)


def test_weights() -> None:
    """Mean 1, bounds, order, no gradient; equal qualities weigh alike."""
    teacher = vector_teacher()
    quality = torch.tensor([0.1, 0.2, 0.4, 0.5, 0.6, 0.7, 0.9, 1.0])[:, None]
    method = mkd(teacher, quality="teacher", kappa=1.0)
    batch = batch_of(teacher=torch.randn(8, 9), quality=quality)
    student = method.student(batch.feats[0])
    weights = method.weights(student, teacher.embed(batch), batch, teacher.present(batch))
    assert weights.mean().item() == pytest.approx(1, abs=1e-5) and not weights.requires_grad
    assert (weights.diff() > 0).all() and weights.min() > 0.45 and weights.max() < 2.2
    z = (quality[:, 0] - quality.mean()) * 0.33 / quality.std(correction=0)
    raw = z.exp()
    torch.testing.assert_close(weights, raw / raw.mean(), rtol=1e-4, atol=1e-4)
    batch.vectors["quality"] = torch.full((8, 1), 0.3)
    even = mkd(teacher, quality="teacher").weights(student, teacher.embed(batch), batch, None)
    torch.testing.assert_close(even, torch.ones(8))
    assert of_mean_one(torch.tensor([1e6, 1.0, 1.0, 1.0])).mean().item() == pytest.approx(1)


def test_the_lowest_weight_is_an_option() -> None:
    """A sample may be left out all but wholly; with the default it keeps half a weight."""
    quality = torch.tensor([-9.0] + [1.0] * 7)[:, None]
    found = {}
    for lowest in (0.5, 0.02):
        method = mkd(vector_teacher(), quality="teacher", quality_reach=1.0, kappa=0.2, lowest_weight=lowest)
        batch = batch_of(teacher=torch.randn(8, 9), quality=quality)
        student = method.student(batch.feats[0])
        weights = method.weights(student, method.teacher.embed(batch), batch, None)
        assert weights.mean().item() == pytest.approx(1, abs=1e-5)
        found[lowest] = weights[0].item()
    assert found[0.5] == pytest.approx(0.5, abs=0.02) and found[0.02] == pytest.approx(0.02, abs=0.005)


def test_weights_may_be_those_of_the_distance_alone() -> None:
    """The cross entropy is then the plain one; the distance is weighted as with both."""
    batch = batch_of(teacher=torch.randn(8, 9), quality=torch.linspace(0.1, 1, 8)[:, None])
    losses = {}
    for weighted in ("both", "distance"):
        method = mkd(vector_teacher(), quality="teacher", kappa=0.2, weighted=weighted)
        losses[weighted] = {name: value.item() for name, value in method(batch, CLOCK).losses.items()}
    plain = mkd(vector_teacher())(batch, CLOCK).losses
    assert losses["distance"]["ce"] == pytest.approx(plain["ce"].item(), rel=1e-6)
    assert losses["both"]["ce"] != pytest.approx(plain["ce"].item(), rel=1e-4)
    assert losses["both"]["kd"] == losses["distance"]["kd"] != pytest.approx(plain["kd"].item(), rel=1e-4)


def test_a_poor_sample_pulls_less() -> None:
    """With all samples the same, the gradient of each is in the ratio of the weights."""
    teacher = vector_teacher()
    method = mkd(teacher, quality="teacher", kappa=2.0)
    method.eval()
    batch = batch_of(teacher=torch.randn(1, 9).expand(8, 9).clone(), quality=torch.tensor([[0.2]] * 4 + [[0.9]] * 4))
    batch.feats = [batch.feats[0][:1].expand(8, -1, -1).clone().requires_grad_()]
    batch.labels = torch.zeros(8, dtype=torch.long)
    method.taught.update(batch.vectors["quality"][:, 0])
    losses = method(batch, CLOCK).losses
    (slopes,) = torch.autograd.grad(losses["ce"] + losses["kd"], batch.feats[0])
    ratio = slopes[0].norm() / slopes[7].norm()
    assert ratio.item() == pytest.approx(np.exp(2 * -0.33 / 2), rel=1e-3)


def test_missing_faces_weigh_as_speech_alone() -> None:
    teacher = vector_teacher()
    method = mkd(teacher, quality="both")
    vectors = torch.randn(8, 9)
    vectors[3] = 0
    batch = batch_of(teacher=vectors, quality=torch.linspace(0.1, 1, 8)[:, None])
    assert method(batch, CLOCK).losses["kd"].isfinite()
    assert method.taught.mean.item() == pytest.approx(float(batch.vectors["quality"][vectors.any(1)].mean()), rel=1e-5)
    check_alone(method, batch, 3)


def test_missing_figures_weigh_as_speech_alone() -> None:
    """Zero is a figure like others; nan is none."""
    method = mkd(vector_teacher(), quality="both")
    figures = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0, float("nan"), float("nan")])
    batch = batch_of(teacher=torch.randn(8, 9), quality=figures[:, None])
    assert method(batch, CLOCK).losses["kd"].isfinite()
    assert method.taught.mean.item() == pytest.approx(0.5, rel=1e-5)
    check_alone(method, batch, 7)
    none = mkd(vector_teacher(), quality="both")
    batch.vectors["quality"] = torch.full((8, 1), float("nan"))
    assert none(batch, CLOCK).losses["ce"].isfinite() and none.taught.seen == 0
    with pytest.raises(ValueError, match="2 numbers per utterance"):
        MKD(MKDConf(), Components(net_of(1), NAMES, vector_teacher(), {"quality": 2}))


def check_alone(method: MKD, batch: Batch, sample: int) -> None:
    """This sample's weight, relative to another's, is by its speech, the other's by both."""
    method.eval()
    student, teacher = method.student(batch.feats[0]), method.teacher.embed(batch)
    weights = method.weights(student, teacher, batch, method.teacher.present(batch))
    speech = method.standardised(method.speech, student.embedding.norm(dim=1), torch.ones(8, dtype=torch.bool))
    face = method.standardised(method.taught, batch.vectors["quality"][:, 0], torch.arange(8) == 1)
    expected = (speech[sample] - speech[1] - face[1]) / method.conf.kappa
    assert face[1] != 0 and (weights[sample] / weights[1]).log().item() == pytest.approx(expected.item(), rel=1e-4)


def test_weights_by_speech_follow_the_embeddings_lengths() -> None:
    method = mkd(quality="speech", kappa=1.0)
    batch = batch_of()
    student = method.student(batch.feats[0])
    lengths = student.embedding.norm(dim=1).detach()
    weights = method.weights(student, method.teacher.embed(batch), batch, None)
    z = (lengths - lengths.mean()) * 0.33 / lengths.std(correction=0)
    torch.testing.assert_close(weights, z.exp() / z.exp().mean(), rtol=1e-4, atol=1e-4)
    assert method.taught.seen == 0


SHARES = """
import sys, torch
from speakerkd.kd.mkd import MovingStatistics, of_mean_one
from speakerkd.parallel import start

torch.manual_seed(0)
raw, values = torch.randn(3, 8).exp() ** 2, torch.randn(3, 8) + 5
present = torch.rand(3, 8) < 0.4
present[1, 4:] = False  # nothing in the second process
present[2] = False
world = start("cpu")
own = slice(world.rank * 8 // world.size, (world.rank + 1) * 8 // world.size)
moving = MovingStatistics()
weights = []
for step in range(3):
    moving.update(values[step, own][present[step, own]])
    weights.append(of_mean_one(raw[step, own]))
torch.save([moving.state_dict(), torch.stack(weights), own], f"{sys.argv[1]}.{world.rank}")
world.close()
"""


def test_two_processes_weigh_as_one_does(recipe: Path, sh: Run) -> None:
    (recipe / "shares.py").write_text(SHARES)
    (recipe / "exp").mkdir(exist_ok=True)
    sh("python3", "shares.py", "exp/one")
    sh("local/launch.sh", 1, 1, 2, "exp/two", "shares.py", "exp/two")
    whole, weights, _ = torch.load(recipe / "exp/one.0", weights_only=False)
    assert weights.max() > 1.5 and whole["mean"] > 4
    for rank in (0, 1):
        state, part, own = torch.load(recipe / f"exp/two.{rank}", weights_only=False)
        torch.testing.assert_close(part, weights[:, own])
        for name, value in whole.items():
            torch.testing.assert_close(state[name], value)


@pytest.mark.parametrize("quality", ["none", "speech", "teacher", "both"])
@pytest.mark.parametrize("base", BASES)
def test_vectors_teach_with_every_base_and_quality(base: str, quality: str) -> None:
    """All parts at once, as in egs/open: vectors, a margin by percentile, figures of quality; both terms train the net."""
    method = mkd(vector_teacher(), base=base, margin_percentile=33.0, quality=quality, kappa=0.33, lowest_weight=0.02)
    method.train()
    for step in range(3):
        torch.manual_seed(step)
        batch = batch_of(teacher=torch.randn(8, 9), quality=torch.rand(8, 1))
        found, losses = gradients(method, batch)
        assert losses["kd"] > 0 and all(np.isfinite(list(losses.values())))
        assert all(value.isfinite().all() for value in found.values())
        assert sum(bool(value.any()) for value in found.values()) > len(found) / 2
    assert method.speech.seen == (quality in ("speech", "both")) and method.taught.seen == (
        quality in ("teacher", "both")
    )
    assert method.edge.seen == 1 and 0 < method(batch, CLOCK).metrics["beyond"] < 1


def test_what_is_exported_has_no_projection() -> None:
    method = mkd(vector_teacher())
    assert method.projection.weight.shape == (9, 6)  # type: ignore[union-attr]
    assert {"projection.weight", "projection.bias"} < method.state_dict().keys()
    assert not any("projection" in name for name in method.exports()["final"].state_dict())
    known = torch.tensor([True] * (SPEAKERS - 1) + [False])
    partly = VectorTeacher("faces", NAMES, torch.randn(SPEAKERS - 1, 9), known, net_of(0).head.conf)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="faces doesn't know 1 of the 6 training speakers: s5"):
        mkd(partly, base="kld")
    mkd(partly, base="cosine")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"base": "l3"}, "--base=l3 is not one of: cosine dkd kld mse relation"),
        ({"quality": "good"}, "--quality=good is not one of: "),
        ({"margin": -0.1}, "--margin=-0.1 can't be negative"),
        ({"margin_percentile": 100.0}, "--margin-percentile=100.0 is from 0 to below 100"),
        ({"kappa": 0.0}, "must be positive"),
        ({"lowest_weight": 1.5}, "--lowest-weight=1.5 is from 0 to 1"),
        ({"weighted": "ce"}, "--weighted=ce is not one of: both distance"),
    ],
)
def test_bad_options(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mkd(**changed)


def test_figures_of_the_log_are_of_who_has_a_face() -> None:
    vectors = torch.randn(8, 9)
    vectors[4:] = 0
    teacher = vector_teacher()
    method = mkd(teacher, margin=0.1).eval()
    batch = batch_of(teacher=vectors)
    found = method(batch, CLOCK).metrics
    with torch.no_grad():
        student = method.projection(method.student(batch.feats[0]).embedding)
    cosines = torch.cosine_similarity(student, vectors)[:4]
    assert found["distance"].item() == pytest.approx(1 - cosines.mean().item(), rel=1e-4)
    assert found["beyond"].item() == pytest.approx((1 - cosines > 0.1).float().mean().item())


def test_entries_that_are_missing_too_many_or_no_figures(tmp_path: Path) -> None:
    keys = Names.of(["a", "b", "c"])
    vectors = {key: np.full(4, value, np.float32) for value, key in enumerate(("a", "b", "x", "y"), 1)}
    with ArkWriter(tmp_path / "face") as write:
        for key, each in vectors.items():
            write(key, each)
    faces, figures = tmp_path / "face.scp", tmp_path / "utt2quality"
    with pytest.raises(ValueError, match="1 of 3 utterances have no teacher: c; make it for the same data directory"):
        attach("teacher", faces, keys)
    found = attach("teacher", faces, keys, missing="zero")
    np.testing.assert_array_equal(found.of(np.arange(3)), [vectors["a"], vectors["b"], np.zeros(4)])
    assert found.present.tolist() == [True, True, False]
    figures.write_text("a 0\nb -2.5\nx 7\n")
    np.testing.assert_array_equal(
        attach("quality", figures, keys, missing="zero").of(np.arange(3)), [[0], [-2.5], [np.nan]]
    )
    for text, message in (
        ("b nan", "'b nan': not a finite number"),
        ("b 1 2", "'b 1 2': 1 number"),
        ("b good", "'b good': 1 number"),
    ):
        figures.write_text(f"a 0\n{text}\n")
        with pytest.raises(ValueError, match=message):
            attach("quality", figures, keys, missing="zero")
