"""Change of the sampling rate in numpy, with the filter that speakerkd.audio uses through torchaudio."""

from fractions import Fraction
from math import ceil

import numpy as np

WIDTH = 32  # zero crossings of the sinc on each side
ROLLOFF = 0.95
BETA = 14.769656459379492  # of the Kaiser window; torchaudio's default


def resample(wave: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """(samples,) float32 -> (samples,) float32; band-limited, as long in seconds."""
    if rate == new_rate or len(wave) == 0:
        return wave
    ratio = Fraction(new_rate, rate).limit_denominator(1000)
    old, new = ratio.denominator, ratio.numerator
    filters, width = _filters(old, new)
    length = ceil(new * len(wave) / old)
    padded = np.pad(wave, (width, width + old))
    count = (len(padded) - filters.shape[1]) // old + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, filters.shape[1])[::old][:count]
    blocks = [windows[start : start + 4096] @ filters.T for start in range(0, count, 4096)]
    return np.ascontiguousarray(np.concatenate(blocks).reshape(-1)[:length], np.float32)


def _filters(old: int, new: int) -> tuple[np.ndarray, int]:
    """(new, taps): one filter for each phase, and how many samples it reaches back."""
    base = min(old, new) * ROLLOFF
    width = ceil(WIDTH * old / base)
    places = np.arange(-width, width + old)[None, :] / old
    times = np.clip((np.arange(0, -new, -1)[:, None] / new + places) * base, -WIDTH, WIDTH)
    window = np.i0(BETA * np.sqrt(1 - (times / WIDTH) ** 2)) / np.i0(BETA)
    return (np.sinc(times) * window * (base / old)).astype(np.float32), width
