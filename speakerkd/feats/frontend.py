"""Front ends: from a wave to a model's features. A conf file describes a front end; its --type names the class.

A checkpoint records the front end of its training as info["front_end"], and extraction uses it. If the features on disk
are the model's own, they are taken. Otherwise the model's features are computed from the recordings
(speakerkd/feats/source.py).
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from speakerkd.conf import build, from_json, opt, text_of, typed_conf
from speakerkd.feats.fbank import Fbank, FbankConf
from speakerkd.feats.spectrogram import MelPower, slaney_mel, speechbrain_mel

MEANS = ("utterance", "none")


@dataclass(frozen=True)
class Reading:
    """What is done to features when a model reads them. Every front end has these options."""

    mean: str = opt("utterance", "what is subtracted from the features: the utterance's mean, or none")
    window_frames: int = opt(
        0, "0: whole utterances; n: windows of n frames, whose vectors' mean is scaled to length 1"
    )
    window_shift: int = opt(0, "frames from window to window; 0: the length of a window")

    rows_per_frame: ClassVar[int] = 1  # rows of features for 10 ms

    def __post_init__(self) -> None:
        if self.mean not in MEANS:
            raise ValueError(f"--mean={self.mean} is not one of: {' '.join(MEANS)}")
        if min(self.window_frames, self.window_shift) < 0:
            raise ValueError("--window-frames and --window-shift can't be negative")


class FrontEnd(Protocol):
    """What every class in FRONT_ENDS offers."""

    Conf: ClassVar[type]
    conf: Any  # its options: a Reading, and more
    rate: int
    dim: int

    def __init__(self, conf: Any) -> None: ...

    def __call__(self, wave: np.ndarray, seed: int = 0) -> np.ndarray: ...  # (samples,) in [-1, 1) -> (T, F)


@dataclass(frozen=True)
class KaldiConf(Reading, FbankConf):
    waveform_scale: float = opt(32768.0, "full scale of the wave: 32768 as in Kaldi and WeSpeaker, 1 as in 3D-Speaker")


class KaldiFrontEnd:
    """Kaldi's fbank. The scale shifts all log energies equally, so it decides which ones are below the floor."""

    Conf: ClassVar[type] = KaldiConf

    def __init__(self, conf: KaldiConf) -> None:
        self.conf, self._fbank = conf, Fbank(conf)
        self.rate, self.dim = self._fbank.rate, self._fbank.dim

    def __call__(self, wave: np.ndarray, seed: int = 0) -> np.ndarray:
        return self._fbank(self._scaled(wave), seed)

    def samples(self, wave: np.ndarray, seed: int = 0) -> np.ndarray:
        """What the filterbanks are made of, for those who make them elsewhere (batchfbank.py)."""
        return self._fbank.dithered(self._scaled(wave), seed).numpy()

    def _scaled(self, wave: np.ndarray) -> np.ndarray:
        return wave * np.float32(self.conf.waveform_scale / 32768)


@dataclass(frozen=True)
class SpeechBrainConf(Reading):
    sample_frequency: float = opt(16000.0, "rate of the features in Hz; recordings of other rates are resampled")
    frame_length: float = opt(25.0, "milliseconds")
    frame_shift: float = opt(10.0, "milliseconds")
    num_mel_bins: int = opt(80, "number of filters")
    low_freq: float = opt(0.0, "lower edge of the lowest filter, Hz")
    high_freq: float = opt(0.0, "upper edge of the highest filter; 0: half the rate")
    top_db: float = opt(80.0, "floor of the values, in decibels below the utterance's largest value")


class SpeechBrainFrontEnd:
    """SpeechBrain's Fbank: Hamming window, mel power in decibels."""

    Conf: ClassVar[type] = SpeechBrainConf

    def __init__(self, conf: SpeechBrainConf) -> None:
        self.conf, self.rate, self.dim = conf, round(conf.sample_frequency), conf.num_mel_bins
        length, shift = frame_samples(conf.sample_frequency, conf.frame_length, conf.frame_shift)
        high = conf.high_freq or conf.sample_frequency / 2
        if not 0 <= conf.low_freq < high <= conf.sample_frequency / 2:
            raise ValueError(f"--low-freq={conf.low_freq} --high-freq={high} don't fit a rate of {self.rate} Hz")
        mel = speechbrain_mel(length, self.rate, self.dim, conf.low_freq, high)
        self._power = MelPower(torch.hamming_window(length), shift, mel)

    @torch.inference_mode()
    def __call__(self, wave: np.ndarray, seed: int = 0) -> np.ndarray:
        decibels = 10 * self._power(wave).clamp_min(1e-10).log10()
        return decibels.clamp_min(float(decibels.max()) - self.conf.top_db).numpy()


@dataclass(frozen=True)
class ResemblyzerConf(Reading):
    sample_frequency: float = opt(16000.0, "rate of the features in Hz; recordings of other rates are resampled")
    frame_length: float = opt(25.0, "milliseconds")
    frame_shift: float = opt(10.0, "milliseconds")
    num_mel_bins: int = opt(40, "number of filters")
    level: float = opt(-30.0, "softer recordings are amplified to this power, in decibels below full scale")
    coverage: float = opt(0.75, "the last window is left out if less than this part of it is speech")
    mean: str = opt("none", "what is subtracted from the features: the utterance's mean, or none")
    window_frames: int = opt(160, "number of frames in a window")
    window_shift: int = opt(77, "frames from window to window: 1.3 windows per second")


