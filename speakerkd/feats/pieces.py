"""Fixed crops of the utterances of a data directory. A model's own front end makes them from exactly the crops' samples."""

import zlib
from pathlib import Path

import numpy as np

from speakerkd.audio.recordings import AudioError
from speakerkd.conf import build, read_conf
from speakerkd.feats.fbank import Fbank, FbankConf
from speakerkd.feats.source import ComputedFeatures, FeatureSource, feature_conf
from speakerkd.feats.stretch import FrameGrid, even_starts

Piece = tuple[str, np.ndarray]  # (name, (T, F) raw features)


def piece_name(utterance: str, start: int, frames: int) -> str:
    """Named as Kaldi names uniform subsegments: with the first frame, and the frame after the last one."""
    return f"{utterance}-{start:08d}-{start + frames:08d}"


class Pieces:
    """pieces(utterance): at most `count` crops of `frames` frames, spread evenly. Frames are those of the data directory's
    features. An utterance that is shorter than a crop is repeated until it fills one.
    """

    def __init__(self, source: FeatureSource, folder: str | Path, frames: int, count: int) -> None:
        self._source, self._frames, self._count = source, frames, count
        conf = feature_conf(folder)
        known = build(FbankConf, read_conf(conf), str(conf)) if conf else FbankConf()
        self._fbank = Fbank(known)
        self._grid = FrameGrid.of(self._fbank)

    def __call__(self, utterance: str) -> list[Piece]:
        if isinstance(self._source, ComputedFeatures):
            return self._of_wave(self._source, utterance)
        rows = self._source(utterance)
        if len(rows) < self._frames:
            repeated = np.tile(rows, (-(-self._frames // len(rows)), 1))[: self._frames]
            return [(piece_name(utterance, 0, self._frames), repeated)]
        return [
            (piece_name(utterance, start, self._frames), rows[start : start + self._frames])
            for start in even_starts(len(rows), self._frames, self._count)
        ]

    def _of_wave(self, source: ComputedFeatures, utterance: str) -> list[Piece]:
        front_end, wave = source.front_end, source.wave(utterance)
        if front_end.rate != self._fbank.rate:
            raise ValueError(
                f"the model hears {front_end.rate} Hz, the features of the data have {self._fbank.rate} Hz: places are "
                "counted in their frames, so the two rates must be one"
            )
        there = self._grid.num_frames(len(wave))
        if there < 1:
            raise AudioError(f"is shorter than a frame ({len(wave)} samples)")
        made = []
        for start in even_starts(there, self._frames, self._count):
            crop = self._grid.crop(lambda first, last: wave[first:last], len(wave), start, self._frames)
            name = piece_name(utterance, start, self._frames)
            made.append((name, front_end(crop, zlib.crc32(name.encode()))))
        return made
