"""The x-vector: a time-delay network, statistics pooling, affine layers (Snyder et al. 2018).

Layer sizes and order (convolution, ReLU, batch norm without scale and shift) are Kaldi's and WeSpeaker's. There is no
padding, so one frame of the last map depends on 15 input frames.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.conf import opt, require_least
from speakerkd.models.base import Encoded
from speakerkd.models.pooling import FLOOR, EmbeddingLayers, at_least, make_pooling
from speakerkd.models.timelayers import TimeConv, TimeNorm

CONTEXT = 15  # input frames on which one frame of the last map depends


@dataclass(frozen=True)
class XVectorConf:
    channels: int = opt(512, "channels of the frame layers")
    stats_channels: int = opt(1500, "channels of the layer that is pooled")
    embedding_dim: int = opt(512, "dimension of the embedding")
    embedding_layers: int = opt(2, "affine layers after the pooling: 2 as in WeSpeaker, 1 as in 3D-Speaker")
    pooling: str = opt("statistics", "pooling over time: statistics or attentive")
    variance_floor: float = opt(FLOOR, "floor of the variances in the pooling; published nets differ in it")

    def __post_init__(self) -> None:
        require_least(self, 1, "channels", "stats_channels", "embedding_dim")


class FrameLayer(nn.Module):
    """Convolution over time, ReLU, batch norm."""

    def __init__(self, channels: int, out: int, width: int, dilation: int) -> None:
        super().__init__()
        self.conv = TimeConv(channels, out, width, dilation=dilation)
        self.norm = TimeNorm(out, affine=False)

    def forward(self, frames: Tensor) -> Tensor:
        return self.norm(F.relu(self.conv(frames)))  # (B, C, T)


class XVector(nn.Module):
    Conf: ClassVar[type] = XVectorConf

    def __init__(self, conf: XVectorConf, feat_dim: int) -> None:
        super().__init__()
        self.conf, self.feat_dim, self.dim = conf, feat_dim, conf.embedding_dim
        self.stage_channels: tuple[int, ...] = (conf.channels,) * 4
        self.frame1 = FrameLayer(feat_dim, conf.channels, 5, 1)
        self.frame2 = FrameLayer(conf.channels, conf.channels, 3, 2)
        self.frame3 = FrameLayer(conf.channels, conf.channels, 3, 3)
        self.frame4 = FrameLayer(conf.channels, conf.channels, 1, 1)
        self.frame5 = FrameLayer(conf.channels, conf.stats_channels, 1, 1)
        self.pooling = make_pooling(conf.pooling, conf.stats_channels, conf.variance_floor)
        self.embedding = EmbeddingLayers(self.pooling.dim, conf.embedding_dim, conf.embedding_layers)

    def forward(self, feats: Tensor) -> Encoded:
        frames = at_least(feats, CONTEXT + 1).transpose(1, 2)  # (B, T, F) -> (B, F, T); + 1: a deviation needs two
        stages = []
        for layer in (self.frame1, self.frame2, self.frame3, self.frame4):
            frames = layer(frames)
            stages.append(frames)
        return Encoded(self.embedding(self.pooling(self.frame5(frames))), tuple(stages))
