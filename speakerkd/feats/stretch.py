"""The samples that belong to a stretch of frames: given these samples, a front end makes exactly these frames."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from speakerkd.feats.fbank import Fbank

Read = Callable[[int, int], np.ndarray]  # (first, last) -> these samples


@dataclass(frozen=True)
class FrameGrid:
    """Frames of `length` samples, one each `shift`. Without snip_edges the first ones reach over the start of the wave, and
    the last ones over its end: there the wave is reflected, as in Kaldi.
    """

    length: int
    shift: int
    snip_edges: bool

    @classmethod
    def of(cls, fbank: Fbank) -> "FrameGrid":
        return cls(fbank.length, fbank.shift, fbank.conf.snip_edges)

    def num_frames(self, num_samples: int) -> int:
        if not self.snip_edges:
            return (num_samples + self.shift // 2) // self.shift
        return 0 if num_samples < self.length else 1 + (num_samples - self.length) // self.shift

    def samples(self, frames: int) -> int:
        """The number of samples for a stretch of so many frames."""
        return (frames - 1) * self.shift + self.length

    def crop(self, read: Read, num_samples: int, start: int, frames: int) -> np.ndarray:
        """The samples of `frames` frames from frame `start` on. A wave that is too short is repeated, its frames times the
        shift being the period: all frames but those at the seams are then frames of the wave.
        """
        there = self.num_frames(num_samples)
        if there < frames:
            return np.resize(self._stretch(read, num_samples, 0, there)[: there * self.shift], self.samples(frames))
        return self._stretch(read, num_samples, start, frames)

    def _stretch(self, read: Read, num_samples: int, start: int, frames: int) -> np.ndarray:
        first = start * self.shift - (0 if self.snip_edges else self.length // 2 - self.shift // 2)
        last = first + self.samples(frames)
        if first >= 0 and last <= num_samples:
            return read(first, last)
        place = np.arange(first, last) % (2 * num_samples)
        place = np.minimum(place, 2 * num_samples - 1 - place)
        low, high = int(place.min()), int(place.max()) + 1
        return read(low, high)[place - low]


def even_starts(frames: int, length: int, count: int) -> list[int]:
    """First frames of at most `count` different crops of `length` frames, spread evenly over `frames`."""
    room = max(frames - length, 0)
    if count == 1:
        return [room // 2]
    return sorted({round(number * room / (count - 1)) for number in range(count)})
