"""A net that is applied gives the vectors of the net that was trained, alone and in batches of unequal lengths."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.kd.teacher import NetTeacher
from speakerkd.models import SpeakerNet, make_net
from speakerkd.models.folding import NORMS, fold_batch_norms
from speakerkd.models.frozen import Frozen
from speakerkd.models.frozenlayers import Ends, Norm
from speakerkd.models.frozenparts import FrozenAttention, FrozenStatistics
from speakerkd.models.pooling import make_pooling

CONFS = {
    "xvector": "--type=xvector\n--channels=16\n--stats-channels=24\n--embedding-dim=12\n",
    "xvector_attentive": "--type=xvector\n--channels=16\n--stats-channels=24\n--embedding-dim=12\n--pooling=attentive\n",
    "resnet": "--type=resnet\n--blocks=1:2:1:1\n--base-channels=4\n--embedding-dim=12\n",
    "bottleneck": "--type=resnet\n--block=bottleneck\n--blocks=1:1:1:1\n--base-channels=4\n--pooling=attentive\n",
    "campplus": "--type=campplus\n--front-channels=4\n--channels=16\n--growth=4\n--layers=2:3:2\n--embedding-dim=12\n",
    "ecapa": "--type=ecapa\n--channels=16\n--joined-channels=24\n--scale=4\n--embedding-dim=12\n",
    "ecapa_speechbrain": "--type=ecapa\n--channels=16\n--joined-channels=24\n--scale=4\n--layout=speechbrain\n",
    "dvector": "--type=dvector\n--hidden=8\n--layers=2\n--embedding-dim=12\n",
}  # fmt: skip
LENGTHS = [150, 260, 433, 37, 260, 301]
DIM = 20


def trained(name: str, tmp_path: Path, odd: bool = True) -> SpeakerNet:
    """With norms as if it had been trained; some of them turn the sign of a channel or shut it."""
    conf = tmp_path / f"{name}.conf"
    conf.write_text(CONFS[name])
    torch.manual_seed(0)
    net = make_net(conf, DIM).eval()
    for module in net.modules():
        if isinstance(module, NORMS):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            if module.weight is not None:
                nn.init.uniform_(module.weight, -0.3 if odd else 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
                if odd:
                    module.weight.data[0] = 0
    return net


def batch(lengths: list[int]) -> Tensor:
    """Noise, and past each end something that must not be heard."""
    feats = torch.randn(len(lengths), max(lengths), DIM)
    for row, length in zip(feats, lengths, strict=True):
        row[length:] = 0
    return feats


def alone(net: nn.Module, feats: Tensor, lengths: list[int]) -> Tensor:
    return torch.cat([net(feats[i : i + 1, :n]).embedding for i, n in enumerate(lengths)])


@pytest.mark.parametrize("name", CONFS)
@torch.no_grad()
def test_vectors_are_those_of_the_net_one_by_one_and_together(name: str, tmp_path: Path) -> None:
    net = trained(name, tmp_path)
    before = copy.deepcopy(net.state_dict())
    random = torch.get_rng_state()
    frozen = Frozen(net)
    assert torch.equal(torch.get_rng_state(), random), "training goes on as if nothing had been prepared"
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    feats = batch(LENGTHS)
    expected = alone(net, feats, LENGTHS)
    torch.testing.assert_close(alone(frozen, feats, LENGTHS), expected, rtol=1e-5, atol=1e-5)
    assert frozen.mixes == (name not in ("dvector", "ecapa_speechbrain"))
    if frozen.mixes:
        together = frozen(feats, LENGTHS).embedding
        torch.testing.assert_close(together, expected, rtol=1e-5, atol=1e-5)
        heard = (frozen(feats).embedding - expected).abs().max()
        assert heard > 20 * (together - expected).abs().max(), "without the lengths the padding is heard"
    else:
        with pytest.raises(AssertionError, match="equal lengths only"):
            frozen(feats, LENGTHS)


@pytest.mark.parametrize("name", CONFS)
@torch.no_grad()
def test_stages_are_those_of_the_net(name: str, tmp_path: Path) -> None:
    """A teacher's feature maps keep their meaning."""
    net = trained(name, tmp_path)
    feats = batch([90, 90])
    for ours, theirs in zip(Frozen(net)(feats).stages, net(feats).stages, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONFS)
