"""CAM++ (Wang et al. 2023): a small 2-D front, then densely connected time-delay layers, each masked by its context.

Structure and sizes are those of 3D-Speaker and WeSpeaker.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.conf import opt, require_least
from speakerkd.models.base import Encoded
from speakerkd.models.pooling import FLOOR, at_least, make_pooling
from speakerkd.models.resnet import conv3x3, make_stage
from speakerkd.models.timelayers import with_channels_last

SEGMENT = 100  # frames (of 20 ms) over which the context of a mask is averaged
DILATIONS = (1, 2, 2)


@dataclass(frozen=True)
class CAMPPlusConf:
    front_channels: int = opt(32, "channels of the 2-D front")
    channels: int = opt(128, "channels of the layer after the front")
    growth: int = opt(32, "channels that each dense layer adds")
    bottleneck: int = opt(4, "hidden channels of a dense layer, in multiples of --growth")
    layers: tuple[int, ...] = opt((12, 24, 16), "dense layers in each of the three blocks")
    embedding_dim: int = opt(512, "dimension of the embedding")
    pooling: str = opt("statistics", "pooling over time: statistics or attentive")
    variance_floor: float = opt(FLOOR, "floor of the variances in the pooling; published nets differ in it")

    def __post_init__(self) -> None:
        require_least(self, 1, "front_channels", "channels", "growth", "bottleneck", "layers", "embedding_dim")


class Front(nn.Module):
    """Residual blocks over time and frequency; the frequency is halved three times, the time kept."""

    def __init__(self, channels: int, feat_dim: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv3x3(1, channels), nn.BatchNorm2d(channels)
        self.layer1 = make_stage("basic", channels, channels, 2, (2, 1))
        self.layer2 = make_stage("basic", channels, channels, 2, (2, 1))
        self.conv2, self.norm2 = conv3x3(channels, channels, (2, 1)), nn.BatchNorm2d(channels)
        self.dim = channels * -(-feat_dim // 8)

    def forward(self, feats: Tensor) -> Tensor:
        maps = F.relu(
            self.norm1(with_channels_last(self.conv1(feats.unsqueeze(1)), self.training))
        )  # (B, F, T) -> (B, C, F, T)
        maps = self.layer2(self.layer1(maps))
        return F.relu(self.norm2(self.conv2(maps))).flatten(1, 2)  # (B, C·F/8, T)


def segment_means(frames: Tensor) -> Tensor:
    """(B, C, T) -> (B, C, segments); the last segment may be shorter.

    ONNX Runtime divides the last segment's sum by a whole segment's length, so the export divides by the length itself.
    """
    if not torch.onnx.is_in_onnx_export():
        return F.avg_pool1d(frames, SEGMENT, SEGMENT, ceil_mode=True)
    inside = torch.ones_like(frames[:, :1])
    sums, counts = (F.avg_pool1d(F.pad(each, (0, SEGMENT - 1)), SEGMENT, SEGMENT) for each in (frames, inside))
    return sums / counts


class ContextMask(nn.Module):
    """A convolution over time whose channels are masked by the mean of the utterance and of the segment."""

    def __init__(self, channels: int, out: int, dilation: int) -> None:
        super().__init__()
        self.local = nn.Conv1d(channels, out, 3, dilation=dilation, padding=dilation, bias=False)
        self.linear1 = nn.Conv1d(channels, channels // 2, 1)
        self.linear2 = nn.Conv1d(channels // 2, out, 1)

    def forward(self, frames: Tensor) -> Tensor:
        length = frames.shape[-1]  # (B, C, T)
        segments = segment_means(frames)
        # one context for a segment, so the mask is computed per segment and only then spread over its frames
        context = frames.mean(-1, keepdim=True) + segments
        mask = self.linear2(F.relu(self.linear1(context))).sigmoid()
        return self.local(frames) * mask.repeat_interleave(SEGMENT, -1)[..., :length]


class DenseLayer(nn.Module):
    """Batch norm, ReLU, narrowing 1 × 1 convolution, batch norm, ReLU, masked convolution: the channels to add."""

    def __init__(self, channels: int, hidden: int, out: int, dilation: int) -> None:
        super().__init__()
        self.norm1, self.linear = nn.BatchNorm1d(channels), nn.Conv1d(channels, hidden, 1, bias=False)
        self.norm2, self.mask = nn.BatchNorm1d(hidden), ContextMask(hidden, out, dilation)

    def forward(self, frames: Tensor) -> Tensor:
        return self.mask(F.relu(self.norm2(self.linear(F.relu(self.norm1(frames))))))


class DenseBlock(nn.Module):
    """Dense layers; each takes the outputs of all layers before it. Then `transit` halves the channels."""

    def __init__(self, channels: int, conf: CAMPPlusConf, count: int, dilation: int) -> None:
        super().__init__()
        hidden, grown = conf.bottleneck * conf.growth, channels + count * conf.growth
        self.layers = nn.ModuleList(
            DenseLayer(channels + index * conf.growth, hidden, conf.growth, dilation) for index in range(count)
        )
        self.norm, self.transit = nn.BatchNorm1d(grown), nn.Conv1d(grown, grown // 2, 1, bias=False)
        self.dim = grown // 2

    def forward(self, frames: Tensor) -> Tensor:
        for layer in self.layers:
            frames = torch.cat([frames, layer(frames)], 1)
        return self.transit(F.relu(self.norm(frames)))


class CAMPPlus(nn.Module):
    Conf: ClassVar[type] = CAMPPlusConf

    def __init__(self, conf: CAMPPlusConf, feat_dim: int) -> None:
        super().__init__()
        if len(conf.layers) != 3 or min(conf.layers) < 1:
            raise ValueError(f"--layers={':'.join(map(str, conf.layers))} is not three numbers of 1 or more")
        self.conf, self.feat_dim, self.dim = conf, feat_dim, conf.embedding_dim
        self.front = Front(conf.front_channels, feat_dim)
        self.conv = nn.Conv1d(self.front.dim, conf.channels, 5, 2, padding=2, bias=False)
        self.norm = nn.BatchNorm1d(conf.channels)
        self.block1 = DenseBlock(conf.channels, conf, conf.layers[0], DILATIONS[0])
        self.block2 = DenseBlock(self.block1.dim, conf, conf.layers[1], DILATIONS[1])
        self.block3 = DenseBlock(self.block2.dim, conf, conf.layers[2], DILATIONS[2])
        self.stage_channels: tuple[int, ...] = (conf.channels, self.block1.dim, self.block2.dim, self.block3.dim)
        self.out_norm = nn.BatchNorm1d(self.block3.dim)
        self.pooling = make_pooling(conf.pooling, self.block3.dim, conf.variance_floor)
        self.embedding = nn.Conv1d(self.pooling.dim, conf.embedding_dim, 1, bias=False)  # its shape in public weights
        self.embedding_norm = nn.BatchNorm1d(conf.embedding_dim, affine=False)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, feats: Tensor) -> Encoded:
        frames = self.front(at_least(feats, 1).transpose(1, 2))  # (B, T, F) -> (B, C, T)
        start = F.relu(self.norm(self.conv(frames)))  # half the frame rate from here on
        first = self.block1(start)
        second = self.block2(first)
        third = F.relu(self.out_norm(self.block3(second)))
        embedding = self.embedding(self.pooling(third).unsqueeze(-1)).squeeze(-1)
        return Encoded(self.embedding_norm(embedding), (start, first, second, third))
