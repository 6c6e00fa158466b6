"""Augmentation as text: utt2aug says, for each copy of an utterance, what is done to its wave.

A line is `<utterance> <operation> <operation> ...`; the operations are applied from left to right:

  speed=F                                  F times as fast, in tempo and pitch; at most two decimals: speed=0.9
  reverb=SOURCE                            in a room, by its impulse response
  noise=SOURCE[@START[-END]]:snr=DB        noise behind the whole utterance: SOURCE from START to END seconds (default:
                                           all of it), repeated if that is shorter than the utterance
  noise=SOURCE[@START[-END]]:snr=DB:at=T   noise in the foreground: this stretch once, from T seconds on
  telephone                                over a land line: 300 to 3,400 Hz, 8 kHz, mu-law (telephone.py)

SOURCE is an id of aug.scp, which has lines like wav.scp (a file or a pipe). Or it is generated: `pink#17` for noise (white,
pink, brown, band, hum, clicks, surge, music; the number is the seed), `room#17:rt60=0.45` for reverb. An example:

  id1-a-reverb+noise reverb=rirs-smallroom-Room001-00032 noise=musan-noise-free-sound-0042@1.25:snr=10:at=0

All random choices were made when the line was written. So the same line always gives the same wave.

As in Kaldi's wav-reverberate, a room does not shift the speech and keeps its length and power (--shift-output=true; the
strongest tap of the response is the direct path). A noise in the foreground is scaled by its own power, one in the
background by its power over the utterance. If several noises follow each other, the SNR of each refers to the wave before
the first of them. Unlike in Kaldi, the sum is not scaled back to the power of the speech. If speech or noise is silent,
there is no SNR and nothing is added.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from speakerkd.audio import rooms
from speakerkd.audio.recordings import AudioError, check_length, mono, read_audio, resample
from speakerkd.audio.rooms import power, reverberate
from speakerkd.audio.telephone import telephone


def number(value: float) -> str:
    """The value with at most three decimals, without trailing zeros."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def speed_prefix(speed: float) -> str:
    """sp0.9-, as Kaldi writes it; sp2.0-, since a speaker may be called sp2-anna."""
    text = number(speed)
    return f"sp{text}-" if "." in text else f"sp{text}.0-"


@dataclass(frozen=True)
class Speed:
    factor: float

    def __str__(self) -> str:
        return f"speed={number(self.factor)}"


@dataclass(frozen=True)
class Reverb:
    source: str

    def __str__(self) -> str:
        return f"reverb={self.source}"


@dataclass(frozen=True)
class Noise:
    source: str
    snr: float
    start: float = 0.0
    end: float | None = None  # None: to the end of the source
    at: float | None = None  # None: noise behind the whole utterance

    def __str__(self) -> str:
        stretch = f"@{number(self.start)}" + ("" if self.end is None else f"-{number(self.end)}")
        at = "" if self.at is None else f":at={number(self.at)}"
        return f"noise={self.source}{'' if stretch == '@0' else stretch}:snr={number(self.snr)}{at}"


@dataclass(frozen=True)
class Telephone:
    def __str__(self) -> str:
        return "telephone"


Operation = Speed | Reverb | Noise | Telephone

_SECONDS = r"\d+(?:\.\d+)?"
MOST_DB, MOST_SECONDS = 200, 1_000_000
_SPEED = re.compile(r"speed=(\d+(?:\.\d{1,2})?)")
_REVERB = re.compile(r"reverb=(\S+)")
_NOISE = re.compile(
    rf"noise=(?P<source>\S+?)(?:@(?P<start>{_SECONDS})(?:-(?P<end>{_SECONDS}))?)?"
    rf":snr=(?P<snr>-?{_SECONDS})(?::at=(?P<at>{_SECONDS}))?"
)


def parse(text: str) -> list[Operation]:
    """The operations of a line of utt2aug."""
    operations = [_operation(word, text) for word in text.split()]
    if not operations:
        raise ValueError("utt2aug: an utterance has no operation; for an unchanged utterance leave the line out")
    return operations


def _operation(word: str, text: str) -> Operation:
    if match := _SPEED.fullmatch(word):
        if not 0.5 <= float(match[1]) <= 2:
            raise ValueError(f"utt2aug: '{word}' in '{text}': a speed must be between 0.5 and 2")
        return Speed(float(match[1]))
    if match := _REVERB.fullmatch(word):
        return Reverb(match[1])
    if word == "telephone":
        return Telephone()
    if match := _NOISE.fullmatch(word):
        start, end, at = (None if match[name] is None else float(match[name]) for name in ("start", "end", "at"))
        if end is not None and end <= (start or 0.0):
            raise ValueError(f"utt2aug: '{word}' in '{text}': the stretch ends before it starts")
        if abs(float(match["snr"])) > MOST_DB or max(start or 0.0, end or 0.0, at or 0.0) > MOST_SECONDS:
            raise ValueError(
                f"utt2aug: '{word}' in '{text}': an SNR lies between -{MOST_DB} and {MOST_DB} dB, a time is at most "
                f"{MOST_SECONDS} s"
            )
        return Noise(match["source"], float(match["snr"]), start or 0.0, end, at)
    raise ValueError(
        f"utt2aug: '{word}' in '{text}' is not one of: speed=0.9, reverb=SOURCE, telephone, noise=SOURCE@1.5-4:snr=10, "
        "noise=SOURCE@1.5-4:snr=10:at=2.5 (@1.5-4 may be left out, or the -4; the speed has at most two decimals)"
    )


