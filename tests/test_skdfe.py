"""SKDFE: what flows where, the two losses against plain arithmetic, every model, the run through local/train.py."""

import copy
import math
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import Tensor
from torch.nn import functional as F

from speakerkd.batches.dataset import Batch
from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.tables import write_data_dir, write_table
from speakerkd.kd import METHODS, Clock, Components, Outcome, refine
from speakerkd.kd.none import NoneConf, NoTeacher
from speakerkd.kd.refine import Block, Fusion, Pyramid, SelfTeacher, as_planes, fit, grow, probe, shrink
from speakerkd.kd.skdfe import SKDFE, SKDFEConf, attention_map, feature_loss, label_loss
from speakerkd.losses.margin import MarginConf, MarginHead
from speakerkd.models import MODELS, SpeakerNet, load_net, save_net

FEAT_DIM, SPEAKERS = 13, 5
NAMES = tuple(f"s{i}" for i in range(SPEAKERS))
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "xvector": ("xvector", {"channels": 6, "stats_channels": 8, "embedding_dim": 7}),
    "xvector attentive": (
        "xvector",
        {"channels": 6, "stats_channels": 8, "embedding_dim": 7, "pooling": "attentive"},
    ),
    "ecapa": ("ecapa", {"channels": 8, "joined_channels": 12, "se_channels": 4, "embedding_dim": 7}),
    "resnet": ("resnet", {"blocks": (1, 1, 1, 1), "base_channels": 3, "embedding_dim": 7}),
    "bottleneck": ("resnet", {"block": "bottleneck", "blocks": (1, 1, 1, 1), "base_channels": 2, "embedding_dim": 7}),
    "campplus": (
        "campplus",
        {"front_channels": 3, "channels": 6, "growth": 4, "layers": (1, 2, 1), "embedding_dim": 7},
    ),
}
SMALL = {"embedding_dim": 9, "depth": 1, "warmup": 0.0}


def make_net(key: str, feat_dim: int = FEAT_DIM) -> SpeakerNet:
    name, options = TINY[key]
    torch.manual_seed(3)
    encoder = MODELS[name](MODELS[name].Conf(**options), feat_dim)
    return SpeakerNet(
        encoder, MarginHead(MarginConf(margin_start=1 / 4, margin_end=3 / 4), encoder.dim, SPEAKERS), NAMES
    )


def make_method(key: str, feat_dim: int = FEAT_DIM, **options: Any) -> SKDFE:
    net = make_net(key, feat_dim)
    return SKDFE(SKDFEConf(**{**SMALL, **options}), Components(net, NAMES))


def make_batch(frames: int = 37, count: int = 6, feat_dim: int = FEAT_DIM) -> Batch:
    feats = torch.randn(count, frames, feat_dim, generator=torch.Generator().manual_seed(4))
    return Batch([feats], torch.arange(count) % SPEAKERS)


def gradients(method: torch.nn.Module, loss: Tensor) -> dict[str, Tensor]:
    method.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {name: each.grad.clone() for name, each in method.named_parameters() if each.grad is not None}


def total(outcome: Outcome) -> Tensor:
    return torch.stack(list(outcome.losses.values())).sum()


@pytest.mark.parametrize("key", TINY)
def test_every_trained_parameter_gets_a_gradient(key: str) -> None:
    method = make_method(key, alpha=1.0, beta=50.0, repeats=2)
    outcome = method(make_batch(), Clock(1.5, 4))
    assert list(outcome.losses) == ["ce", "teacher_ce", "label", "feature"]
    found = gradients(method, total(outcome))
    assert not [name for name, _ in method.named_parameters() if name not in found or not found[name].any()]


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("key", ["xvector", "resnet"])
def test_who_learns_from_what(key: str, detached: bool) -> None:
    """Label and feature terms never reach the self-teacher; its own entropy reaches the student unless detached."""
    method = make_method(key, detach_teacher_input=detached)
    losses = method(make_batch(), Clock(1.5, 4)).losses
    for name in ("label", "feature"):
        reached = gradients(method, losses[name])
        assert reached and all(each.startswith("student.") for each, value in reached.items() if value.any())
    assert all(each.startswith("student.") for each in gradients(method, losses["ce"]))
    own = {name for name, value in gradients(method, losses["teacher_ce"]).items() if value.any()}
    assert {name for name, _ in method.named_parameters() if not name.startswith("student.")} <= own
    assert any(name.startswith("student.") for name in own) == (not detached)
    assert not any(name.startswith("student.head") for name in own)


