"""A net for application, not for training, prepared once: the same vectors up to rounding, in less time.

Batch norms are folded into the layers before them. Maps and weights have the memory layout that oneDNN prefers. Variances
are computed in two passes. Weights are cast to half precision once. A batch can hold utterances of several lengths.
"""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from speakerkd.models.base import Encoded, SpeakerNet
from speakerkd.models.campplus import CAMPPlus, DenseBlock
from speakerkd.models.ecapa import ECAPA, ConvLayer, SqueezeExcitation
from speakerkd.models.folding import NORMS, fold_batch_norms, fold_into_next
from speakerkd.models.frozenlayers import Conv, Ends, Frame, Norm
from speakerkd.models.frozenparts import FrozenAttention, FrozenBlock, FrozenDense, FrozenGate, FrozenStatistics
from speakerkd.models.pooling import AttentivePooling, StatisticsPooling
from speakerkd.models.resnet import BasicBlock, Bottleneck, ResNet
from speakerkd.models.xvector import FrameLayer, XVector

# frozenlayers.py and frozenparts.py know every part of these models that looks across frames.
MIXED = (CAMPPlus, ECAPA, ResNet, XVector)
SHORTEST = 32  # frames; a model may repeat shorter utterances, so they never share a batch with longer ones


class Frozen(nn.Module):
    """Called like the net: features (B, T, F) -> Encoded. The net itself does not change."""

    def __init__(
        self,
        net: SpeakerNet,
        device: torch.device | None = None,
        half: torch.dtype | None = None,
        stages: bool = True,
    ) -> None:
        """half: the type of the convolutions' weights and maps; None: float32 throughout. stages: whether they are read."""
        super().__init__()
        encoder = copy.deepcopy(net.encoder)
        assert isinstance(encoder, nn.Module)
        encoder = encoder.eval().requires_grad_(False)
        if device is not None:
            encoder = encoder.to(device)
        if half is None and not stages:  # half precision needs maps whose mean is near 0
            fold_into_next(encoder)
        fold_batch_norms(encoder, net.feat_dim)
        self.dim, self.feat_dim, self._half = net.dim, net.feat_dim, half
        self._ends = Ends()
        self.encoder = prepared(encoder, self._ends, half)
        self.mixes = isinstance(encoder, MIXED) and all(
            each.edges is None for each in encoder.modules() if isinstance(each, Conv)
        )
        self.device = next(net.parameters()).device if device is None else device

    def forward(self, feats: Tensor, lengths: Sequence[int] | None = None) -> Encoded:
        """`lengths` are the numbers of frames of the utterances; what follows is padding."""
        assert lengths is None or self.mixes or min(lengths) == feats.shape[1], "this model takes equal lengths only"
        self._ends.begin(feats.shape[1], lengths)
        with self.autocast():
            encoded: Encoded = self.encoder(feats)
        return encoded

    def autocast(self) -> AbstractContextManager:
        return nullcontext() if self._half is None else torch.autocast(self.device.type, self._half)

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)


def prepared(module: nn.Module, ends: Ends, half: torch.dtype | None) -> nn.Module:
    """The module, or the one that replaces it for application."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return Conv(module, ends, half)
    if isinstance(module, NORMS):
        return Norm(module)
    if isinstance(module, DenseBlock):
        return FrozenDense(module, ends, half)
    if isinstance(module, BasicBlock | Bottleneck):
        return FrozenBlock(module, ends, half)
    if isinstance(module, FrameLayer | ConvLayer):
        return Frame(module.conv, module.norm, ends, half)
    if isinstance(module, AttentivePooling):
        return FrozenAttention(module, ends, half)
    for name, child in list(module.named_children()):
        setattr(module, name, prepared(child, ends, half))
    if isinstance(module, StatisticsPooling):
        return FrozenStatistics(module, ends)
    return FrozenGate(module, ends) if isinstance(module, SqueezeExcitation) else module
