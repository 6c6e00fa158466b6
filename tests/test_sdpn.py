"""SDPN and DINO: their losses against closed forms and loops, who learns what, collapse, and processes."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import nn
from torch.nn import functional as F

from speakerkd.batches.dataset import Batch, View
from speakerkd.conf import typed_conf
from speakerkd.kd import METHODS, Clock, Components, Distiller
from speakerkd.kd.collapse import Watch, spread_and_rank
from speakerkd.kd.dino import DINO, DINOConf
from speakerkd.kd.ema import momentum
from speakerkd.kd.sdpn import SDPN, SDPNConf
from speakerkd.losses.prototype import cross_entropy, entropy, koleo, me_max, other_views_cross_entropy, sinkhorn
from speakerkd.models import Encoded, SpeakerNet
from speakerkd.models.xvector import XVector, XVectorConf
from speakerkd.train.options import TrainConf
from speakerkd.train.step import Stepper, make_optimizer


def cosines(rows: int, prototypes: int, dim: int = 16) -> torch.Tensor:
    points, others = torch.randn(rows, dim), torch.randn(prototypes, dim)
    return F.normalize(points) @ F.normalize(others).T


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


# the losses


def test_sharpening_is_a_lower_temperature() -> None:
    """softmax(x / 0.1) to the power 4, made to sum to 1, is what the published target starts from."""
    values = cosines(20, 30).double()
    powers = (values / 0.1).softmax(1) ** 4
    torch.testing.assert_close(sinkhorn(values / 0.025, 0), powers / powers.sum(1, keepdim=True))


def test_sinkhorn_is_the_published_loop_in_log_space() -> None:
    values = cosines(96, 24).double().numpy() / 0.025
    mass = np.exp(values - values.max(1, keepdims=True))
    mass = (mass / mass.sum(1, keepdims=True)).T
    mass /= mass.sum()
    for _ in range(3):
        mass /= mass.sum(1, keepdims=True) * 24
        mass /= mass.sum(0, keepdims=True) * 96
    found = sinkhorn(torch.from_numpy(values), 3)
    np.testing.assert_allclose(found.numpy(), (mass * 96).T, rtol=1e-9, atol=1e-300)


def test_sinkhorn_shares_out_evenly() -> None:
    logits = cosines(384, 64, 256) / 0.025
    for iterations, tolerance in ((3, 0.1), (100, 1e-4)):
        targets = sinkhorn(logits, iterations)
        torch.testing.assert_close(targets.sum(1), torch.ones(384))
        torch.testing.assert_close(targets.sum(0), torch.full((64,), 384 / 64), rtol=tolerance, atol=0)
    alone = torch.full((8, 4), -80.0)
    alone[:, 0] = 0
    assert torch.isfinite(sinkhorn(alone, 3)).all()  # where a power of single precision would have underflown


def test_cross_entropies_against_loops() -> None:
    logits, targets = torch.randn(6, 5, 7), torch.randn(2, 5, 7).softmax(-1)
    # the published order: all utterances of view 1, then all of view 2; targets tiled
    tiled = -(targets[0].repeat(6, 1) * logits.reshape(30, 7).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(cross_entropy(targets[0], logits), tiled)
    total, pairs = 0.0, 0
    for one in range(2):
        for other in range(6):
            if one != other:
                total += float(-(targets[one] * logits[other].log_softmax(1)).sum(1).mean())
                pairs += 1
    assert pairs == 10
    assert float(other_views_cross_entropy(targets, logits)) == pytest.approx(total / pairs, rel=1e-6)


def test_me_max_is_between_0_and_log_k() -> None:
    assert float(me_max(torch.full((1024,), 1 / 1024))) == pytest.approx(0, abs=1e-5)
    one = torch.zeros(1024).index_fill_(0, torch.tensor(3), 1.0).requires_grad_()
    assert float(me_max(one).detach()) == pytest.approx(math.log(1024)) == pytest.approx(6.93, abs=0.01)
    (gradient,) = torch.autograd.grad(me_max(one), one)
    assert torch.isfinite(gradient).all()
    uneven = torch.tensor([0.5, 0.25, 0.25])
    assert float(me_max(uneven)) == pytest.approx(math.log(3) - 1.5 * math.log(2))
    assert float(entropy(uneven.repeat(2, 1))) == pytest.approx(1.5 * math.log(2))


def test_koleo_against_all_distances() -> None:
    points = np.random.default_rng(0).standard_normal((3, 10, 6))
    unit = points / np.linalg.norm(points, axis=2, keepdims=True)
    distances = np.linalg.norm(unit[:, :, None] - unit[:, None], axis=3) + 9 * np.eye(10)
    expected = -np.log(distances.min(2)).mean(1).sum()
    embeddings = torch.from_numpy(points)
    assert float(koleo(embeddings)) == pytest.approx(expected, rel=1e-6)
    assert float(koleo(7 * embeddings)) == pytest.approx(expected, rel=1e-6)
    halves = [-np.log(distances[:, part, part].min(2)) for part in (slice(5), slice(5, 10))]
    assert float(koleo(embeddings, 5)) == pytest.approx(np.concatenate(halves, 1).mean(1).sum(), rel=1e-6)


def test_koleo_of_equal_points_is_finite_and_pushes_near_ones_apart() -> None:
    twice = torch.randn(1, 1, 512).repeat(1, 2, 1).requires_grad_()
    assert float(koleo(twice).detach()) == pytest.approx(-math.log(1e-8 * math.sqrt(512) + 1e-8), rel=1e-3)
    assert float(koleo(twice).detach()) == pytest.approx(15.3, abs=0.1)
    (gradient,) = torch.autograd.grad(koleo(twice), twice)
    assert torch.isfinite(gradient).all()
    near = (F.normalize(torch.randn(1, 64), dim=1) + 1e-3 * torch.randn(16, 64))[None].requires_grad_()
    (gradient,) = torch.autograd.grad(koleo(near), near)

    def nearest(rows: torch.Tensor) -> torch.Tensor:
        unit = F.normalize(rows)
        return (torch.cdist(unit, unit) + 9 * torch.eye(16)).amin(1).mean()

    assert nearest((near - 1e-5 * gradient)[0]) > 1.001 * nearest(near[0])


# the methods


class Means(nn.Module):
    """An encoder without batch norm."""

    def __init__(self, dim: int = 16, out: int = 32) -> None:
        super().__init__()
        self.feat_dim, self.dim = dim, out
        self.layers = nn.Sequential(nn.Linear(dim, 64), nn.ReLU(), nn.Linear(64, out))

    def forward(self, feats: torch.Tensor) -> Encoded:
        return Encoded(self.layers(feats.mean(1)))


SMALL = {"head_dims": (12, 8), "prototypes": 10}


def make(kind: type[Distiller], **changes: object) -> Distiller:
    net = SpeakerNet(XVector(XVectorConf(channels=8, stats_channels=12, embedding_dim=6), 5))
    return kind(kind.Conf(**{**SMALL, **changes}), Components(net, ())).train()


def make_batch(method: Distiller, size: int = 6) -> Batch:
    views = method.needs_of(method.conf).views
    return Batch([torch.randn(size, round(40 * view.length), 5) for view in views])


BOTH = pytest.mark.parametrize("kind", [SDPN, DINO])


def test_published_views_and_numbers() -> None:
    assert SDPN.needs_of(SDPNConf()) == SDPN.needs and DINO.needs_of(DINOConf()) == DINO.needs
    assert SDPN.needs.views == (View(1.0, clean=True), *[View(0.5)] * 4) and not SDPN.needs.labels
    assert DINO.needs.views == (View(1.0), View(1.0), *[View(2 / 3)] * 4) and not DINO.needs.labels
    method = SDPN(SDPNConf(), Components(SpeakerNet(XVector(XVectorConf(channels=8, stats_channels=12), 5)), ()))
    head = sum(each.numel() for each in method.student.head.parameters())
    assert round(head / 1e6, 2) == 5.78 and method.prototypes.weight.shape == (1024, 256)
    assert float(method.prototypes.weight.detach().abs().max()) <= 1 / 16
    for path in sorted(ROOT.glob("egs/*/v1/conf/kd/*.conf")):
        if path.stem in ("sdpn", "dino"):
            assert typed_conf(path, METHODS)[0] == path.stem
    assert typed_conf(ROOT / "egs/voxceleb/v1/conf/kd/sdpn.conf", METHODS)[2] == SDPNConf()
    assert typed_conf(ROOT / "egs/voxceleb/v1/conf/kd/dino.conf", METHODS)[2] == DINOConf()


@BOTH
def test_gradients_reach_the_student_and_the_prototypes_alone(kind: type[Distiller]) -> None:
    method = make(kind)
    outcome = method(make_batch(method), Clock(3.0, 10))
    sum(outcome.losses.values()).backward()
    for name, parameter in method.named_parameters():
        if name.startswith("teacher."):
            assert parameter.grad is None and not parameter.requires_grad, name
        else:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert (
        float(method.get_parameter(next(n for n, _ in method.named_parameters() if "prototypes" in n)).grad.norm()) > 0
    )
    assert {"std", "rank", "prototypes", "entropy"} == outcome.metrics.keys()
    assert not any(value.requires_grad for value in outcome.metrics.values())


def test_targets_are_given() -> None:
    method = make(SDPN)
    targets, _ = method.targets(torch.randn(6, 6), F.normalize(torch.randn(6, 8)).requires_grad_())
    assert not targets.requires_grad and targets.sum(1).tolist() == pytest.approx([1] * 6)


def test_the_last_layer_of_dino_waits() -> None:
    for epoch, moves in ((0.5, False), (1.0, True)):  # 1 of 150 epochs
        method = make(DINO)
        sum(method(make_batch(method), Clock(epoch, 150)).losses.values()).backward()
        assert (float(method.student.prototypes.weight.grad.abs().sum()) > 0) == moves


def test_factor_on_the_gradient_of_the_prototypes() -> None:
    found = []
    for factor in (1.0, 4.0):
        torch.manual_seed(0)
        method = make(SDPN, prototype_gradient=factor)
        sum(method(make_batch(method), Clock(0, 10)).losses.values()).backward()
        found.append([method.prototypes.weight.grad, next(method.student.parameters()).grad])
    torch.testing.assert_close(found[1][0], 4 * found[0][0])
    torch.testing.assert_close(found[1][1], found[0][1])


@BOTH
def test_prototypes_have_no_order(kind: type[Distiller]) -> None:
    method = make(kind)
    other = copy.deepcopy(method)
    order = torch.randperm(10)
    for name, parameter in other.named_parameters():
        if "prototypes" in name:
            parameter.data = parameter.data[order]
    batch = make_batch(method)
    one, two = (each(batch, Clock(0, 10)) for each in (method, other))
    for name in one.losses:
        torch.testing.assert_close(one.losses[name], two.losses[name], rtol=1e-4, atol=1e-5)


@BOTH
def test_teacher_follows(kind: type[Distiller]) -> None:
    """Momentum 1: it stays, 0: it is the student; its batch norm sees its own, longer views."""
    for keep in (1.0, 0.0):
        method = make(kind, momentum=keep)
        before = copy.deepcopy(method.teacher.state_dict())
        optimizer = make_optimizer(TrainConf(), method)
        Stepper(method, optimizer, TrainConf(), torch.device("cpu"))(make_batch(method), Clock(0, 10), 0.1)
        method.after_step(Clock(0, 10))
        source = before if keep else method.student.state_dict()
        assert all(torch.equal(value, source[name]) for name, value in method.teacher.named_parameters())
        for name, value in method.teacher.named_buffers():
            if "running" in name:
                assert not torch.equal(value, before[name]) and not torch.equal(
                    value, method.student.state_dict()[name]
                )
    assert method.exports()["final"] is method.teacher.net
    assert [momentum(0.996, Clock(epoch, 10)) for epoch in (0, 5, 10)] == pytest.approx([0.996, 0.998, 1])


def test_dino_centre_and_temperature() -> None:
    method = make(DINO)
    batch = make_batch(method)
    for _ in range(2):
        _, cosines = copy.deepcopy(method).teacher(batch.feats[:2])
        before = method.centre.clone()
        method(batch, Clock(0, 10))
        torch.testing.assert_close(method.centre, 0.9 * before + 0.1 * cosines.mean((0, 1)))
    found = [method.teacher_temperature(Clock(epoch, 15)) for epoch in (0, 0.9, 1, 2, 3, 9)]
    assert found == pytest.approx([0.04, 0.04, 0.055, 0.07, 0.07, 0.07])


def test_dino_with_koleo() -> None:
    """The term is that of the student's embeddings, of all views; the published DINO has none."""
    method, more = make(DINO), make(DINO, koleo=0.3, koleo_group=0)
    more.load_state_dict(method.state_dict())
    batch = make_batch(method)
    embedding, _ = copy.deepcopy(more).student(batch.feats)
    plain, found = method(batch, Clock(0, 10)).losses, more(batch, Clock(0, 10)).losses
    assert set(plain) == {"ce"} and set(found) == {"ce", "koleo"}
    torch.testing.assert_close(found["koleo"], 0.3 * koleo(embedding))
    torch.testing.assert_close(found["ce"], plain["ce"])
    with pytest.raises(ValueError, match="--koleo and --koleo-group"):
        DINOConf(koleo=-1)


