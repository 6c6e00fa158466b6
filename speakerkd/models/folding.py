"""Folds batch norms into a layer beside them. This saves a pass over the maps; the result is the same up to rounding."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from speakerkd.models.frozenlayers import affine
from speakerkd.models.pooling import StatisticsPooling
from speakerkd.models.xvector import XVector

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
TRIAL_FRAMES = 64


def fold_batch_norms(net: nn.Module, feat_dim: int) -> int:
    """Folds, in place, each norm whose input is the output of a convolution or affine layer that nothing else reads.

    One pass over random features finds the pairs, so no model has to name them. Returns how many were folded.
    """
    first = next(net.parameters())
    draw = torch.Generator().manual_seed(0)  # a generator of its own, so that other random numbers do not change
    feats = torch.randn(2, TRIAL_FRAMES, feat_dim, generator=draw).to(first.device, first.dtype)
    pairs = foldable(net, feats)
    names = {module: name for name, module in net.named_modules()}
    for layer, norm in pairs:
        mean, var = norm.running_mean, norm.running_var
        if isinstance(layer, nn.Linear):
            fused = fuse_linear_bn_weights(layer.weight, layer.bias, mean, var, norm.eps, norm.weight, norm.bias)
        else:
            fused = fuse_conv_bn_weights(layer.weight, layer.bias, mean, var, norm.eps, norm.weight, norm.bias)
        layer.weight, layer.bias = (nn.Parameter(each.detach(), requires_grad=False) for each in fused)
        parent, _, name = names[norm].rpartition(".")
        setattr(net.get_submodule(parent), name, nn.Identity())
    return len(pairs)


@torch.no_grad()
def fold_into_next(net: nn.Module) -> None:
    """Folds, in place, the norms of an x-vector's frame layers into the layer after each; other nets stay as they are.

    A ReLU lies between these norms and the layer before them. The layers after them don't pad their input, so the
    embedding is the same up to rounding. The stages are then maps before the norm.
    """
    if not isinstance(net, XVector):
        return
    layers = [net.frame1, net.frame2, net.frame3, net.frame4, net.frame5]
    for layer, following in pairwise(layers):
        scale, shift = affine(layer.norm)
        layer.norm = nn.Identity()  # type: ignore[assignment]
        _take_in(following.conv, scale.unsqueeze(1), shift.unsqueeze(1))
    if isinstance(net.pooling, StatisticsPooling):
        scale, shift = affine(net.frame5.norm)
        net.frame5.norm = nn.Identity()  # type: ignore[assignment]
        net.pooling.floor = net.pooling.floor / scale.square()  # the floor of each channel's variance before the norm
        _take_in(net.embedding.linear1, torch.cat([scale, scale]), torch.cat([shift, torch.zeros_like(shift)]))


def _take_in(layer: nn.Conv1d | nn.Linear, scale: Tensor, shift: Tensor) -> None:
    """The layer then takes x instead of scale · x + shift, which have a value for each input channel."""
    assert layer.bias is not None
    weight = layer.weight.double()
    layer.bias.copy_(layer.bias + (weight * shift).flatten(1).sum(1))
    layer.weight.copy_(weight * scale)


def foldable(net: nn.Module, feats: Tensor) -> list[tuple[Any, Any]]:
    """(layer, norm) pairs, from the graph of the gradient, which shows what reads the output of a layer."""
    calls: Counter[nn.Module] = Counter()
    made: dict[Any, nn.Module] = {}  # node of the graph -> the layer whose output it is
    read: list[tuple[Any, nn.Module]] = []

    def look(module: nn.Module, given: Sequence[Tensor], output: Tensor) -> None:
        calls[module] += 1
        if isinstance(module, NORMS):
            read.append((given[0].grad_fn, module))
        else:
            made[output.grad_fn] = module

    watched = [each for each in net.modules() if isinstance(each, (nn.Conv1d, nn.Conv2d, nn.Linear, *NORMS))]
    hooks = [module.register_forward_hook(look) for module in watched]
    try:
        with torch.enable_grad():
            encoded = net(feats.requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    readers = count_readers([each.grad_fn for each in (encoded.embedding, *encoded.stages)])
    return [
        (made[node], norm)
        for node, norm in read
        if node in made and readers[node] == 1 and calls[norm] == calls[made[node]] == 1
    ]


def count_readers(ends: Sequence[Any]) -> Counter[Any]:
    """How often the output of each node is read, by other nodes or from outside."""
    counts: Counter[Any] = Counter(ends)
    waiting, seen = list(ends), set(ends)
    while waiting:
        for node, _ in waiting.pop().next_functions:
            counts[node] += 1
            if node is not None and node not in seen:
                seen.add(node)
                waiting.append(node)
    return counts
