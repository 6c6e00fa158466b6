"""Kaldi's wave archives: each key is followed by a whole WAV file, here always mono with 16 bits per sample."""

import struct

import numpy as np

from speakerkd.audio.containers import STREAMED
from speakerkd.audio.recordings import AudioError
from speakerkd.files.kaldi import ArkWriter


class WaveArkWriter(ArkWriter):
    """Writes prefix.ark and prefix.scp of waves. `quieter` counts the waves that were scaled down to fit into 16 bits."""

    def __init__(self, prefix: str, rate: int) -> None:
        super().__init__(prefix)
        self.rate, self.quieter = rate, 0

    def __enter__(self) -> "WaveArkWriter":
        super().__enter__()
        return self

    def __call__(self, key: str, wave: np.ndarray) -> None:
        """wave: (samples,) float32; full scale is 1."""
        samples, changed = sixteen_bits(wave)
        self.put(key, wav_header(len(samples), self.rate) + samples.tobytes())
        self.quieter += changed


def sixteen_bits(wave: np.ndarray) -> tuple[np.ndarray, bool]:
    """(samples as 16-bit integers, whether the wave was scaled down to fit). Scaling does not change log filterbanks
    minus their mean. Clipping would change them.
    """
    peak = float(np.abs(wave).max(initial=0))
    if not np.isfinite(peak):
        raise AudioError("holds NaN or infinite samples")
    scaled = np.rint(wave * np.float32(32768))
    too_loud = bool(scaled.max(initial=0) > 32767 or scaled.min(initial=0) < -32768)
    if too_loud:
        scaled = np.rint(wave * np.float32(32767 / peak))
    return scaled.astype("<i2"), too_loud


def wav_header(count: int, rate: int) -> bytes:
    size = 2 * count
    if size >= STREAMED - 36:
        raise AudioError(f"is too long for a WAV file ({count / rate / 3600:.1f} hours)")
    form = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + size)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", size)
    )
