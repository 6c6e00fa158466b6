"""The utterances of a data directory in flat arrays, the vectors attached to them, and held-out speakers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from speakerkd.batches.attached import Attached, Originals, attach
from speakerkd.batches.crops import ArkCrops, Crops, NoCrops
from speakerkd.batches.places import CropVectors, crop_vectors, may_be_crops
from speakerkd.batches.wavecrops import WaveCrops
from speakerkd.conf import first_few
from speakerkd.files.columns import Column, read_column
from speakerkd.files.numbering import PART, places_of, taken
from speakerkd.files.stored import Sink, stored
from speakerkd.files.tables import without_speed

SOURCES: dict[str, Callable[[Path], Crops]] = {"feats": ArkCrops, "waves": WaveCrops}


class Utterances:
    """A data directory in flat arrays, in the order of the scp that its crops come from."""

    def __init__(self, folder: str | Path, labels: bool = True, audio: bool = True, source: str = "feats") -> None:
        folder = Path(folder)
        self.folder, self.audio = folder, audio
        self.crops: Crops = open_crops(folder, audio, source)
        self.scp, self.frames, self.dim = self.crops.scp, self.crops.frames, self.crops.dim
        self.speakers: tuple[str, ...] = ()
        self.labels: np.ndarray | None = None
        if labels:
            owners = read_column(folder / "utt2spk", self.scp)
            self.speakers, self.labels = tuple(owners.names), owners.number
        uniq = folder / "utt2uniq"
        self._originals = read_column(uniq, self.scp) if uniq.exists() else None
        if self._originals is None:
            self.original = np.ones(len(self), bool)
            self.group_of = np.arange(len(self), dtype=np.int32)
        else:
            self.original = self._originals.own
            self.group_of = self._groups(self._originals)
        self.vectors: dict[str, Attached] = {}
        self.crop_vectors: dict[str, CropVectors] = {}

    def __len__(self) -> int:
        return len(self.scp)

    def _groups(self, originals: Column) -> np.ndarray:
        """(entries,) int32: groups the copies of an original that have the same speaker.

        In Kaldi's utt2uniq, a copy at another speed belongs to the original. Here it is another speaker.
        """
        labels = self.labels
        if labels is None:
            return originals.number

        def make(sink: Sink) -> None:
            parts = [slice(first, first + PART) for first in range(0, len(labels), PART)]
            distinct = np.unique(np.concatenate([runs(part)[0] for part in parts]))
            for part in parts:
                pairs, run = runs(part)
                sink.add("group", np.searchsorted(distinct, pairs).astype(np.int32)[run])

        def runs(part: slice) -> tuple[np.ndarray, np.ndarray]:
            """(the pair of original and speaker of each run of equal ones, the run of each entry)."""
            pairs = originals.number[part].astype(np.int64) * len(self.speakers) + labels[part]
            begins = np.ones(len(pairs), bool)
            begins[1:] = pairs[1:] != pairs[:-1]
            return pairs[begins], np.cumsum(begins) - 1

        sources: list[str | Path] = [self.scp.path, self.folder / "utt2spk", self.folder / "utt2uniq"]
        return stored(self.folder, f"groups.of.{Path(self.scp.path).name}", sources, ("group",), make)["group"]

    def attach(self, name: str, path: str | Path, missing: str = "error") -> None:
        """Adds the vector of each utterance in this file to the batches, under this name.

        If an utterance has nothing but its vector, an augmented copy needs its own vector, not the original's.
        """
        keys, uniq = self.scp.names, self._originals if self.audio else None
        crops = None
        if self.audio and str(path).endswith(".scp") and may_be_crops(path, keys):
            crops = crop_vectors(name, path, list(keys), list(keys if uniq is None else uniq), missing)
        if crops is None:
            originals = Originals(uniq.names, uniq.number) if uniq else None
            tables: list[str | Path] = [self.scp.path, *([self.folder / "utt2uniq"] if uniq else [])]
            self.vectors[name] = attach(name, path, keys, originals, missing, self.folder, tables)
            return
        for other, each in self.crop_vectors.items():
            if not crops.same_places(each):
                raise ValueError(
                    f"{path}: the vectors of {name} and {other} are not of the same crops; make both with the same options"
                )
        self.crop_vectors[name] = crops

    def complete(self) -> np.ndarray:
        """(entries,) bool: does the entry have all attached vectors?"""
        vectors = [each.present for each in self.vectors.values()]
        crops = [each.present for each in self.crop_vectors.values()]
        return np.logical_and.reduce([np.ones(len(self), bool), *vectors, *crops])


def open_crops(folder: Path, audio: bool, source: str) -> Crops:
    """source: feats (the rows of feats.scp) or waves (features are computed from samples)."""
    if source not in SOURCES:
        raise ValueError(f"--source={source} is not one of: {' '.join(SOURCES)}")
    return SOURCES[source](folder) if audio else NoCrops(folder)


def hold_out(utterances: Utterances, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(entries to train on, originals of `count` other speakers, their speakers). The remaining classes are renumbered.

    Copies at other speeds are held out with their speaker, although they count as other speakers: sp0.9-anna is anna, and
    a model that knows one knows something about the other.
    """
    nothing = np.zeros(0, np.int64)
    if count and utterances.labels is None:
        raise ValueError(
            f"--valid-speakers={count}: this method is trained without labels, so no speakers can be held out; "
            "leave it out, and score a test set"
        )
    if utterances.labels is None or count == 0:
        return np.arange(len(utterances), dtype=np.int32), nothing, nothing
    names = np.array(utterances.speakers)
    people, person_of = np.unique([without_speed(name) for name in names], return_inverse=True)
    if not 2 <= count <= len(people) - 2:
        raise ValueError(
            f"--valid-speakers={count}: from 2 to {len(people) - 2} of {len(people)} speakers can be held out"
        )
    held = np.isin(person_of, np.random.default_rng(seed).permutation(len(people))[:count])
    away = taken(held, utterances.labels)
    valid = np.flatnonzero(away & utterances.original)
    if len(valid) == 0:
        raise ValueError(
            f"{utterances.folder}: the speakers held out have no original utterance: {first_few(names[held])}"
        )
    speakers = utterances.labels[valid]
    number = (np.cumsum(~held) - 1).astype(np.int32)
    utterances.labels = taken(number, utterances.labels)
    utterances.labels[away] = -1
    utterances.speakers = tuple(names[~held].tolist())
    return places_of(~away), valid, speakers
