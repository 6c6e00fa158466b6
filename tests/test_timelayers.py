"""On a CPU, channels lie side by side and statistics are taken in blocks. Both must give PyTorch's own values."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from speakerkd.models import blockwise, pooling, timelayers
from speakerkd.models.campplus import CAMPPlus, CAMPPlusConf
from speakerkd.models.ecapa import ECAPA, ECAPAConf
from speakerkd.models.resnet import ResNet, ResNetConf
from speakerkd.models.timelayers import TimeConv, TimeNorm
from speakerkd.models.xvector import XVector, XVectorConf

NETS: dict[str, Callable[[], nn.Module]] = {
    "xvector": lambda: XVector(XVectorConf(channels=16, stats_channels=32, embedding_dim=8), 20),
    "xvector, attention": lambda: XVector(XVectorConf(channels=16, stats_channels=32, pooling="attentive"), 20),
    "ecapa": lambda: ECAPA(
        ECAPAConf(channels=16, joined_channels=24, se_channels=4, attention_channels=4, scale=4), 20
    ),
    "resnet": lambda: ResNet(ResNetConf(base_channels=4, blocks=(1, 1, 1, 1), embedding_dim=8), 20),
    "campplus": lambda: CAMPPlus(CAMPPlusConf(front_channels=4, channels=16, growth=4, layers=(2, 2, 2)), 20),
    "ecapa, speechbrain": lambda: ECAPA(ECAPAConf(channels=16, joined_channels=24, scale=4, layout="speechbrain"), 20),
}


def everything(net: nn.Module, feats: Tensor) -> list[Tensor]:
    """Embedding, running statistics and all gradients of one step."""
    net.zero_grad()
    embedding, stages = net(feats)
    loss = (
        sum((each.double() ** 2).mean() for each in stages)
        + (embedding * torch.linspace(-1, 1, embedding.numel()).view_as(embedding)).sum()
    )
    loss.backward()
    return [
        embedding.detach(),
        *(each.grad.clone() for each in net.parameters()),
        *(each.clone() for each in net.buffers()),
    ]


@pytest.mark.parametrize("name", NETS)
def test_a_step_equals_that_of_pytorchs_layers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net, feats = NETS[name]().double(), torch.randn(6, 40, 20).double()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    calls = []
    for name_of in ("side_by_side", "trains_on_cpu"):
        real = getattr(timelayers, name_of)
        monkeypatch.setattr(timelayers, name_of, lambda maps, real=real: real(maps) and not calls.append(1))
    fast = everything(net, feats)
    assert (len(calls) > 1) == (
        name != "ecapa, speechbrain"
    )  # it pads by reflection, which is left to PyTorch's layers
    net.load_state_dict(state)
    for module, name_of in ((timelayers, "side_by_side"), (timelayers, "trains_on_cpu"), (pooling, "trains_on_cpu")):
        monkeypatch.setattr(module, name_of, lambda *maps: False)
    for mine, plain in zip(fast, everything(net, feats), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-9, atol=1e-11)


def test_no_layer_changes_the_order_in_memory() -> None:
    """One layer that did would make all after it slow, without any error."""
    torch.manual_seed(0)
    for name in ("xvector", "ecapa", "resnet"):
        stages = NETS[name]()(torch.randn(3, 40, 20))[1]
        assert all(each.stride(1) == 1 for each in stages), name


@pytest.mark.parametrize(
    "conv",
    [
        TimeConv(6, 8, 3, dilation=2),
        TimeConv(6, 8, 5, padding=2),
        TimeConv(6, 8, 3, stride=2),
        TimeConv(6, 6, 3, groups=2),
    ],
)
def test_convolutions_with_every_option(conv: TimeConv) -> None:
    frames = torch.randn(3, 20, 6).transpose(1, 2)
    assert timelayers.side_by_side(frames)
    torch.testing.assert_close(conv(frames), nn.Conv1d.forward(conv, frames.contiguous()), rtol=1e-5, atol=1e-6)
    assert conv(frames.contiguous()).is_contiguous()


def test_batch_norm_takes_maps_of_three_axes_alone() -> None:
    norm = TimeNorm(4)
    assert norm(torch.randn(3, 7, 4).transpose(1, 2)).shape == (3, 4, 7)
    with pytest.raises(ValueError, match="expected 2D or 3D"):
        norm(torch.randn(3, 4, 2, 7))


@pytest.mark.parametrize("order", ["channels", "time", "2-D"])
@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_statistics_in_blocks(order: str, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "BLOCK", 100)  # two utterances a block
    torch.manual_seed(0)
    shape = {"channels": (5, 9, 4), "time": (5, 4, 9), "2-D": (5, 2, 2, 9)}[order]
    maps, logits = (torch.randn(shape).to(kind) + 2 for _ in range(2))
    if order == "channels":
        maps, logits = maps.transpose(1, 2), logits.transpose(1, 2)
    maps[0, 0] = 1.5  # no variance: at the floor
    results = []
    for attentive, plain in (
        (pooling.attentive_statistics, pooling.plain_statistics),
        (
            lambda x, a, floor: pooling.weighted_statistics(pooling.single(x), pooling.single(a).softmax(-1), floor),
            lambda x, floor: pooling.statistics(pooling.single(x), floor),
        ),
    ):
        x, a = maps.detach().clone().requires_grad_(), logits.detach().clone().requires_grad_()
        values = [*attentive(x, a, 1e-7), *plain(x, 1e-7)]
        loss = sum(
            (each * torch.linspace(-1, 1, each.numel()).view_as(each) * weight).sum()
            for weight, each in enumerate(values, 1)
        )
        results.append([*values, *torch.autograd.grad(loss, [x, a])])
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if kind is torch.float64 else {"rtol": 0.02, "atol": 0.05}
    for mine, plain_value in zip(*results, strict=True):
        assert mine.dtype == plain_value.dtype
        torch.testing.assert_close(mine, plain_value, **tolerance)