@torch.no_grad()
def test_half_precision_is_near(name: str, tmp_path: Path) -> None:
    net = trained(name, tmp_path, odd=False)
    feats = batch([200, 200, 200])
    cosine = F.cosine_similarity(net(feats).embedding, Frozen(net, half=torch.bfloat16)(feats).embedding.float())
    assert cosine.min() > 0.998


@pytest.mark.parametrize("floor", [1e-12, 1e-7, 1e-2])
@pytest.mark.parametrize("pooling", ["statistics", "attentive"])
def test_the_floor_of_variances_is_that_of_the_net(pooling: str, floor: float) -> None:
    """Maps that hardly change, where the floor is all there is to see: 3D-Speaker's nets have another than WeSpeaker's."""
    net = make_pooling(pooling, 3, floor).eval()
    maps = 1 + 1e-4 * torch.randn(2, 3, 20)
    with torch.no_grad():
        expected = net(maps)
        kind = FrozenStatistics if pooling == "statistics" else FrozenAttention
        ends = Ends()
        ends.begin(20, None)
        found = kind(net, ends)(maps)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)
    deviation = expected[:, 3:]
    assert (deviation > 0.9 * floor**0.5).all() and (floor < 1e-7 or deviation.max() < 1.1 * floor**0.5 + 2e-4)


def test_norms_are_folded_where_nothing_else_reads_the_layer(tmp_path: Path) -> None:
    """CAM++: the layer between two blocks is read by a norm and by the block itself, so it keeps its values."""
    net = trained("campplus", tmp_path)
    assert isinstance(net.encoder, nn.Module)
    counts = fold_batch_norms(net.encoder, DIM), sum(isinstance(each, NORMS) for each in net.encoder.modules())
    # left: a norm before each of 7 dense layers, one before each of 3 transitions, and that of the embedding
    assert counts[1] == 7 + 3 + 1 and counts[0] > 10
    resnet = trained("resnet", tmp_path)
    assert isinstance(resnet.encoder, nn.Module)
    fold_batch_norms(resnet.encoder, DIM)
    assert not any(isinstance(each, NORMS) for each in resnet.encoder.modules())


@pytest.mark.parametrize(("name", "left"), [("xvector", 1), ("xvector_attentive", 2)])
@torch.no_grad()
def test_norms_behind_a_relu_are_folded_into_the_next_layer_if_no_stage_is_read(
    name: str, left: int, tmp_path: Path
) -> None:
    """What is left: the norm between the affine layers, and the one before attentive pooling."""
    net = trained(name, tmp_path)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.uniform_(-1, 2)
            module.running_var.uniform_(1e-3, 4)
    frozen = Frozen(net, stages=False)
    assert [sum(isinstance(each, Norm) for each in given.modules()) for given in (frozen, Frozen(net))] == [left, 6]
    feats = batch(LENGTHS)
    expected = alone(net, feats, LENGTHS)
    for found in (alone(frozen, feats, LENGTHS), frozen(feats, LENGTHS).embedding):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    half = Frozen(net, half=torch.bfloat16, stages=False)
    assert sum(isinstance(each, Norm) for each in half.modules()) == 6


@pytest.mark.parametrize("name", ["xvector", "campplus", "ecapa_speechbrain"])
def test_a_teacher_is_prepared_once_and_for_the_precision_of_the_training(name: str, tmp_path: Path) -> None:
    net = trained(name, tmp_path)
    teacher = NetTeacher(net, "big", ())
    keys = list(teacher.state_dict())
    batch_of = SimpleNamespace(feats=[batch([120, 120])])
    expected = net(batch_of.feats[0])
    found = teacher.embed(batch_of)  # type: ignore[arg-type]
    torch.testing.assert_close(found.embedding, expected.embedding, rtol=1e-5, atol=1e-5)
    assert not found.embedding.requires_grad and not found.embedding.is_inference()
    (found.embedding * torch.ones(1, requires_grad=True)).sum().backward()  # a student's loss may keep it
    first = teacher.prepared(batch_of.feats[0])
    assert teacher.prepared(batch_of.feats[0]) is first and list(teacher.state_dict()) == keys
    with torch.autocast("cpu", torch.bfloat16):
        half = teacher.embed(batch_of)  # type: ignore[arg-type]
        assert teacher.prepared(batch_of.feats[0]) is not first
    assert F.cosine_similarity(half.embedding.float(), expected.embedding).min() > 0.99