class ResemblyzerFrontEnd:
    """Resemblyzer's mel power without logarithm; silence up to the end of the last window.

    Resemblyzer also removes pauses beforehand, with WebRTC's detector. That is not done here.
    """

    Conf: ClassVar[type] = ResemblyzerConf

    def __init__(self, conf: ResemblyzerConf) -> None:
        if min(conf.window_frames, conf.window_shift) < 1:
            raise ValueError("--window-frames and --window-shift must be 1 or more")
        self.conf, self.rate, self.dim = conf, round(conf.sample_frequency), conf.num_mel_bins
        length, self._shift = frame_samples(conf.sample_frequency, conf.frame_length, conf.frame_shift)
        mel = slaney_mel(length, self.rate, self.dim)
        self._power = MelPower(torch.hann_window(length), self._shift, mel)

    @torch.inference_mode()
    def __call__(self, wave: np.ndarray, seed: int = 0) -> np.ndarray:
        frames = self.num_frames(len(wave))
        if len(wave) == 0:
            return np.zeros((0, self.dim), np.float32)
        power = float(np.mean(np.square(wave, dtype=np.float64)))
        rise = self.conf.level - 10 * math.log10(power) if power > 0 else 0.0
        louder = wave * np.float32(10 ** (max(rise, 0.0) / 20))
        return self._power(np.pad(louder, (0, max(0, frames * self._shift - len(wave)))))[:frames].numpy()

    def num_frames(self, num_samples: int) -> int:
        """The number of frames up to the end of the last window."""
        window, step = self.conf.window_frames, self.conf.window_shift
        frames = -(-(num_samples + 1) // self._shift)
        count = max(1, -(-(frames - window + step + 1) // step))
        speech = num_samples / self._shift - (count - 1) * step  # frames of the last window that are not padding
        if count > 1 and speech < self.conf.coverage * window:
            count -= 1
        return window + (count - 1) * step


@dataclass(frozen=True)
class WaveConf(Reading):
    sample_frequency: float = opt(16000.0, "rate of the waves in Hz; recordings of other rates are resampled")
    mean: str = opt("none", "what is subtracted from the samples: the utterance's mean, or none")
    rows_per_frame: ClassVar[int] = 160  # so that limits in frames of 10 ms mean the same for samples


class WaveFrontEnd:
    """The samples themselves, for encoders of waves such as WavLM."""

    Conf: ClassVar[type] = WaveConf

    def __init__(self, conf: WaveConf) -> None:
        self.conf, self.rate, self.dim = conf, round(conf.sample_frequency), 1

    def __call__(self, wave: np.ndarray, seed: int = 0) -> np.ndarray:
        return wave[:, None].astype(np.float32)  # (samples, 1)


FRONT_ENDS: dict[str, type[FrontEnd]] = {
    "kaldi": KaldiFrontEnd,
    "resemblyzer": ResemblyzerFrontEnd,
    "speechbrain": SpeechBrainFrontEnd,
    "wave": WaveFrontEnd,
}


def frame_samples(rate: float, length: float, shift: float) -> tuple[int, int]:
    """Samples of a frame and of a shift, given in milliseconds."""
    samples, step = round(rate * length / 1000), round(rate * shift / 1000)
    if samples < 2 or step < 1:
        raise ValueError(f"frames of {length} ms every {shift} ms can't be made at {rate} Hz")
    return samples, step


def read_front_end(path: str | Path) -> FrontEnd:
    """conf/frontend/*.conf -> the front end."""
    _, kind, conf = typed_conf(path, FRONT_ENDS)
    try:
        return kind(conf)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def front_end_info(front_end: FrontEnd) -> dict[str, Any]:
    """What goes into info["front_end"] of a checkpoint."""
    return {"type": front_end_type(front_end), **dataclasses.asdict(front_end.conf)}


def front_end_type(front_end: FrontEnd) -> str:
    return next(name for name, kind in FRONT_ENDS.items() if kind is type(front_end))


def front_end_of(info: Mapping[str, Any], where: str) -> FrontEnd | None:
    """The front end of a checkpoint's info; None: there is none.

    local/train.py writes {"fbank": options of conf/fbank.conf, "cmn": "utterance"}; without that file there are no options.
    """
    options = dict(info.get("front_end") or {})
    if options:
        name = options.pop("type", "")
        if name not in FRONT_ENDS:
            raise ValueError(
                f"{where}: has a front end '{name}', which isn't known here (known: {' '.join(FRONT_ENDS)})"
            )
        return FRONT_ENDS[name](from_json(FRONT_ENDS[name].Conf, json.dumps(options), where))
    if not info.get("fbank"):
        return None
    texts = {name: text_of(value) for name, value in info["fbank"].items()}
    return KaldiFrontEnd(build(KaldiConf, {**texts, "mean": info.get("cmn", "utterance")}, where))
