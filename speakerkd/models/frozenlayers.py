"""Convolutions and norms of a net for application, not for training: the same values up to rounding, in less time.

Three things differ from the layers that are trained:
- On a CPU the channels of a map are adjacent in memory (channels-last), because oneDNN's kernels prefer this order. The
  weights are brought into oneDNN's own order once, not at each call.
- One kernel computes a convolution and what follows it (the sum with a shortcut, a ReLU).
- A batch may hold utterances of several lengths, each followed by padding. `Ends` remembers where they end. Layers that
  look across frames (a padded convolution, a mean over time) leave the padding out.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.models.timelayers import onednn_computes

LAST = torch.channels_last
# oneDNN's convolution with weights in its own order and an activation: torch.compile's, not in PyTorch's documentation
PACKED = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
SUMMED = getattr(torch.ops.mkldnn, "_convolution_pointwise_", None)  # it adds to maps in place
PACK = getattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", None)


class Ends:
    """Where each utterance of a batch ends. It is the same in all maps of one length, so the length is the key."""

    def __init__(self) -> None:
        self._lengths: dict[int, list[int]] = {}
        self._past: dict[int, Tensor] = {}

    def begin(self, frames: int, lengths: Sequence[int] | None) -> None:
        """`lengths` are the frames of each utterance. None, or all equal: there is no padding."""
        mixed = lengths is not None and min(lengths) < frames
        self._lengths = {frames: list(lengths)} if mixed and lengths else {}
        self._past = {}

    def follow(self, frames: int, out: int, shorten: Callable[[int], int]) -> None:
        """A convolution made maps of `out` frames from maps of `frames`."""
        if out != frames and frames in self._lengths:
            shorter = [shorten(length) for length in self._lengths[frames]]
            assert self._lengths.setdefault(out, shorter) == shorter, "two maps of one length that end differently"

    def past(self, maps: Tensor) -> Tensor | None:
        """(B, 1, T) or (B, 1, 1, T) bool: which frames are padding. None: no frame is."""
        frames = maps.shape[-1]
        if frames not in self._lengths:
            return None
        if frames not in self._past:
            ends = torch.tensor(self._lengths[frames], device=maps.device).unsqueeze(1)
            self._past[frames] = torch.arange(frames, device=maps.device) >= ends
        return self._past[frames].view(len(maps), *[1] * (maps.ndim - 2), frames)

    def silence(self, maps: Tensor) -> Tensor:
        """Sets the padding of maps (..., T) to zero, in place."""
        past = self.past(maps)
        if past is not None:
            shortest = min(self._lengths[maps.shape[-1]])
            maps[..., shortest:].masked_fill_(past[..., shortest:], 0)
        return maps

    def count(self, maps: Tensor) -> Tensor | int:
        """Frames of each utterance, (B, 1) or (B, 1, 1), to divide a sum over frames by. One number if all are equal."""
        frames = maps.shape[-1]
        if frames not in self._lengths:
            return frames
        return torch.tensor(self._lengths[frames], device=maps.device).view(-1, *[1] * (maps.ndim - 2))


class Conv(nn.Module):
    """A convolution over time, or over frequency and time. rectified: the output goes through a ReLU."""

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self, conv: nn.Conv1d | nn.Conv2d, ends: Ends, half: torch.dtype | None, rectified: bool = False
    ) -> None:
        super().__init__()
        weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
        self.flat, self.ends, self.rectified = weight.ndim == 3, ends, rectified
        self.native = weight.device.type == "cpu" and weight.dtype == torch.float32 and onednn_computes(half)
        self.kernel, self.stride, self.dilation, self.groups = conv.kernel_size, conv.stride, conv.dilation, conv.groups
        plain = conv.padding_mode == "zeros"
        assert not isinstance(conv.padding, str)
        self.padding = conv.padding if plain else (0,) * len(conv.padding)
        self.edges = None if plain else (conv.padding_mode, [each for each in conv.padding[::-1] for _ in range(2)])
        self.padded = max(conv.padding) > 0
        self.moved = conv.padding[-1]  # frames that are added on each side
        if half is not None:
            weight, bias = weight.to(half), None if bias is None else bias.to(half)
        if self.native:
            weight = (weight.unsqueeze(2) if self.flat else weight).contiguous(memory_format=LAST)
        self.packed = self.pack(weight) if self.native and None not in (PACKED, SUMMED, PACK) else None
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, maps: Tensor, beside: Tensor | None = None) -> Tensor:
        """(B, C, T) or (B, C, F, T). beside: maps that are added to the output, before the ReLU. They may be overwritten."""
        frames = maps.shape[-1]
        if self.padded:
            maps = self.ends.silence(maps)
        if self.edges is not None:
            maps = F.pad(maps, self.edges[1], self.edges[0])
        maps = self.convolve(maps.to(self.weight.dtype), beside)
        self.ends.follow(frames, maps.shape[-1], self.length)
        return maps

    def convolve(self, maps: Tensor, beside: Tensor | None) -> Tensor:
        if not self.native:
            work: Callable[..., Tensor] = F.conv1d if self.flat else F.conv2d
            out = work(maps, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
            return self.finished(out, beside)
        # F.conv1d and F.conv2d take slower kernels than oneDNN's if a batch or a filter is small
        maps = (maps.unsqueeze(2) if self.flat else maps).contiguous(memory_format=LAST)
        if self.packed is None or PACKED is None or SUMMED is None:
            out = torch.mkldnn_convolution(maps, self.weight, self.bias, *self.sizes())
            return self.finished(out.squeeze(2) if self.flat else out, beside)
        then = "relu" if self.rectified else "none"
        if beside is None:
            out = PACKED(maps, self.packed, self.bias, *self.sizes(), then, [], "")
        else:
            beside = (beside.unsqueeze(2) if self.flat else beside).contiguous(memory_format=LAST)
            # the same with a new output takes up to twice as long, for a copy of what is added
            out = SUMMED.binary(beside, maps, self.packed, self.bias, *self.sizes(), "add", 1.0, then, [], "")
        return out.squeeze(2) if self.flat else out

    def finished(self, out: Tensor, beside: Tensor | None) -> Tensor:
        out = out if beside is None else out + beside
        return F.relu(out, inplace=True) if self.rectified else out

    def sizes(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]:
        """Padding, stride, dilation and groups, as of a convolution over frequency and time."""
        if self.flat:
            return (0, *self.padding), (1, *self.stride), (1, *self.dilation), self.groups
        return self.padding, self.stride, self.dilation, self.groups

    def pack(self, weight: Tensor) -> Tensor:
        assert PACK is not None
        packed: Tensor = PACK(weight.to_mkldnn(), *self.sizes())
        return packed

    def length(self, frames: int) -> int:
        return (frames + 2 * self.moved - self.dilation[-1] * (self.kernel[-1] - 1) - 1) // self.stride[-1] + 1


class Frame(nn.Module):
    """Convolution, ReLU, batch norm: a layer of the x-vector and of ECAPA-TDNN."""

    def __init__(self, conv: nn.Conv1d, norm: nn.Module, ends: Ends, half: torch.dtype | None) -> None:
        super().__init__()
        self.conv = Conv(conv, ends, half, rectified=True)
        self.norm = Norm(norm) if isinstance(norm, nn.BatchNorm1d) else norm

    def forward(self, frames: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(frames))
        return out


class Norm(nn.Module):
    """A batch norm that was not folded into the layer before it."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm
        scale, shift = affine(norm)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, maps: Tensor) -> Tensor:
        if maps.dtype != self.scale.dtype:  # half precision: the norm's own scale and shift stay float32
            own = self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias
            flat = maps.ndim == 3  # 1-D maps become 2-D, for the kernel of channels-last maps
            out = F.batch_norm(maps.unsqueeze(2) if flat else maps, *own, eps=self.norm.eps)
            return out.squeeze(2) if flat else out
        shape = (-1,) + (1,) * (maps.ndim - 2)
        return torch.addcmul(self.shift.view(shape), maps, self.scale.view(shape))


def affine(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """norm(x) = scale · x + shift."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    shift = torch.zeros_like(scale) if norm.bias is None else norm.bias.detach()
    if norm.weight is not None:
        scale = scale * norm.weight.detach()
    return scale, shift - norm.running_mean * scale
