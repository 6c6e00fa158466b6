"""A recording for verification: one channel at the model's rate, and how much speech it has."""

import logging
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.audio.recordings import AudioError, read_file
from speakerkd.verify.resample import resample

SHORTEST = 0.5  # seconds of speech; less is refused
SILENT = -60.0  # dB below full scale; a recording whose loud frames are softer is refused
CLIPPED = 0.01  # a recording is called clipped if at least this share of its samples is at full scale
FLAT = 6.0  # dB between loud and soft frames; with less, pauses can't be told from speech
LIMIT = 3600.0  # seconds


@dataclass(frozen=True)
class Recording:
    name: str
    wave: np.ndarray  # (samples,) float32 in [-1, 1)
    speech: float  # seconds
    snr: float  # estimated, dB


def levels_of(wave: np.ndarray, rate: int) -> np.ndarray:
    """Level of each stretch of 20 ms in dB relative to full scale; a constant offset of the recording doesn't count."""
    size = max(1, rate // 50)
    count = max(1, len(wave) // size)
    wave = wave - wave.mean()
    stretches = np.resize(wave, (count, size)) if len(wave) < size else wave[: count * size].reshape(count, size)
    return 10 * np.log10(np.square(stretches, dtype=np.float64).mean(1) + 1e-12)


def speech_of(wave: np.ndarray, rate: int) -> tuple[float, float]:
    """(seconds of speech, estimated signal-to-noise ratio in dB), computed from the levels only.

    The loud level is the one that 5 % of the stretches exceed. 10 % of them are below the soft level. Stretches count as
    speech if their level is above soft + 0.4 · (loud - soft).
    """
    levels = levels_of(wave, rate)
    soft, loud = np.percentile(levels, [10, 95])
    if loud - soft < FLAT:
        return len(levels) * 0.02, 0.0
    speech = float((levels > soft + 0.4 * (loud - soft)).sum() * 0.02)
    return speech, float(10 * np.log10(10 ** ((loud - soft) / 10) - 1))


def read_recording(path: str | Path, rate: int) -> Recording:
    """Takes any rate and number of channels (their mean). Too short, silent or unreadable: ValueError; clipped: warning."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file" if not path.exists() else f"{path}: is not a regular file")
    try:
        samples, own = _read(path)
    except AudioError as error:
        raise ValueError(f"{path}: {error}") from error
    wave = samples.mean(1, dtype=np.float32) if samples.shape[1] > 1 else samples[:, 0]
    if len(wave) > LIMIT * own:
        raise ValueError(f"{path}: is {len(wave) / own:.0f} s long; give at most {LIMIT:.0f} s of one speaker")
    clipped = float((np.abs(samples) >= 0.999).mean())
    wave = resample(np.ascontiguousarray(wave, np.float32), own, rate)
    speech, snr = speech_of(wave, rate)
    if np.percentile(levels_of(wave, rate), 95) < SILENT:
        raise ValueError(f"{path}: is silent (its loud parts are below {SILENT:.0f} dB of full scale)")
    if speech < SHORTEST:
        raise ValueError(f"{path}: holds {speech:.2f} s of speech; at least {SHORTEST} s are needed")
    if own < rate:
        logging.warning("%s: has %d Hz; model and thresholds are for %d Hz, so more errors are likely", path, own, rate)
    if snr == 0.0:
        logging.warning("%s: the level hardly changes, as in noise or a tone; is it speech?", path)
    if clipped > CLIPPED:
        logging.warning("%s: %.0f %% of the samples are clipped; the score is less reliable", path, 100 * clipped)
    return Recording(str(path), wave, speech, snr)


def _read(path: Path) -> tuple[np.ndarray, int]:
    """libsndfile's formats directly, others through ffmpeg if there is one."""
    try:
        return read_file(str(path))
    except AudioError as error:
        if "libsndfile" not in str(error) and "not audio" not in str(error):
            raise
        ffmpeg = shutil.which("ffmpeg")
        if ffmpeg is None:
            raise AudioError(f"{error}; install ffmpeg to read other formats (m4a and so on)") from error
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "converted.wav"
            command = [ffmpeg, "-v", "error", "-nostdin", "-i", str(path), "-f", "wav", "-c:a", "pcm_s16le", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            if done.returncode or not made.exists():
                said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise AudioError(f"neither libsndfile nor ffmpeg can read it ({said})") from error
            return read_file(str(made))