class Augmenter:
    """augmenter(wave, text) -> the wave changed as the text says, (samples,) float32. The input does not change."""

    def __init__(self, sources: Mapping[str, str], rate: int, cache_bytes: int = 256 << 20) -> None:
        self._sources, self._rate = sources, rate
        self._cache = Cache(cache_bytes)  # for sounds that take longer than reading a file: pipes, resampled, generated

    def __call__(self, wave: np.ndarray, text: str) -> np.ndarray:
        speech_power: float | None = None  # power of the wave before the first of several noises
        for operation in parse(text):
            if isinstance(operation, Noise):
                if speech_power is None:
                    wave, speech_power = wave.copy(), power(wave)
                self._add(wave, operation, speech_power)
                continue
            speech_power = None
            if isinstance(operation, Speed):
                # The ratio is in hundredths, since 0.9 x 11025 Hz is not a whole number; 90 : 100 works for every rate.
                wave = resample(wave, round(operation.factor * 100), 100)
            elif isinstance(operation, Telephone):
                wave = telephone(wave, self._rate)
            else:
                wave = self._reverberate(wave, operation.source)
        return wave

    def _reverberate(self, wave: np.ndarray, source: str) -> np.ndarray:
        response = self._whole(source, rooms.response)
        if not response.any():
            raise AudioError(f"{source}: this room response is silence")
        return reverberate(wave, response)

    def _add(self, wave: np.ndarray, noise: Noise, speech_power: float) -> None:
        """Adds the noise in place."""
        background = noise.at is None
        first = 0 if noise.at is None else round(noise.at * self._rate)
        if first >= len(wave):
            return
        piece = self._stretch(noise, len(wave) if background else None)
        if background and len(piece) < len(wave):
            piece = np.resize(piece, len(wave))  # repeats it
        noise_power = power(piece)
        if not np.isfinite(noise_power):
            raise AudioError(f"{noise.source}: holds NaN or infinite samples")
        if speech_power == 0 or noise_power == 0:
            return
        heard = piece[: len(wave) - first]
        gain = (speech_power / noise_power * 10 ** (-noise.snr / 10)) ** 0.5
        wave[first : first + len(heard)] += np.float32(gain) * heard

    def _stretch(self, noise: Noise, needed: int | None) -> np.ndarray:
        """The samples of the source from start to end, but no more than are needed."""
        seconds = np.inf if noise.end is None else noise.end - noise.start
        if needed is not None:
            seconds = min(seconds, needed / self._rate)
        piece = self._part_of_file(noise, seconds)
        if piece is None:
            whole = self._whole(noise.source, rooms.noise)
            first = round(noise.start * self._rate)
            piece = whole[first:] if np.isinf(seconds) else whole[first : first + max(1, round(seconds * self._rate))]
        if len(piece) == 0:
            raise AudioError(f"{noise.source}: ends before {number(noise.start)} s, where the noise should start")
        return piece

    def _part_of_file(self, noise: Noise, seconds: float) -> np.ndarray | None:
        """Reads the samples from the file. None: it is not a file, or its rate is another one."""
        source = self._sources.get(noise.source, "")
        if noise.source in self._cache or not source or source.endswith("|") or not Path(source).is_file():
            return None
        try:
            with open(source, "rb") as raw:
                if check_length(raw, Path(source).stat().st_size):
                    return None
            with soundfile.SoundFile(source) as file:
                if file.samplerate != self._rate:
                    return None
                file.seek(min(round(noise.start * self._rate), file.frames))
                count = -1 if np.isinf(seconds) else max(1, round(seconds * self._rate))
                return mono(file.read(count, dtype="float32", always_2d=True))
        except (RuntimeError, OSError, MemoryError, AudioError) as error:
            raise AudioError(f"{noise.source} of aug.scp: can't be read ({error})") from error

    def _whole(self, source: str, generate: Callable[[str, int], np.ndarray | None]) -> np.ndarray:
        return self._cache(source, lambda: self._make(source, generate))

    def _make(self, source: str, generate: Callable[[str, int], np.ndarray | None]) -> np.ndarray:
        if source in self._sources:
            try:
                samples, rate = read_audio(self._sources[source])
            except AudioError as error:
                raise AudioError(f"{source} of aug.scp: {error}") from error
            return resample(mono(samples), rate, self._rate)
        made = generate(source, self._rate)
        if made is None:
            raise AudioError(f"'{source}' has no line in aug.scp and is not one of the generated: {rooms.GENERATED}")
        return made


class Cache:
    """The arrays that were used last, up to a number of bytes."""

    def __init__(self, num_bytes: int) -> None:
        self._left = num_bytes
        self._arrays: OrderedDict[str, np.ndarray] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __call__(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        if name in self._arrays:
            self._arrays.move_to_end(name)
            return self._arrays[name]
        array = self._arrays[name] = make()
        self._left -= array.nbytes
        while self._left < 0:
            self._left += self._arrays.popitem(last=False)[1].nbytes
        return array
