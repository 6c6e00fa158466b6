"""Pooling of a map over time to one vector: statistics pooling, attentive statistics pooling, and the layers after it.

Means, variances and the softmax over time are taken in float32, also under autocast: a variance in bfloat16
has two digits. The standard deviation has a floor, so its gradient stays finite if a channel is constant.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.models.blockwise import AttentiveStatistics, PlainStatistics, trains_on_cpu
from speakerkd.models.timelayers import TimeConv, TimeNorm

FLOOR = 1e-7  # added to a variance: WeSpeaker's


def at_least(feats: Tensor, frames: int) -> Tensor:
    """Repeats an utterance until it has this many frames. A longer one is returned unchanged."""
    have = feats.shape[1]  # (B, T, F)
    if have == 0:
        raise ValueError("an utterance of 0 frames has no embedding; remove it from the data directory")
    if have >= frames:
        return feats
    return feats.repeat(1, -(-frames // have), 1)[:, :frames]


def single(maps: Tensor) -> Tensor:
    """Casts half precision to float32; float32 and float64 stay."""
    return maps.float() if maps.dtype in (torch.bfloat16, torch.float16) else maps


def statistics(maps: Tensor, floor: float | Tensor = FLOOR) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the last axis (n - 1, as in published nets; 0 for a single frame)."""
    mean = maps.mean(-1)
    # Not maps.var, which takes several times as long. The variance has no slope in the mean, so the mean is a constant here.
    total = (maps - mean.detach().unsqueeze(-1)).square().sum(-1)
    return mean, (total / max(maps.shape[-1] - 1, 1) + floor).sqrt()


def weighted_statistics(maps: Tensor, weights: Tensor, floor: float = FLOOR) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the last axis, with weights that sum to 1."""
    mean = (weights * maps).sum(-1)
    # Centred at the mean: E[x²] - mean² would lose digits for channels far from zero. The variance has no slope in the mean.
    variance = (weights * (maps - mean.detach().unsqueeze(-1)).square()).sum(-1)
    return mean, variance.clamp(min=floor).sqrt()


def attentive_statistics(maps: Tensor, logits: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """weighted_statistics with the softmax of the logits over the last axis as weights, in float32."""
    if trains_on_cpu(maps, logits):
        mean, deviation = AttentiveStatistics.apply(maps, logits, floor)
        return mean, deviation
    return weighted_statistics(single(maps), single(logits).softmax(-1), floor)


def plain_statistics(maps: Tensor, floor: float | Tensor) -> tuple[Tensor, Tensor]:
    """statistics in float32."""
    if trains_on_cpu(maps):
        mean, deviation = PlainStatistics.apply(maps, floor)
        return mean, deviation
    return statistics(single(maps), floor)


class StatisticsPooling(nn.Module):
    """Mean and standard deviation over time of each channel (and frequency)."""

    def __init__(self, channels: int, floor: float = FLOOR) -> None:
        super().__init__()
        self.dim = 2 * channels
        self.floor: float | Tensor = floor  # a tensor: of each channel

    def forward(self, maps: Tensor) -> Tensor:
        mean, deviation = plain_statistics(maps, self.floor)  # (B, C, T) or (B, C, F, T)
        return torch.cat([mean.flatten(1), deviation.flatten(1)], 1)


class AttentivePooling(nn.Module):
    """Statistics with weights over time; each channel has its own weights.

    With global_context the weights also depend on the plain statistics of the utterance. speechbrain: as in SpeechBrain's
    nets, the hidden layer has ReLU and batch norm before the tanh, and the context's variance is divided by n.
    """

    def __init__(
        self,
        channels: int,
        hidden: int = 128,
        global_context: bool = False,
        speechbrain: bool = False,
        floor: float = FLOOR,
    ) -> None:
        super().__init__()
        self.dim = 2 * channels
        self.global_context = global_context
        self.speechbrain = speechbrain
        self.floor = 1e-12 if speechbrain else floor
        self.linear1 = TimeConv(channels * (3 if global_context else 1), hidden, 1)
        self.norm = TimeNorm(hidden) if speechbrain else None
        self.linear2 = TimeConv(hidden, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        maps = maps.flatten(1, -2)  # (B, C, T), or (B, C, F, T) -> (B, C·F, T)
        hidden = self.hidden_layer(maps)
        if self.norm is not None:
            hidden = self.norm(F.relu(hidden))
        return torch.cat(attentive_statistics(maps, self.linear2(torch.tanh(hidden)), self.floor), 1)

    def hidden_layer(self, maps: Tensor) -> Tensor:
        """linear1 of each frame and, with global_context, of the utterance's mean and deviation, which are computed once."""
        if not self.global_context:
            return self.linear1(maps)
        if self.speechbrain:
            single_maps = single(maps)
            even = torch.full_like(single_maps, 1 / maps.shape[-1])
            context = weighted_statistics(single_maps, even, self.floor)
        else:
            context = plain_statistics(maps, self.floor)
        weight = self.linear1.weight
        channels = weight.shape[1] // 3  # not of the maps: an exported graph would not know these as constants
        same = F.linear(torch.cat(context, 1), weight[:, channels:, 0], self.linear1.bias)
        return self.linear1.of(maps, weight[:, :channels]) + same.unsqueeze(-1)


def make_pooling(name: str, channels: int, floor: float = FLOOR) -> StatisticsPooling | AttentivePooling:
    """The pooling of a conf's --pooling; floor: its --variance-floor."""
    if not 0 < floor < 1:
        raise ValueError(f"--variance-floor={floor} is not between 0 and 1")
    if name == "statistics":
        return StatisticsPooling(channels, floor)
    if name == "attentive":
        return AttentivePooling(channels, floor=floor)
    raise ValueError(f"--pooling={name} is not known (allowed: statistics attentive)")


class EmbeddingLayers(nn.Module):
    """One affine layer after the pooling, or two with ReLU and batch norm (no scale and shift) between them."""

    def __init__(self, channels: int, dim: int, layers: int) -> None:
        super().__init__()
        if layers not in (1, 2):
            raise ValueError(f"--embedding-layers={layers} is not 1 or 2")
        self.linear1 = nn.Linear(channels, dim)
        self.norm = nn.BatchNorm1d(dim, affine=False) if layers == 2 else None
        self.linear2 = nn.Linear(dim, dim) if layers == 2 else None

    def forward(self, pooled: Tensor) -> Tensor:
        embedding = self.linear1(pooled)  # (B, C) -> (B, D)
        if self.norm is not None and self.linear2 is not None:
            embedding = self.linear2(self.norm(F.relu(embedding)))
        return embedding