@pytest.mark.parametrize("key", TINY)
def test_without_terms_and_detached_it_is_plain_training(key: str) -> None:
    method = make_method(key, alpha=0.0, beta=0.0, detach_teacher_input=True)
    plain = NoTeacher(NoneConf(), Components(copy.deepcopy(method.student), NAMES))
    batch, clock = make_batch(), Clock(1.5, 4)
    outcome, expected = method(batch, clock), plain(batch, clock)
    assert list(outcome.losses) == ["ce", "teacher_ce"]
    ours, theirs = gradients(method, total(outcome)), gradients(plain, total(expected))
    assert theirs and all(torch.equal(ours[name], value) for name, value in theirs.items())
    buffers = dict(method.named_buffers())
    assert all(torch.equal(buffers[name], value) for name, value in plain.named_buffers())


def test_label_loss_by_hand(rng: np.random.Generator) -> None:
    student, teacher = rng.normal(0, 8, (2, 4, SPEAKERS))
    for temperature in (1.0, 2.0, 4.0):
        p, q = (np.exp(x / temperature) / np.exp(x / temperature).sum(1, keepdims=True) for x in (teacher, student))
        expected = temperature**2 * (p * np.log(p / q)).sum(1).mean()
        found = label_loss(torch.from_numpy(student), torch.from_numpy(teacher), temperature)
        assert found.item() == pytest.approx(expected, rel=1e-5)  # single precision
    same = torch.from_numpy(student).requires_grad_()
    loss = label_loss(same, same.detach() + 3, 4.0)  # a constant changes no posterior
    (slope,) = torch.autograd.grad(loss, same)
    assert abs(loss.item()) < 1e-5 and slope.abs().max() < 1e-6
    wide = torch.tensor([[32.0, -32.0], [-32.0, 32.0]])
    assert label_loss(wide.bfloat16(), -wide.bfloat16(), 0.1).item() == pytest.approx(64 / 0.1 * 0.01, rel=1e-5)


def test_attention_map_by_hand() -> None:
    maps = torch.tensor([[[[1.0, 2.0, 0.0]], [[3.0, 0.0, 0.0]]]])  # (1, 2, 1, 3): means of squares 5, 2, 0
    expected = torch.tensor([[5.0, 2.0, 0.0]]) / math.sqrt(29)
    assert torch.allclose(attention_map(maps), expected)
    assert torch.allclose(attention_map(-7 * maps), expected, atol=1e-6)
    assert torch.allclose(attention_map(maps[:, :, 0]), expected)
    for shape in ((4, 3, 5, 7), (4, 3, 11)):
        found = attention_map(torch.randn(shape))
        assert found.shape == (4, math.prod(shape[2:])) and torch.allclose(found.norm(dim=1), torch.ones(4))
    silent = torch.zeros(1, 2, 3, requires_grad=True)
    found = attention_map(silent)
    (slope,) = torch.autograd.grad(found.sum(), silent)
    assert not found.any() and not slope.any()


def test_feature_loss_by_hand() -> None:
    """Two stages, points of one map against the other: unit vectors at right angles, 2 / N each."""
    one, two = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]), torch.tensor([[[0.0, 2.0, 0.0, 0.0]]])
    assert feature_loss([one, one[..., :2]], [two, two[..., :2]]).item() == pytest.approx(2 / 4 + 2 / 2)
    assert feature_loss([one, two], [5 * one, -two]).item() == 0


def test_warm_up_and_weights() -> None:
    method = make_method("xvector", alpha=3.0, beta=7.0, warmup=1.0)
    batch = make_batch()
    full = method(batch, Clock(4.0, 4)).losses
    for epoch, part in ((0.0, 0.0), (1.0, 0.25), (3.0, 0.75), (4.0, 1.0)):
        found = method(batch, Clock(epoch, 4)).losses
        assert found["feature"].item() == pytest.approx(part * full["feature"].item(), rel=1e-5, abs=1e-12)
        if epoch >= 3:  # from there on the margin is full
            assert found["label"].item() == pytest.approx(part * full["label"].item(), rel=1e-5)
    encoded = method.student(batch.feats[0])
    refined = method.teacher(encoded.stages)
    assert full["feature"].item() == pytest.approx(7 * feature_loss(encoded.stages, refined.stages).item(), rel=1e-5)
    logits = method.student.logits(encoded.embedding, batch.labels, 1.0)
    others = method.teacher_head(refined.embedding, batch.labels, 1.0)
    assert full["label"].item() == pytest.approx(3 * label_loss(logits, others, 4.0).item(), rel=1e-5)


