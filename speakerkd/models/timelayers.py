"""Convolution and batch norm over time that keep the channels of a frame side by side in memory, on a CPU.

feats.transpose(1, 2) has its channels side by side: (B, C, T) with a stride of 1 over C. nn.Conv1d copies such a map to the
other order, in which oneDNN copies it again for its kernels. A 2-D convolution over maps of height 1 needs no copy. In bf16,
one core then trains 1.3 (ecapa_small) or 1.4 times (x-vector) as many crops per second, with statistics in blocks. Values
differ by rounding alone. Names and shapes of the weights are those of PyTorch's layers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.models.blockwise import trains_on_cpu


def onednn_computes(half: torch.dtype | None) -> bool:
    """Whether oneDNN has kernels for this type here. CPUs without AVX-512 have none for bf16, many none for float16."""
    if not torch.backends.mkldnn.is_available() or half == torch.float16:
        return False
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return half is None or (supported is not None and supported())


def side_by_side(frames: Tensor) -> bool:
    """Whether a map (B, C, T) on a CPU has the channels of a frame side by side. Exported graphs stay as they are."""
    if frames.device.type != "cpu" or frames.dim() != 3 or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return False
    return frames.stride(1) == 1 < frames.shape[1]


def join(maps: Sequence[Tensor]) -> Tensor:
    """Maps of the same frames as one, with the channels of all. torch.cat would not keep the order in memory."""
    if all(map(side_by_side, maps)):
        return torch.cat([each.transpose(1, 2) for each in maps], 2).transpose(1, 2)
    return torch.cat(list(maps), 1)


def parts(maps: Tensor, width: int) -> list[Tensor]:
    """The channels in parts of this width. With Tensor.split, the gradient would not keep the order in memory."""
    if side_by_side(maps):
        together = (
            maps.transpose(1, 2).unflatten(2, (-1, width)).movedim(2, 0).contiguous()
        )  # one copy, not one for each part
        return [each.transpose(1, 2) for each in together.unbind()]
    return list(maps.split(width, 1))


def with_channels_last(maps: Tensor, training: bool) -> Tensor:
    """A map (B, C, F, T), with its channels side by side if a net trains on a CPU."""
    return maps.contiguous(memory_format=torch.channels_last) if training and trains_on_cpu(maps) else maps


class PointConv(nn.Conv2d):
    """nn.Conv2d of 1 x 1. On a CPU it takes its stride before the convolution, because of oneDNN: see TimeConv."""

    def forward(self, maps: Tensor) -> Tensor:
        if not trains_on_cpu(maps) or self.stride == (1, 1):
            return super().forward(maps)
        return F.conv2d(maps[..., :: self.stride[0], :: self.stride[1]], self.weight, self.bias)


class TimeConv(nn.Conv1d):
    """nn.Conv1d."""

    def forward(self, frames: Tensor) -> Tensor:
        return self.of(frames, self.weight, self.bias)

    def of(self, frames: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The same with other weights, such as a part of the own ones."""
        padding = self.padding
        if isinstance(padding, str) or self.padding_mode != "zeros" or self.stride != (1,) or not side_by_side(frames):
            return self._conv_forward(frames, weight, bias)
        # Not with a stride: the backward pass of oneDNN's 1 x 1 convolution with one writes past its memory (PyTorch 2.11).
        row, height = frames.unsqueeze(2), weight.unsqueeze(2)  # (B, C, 1, T)
        return F.conv2d(row, height, bias, 1, (0, padding[0]), (1, self.dilation[0]), self.groups).squeeze(2)


class TimeNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d."""

    def _check_input_dim(self, frames: Tensor) -> None:
        if frames.dim() != 4 or frames.shape[2] != 1:
            super()._check_input_dim(frames)

    def forward(self, frames: Tensor) -> Tensor:
        if not side_by_side(frames):
            return super().forward(frames)
        return super().forward(frames.unsqueeze(2)).squeeze(2)