def test_prototypes_are_neither_decayed_nor_clipped() -> None:
    method = make(SDPN)
    conf = TrainConf(weight_decay=1.0, clip=1e-12, momentum=0.0)
    optimizer = make_optimizer(conf, method)
    (groups,) = [group for group in optimizer.param_groups if method.prototypes.weight is group["params"][0]]
    assert groups["weight_decay"] == 0
    before = copy.deepcopy(method.state_dict())
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0  # to see the clipping
    Stepper(method, optimizer, conf, torch.device("cpu"))(make_batch(method), Clock(0, 10), 0.1)
    assert float((method.prototypes.weight - before["prototypes.weight"]).detach().abs().max()) > 1e-4
    moved = [
        float((p - before[f"student.{name}"]).detach().abs().max()) for name, p in method.student.named_parameters()
    ]
    assert max(moved) < 1e-9


@BOTH
def test_finite_in_half_precision(kind: type[Distiller]) -> None:
    method = make(kind)
    with torch.autocast("cpu", torch.bfloat16):
        outcome = method(make_batch(method), Clock(3.0, 10))
        loss = torch.stack(list(outcome.losses.values())).sum()
    assert loss.dtype == torch.float32 and all(value.dtype == torch.float32 for value in outcome.losses.values())
    loss.backward()
    assert all(torch.isfinite(each.grad).all() for each in method.parameters() if each.grad is not None)


