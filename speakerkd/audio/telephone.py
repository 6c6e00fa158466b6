"""The telephone band: speech as it sounds over a land line."""

import numpy as np

from speakerkd.audio.recordings import resample

RATE = 8000  # samples per second on the line
STOP_LOW, LOW, HIGH, STOP_HIGH = 200.0, 300.0, 3400.0, 3800.0  # Hz: gain 0, 1, 1, 0
MU = 255.0  # ITU-T G.711, the mu-law of North America and Japan


def telephone(wave: np.ndarray, rate: int) -> np.ndarray:
    """(samples,) float32 at rate: resampled to 8 kHz, 300 to 3,400 Hz, 8 bits of mu-law, and back to the same rate."""
    if len(wave) == 0:
        return wave
    line = band(resample(wave.astype(np.float32, copy=False), rate, RATE), RATE)
    heard = resample(expand(compress(line)).astype(np.float32), RATE, rate)
    return np.pad(heard, (0, max(0, len(wave) - len(heard))))[: len(wave)]


def band(wave: np.ndarray, rate: int) -> np.ndarray:
    """A band filter whose gain rises and falls as half a cosine at the ends of the band."""
    hertz = np.fft.rfftfreq(len(wave), 1 / rate)
    rise = np.clip((hertz - STOP_LOW) / (LOW - STOP_LOW), 0, 1)
    fall = np.clip((STOP_HIGH - hertz) / (STOP_HIGH - HIGH), 0, 1)
    gain = (1 - np.cos(np.pi * np.minimum(rise, fall))) / 2
    return np.fft.irfft(np.fft.rfft(wave) * gain, len(wave))


def compress(wave: np.ndarray) -> np.ndarray:
    """[-1, 1] -> -127 to 127, in steps that grow with the level."""
    wave = np.clip(wave, -1, 1)
    return np.round(127 * np.sign(wave) * np.log1p(MU * np.abs(wave)) / np.log1p(MU)).astype(np.int8)


def expand(codes: np.ndarray) -> np.ndarray:
    level = np.abs(codes) / 127.0
    return np.sign(codes) * np.expm1(level * np.log1p(MU)) / MU
