"""Mel spectrograms as SpeechBrain and librosa compute them, for encoders that were trained on those.

Both use centred frames: the wave is padded with half a frame of zeros at each end. So there is one frame per shift, and
one more. The window is periodic. The mel scales and triangles of both differ from each other and from Kaldi's.
"""

import math

import numpy as np
import torch
from torch import Tensor

BLOCK = 1024  # number of frames transformed together


class MelPower:
    """(samples,) -> (frames, filters): power spectra times the mel matrix, without logarithm."""

    def __init__(self, window: Tensor, shift: int, mel: Tensor) -> None:
        self.window, self.shift, self.mel = window, shift, mel

    def __call__(self, wave: np.ndarray) -> Tensor:
        edge = len(self.window) // 2
        padded = torch.nn.functional.pad(torch.from_numpy(wave), (edge, edge))
        frames = padded.unfold(0, len(self.window), self.shift)  # (T, length)
        blocks = [torch.fft.rfft(block * self.window).abs().square() @ self.mel for block in frames.split(BLOCK)]
        return torch.cat(blocks)


def speechbrain_mel(length: int, rate: int, filters: int, low: float, high: float) -> Tensor:
    """(frequency bins, filters): symmetric triangles, with centres evenly spaced in 2595 log10(1 + f / 700).

    The width is the distance to the centre below, so that a triangle ends before the next centre.
    """
    ends = 2595 * torch.log10(1 + torch.tensor([low, high], dtype=torch.float64) / 700)
    mels = ends[0] + torch.arange(filters + 2) * (ends[1] - ends[0]) / (filters + 1)
    hertz = 700 * (10 ** (mels / 2595) - 1)
    centre, width = hertz[1:-1], hertz[1:-1] - hertz[:-2]
    return (1 - ((bins(length, rate) - centre) / width).abs()).clamp_min(0).float()


def slaney_mel(length: int, rate: int, filters: int) -> Tensor:
    """(frequency bins, filters): triangles of area 1 on Slaney's scale, up to half the rate; librosa's default.

    Slaney's scale is linear up to 1000 Hz (200/3 Hz per mel) and logarithmic above (27 mels for a factor of 6.4).
    """
    knee, step = 1000.0, math.log(6.4) / 27
    top = 15 + math.log(rate / 2 / knee) / step if rate / 2 > knee else rate / 2 * 3 / 200
    mels = torch.linspace(0, top, filters + 2, dtype=torch.float64)
    hertz = torch.where(mels < 15, mels * 200 / 3, knee * torch.exp(step * (mels - 15)))
    left, centre, right = hertz[:-2], hertz[1:-1], hertz[2:]
    at = bins(length, rate)
    weights = torch.minimum((at - left) / (centre - left), (right - at) / (right - centre)).clamp_min(0)
    return (weights * 2 / (right - left)).float()


def bins(length: int, rate: int) -> Tensor:
    """(bins, 1): the frequencies of the transform."""
    return torch.arange(length // 2 + 1, dtype=torch.float64)[:, None] * rate / length