@pytest.mark.parametrize("option", ["head_norm=layer", "prototypes=1", "temperature=0", "short_view=0", "num_short=-2"])
@BOTH
def test_impossible_options_are_refused(kind: type[Distiller], option: str) -> None:
    name, value = option.split("=")
    default = getattr(kind.Conf(), name)
    with pytest.raises(ValueError, match="--" + name.replace("_", "-")):
        kind.Conf(**{name: type(default)(value)})


# collapse


def test_spread_and_rank() -> None:
    """N Gaussians in all directions: 1, and nearly D; on a line 1 direction; one point: 0."""
    std, rank = spread_and_rank(torch.randn(20000, 8))
    assert float(std) == pytest.approx(1, abs=0.01) and float(rank) == pytest.approx(8, rel=0.01)
    few = torch.randn(6, 50)
    unit = F.normalize(few)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(unit.T, correction=0))
    std, rank = spread_and_rank(few)
    assert float(std) == pytest.approx(float(eigenvalues.sum().sqrt()), rel=1e-4)
    assert float(rank) == pytest.approx(float(eigenvalues.sum() ** 2 / eigenvalues.square().sum()), rel=1e-4)
    line = torch.randn(1, 8) + 0.01 * torch.randn(100, 1) * torch.randn(1, 8)
    assert float(spread_and_rank(line)[1]) == pytest.approx(1, abs=0.01)
    std, rank = spread_and_rank(torch.ones(5, 8))
    assert float(std) == pytest.approx(0, abs=1e-6) and torch.isfinite(rank)


