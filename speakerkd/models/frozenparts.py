"""The parts of the models that look across frames, for application (speakerkd/models/frozen.py)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.models.campplus import SEGMENT, ContextMask, DenseBlock, DenseLayer
from speakerkd.models.ecapa import SqueezeExcitation
from speakerkd.models.folding import NORMS
from speakerkd.models.frozenlayers import Conv, Ends, Norm, affine
from speakerkd.models.pooling import AttentivePooling, StatisticsPooling, single, weighted_statistics
from speakerkd.models.resnet import BasicBlock, Bottleneck


def statistics(maps: Tensor, ends: Ends, floor: float | Tensor) -> tuple[Tensor, Tensor]:
    """Like pooling.statistics: mean and deviation over the last axis. Two passes are twenty times as fast as torch.var."""
    count = ends.count(maps)
    mean = ends.silence(maps).sum(-1) / count
    squares = ends.silence(maps - mean.unsqueeze(-1)).square_().sum(-1)
    degrees = max(count - 1, 1) if isinstance(count, int) else (count - 1).clamp(min=1)
    return mean, (squares / degrees + floor).sqrt()


class FrozenStatistics(nn.Module):
    def __init__(self, pooling: StatisticsPooling, ends: Ends) -> None:
        super().__init__()
        self.dim, self.ends, self.floor = pooling.dim, ends, pooling.floor

    def forward(self, maps: Tensor) -> Tensor:
        mean, deviation = statistics(single(maps), self.ends, self.floor)  # (B, C, T) or (B, C, F, T)
        return torch.cat([mean.flatten(1), deviation.flatten(1)], 1)


class Pointwise(nn.Module):
    """A convolution of width 1, as a matrix product over (B, T, C)."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, half: torch.dtype | None) -> None:
        """weight: (out, in, 1), as of a convolution."""
        super().__init__()
        self.register_buffer("weight", weight.detach().squeeze(2).contiguous().to(half or weight.dtype))
        self.register_buffer("bias", None if bias is None else bias.detach().to(half or weight.dtype))

    def forward(self, frames: Tensor) -> Tensor:
        return F.linear(frames.to(self.weight.dtype), self.weight, self.bias)