def test_plain_cosines_have_no_margin() -> None:
    """The label term by hand from scaled cosines; the margin's rise does not change it, the cross entropy's margin stays."""
    options: dict[str, Any] = {"alpha": 0.5, "temperature": 1.0}
    plain, usual = make_method("xvector", plain_cosines=True, **options), make_method("xvector", **options)
    usual.load_state_dict(plain.state_dict())
    assert plain.student.head is not None
    batch = make_batch()
    for method in (plain, usual):
        method.eval()
    encoded = plain.student(batch.feats[0])
    refined = plain.teacher(encoded.stages)
    cosines = [
        F.normalize(embedding) @ F.normalize(head.weight).T
        for embedding, head in ((refined.embedding, plain.teacher_head), (encoded.embedding, plain.student.head))
    ]
    taught, learnt = (32 * each for each in cosines)
    expected = 0.5 * (taught.softmax(1) * (taught.log_softmax(1) - learnt.log_softmax(1))).sum(1).mean()
    losses = {
        epoch: (plain(batch, Clock(epoch, 4)).losses, usual(batch, Clock(epoch, 4)).losses) for epoch in (1.0, 4.0)
    }
    for ours, theirs in losses.values():
        assert ours["label"].item() == pytest.approx(expected.item(), rel=1e-5)
        assert ours["ce"].item() == pytest.approx(theirs["ce"].item())
        assert ours["teacher_ce"].item() == pytest.approx(theirs["teacher_ce"].item())
    without, full = losses[1.0][1], losses[4.0][1]
    assert without["label"].item() == pytest.approx(expected.item(), rel=1e-5)  # the margin has not begun
    assert abs(full["label"].item() - expected.item()) > 0.01 * expected.item()
    reached = gradients(plain, losses[4.0][0]["label"])
    assert reached and all(name.startswith("student.") for name, value in reached.items() if value.any())


@pytest.mark.parametrize("key", TINY)
@pytest.mark.parametrize(("frames", "feat_dim"), [(1, 8), (5, 13), (16, 11), (20, 80), (23, 9), (50, 40)])
def test_any_size(key: str, frames: int, feat_dim: int) -> None:
    method = make_method(key, feat_dim)
    batch = make_batch(frames, feat_dim=feat_dim)
    encoded = method.student(batch.feats[0])
    refined = method.teacher(encoded.stages)
    assert [each.shape[2:] for each in refined.stages] == [each.shape[2:] for each in encoded.stages]
    widths = [2 * count for count in method.student.encoder.stage_channels]
    assert [each.shape[1] for each in refined.stages] == widths
    assert refined.embedding.shape == (6, SMALL["embedding_dim"])
    outcome = method(batch, Clock(1.5, 4))
    assert all(torch.isfinite(value) for value in outcome.losses.values())
    assert all(torch.isfinite(value).all() for value in gradients(method, total(outcome)).values())


@pytest.mark.parametrize("key", TINY)
def test_bfloat16_autocast_is_finite_and_close(key: str) -> None:
    method = make_method(key)
    batch, clock = make_batch(), Clock(1.5, 4)
    exact = copy.deepcopy(method)(batch, clock).losses
    with torch.autocast("cpu", torch.bfloat16):
        outcome = method(batch, clock)
    found = gradients(method, total(outcome))
    assert all(torch.isfinite(value).all() for value in found.values())
    for name, value in outcome.losses.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.3, abs=0.05), name


@pytest.mark.parametrize("key", TINY)
def test_what_is_exported_is_the_plain_student(key: str, tmp_path: Path) -> None:
    method = make_method(key)
    optimizer = torch.optim.SGD(method.parameters(), 0.01)
    for _ in range(2):
        loss = total(method(make_batch(), Clock(1.5, 4)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    method.eval()
    exported = method.exports()
    assert list(exported) == ["final"] and exported["final"] is method.student
    plain = make_net(key)
    assert exported["final"].state_dict().keys() == plain.state_dict().keys()
    save_net(tmp_path / "final.pt", exported["final"])
    loaded = load_net(tmp_path / "final.pt")
    plain.load_state_dict(loaded.state_dict())
    feats = make_batch().feats[0]
    assert torch.equal(plain.eval()(feats).embedding, method.student(feats).embedding)
    assert torch.equal(loaded(feats).embedding, method.student(feats).embedding)


def test_the_student_starts_as_without_the_method_and_the_probe_leaves_it_alone() -> None:
    before = make_net("resnet")
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in make_net("resnet").state_dict().items())
    method = make_method("resnet")
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in method.student.state_dict().items())
    assert method.student.training and method.student.encoder.norm1.training  # type: ignore[attr-defined]


