"""Statistics over time in blocks of utterances, for training on a CPU. pooling.py has the same formulas in one line each.

There, each operation writes a float32 map as large as the batch, and autograd keeps most of these maps (26 MB for 128
utterances of 336 channels and 150 frames). Here a block fits into a core's cache, the gradients are written out by hand, and
only the inputs are kept.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 1 << 18  # numbers in a block: 1 MB in float32


def trains_on_cpu(*maps: Tensor) -> bool:
    """Whether gradients are needed, on a CPU, by plain autograd: not while a graph is exported or compiled."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return False
    return torch.is_grad_enabled() and maps[0].device.type == "cpu" and any(x.requires_grad for x in maps)


def blocks(maps: Tensor) -> Iterator[slice]:
    """Slices of the batch, with at least one utterance each."""
    step = max(1, BLOCK * len(maps) // max(maps.numel(), 1))
    return (slice(start, start + step) for start in range(0, len(maps), step))


def raised(maps: Tensor) -> Tensor:
    """A block in float32, or in float64 if it has that."""
    return maps.to(torch.promote_types(maps.dtype, torch.float32))


def in_order(maps: Tensor) -> tuple[Tensor, int]:
    """A view of the map whose numbers lie in memory in this order, and the axis of time in it."""
    if maps.dim() == 3 and maps.stride(1) == 1:
        return maps.transpose(1, 2), 1
    return maps, -1


class PlainStatistics(torch.autograd.Function):
    """Mean and standard deviation over the last axis, as pooling.statistics."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, floor: float | Tensor) -> tuple[Tensor, Tensor]:
        kind = torch.promote_types(maps.dtype, torch.float32)
        mean, deviation = maps.new_empty((2, *maps.shape[:-1]), dtype=kind)
        frames, time = in_order(maps)
        for part in blocks(frames):
            block = raised(frames[part])
            mean[part] = block.mean(time)
            total = (block - mean[part].unsqueeze(time)).square_().sum(time)
            deviation[part] = (total / max(maps.shape[-1] - 1, 1) + floor).sqrt_()
        ctx.save_for_backward(maps, mean, deviation)
        return mean, deviation

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_mean: Tensor, to_deviation: Tensor) -> tuple[Tensor, None]:
        maps, mean, deviation = ctx.saved_tensors
        # d deviation / d x = (x - mean) / ((n - 1) deviation)
        slope = to_deviation / deviation / max(maps.shape[-1] - 1, 1)
        offset = to_mean / maps.shape[-1] - slope * mean
        frames, time = in_order(maps)
        slope, offset = slope.unsqueeze(time), offset.unsqueeze(time)
        out = torch.empty_like(maps)
        target = in_order(out)[0]
        for part in blocks(frames):
            target[part] = torch.addcmul(offset[part], raised(frames[part]), slope[part])
        return out, None


class AttentiveStatistics(torch.autograd.Function):
    """Mean and standard deviation with softmax weights over the last axis, as pooling.weighted_statistics."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, logits: Tensor, floor: float) -> tuple[Tensor, Tensor]:
        kind = torch.promote_types(maps.dtype, torch.float32)
        mean, variance = maps.new_empty((2, *maps.shape[:-1]), dtype=kind)
        frames, time = in_order(maps)
        heights = logits.transpose(1, 2) if time == 1 else logits
        for part in blocks(frames):
            block, weights = raised(frames[part]), raised(heights[part]).softmax(time)
            mean[part] = (weights * block).sum(time)
            variance[part] = (block - mean[part].unsqueeze(time)).square_().mul_(weights).sum(time)
        deviation = variance.clamp(min=floor).sqrt_()
        ctx.save_for_backward(maps, logits, mean, variance, deviation)
        ctx.floor = floor
        return mean, deviation

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_mean: Tensor, to_deviation: Tensor) -> tuple[Tensor, Tensor, None]:
        maps, logits, mean, variance, deviation = ctx.saved_tensors
        # With c = x - mean, g = d / d mean and h = d / d variance: d / d x = w (g + 2 h c), and through the softmax
        # d / d logit = w (g c + h (c² - variance)). The variance has no slope in the mean.
        to_variance = (to_deviation / (2 * deviation)).masked_fill_(variance < ctx.floor, 0)
        frames, time = in_order(maps)
        m, g, h, v = (each.unsqueeze(time) for each in (mean, to_mean, to_variance, variance))
        to_maps, to_logits = torch.empty_like(maps), torch.empty_like(maps, dtype=logits.dtype)
        heights, frames_out, heights_out = (
            each.transpose(1, 2) if time == 1 else each for each in (logits, to_maps, to_logits)
        )
        for part in blocks(frames):
            centred = raised(frames[part]) - m[part]
            weights = raised(heights[part]).softmax(time)
            slope = centred * h[part]
            heights_out[part] = slope.add(g[part]).mul_(centred).sub_(h[part] * v[part]).mul_(weights)
            frames_out[part] = slope.mul_(2).add_(g[part]).mul_(weights)
        return to_maps, to_logits, None
