"""Crops of utterances: rows of feats.scp (ArkCrops), or features computed from samples (WaveCrops in wavecrops.py)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from speakerkd.batches.batch import Batch
from speakerkd.feats.frontend import FrontEnd
from speakerkd.files.columns import read_counts
from speakerkd.files.kaldi import Scp


@dataclass(frozen=True)
class Places:
    """Crops of one view of a batch: crop i is `length` frames of entry entries[i], from frame starts[i] on."""

    entries: np.ndarray  # (B,)
    starts: np.ndarray  # (B,)
    length: int
    seeds: np.ndarray  # (B,) uint64: random choices for a crop, such as noise, depend only on this
    clean: bool = False  # true: nothing is added to the waves
    heard: bool = False  # true: teachers hear this view


class CropFeatures(NamedTuple):
    feats: np.ndarray  # (B, T, F) float32, minus the mean of each crop; or samples (B, n), if features are made later
    heard: Mapping[str, np.ndarray]  # teacher's name -> (B, ...): features of the crops by its own front end


class Crops(Protocol):
    """Where crops come from. The entries are those of `scp`, in its order."""

    folder: Path
    scp: Scp
    frames: np.ndarray  # (entries,) int32
    dim: int  # of a frame
    hear_clean: bool  # true: teachers hear crops without augmentation on the fly
    hear_frames: int  # >0: teachers hear longer crops of this many frames, around the student's; 0: the student's

    @property
    def later(self) -> Callable[[Batch], Batch] | None:
        """Makes features of waves on the device that trains; None: cut() makes them."""
        ...

    def cut(self, places: Places) -> CropFeatures: ...

    def rows(self, entry: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(T, F) float32: raw features, without any change to the recording."""
        ...

    def listen(self, name: str, front_end: FrontEnd) -> None:
        """Makes cut() also return the features that this front end makes of the crops that teachers hear."""
        ...


class ArkCrops:
    """Crops from feats.scp, whose features are stored without normalisation."""

    hear_clean, hear_frames = False, 0
    later = None

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.scp = Scp(self.folder / "feats.scp", pipes=True, keep=True)
        if not (self.folder / "utt2num_frames").exists():  # features from elsewhere, not from local/make_fbank.sh
            raise ValueError(
                f"{self.folder}/utt2num_frames is missing; local/make_num_frames.py {self.folder} makes it"
            )
        self.frames = read_counts(self.folder / "utt2num_frames", self.scp, np.int32)
        first = self.scp.read(0, 0, 1)
        if first.ndim != 2:
            raise ValueError(f"{self.folder}/feats.scp: lists vectors, not features of frames")
        self.dim = int(first.shape[1])

    def cut(self, places: Places) -> CropFeatures:
        length = places.length
        crops = np.empty((len(places.entries), length, self.dim), np.float32)
        for crop, entry, start in zip(crops, places.entries.tolist(), places.starts.tolist(), strict=True):
            rows = self.rows(entry, start, start + length)
            if rows.shape != crop.shape:
                rows = self._repeated(rows, entry, length)
            np.subtract(rows, rows.mean(0), out=crop)
        return CropFeatures(crops, {})

    def rows(self, entry: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self.scp.read(entry, start, stop, self.frames.item(entry))

    def listen(self, name: str, front_end: FrontEnd) -> None:
        raise ValueError(
            f"{name} must hear the recording, but --source=feats has only features. Train with --source waves "
            f"(local/make_wave_ark.sh {self.folder}), or make vectors with it (local/extract_xvectors.sh) and give their "
            "xvector.scp as --teacher"
        )

    def _repeated(self, rows: np.ndarray, entry: int, length: int) -> np.ndarray:
        """A short utterance is repeated until it fills the crop."""
        if rows.ndim != 2 or rows.shape[1] != self.dim or len(rows) == 0 or len(rows) < min(self.frames[entry], length):
            raise ValueError(
                f"{self.folder}/feats.scp: '{self.scp.key(entry)}' gives rows of shape {rows.shape} for a crop of "
                f"{length}; it should have {self.frames[entry]} frames of {self.dim}: make the features again"
            )
        return np.tile(rows, (-(-length // len(rows)), 1))[:length]


@dataclass
class NoCrops:
    """No audio: the utterances of utt2spk, which have only vectors."""

    folder: Path
    dim: int = 0
    hear_clean: bool = False
    hear_frames: int = 0
    later: None = None
    scp: Scp = field(init=False)
    frames: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.scp = Scp(self.folder / "utt2spk", keep=True)
        self.frames = np.zeros(len(self.scp), np.int32)

    def cut(self, places: Places) -> CropFeatures:
        raise AssertionError("a method without views asks for no crops")

    def rows(self, entry: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        raise AssertionError("there is no audio")

    def listen(self, name: str, front_end: FrontEnd) -> None:
        raise ValueError(f"{name}: the method takes no audio, so this teacher can't hear anything")