def test_probe_and_the_pooling_of_the_students_kind() -> None:
    # ResNet: 100 frames and 13 bands halved, rounded up. x-vector: contexts of 4, 4 and 6 frames. CAM++: half the rate.
    assert probe(make_net("resnet").encoder) == [(13, 100), (7, 50), (4, 25), (2, 13)]
    assert probe(make_net("xvector").encoder) == [(96,), (92,), (86,), (86,)]
    assert probe(make_net("ecapa").encoder) == [(100,)] * 4 and probe(make_net("campplus").encoder) == [(50,)] * 4
    teachers = {key: SelfTeacher(make_net(key).encoder, 2, 1, 1, 9) for key in TINY}
    kinds = {key: type(each.pooling).__name__ for key, each in teachers.items()}
    attentive = {key for key, kind in kinds.items() if kind == "AttentivePooling"}
    assert attentive == {"xvector attentive", "ecapa"}
    assert teachers["resnet"].embedding.in_features == 2 * (2 * 24) * 2  # mean and deviation, channels, bands


def test_moving_between_sizes_by_hand() -> None:
    line = torch.arange(1.0, 8.0).view(1, 1, 1, 7)  # a map of a 1-D net has one band
    assert fit(line, [1, 4]).flatten().tolist() == [2, 3, 4, 5]  # 1 before, 2 behind
    assert fit(line[..., :3], [1, 6]).flatten().tolist() == [0, 1, 2, 3, 0, 0]
    assert shrink(line, (1, 2), [1, 4]).flatten().tolist() == [2, 4, 6, 7]
    assert shrink(line, (1, 1), [1, 5]).flatten().tolist() == [2, 3, 4, 5, 6]
    assert grow(line[..., :4], (1, 2), [1, 7]).flatten().tolist() == [1, 1, 2, 2, 3, 3, 4]
    assert grow(line[..., :5], (1, 1), [1, 7]).flatten().tolist() == [0, 1, 2, 3, 4, 5, 0]
    plane = torch.arange(1.0, 16.0).view(1, 1, 3, 5)
    assert shrink(plane, (2, 2), [2, 3]).flatten().tolist() == [7, 9, 10, 12, 14, 15]
    assert fit(plane, [1, 7]).flatten().tolist() == [0, 6, 7, 8, 9, 10, 0]
    assert grow(plane[:, :, :2, :3], (2, 2), [3, 5]).flatten().tolist() == [1, 1, 2, 2, 3, 1, 1, 2, 2, 3, 6, 6, 7, 7, 8]


@pytest.mark.parametrize("shape", [(3, 4, 11), (3, 4, 5, 7)])
def test_the_layers_of_maps_by_plain_functions(shape: tuple[int, ...]) -> None:
    """A block with depth 2, in training: depth-wise and 1 × 1 convolutions of 1-D and 2-D maps."""
    torch.manual_seed(2)
    block: Any = Block(len(shape) - 2, 4, 2)
    maps = torch.randn(shape)
    found = block(as_planes(maps))
    convolution: Any = F.conv1d if len(shape) == 3 else F.conv2d
    expected = maps
    for at in (0, 2):
        kernel = block[at].weight.squeeze(2) if len(shape) == 3 else block[at].weight
        expected = convolution(expected, kernel, padding=1, groups=4)
        expected = convolution(expected, block[at + 1][0].weight.view(4, 4, *[1] * (len(shape) - 2)))
        expected = F.batch_norm(expected, None, None, training=True).relu()
    torch.testing.assert_close(found.squeeze(2) if len(shape) == 3 else found, expected, rtol=1e-4, atol=1e-5)


