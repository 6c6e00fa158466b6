"""Augmentation as text: utt2aug says, for each copy of an utterance, what is done to its wave.

A line is `<utterance> <operation> <operation> ...`; the operations are applied from left to right:

  speed=F                                  F times as fast, in tempo and pitch; two decimals at most: speed=0.9
  reverb=SOURCE                            in a room, by its impulse response
  noise=SOURCE[@START[-END]]:snr=DB        noise behind the whole utterance: SOURCE from START to END seconds (without
                                           them from 0, to its end), repeated where that is shorter than the utterance
  noise=SOURCE[@START[-END]]:snr=DB:at=T   noise in the foreground: that stretch once, from T seconds on
  telephone                                over a land line: 300 to 3,400 Hz, 8 kHz, mu-law (telephone.py)

SOURCE is an id of aug.scp, whose lines are those of wav.scp (a file or a pipe), or it is generated: `pink#17` (white,
pink, brown, band, hum, clicks, surge, music; the number is the seed) for noise, `room#17:rt60=0.45` for reverb. A line:

  id1-a-reverb+noise reverb=rirs-smallroom-Room001-00032 noise=musan-noise-free-sound-0042@1.25:snr=10:at=0

All that is random was drawn when the line was written, so the same line gives the same wave.

As in Kaldi's wav-reverberate: a room leaves the speech in its place (--shift-output=true; the strongest tap of the
response is the direct path), as long and as loud as it was; a noise in the foreground is scaled by its own power, one
in the background by its power over the utterance; each of several noises in a row has its SNR against the wave before
the first of them. Unlike there, the sum is not scaled back to the power of the speech. Silence as speech or as noise
has no SNR: nothing is added.
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
    """At most three decimals, without trailing zeros."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


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
    at: float | None = None  # None: behind the whole utterance

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
        raise ValueError("utt2aug: no operation stands after an utterance; leave the line out for an unchanged one")
    return operations


def _operation(word: str, text: str) -> Operation:
    if match := _SPEED.fullmatch(word):
        if not 0.5 <= float(match[1]) <= 2:
            raise ValueError(f"utt2aug: '{word}' in '{text}': a speed lies between 0.5 and 2")
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
    """augmenter(wave, text) -> what the text makes of the wave, (samples,) float32 at rate, which is left as it is."""

    def __init__(self, sources: Mapping[str, str], rate: int, cache_bytes: int = 256 << 20) -> None:
        self._sources, self._rate = sources, rate
        self._cache = Cache(
            cache_bytes
        )  # of what takes longer than reading a file: pipes, resampling, what is generated

    def __call__(self, wave: np.ndarray, text: str) -> np.ndarray:
        speech_power: float | None = None  # of the wave before the first of several noises in a row
        for operation in parse(text):
            if isinstance(operation, Noise):
                if speech_power is None:
                    wave, speech_power = wave.copy(), power(wave)
                self._add(wave, operation, speech_power)
                continue
            speech_power = None
            if isinstance(operation, Speed):
                # Hundredths instead of rates: 0.9 x 11025 Hz is not a whole number, 90 : 100 is, whatever the rate.
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
        """In place."""
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
        """The source from start to end, or as many of these samples as are needed."""
        seconds = np.inf if noise.end is None else noise.end - noise.start
        if needed is not None:
            seconds = min(seconds, needed / self._rate)
        piece = self._part_of_file(noise, seconds)
        if piece is None:
            whole = self._whole(noise.source, rooms.noise)
            first = round(noise.start * self._rate)
            piece = whole[first:] if np.isinf(seconds) else whole[first : first + max(1, round(seconds * self._rate))]
        if len(piece) == 0:
            raise AudioError(f"{noise.source}: ends before {number(noise.start)} s, from where on it is to be added")
        return piece

    def _part_of_file(self, noise: Noise, seconds: float) -> np.ndarray | None:
        """None: it is not a file of the rate that is needed."""
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
    """The arrays used last, up to a number of bytes."""

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