class FrozenAttention(nn.Module):
    """The pooling over maps (B, T, C), where the channels of a frame are adjacent, as convolutions leave them on a CPU.

    What the weights know of the whole utterance is the same for all its frames, so it is multiplied once and added.
    """

    def __init__(self, pooling: AttentivePooling, ends: Ends, half: torch.dtype | None = None) -> None:
        super().__init__()
        self.ends, self.dim, self.floor = ends, pooling.dim, pooling.floor
        self.speechbrain = pooling.speechbrain
        linear1, linear2, channels = pooling.linear1, pooling.linear2, pooling.dim // 2
        self.linear1 = Pointwise(linear1.weight[:, :channels], linear1.bias, half)
        self.around = Pointwise(linear1.weight[:, channels:], None, half) if pooling.global_context else None
        self.linear2 = Pointwise(linear2.weight, linear2.bias, half)
        self.norm = None if pooling.norm is None else Norm(pooling.norm)

    def forward(self, maps: Tensor) -> Tensor:
        maps = single(maps).flatten(1, -2)  # (B, C, T), or (B, C, F, T) -> (B, C·F, T)
        frames = maps.mT
        hidden = self.linear1(frames)
        if self.around is not None:
            hidden = hidden + self.around(torch.cat(self.context(maps), 1)).unsqueeze(1)
        if self.norm is not None:
            hidden = self.norm(F.relu(hidden).mT).mT
        weights = self.weigh(single(self.linear2(torch.tanh(hidden))))
        mean = (weights * frames).sum(1)
        variance = (weights * (frames - mean.unsqueeze(1)).square()).sum(1)
        return torch.cat([mean, variance.clamp(min=self.floor).sqrt()], 1)

    def weigh(self, logits: Tensor) -> Tensor:
        """The softmax over each utterance's own frames. (B, T, C) -> (B, T, C)."""
        past = self.ends.past(logits.mT)
        return (logits if past is None else logits.masked_fill(past.mT, float("-inf"))).softmax(1)

    def context(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation over time, (B, C) each."""
        if self.speechbrain:
            return weighted_statistics(maps, torch.full_like(maps, 1 / maps.shape[-1]), self.floor)
        return statistics(maps, self.ends, self.floor)


class FrozenGate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, gate: SqueezeExcitation, ends: Ends) -> None:
        super().__init__()
        self.linear1, self.linear2, self.ends = gate.linear1, gate.linear2, ends

    def forward(self, frames: Tensor) -> Tensor:
        mean = (self.ends.silence(frames).sum(-1) / self.ends.count(frames)).to(frames.dtype)
        gate = self.linear2(F.relu(self.linear1(mean))).sigmoid()
        return frames * gate.unsqueeze(-1).to(frames.dtype)


class FrozenBlock(nn.Module):
    """A residual block of a ResNet. Its norms have been folded."""

    def __init__(self, block: BasicBlock | Bottleneck, ends: Ends, half: torch.dtype | None) -> None:
        super().__init__()
        assert not any(isinstance(each, NORMS) for each in block.modules())
        convs = [block.conv1, block.conv2, *([block.conv3] if isinstance(block, Bottleneck) else [])]
        self.convs = nn.ModuleList(Conv(each, ends, half, rectified=True) for each in convs)
        shortcut = [each for each in block.shortcut if isinstance(each, nn.Conv2d)]  # none or one
        self.shortcut = Conv(shortcut[0], ends, half) if shortcut else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        out = maps
        for conv in self.convs[:-1]:
            out = conv(out)
        found: Tensor = self.convs[-1](out, self.shortcut(maps))
        return found


class FrozenMask(nn.Module):
    """CAM++'s masked convolution."""

    def __init__(self, mask: ContextMask, ends: Ends, half: torch.dtype | None) -> None:
        super().__init__()
        self.local, self.ends = Conv(mask.local, ends, half), ends
        self.linear1, self.linear2 = (Pointwise(each.weight, each.bias, half) for each in (mask.linear1, mask.linear2))

    def forward(self, frames: Tensor, out: Tensor) -> None:
        frames = self.ends.silence(frames)  # (B, C, T)
        length = frames.shape[-1]
        segments = F.avg_pool1d(frames, SEGMENT, SEGMENT, ceil_mode=True)
        count = self.ends.count(frames)
        if isinstance(count, Tensor):  # the pooling divided by all frames of the segment, also by padding
            starts = torch.arange(0, length, SEGMENT, device=frames.device)
            own = (count.unsqueeze(-1) - starts).clamp(1, SEGMENT)
            segments = segments * ((length - starts).clamp(max=SEGMENT) / own).to(frames.dtype)
        context = (frames.sum(-1) / count).to(frames.dtype).unsqueeze(-1) + segments
        mask = self.linear2(F.relu(self.linear1(context.mT))).sigmoid()  # (B, segments, C)
        if mask.shape[1] > 1:
            mask = mask.repeat_interleave(SEGMENT, 1)[:, :length]
        torch.mul(self.local(frames), mask.mT, out=out)


class Rectified(nn.Module):
    """relu(norm(x)), then a convolution of width 1, in one pass over x: relu(s·x + b) is s·(max(x, -b/s) + b/s)."""

    low: Tensor
    high: Tensor

    def __init__(
        self, norm: nn.BatchNorm1d, conv: nn.Conv1d, ends: Ends, half: torch.dtype | None, rectified: bool = False
    ) -> None:
        """rectified: the output goes through a ReLU."""
        super().__init__()
        scale, shift = affine(norm)
        corner = (-shift / scale).to(half or scale.dtype)
        straight = corner.isfinite()  # otherwise the norm's scale is 0, and the channel is constant
        corner = torch.where(straight, corner, torch.zeros_like(corner))
        constant = torch.where(straight, -scale * corner, F.relu(shift))
        infinite = torch.full_like(corner, float("inf"))
        low = torch.where(straight & (scale < 0), -infinite, corner)
        high = torch.where(straight & (scale > 0), infinite, corner)
        self.rising = bool((straight & (scale > 0)).all())
        self.register_buffer("low", low.unsqueeze(1))
        self.register_buffer("high", high.unsqueeze(1))
        weight = conv.weight.detach()
        size = conv.in_channels, conv.out_channels, 1
        # without random weights: drawing them would change later random numbers
        folded = nn.utils.skip_init(nn.Conv1d, *size, device=weight.device, dtype=weight.dtype)
        folded.weight.data = weight * torch.where(straight, scale, torch.zeros_like(scale)).unsqueeze(1)
        assert folded.bias is not None
        folded.bias.data = weight.squeeze(2) @ constant + (0 if conv.bias is None else conv.bias.detach())
        self.conv = Conv(folded, ends, half, rectified)

    def forward(self, frames: Tensor) -> Tensor:
        bent = torch.maximum(frames, self.low) if self.rising else torch.clamp(frames, self.low, self.high)
        return self.conv(bent)


class FrozenDense(nn.Module):
    """CAM++'s dense block: each layer writes its channels where the next one reads them, so nothing is copied."""

    def __init__(self, block: DenseBlock, ends: Ends, half: torch.dtype | None) -> None:
        super().__init__()
        layers = [each for each in block.layers if isinstance(each, DenseLayer)]
        assert all(isinstance(each.norm2, nn.Identity) for each in layers)  # the layer before it took it in
        self.linears = nn.ModuleList(Rectified(each.norm1, each.linear, ends, half, True) for each in layers)
        self.masks = nn.ModuleList(FrozenMask(each.mask, ends, half) for each in layers)
        self.transit = Rectified(block.norm, block.transit, ends, half)
        self.channels, self.growth = block.norm.num_features, layers[0].mask.local.out_channels
        self.kind = half

    def forward(self, frames: Tensor) -> Tensor:
        batch, done, length = frames.shape  # (B, C, T)
        last = frames.device.type == "cpu"
        shape = (batch, length, self.channels) if last else (batch, self.channels, length)
        maps = torch.empty(shape, dtype=self.kind or frames.dtype, device=frames.device)
        maps = maps.mT if last else maps
        maps[:, :done] = frames
        for linear, mask in zip(self.linears, self.masks, strict=True):
            mask(linear(maps[:, :done]), maps[:, done : done + self.growth])
            done += self.growth
        out: Tensor = self.transit(maps)
        return out