def test_fusion_weights() -> None:
    fusion = Fusion(3)
    one, two, three = (torch.full((1, 1, 2), value) for value in (3.0, 6.0, 12.0))
    assert torch.allclose(fusion(one, two, three), torch.tensor(7.0), atol=1e-4)
    with torch.no_grad():
        fusion.weight.copy_(torch.tensor([3.0, -5.0, 1.0]))
    assert torch.allclose(fusion.weights(), torch.tensor([0.75, 0.0, 0.25]), atol=1e-5)
    assert fusion.weights().sum() <= 1
    with torch.no_grad():
        fusion.weight.fill_(-1.0)
    assert not fusion(one, two, three).any()


def test_the_way_through_the_pyramid(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every convolution passing its input on, the sums by hand."""
    pyramid = Pyramid([1, 1, 1], [1, 1, 1], [(1,), (1,)], 1)

    class Pass(torch.nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            return maps

    for name in ("laterals", "laterals_up", "to_shallow", "to_deep", "blocks_down", "blocks_up"):
        for index in range(len(getattr(pyramid, name))):
            getattr(pyramid, name)[index] = Pass()
    stages = [torch.full((2, 1, 4), value) for value in (1.0, 5.0, 13.0)]
    # P3 = 13, P2 = (5 + 13) / 2, P1 = (1 + 9) / 2; R1 = 5, R2 = (5 + 9 + 5) / 3, R3 = (13 + R2) / 2
    refined: Sequence[Tensor] = pyramid(stages)
    for found, expected in zip(refined, (5.0, 19 / 3, (13 + 19 / 3) / 2), strict=True):
        assert torch.allclose(found, torch.tensor(expected), atol=1e-4)


def test_frskds_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three stages of a 2-D net by the formula with plain functions; with FRSKD's windows of the maximum, and with ours."""
    torch.manual_seed(5)
    pyramid = Pyramid([2, 3, 4], [4, 6, 8], [(2, 2), (2, 2)], 2).eval()
    for name, value in pyramid.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if name.endswith("running_var") else value.normal_(0.1, 0.5)
    stages = [torch.rand(2, 2, 8, 12), torch.rand(2, 3, 4, 6), torch.rand(2, 4, 2, 3)]

    def norm(maps: Tensor, layer: Any) -> Tensor:
        return F.batch_norm(maps, layer.running_mean, layer.running_var, layer.weight, layer.bias)

    def across(maps: Tensor, block: Any) -> Tensor:
        return norm(F.conv2d(maps, block[0].weight[:, :, None, None]), block[1]).relu()

    def separable(maps: Tensor, block: Any) -> Tensor:
        for at in range(0, len(block), 2):
            maps = across(F.conv2d(maps, block[at].weight, padding=1, groups=maps.shape[1]), block[at + 1])
        return maps

    def mix(fusion: Any, *maps: Tensor) -> Tensor:
        weights = fusion.weight.relu() / (fusion.weight.relu().sum() + 1e-6)
        return torch.stack([weight * each for weight, each in zip(weights, maps, strict=True)]).sum(0)

    def formula(before: int) -> list[Tensor]:
        """before: 1 for a zero in front of the first window of the maximum, 0 for one behind the last."""
        p3, p2, p1 = (across(stages[level], pyramid.laterals[level]) for level in (2, 1, 0))
        larger = F.interpolate(across(p3, pyramid.to_shallow[1]), scale_factor=2)
        p2 = separable(mix(pyramid.fusions_down[1], p2, larger), pyramid.blocks_down[1])
        larger = F.interpolate(across(p2, pyramid.to_shallow[0]), scale_factor=2)
        refined = [separable(mix(pyramid.fusions_down[0], p1, larger), pyramid.blocks_down[0])]
        for level, down in ((1, [p2]), (2, [])):
            smaller = F.max_pool2d(F.pad(refined[-1], (before, 1 - before) * 2), 3, 2)
            maps = [across(stages[level], pyramid.laterals_up[level - 1]), *down]
            maps.append(across(smaller, pyramid.to_deep[level - 1]))
            refined.append(separable(mix(pyramid.fusions_up[level - 1], *maps), pyramid.blocks_up[level - 1]))
        return refined

    with torch.no_grad():
        for found, expected in zip(pyramid(stages), formula(1), strict=True):
            torch.testing.assert_close(found, expected)
        monkeypatch.setattr(refine, "shrink", lambda maps, strides, size: F.max_pool2d(F.pad(maps, (0, 1, 0, 1)), 3, 2))
        for found, expected in zip(pyramid(stages), formula(0), strict=True):
            torch.testing.assert_close(found, expected)
        assert all(each.abs().max() > 0.1 for each in formula(0))


def test_wrong_options_are_errors() -> None:
    for options in ({"temperature": 0.0}, {"alpha": -1.0}, {"width": 0}, {"warmup": -1.0}):
        with pytest.raises(ValueError, match=r"must|not a part of the run"):
            SKDFEConf(**options)  # type: ignore[arg-type]
    assert METHODS["skdfe"] is SKDFE


@pytest.fixture
def small(recipe: Path) -> Path:
    """A recipe with speakers that differ in the colour of their noise."""
    rng = np.random.default_rng(0)
    colours = rng.uniform(0.3, 3, (4, FEAT_DIM))
    frames = {f"s{index // 6}-{index % 6}": int(rng.integers(30, 60)) for index in range(24)}
    write_data_dir(recipe / "data/train", dict.fromkeys(frames, "x"), {name: name[:2] for name in frames})
    with ArkWriter(recipe / "data/train/feats", compress=True) as write:
        for name, length in frames.items():
            write(name, (colours[int(name[1])] * rng.standard_normal((length, FEAT_DIM))).astype(np.float32))
    write_table(recipe / "data/train/utt2num_frames", frames)
    (recipe / "conf").unlink()
    shutil.copytree(ROOT / "egs/mini/v1/conf/kd", recipe / "conf/kd")
    (recipe / "conf/model").mkdir()
    (recipe / "conf/model/resnet.conf").write_text(
        "--type=resnet\n--blocks=1:1:1:1\n--base-channels=2\n--embedding-dim=6\n"
    )
    (recipe / "conf/head.conf").write_text("--margin=0.1\n")
    return recipe


def words(out: str, epochs: int, method: str = "skdfe") -> list[object]:
    return [
        *("local/train.py", "--model", "conf/model/resnet.conf", "--kd", f"conf/kd/{method}.conf", "--threads", 1),
        *("--num-epochs", epochs, "--batch-size", 8, "--num-frames", 21, "--lr", 0.05, "--average", 2),
        *("--save-minutes", 0, "--log-interval", 1, "data/train", out),
    ]


def test_resumed_is_uninterrupted(small: Path, sh: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    sh(*words("exp/whole", 4))
    # Stopped: last.pt of the middle of an epoch is put where a killed run would have left it.
    (small / "stop.py").write_text(
        "import sys, speakerkd.train.loop as t\n"
        "sys.path.insert(0, 'local')\n"
        "real, seen = t.Stepper.__call__, []\n"
        "def step(*a):\n"
        "    seen.append(1)\n"
        "    if len(seen) > 7: raise ValueError('stopped')\n"
        "    return real(*a)\n"
        "t.Stepper.__call__ = step\n"
        "import train\n"
        "from speakerkd.conf import run\n"
        "run(train.main)\n"
    )
    stopped = sh("python3", "stop.py", *words("exp/stopped", 4)[1:], fails=True)
    assert "stopped" in stopped.stderr and not (small / "exp/stopped/final.pt").exists()
    done = sh(*words("exp/stopped", 4))
    assert "going on from step 7 of 12" in done.stderr
    one, two = (load_net(small / f"exp/{name}/final.pt").state_dict() for name in ("whole", "stopped"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    logs = [(small / f"exp/{name}/log.tsv").read_text() for name in ("whole", "stopped")]
    assert logs[0] == logs[1]
    assert logs[0].splitlines()[0].split("\t")[2:6] == ["ce", "teacher_ce", "label", "feature"]


@pytest.mark.parametrize(("method", "terms"), [("skdfe_label", ["label"]), ("skdfe_feature", ["feature"])])
def test_conf_files(
    small: Path, sh: Callable[..., subprocess.CompletedProcess[str]], method: str, terms: list[str]
) -> None:
    sh(*words("exp/a", 2, method))
    names = (small / "exp/a/log.tsv").read_text().splitlines()[0].split("\t")
    assert names[2:-1] == ["ce", "teacher_ce", *terms, "accuracy", "teacher_accuracy"]
    plain = make_net("resnet").encoder.state_dict().keys()  # type: ignore[attr-defined]
    names = load_net(small / "exp/a/final.pt").encoder.state_dict().keys()  # type: ignore[attr-defined]
    assert names == plain