def test_prototypes_in_use_are_those_of_the_last_100_steps() -> None:
    watch = Watch(4, 0, 0, 0)
    counts = []
    for step in range(250):
        chosen = torch.zeros(4, dtype=torch.bool)
        chosen[0 if step else 1] = True  # prototype 1 in the first step only
        counts.append(int(watch.see(torch.randn(6, 3), chosen)["prototypes"]))
    assert counts[0] == 1 and counts[1:100] == [2] * 99 and counts[100:] == [1] * 150


def toy(kind: type[Distiller], steps: int = 500, **changes: object) -> tuple[float, float, dict[str, float]]:
    """512 voices, each beside a channel of its own in every view, which only similarity between views tells apart.

    How often the nearest other utterance is one of the same voice, before and after; the last metrics.
    """
    torch.manual_seed(0)
    conf = kind.Conf(head_dims=(64, 32), head_norm="none", prototypes=64, momentum=0.9, **changes)
    method = kind(conf, Components(SpeakerNet(Means(32)), ())).train()
    train_conf = TrainConf(lr=0.2, weight_decay=5e-5)
    optimizer = make_optimizer(train_conf, method)
    voices = torch.randn(512, 16)

    def hear(who: torch.Tensor) -> torch.Tensor:
        voice = voices[who][:, None] + 0.7 * torch.randn(len(who), 4, 16)
        return torch.cat([voice, torch.randn(len(who), 1, 16).expand(-1, 4, -1)], 2)

    def hits() -> float:
        who = torch.arange(256).repeat(4)
        with torch.no_grad():
            unit = F.normalize(method.exports()["final"](hear(who)).embedding)
        nearest = (unit @ unit.T).fill_diagonal_(-1).argmax(1)
        return float((who[nearest] == who).float().mean())

    before = hits()
    for step in range(steps):
        who = torch.randint(512, (64,))
        batch = Batch([hear(who) for _ in kind.needs.views])
        outcome = Stepper(method, optimizer, train_conf, torch.device("cpu"))(batch, Clock(step / 20, steps // 20), 0.2)
        method.after_step(Clock((step + 1) / 20, steps // 20))
    return before, hits(), {name: float(value) for name, value in outcome.metrics.items()}


def test_speakers_are_told_apart_without_labels() -> None:
    before, after, _ = toy(DINO, teacher_temperature=0.04)
    assert before < 0.25 and after > 0.3


def test_diversity_terms_keep_it_from_collapse() -> None:
    before, after, whole = toy(SDPN)
    assert before < 0.25 and after > 0.5
    assert whole["std"] > 0.9 and whole["rank"] > 8 and whole["prototypes"] > 50
    _, fewer, without = toy(SDPN, memax=0.0, koleo=0.0)
    assert without["std"] < 0.8 and without["rank"] < 0.5 * whole["rank"] and fewer < after


def test_collapse_stops_the_training_with_advice() -> None:
    with pytest.raises(ValueError, match=r"collapsed in epoch .* in prototypes: .*Try in another folder a lower --lr"):
        toy(SDPN, 300, memax=0.0, koleo=0.0, sinkhorn_iterations=0)
    watch = Watch(4, 0.02, 1.2, 2)
    for _ in range(100):
        watch.see(torch.ones(5, 8) + 1e-4 * torch.randn(5, 8), torch.ones(4, dtype=torch.bool))
    watch.stop_if_collapsed(Clock(0.9, 10))  # too early
    with pytest.raises(ValueError, match=r"in std: std 8.*e-05 \(at least 0.02\)"):
        watch.stop_if_collapsed(Clock(1.0, 10))
    # a run that is stopped now and then is watched as well
    for _ in range(2):
        watch, state = Watch(4, 0.02, 1.2, 2), watch.state_dict()
        watch.load_state_dict(state)
        for _ in range(50):
            watch.see(torch.ones(5, 8), torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="in std"):
        watch.stop_if_collapsed(Clock(1.0, 10))


def test_conf_comes_from_the_folder(tmp_path: Path) -> None:
    (tmp_path / "sdpn.conf").write_text("--type=sdpn\n--head-dims=64:8\n--num-short=2\n--long-view=3\n")
    _, kind, conf = typed_conf(tmp_path / "sdpn.conf", METHODS)
    assert kind is SDPN and conf.head_dims == (64, 8)
    assert SDPN.needs_of(conf).views == (View(3.0, clean=True), View(0.5), View(0.5))
