"""What a model costs: parameters, multiply-accumulates, seconds."""

import statistics
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def num_parameters(encoder: nn.Module) -> int:
    return sum(weight.numel() for weight in encoder.parameters())


def count_macs(encoder: nn.Module, feat_dim: int, frames: int) -> int:
    """Multiply-accumulates for one utterance. Nothing is computed: the encoder moves to "meta", losing its weights."""
    encoder.to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(torch.empty(1, frames, feat_dim, device="meta"))
    return counter.get_total_flops() // 2  # the counter counts a multiplication and an addition separately


def time_run(encoder: nn.Module, feat_dim: int, frames: int, runs: int) -> float:
    """The median time in seconds for one utterance, after a first run that isn't counted."""
    feats = torch.randn(1, frames, feat_dim)
    taken = []
    encoder.eval()
    with torch.no_grad():
        for _ in range(runs + 1):
            start = time.perf_counter()
            encoder(feats)
            taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])
