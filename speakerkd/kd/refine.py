"""The self-teacher of skdfe: a feature pyramid over the student's stages. It runs down and up and is pooled to an embedding.

F_1 .. F_n are the stages, from shallow to deep. L and M are their 1 × 1 laterals, with `width` times as many channels:
    downwards   P_n = L_n,  P_i = block(w1·L_i + w2·up(P_{i+1}))
    upwards     R_1 = P_1,  R_i = block(w1·M_i + w2·P_i + w3·down(R_{i-1})),  R_n without P_n
`up` and `down` include a 1 × 1 convolution from the channels of one level to those of the other. Like the laterals, it is
followed by batch norm and ReLU. The weights w of each sum are learnt, not negative, and add up to 1. R_n is pooled. Maps
are (B, C, F, T) in 2-D nets and (B, C, T) in 1-D nets. A pyramid sees both as (B, C, F, T), with F = 1 in 1-D nets, and
stores them with the channels last, because its 1 × 1 convolutions are then faster.
This is the BiFPNc of FRSKD (Ji et al. 2021, by the authors' code), with one departure. The maximum of `down` is over the
points 2i - 1 to 2i + 1, as for a convolution of stride 2 with padding 1. In FRSKD it is over 2i to 2i + 2.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.models.base import Encoded, Encoder
from speakerkd.models.pooling import make_pooling

EPSILON = 1e-6  # added to the sum of a fusion's weights
PROBE = 100  # frames of the input that shows the sizes of the stages


def probe(encoder: Encoder) -> list[tuple[int, ...]]:
    """The size of each stage, (F, T) or (T,), for PROBE frames of input. The encoder does not change."""
    assert isinstance(encoder, nn.Module)
    mode = encoder.training
    encoder.eval()
    with torch.no_grad():
        stages = encoder(torch.zeros(1, PROBE, encoder.feat_dim, device=next(encoder.parameters()).device)).stages
    encoder.train(mode)
    if len(stages) < 2 or stages[0].ndim not in (3, 4):
        raise ValueError(f"{type(encoder).__name__} gives {len(stages)} stages; a self-teacher needs two or more maps")
    return [tuple(stage.shape[2:]) for stage in stages]


def fit(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Cuts both ends of an axis that is too long, and pads one that is too short with zeros: for unpadded convolutions."""
    for axis, want in enumerate(size, 2):
        have = maps.shape[axis]
        if have > want:
            maps = maps.narrow(axis, (have - want) // 2, want)
        elif have < want:
            before = (want - have) // 2
            maps = F.pad(maps, [0, 0] * (maps.ndim - 1 - axis) + [before, want - have - before])
    return maps


def shrink(maps: Tensor, strides: Sequence[int], size: Sequence[int]) -> Tensor:
    """Brings maps to the size of a deeper stage: a maximum over 3 where the net halves. It rounds up as convolutions do."""
    if max(strides) > 1:
        width, edge = [2 * stride - 1 for stride in strides], [stride - 1 for stride in strides]
        maps = F.max_pool2d(maps, width, list(strides), edge)
    return fit(maps, size)


def grow(maps: Tensor, strides: Sequence[int], size: Sequence[int]) -> Tensor:
    """Brings maps to the given size of a shallower stage. (Twice the size would be wrong if that size is odd.)"""
    return F.interpolate(maps, list(size)) if max(strides) > 1 else fit(maps, size)


class Fusion(nn.Module):
    """A weighted sum of maps."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(count))

    def weights(self) -> Tensor:
        positive = F.relu(self.weight)
        return positive / (positive.sum() + EPSILON)

    def forward(self, *maps: Tensor) -> Tensor:
        weights = self.weights()
        total = weights[0] * maps[0]
        for weight, each in zip(weights[1:], maps[1:], strict=True):
            total = total + weight * each
        return total


class Project(nn.Sequential):
    """1 × 1 convolution, batch norm, ReLU: computed on a matrix with a row per point, which takes least time on CPUs."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(nn.Linear(channels, out, bias=False), nn.BatchNorm1d(out), nn.ReLU(inplace=True))

    def forward(self, maps: Tensor) -> Tensor:
        points = maps.permute(0, 2, 3, 1)  # (B, F, T, C)
        rows = super().forward(points.flatten(0, 2))
        return rows.unflatten(0, points.shape[:3]).permute(0, 3, 1, 2)


class Block(nn.Sequential):
    """Depth-wise convolution over 3, 1 × 1 convolution, batch norm, ReLU; `depth` times. Over time only if axes is 1."""

    def __init__(self, axes: int, channels: int, depth: int) -> None:
        size, padding = ((1, 3), (0, 1)) if axes == 1 else ((3, 3), (1, 1))
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers.append(nn.Conv2d(channels, channels, size, padding=padding, groups=channels, bias=False))
            layers.append(Project(channels, channels))
        super().__init__(*layers)


class Pyramid(nn.Module):
    """Stages with `inputs` channels -> refined stages of the same sizes with `channels`. strides[i]: stage i to i + 1."""

    def __init__(
        self, inputs: Sequence[int], channels: Sequence[int], strides: Sequence[tuple[int, ...]], depth: int
    ) -> None:
        super().__init__()
        axes, levels = len(strides[0]), len(channels)
        self.strides = [(1, *each) if axes == 1 else each for each in strides]
        pairs = list(zip(inputs, channels, strict=True))
        steps = list(pairwise(channels))
        self.laterals = nn.ModuleList(Project(*pair) for pair in pairs)
        self.laterals_up = nn.ModuleList(Project(*pair) for pair in pairs[1:])
        self.to_shallow = nn.ModuleList(Project(deep, shallow) for shallow, deep in steps)
        self.to_deep = nn.ModuleList(Project(shallow, deep) for shallow, deep in steps)
        self.fusions_down = nn.ModuleList(Fusion(2) for _ in range(levels - 1))
        self.fusions_up = nn.ModuleList(Fusion(2 if level == levels - 1 else 3) for level in range(1, levels))
        self.blocks_down = nn.ModuleList(Block(axes, count, depth) for count in channels[:-1])
        self.blocks_up = nn.ModuleList(Block(axes, count, depth) for count in channels[1:])

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        flat = stages[0].ndim == 3
        stages = [as_planes(stage) for stage in stages]
        sizes = [stage.shape[2:] for stage in stages]
        down = [lateral(stage) for lateral, stage in zip(self.laterals, stages, strict=True)]
        for level in reversed(range(len(stages) - 1)):
            deeper = grow(self.to_shallow[level](down[level + 1]), self.strides[level], sizes[level])
            down[level] = self.blocks_down[level](self.fusions_down[level](down[level], deeper))
        refined = [down[0]]
        for level in range(1, len(stages)):
            before = level - 1
            maps = [self.laterals_up[before](stages[level])]
            if level < len(stages) - 1:
                maps.append(down[level])
            maps.append(self.to_deep[before](shrink(refined[-1], self.strides[before], sizes[level])))
            refined.append(self.blocks_up[before](self.fusions_up[before](*maps)))
        return [maps.squeeze(2) for maps in refined] if flat else refined


def as_planes(maps: Tensor) -> Tensor:
    """(B, C, T) -> (B, C, 1, T); (B, C, F, T) stays. The channels are the last in memory."""
    return (maps.unsqueeze(2) if maps.ndim == 3 else maps).contiguous(memory_format=torch.channels_last)


class SelfTeacher(nn.Module):
    """The student's stages -> an embedding of their own and the refined stages."""

    def __init__(self, encoder: Encoder, width: int, depth: int, repeats: int, dim: int) -> None:
        super().__init__()
        sizes = probe(encoder)
        strides = [
            tuple(max(1, round(large / small)) for large, small in zip(*pair, strict=True)) for pair in pairwise(sizes)
        ]
        inputs = encoder.stage_channels
        channels = [width * count for count in inputs]
        self.pyramids = nn.ModuleList(
            Pyramid(channels if index else inputs, channels, strides, depth) for index in range(repeats)
        )
        bands = sizes[-1][0] if len(sizes[-1]) == 2 else 1
        self.pooling = make_pooling(getattr(encoder.conf, "pooling", "statistics"), channels[-1] * bands)
        self.embedding = nn.Linear(self.pooling.dim, dim)

    def forward(self, stages: Sequence[Tensor]) -> Encoded:
        for pyramid in self.pyramids:
            stages = pyramid(stages)
        return Encoded(self.embedding(self.pooling(stages[-1].contiguous())), tuple(stages))
