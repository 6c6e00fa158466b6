"""ECAPA-TDNN (Desplanques et al. 2020): Res2 blocks with squeeze and excitation, all blocks joined, attentive pooling.

--layout is wespeaker or speechbrain. The two public families differ in four places: the part of a Res2 block that
passes unchanged, the padding, the norm after the joining layer, and the hidden layer of the attention. Weights of one
don't fit the other.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.conf import opt, require_least
from speakerkd.models.base import Encoded
from speakerkd.models.pooling import AttentivePooling, StatisticsPooling, at_least
from speakerkd.models.timelayers import TimeConv, TimeNorm, join, parts

SHORTEST = 10  # frames; reflection padding needs more than the widest dilation


Padding = Literal["zeros", "reflect"]


@dataclass(frozen=True)
class ECAPAConf:
    channels: int = opt(512, "channels of the blocks")
    joined_channels: int = opt(1536, "channels of the layer that joins the blocks and is pooled")
    scale: int = opt(8, "number of parts of a Res2 block")
    se_channels: int = opt(128, "hidden channels of squeeze and excitation")
    attention_channels: int = opt(128, "number of hidden channels of the attention")
    global_context: bool = opt(True, "true: the attention also takes the statistics of the utterance")
    embedding_dim: int = opt(192, "dimension of the embedding")
    pooling: str = opt("attentive", "pooling over time: attentive or statistics")
    layout: str = opt("wespeaker", "wespeaker or speechbrain: the toolkit whose public weights fit")

    def __post_init__(self) -> None:
        require_least(
            self, 1, "channels", "joined_channels", "scale", "se_channels", "attention_channels", "embedding_dim"
        )


class ConvLayer(nn.Module):
    """Convolution over time that keeps the length, ReLU, batch norm."""

    def __init__(self, channels: int, out: int, width: int, dilation: int, padding: Padding) -> None:
        super().__init__()
        edge = dilation * (width - 1) // 2
        self.conv = TimeConv(channels, out, width, dilation=dilation, padding=edge, padding_mode=padding)
        self.norm = TimeNorm(out)

    def forward(self, frames: Tensor) -> Tensor:
        return self.norm(F.relu(self.conv(frames)))  # (B, C, T)


class Res2Layer(nn.Module):
    """The channels in parts. Each is convolved together with the result of the part before it; one passes unchanged."""

    def __init__(self, channels: int, scale: int, dilation: int, padding: Padding, first_passes: bool) -> None:
        super().__init__()
        if scale < 2 or channels % scale:
            raise ValueError(f"--channels={channels} is not a multiple of --scale={scale}, which must be 2 or more")
        self.width, self.first_passes = channels // scale, first_passes
        self.convs = nn.ModuleList(ConvLayer(self.width, self.width, 3, dilation, padding) for _ in range(scale - 1))

    def forward(self, frames: Tensor) -> Tensor:
        split = parts(frames, self.width)  # (B, C / scale, T) each
        passing = split.pop(0 if self.first_passes else -1)
        done: list[Tensor] = []
        for conv, part in zip(self.convs, split, strict=True):
            done.append(conv(part + done[-1] if done else part))
        return join([passing, *done] if self.first_passes else [*done, passing])


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate that sees the whole utterance."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden)
        self.linear2 = nn.Linear(hidden, channels)

    def forward(self, frames: Tensor) -> Tensor:
        gate = self.linear2(F.relu(self.linear1(frames.mean(-1)))).sigmoid()
        return frames * gate.unsqueeze(-1)


class Block(nn.Module):
    def __init__(self, conf: ECAPAConf, dilation: int, padding: Padding, first_passes: bool) -> None:
        super().__init__()
        self.before = ConvLayer(conf.channels, conf.channels, 1, 1, padding)
        self.res2 = Res2Layer(conf.channels, conf.scale, dilation, padding, first_passes)
        self.after = ConvLayer(conf.channels, conf.channels, 1, 1, padding)
        self.gate = SqueezeExcitation(conf.channels, conf.se_channels)

    def forward(self, frames: Tensor) -> Tensor:
        return frames + self.gate(self.after(self.res2(self.before(frames))))


class ECAPA(nn.Module):
    Conf: ClassVar[type] = ECAPAConf

    def __init__(self, conf: ECAPAConf, feat_dim: int) -> None:
        super().__init__()
        if conf.layout not in ("wespeaker", "speechbrain"):
            raise ValueError(f"--layout={conf.layout} is not known (allowed: wespeaker speechbrain)")
        speechbrain = conf.layout == "speechbrain"
        padding: Padding = "reflect" if speechbrain else "zeros"
        self.conf, self.feat_dim, self.dim = conf, feat_dim, conf.embedding_dim
        self.stage_channels: tuple[int, ...] = (conf.channels,) * 4
        self.layer1 = ConvLayer(feat_dim, conf.channels, 5, 1, padding)
        self.layer2 = Block(conf, 2, padding, speechbrain)
        self.layer3 = Block(conf, 3, padding, speechbrain)
        self.layer4 = Block(conf, 4, padding, speechbrain)
        self.join = TimeConv(3 * conf.channels, conf.joined_channels, 1)
        self.join_norm = TimeNorm(conf.joined_channels) if speechbrain else nn.Identity()
        self.pooling = self.make_pooling(conf, speechbrain)
        self.norm = TimeNorm(self.pooling.dim)
        self.embedding = nn.Linear(self.pooling.dim, conf.embedding_dim)

    @staticmethod
    def make_pooling(conf: ECAPAConf, speechbrain: bool) -> AttentivePooling | StatisticsPooling:
        if conf.pooling == "attentive":
            return AttentivePooling(conf.joined_channels, conf.attention_channels, conf.global_context, speechbrain)
        if conf.pooling == "statistics":
            return StatisticsPooling(conf.joined_channels)
        raise ValueError(f"--pooling={conf.pooling} is not known (allowed: attentive statistics)")

    def forward(self, feats: Tensor) -> Encoded:
        frames = at_least(feats, SHORTEST).transpose(1, 2)  # (B, T, F) -> (B, F, T)
        stages = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            frames = layer(frames)
            stages.append(frames)
        joined = self.join_norm(F.relu(self.join(join(stages[1:]))))
        return Encoded(self.embedding(self.norm(self.pooling(joined))), tuple(stages))
