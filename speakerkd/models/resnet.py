"""ResNet over time and frequency (He et al. 2015, in WeSpeaker's form): no max pooling, few channels, statistics pooling.

Number of layers by --block and --blocks: 18 basic 2:2:2:2, 34 basic 3:4:6:3, 101 bottleneck 3:4:23:3, 152 3:8:36:3,
221 6:16:48:3, 293 10:20:64:3. Width by --base-channels.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.conf import opt, require_least
from speakerkd.models.base import Encoded
from speakerkd.models.pooling import FLOOR, EmbeddingLayers, at_least, make_pooling
from speakerkd.models.timelayers import PointConv, with_channels_last


@dataclass(frozen=True)
class ResNetConf:
    block: str = opt("basic", "kind of block: basic or bottleneck")
    blocks: tuple[int, ...] = opt((3, 4, 6, 3), "numbers of blocks in the four stages")
    base_channels: int = opt(32, "channels of the first stage; each later stage has twice as many")
    embedding_dim: int = opt(256, "dimension of the embedding")
    embedding_layers: int = opt(1, "affine layers after the pooling: 1 as in WeSpeaker, 2 as in 3D-Speaker")
    pooling: str = opt("statistics", "pooling over time: statistics or attentive")
    variance_floor: float = opt(FLOOR, "floor of the variances in the pooling; published nets differ in it")

    def __post_init__(self) -> None:
        require_least(self, 1, "blocks", "base_channels", "embedding_dim")


def conv3x3(channels: int, out: int, stride: tuple[int, int] = (1, 1)) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)


def make_shortcut(channels: int, out: int, stride: tuple[int, int]) -> nn.Sequential:
    """The identity if the shape stays the same; otherwise a 1 × 1 convolution and batch norm."""
    if stride == (1, 1) and channels == out:
        return nn.Sequential()
    return nn.Sequential(PointConv(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions; the stride is (frequency, time)."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv3x3(channels, width, stride), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = conv3x3(width, width), nn.BatchNorm2d(width)
        self.shortcut = make_shortcut(channels, width, stride)

    def forward(self, maps: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(maps)))  # (B, C, F, T)
        return F.relu(self.norm2(self.conv2(out)) + self.shortcut(maps))


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3 and a widening 1 × 1 convolution."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: tuple[int, int]) -> None:
        super().__init__()
        out = width * self.expansion
        self.conv1, self.norm1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = conv3x3(width, width, stride), nn.BatchNorm2d(width)
        self.conv3, self.norm3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.shortcut = make_shortcut(channels, out, stride)

    def forward(self, maps: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(maps)))  # (B, C, F, T)
        out = F.relu(self.norm2(self.conv2(out)))
        return F.relu(self.norm3(self.conv3(out)) + self.shortcut(maps))


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def make_stage(block: str, channels: int, width: int, count: int, stride: tuple[int, int]) -> nn.Sequential:
    """`count` blocks; the first one has the stride."""
    kind = BLOCKS[block]
    first = kind(channels, width, stride)
    rest = [kind(width * kind.expansion, width, (1, 1)) for _ in range(count - 1)]
    return nn.Sequential(first, *rest)


class ResNet(nn.Module):
    Conf: ClassVar[type] = ResNetConf

    def __init__(self, conf: ResNetConf, feat_dim: int) -> None:
        super().__init__()
        if conf.block not in BLOCKS:
            raise ValueError(f"--block={conf.block} is not known (allowed: {' '.join(BLOCKS)})")
        if len(conf.blocks) != 4 or min(conf.blocks) < 1:
            raise ValueError(f"--blocks={':'.join(map(str, conf.blocks))} is not four numbers of 1 or more")
        expansion, base = BLOCKS[conf.block].expansion, conf.base_channels
        widths = [base, 2 * base, 4 * base, 8 * base]
        self.conf, self.feat_dim, self.dim = conf, feat_dim, conf.embedding_dim
        self.stage_channels: tuple[int, ...] = tuple(width * expansion for width in widths)
        self.conv1, self.norm1 = conv3x3(1, base), nn.BatchNorm2d(base)
        self.layer1 = make_stage(conf.block, base, widths[0], conf.blocks[0], (1, 1))
        self.layer2 = make_stage(conf.block, self.stage_channels[0], widths[1], conf.blocks[1], (2, 2))
        self.layer3 = make_stage(conf.block, self.stage_channels[1], widths[2], conf.blocks[2], (2, 2))
        self.layer4 = make_stage(conf.block, self.stage_channels[2], widths[3], conf.blocks[3], (2, 2))
        bands = -(-feat_dim // 8)  # halved three times, rounded up
        self.pooling = make_pooling(conf.pooling, self.stage_channels[3] * bands, conf.variance_floor)
        self.embedding = EmbeddingLayers(self.pooling.dim, conf.embedding_dim, conf.embedding_layers)

    def forward(self, feats: Tensor) -> Encoded:
        maps = at_least(feats, 1).transpose(1, 2).unsqueeze(1)  # (B, T, F) -> (B, 1, F, T)
        maps = F.relu(self.norm1(with_channels_last(self.conv1(maps), self.training)))
        stages = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps = layer(maps)
            stages.append(maps)
        return Encoded(self.embedding(self.pooling(maps)), tuple(stages))
