"""The utterances of a data directory in flat arrays, what is attached to them, and speakers held out of them."""

from pathlib import Path

import numpy as np

from speakerkd.batches.attached import Attached, attach
from speakerkd.conf import first_few
from speakerkd.files.kaldi import Scp
from speakerkd.files.tables import FIX, read_lines, without_speed


class Utterances:
    """A data directory in flat arrays, in the order of its feats.scp; without audio in that of utt2spk, names alone."""

    def __init__(self, folder: str | Path, labels: bool = True, audio: bool = True) -> None:
        folder = Path(folder)
        self.folder, self.audio = folder, audio
        self.scp = Scp(folder / ("feats.scp" if audio else "utt2spk"))
        lengths = _column(folder / "utt2num_frames", self.scp) if audio else ["0"] * len(self.scp)
        self.frames = np.fromiter(lengths, np.int32, len(self.scp))
        self.speakers: tuple[str, ...] = ()
        self.labels: np.ndarray | None = None
        if labels:
            names = list(_column(folder / "utt2spk", self.scp))
            self.speakers = tuple(sorted(set(names)))
            number = {name: index for index, name in enumerate(self.speakers)}
            self.labels = np.fromiter((number[name] for name in names), np.int32, len(names))
        uniq = folder / "utt2uniq"
        names = list(_column(uniq, self.scp)) if uniq.exists() else list(self.scp)
        self.original = np.fromiter((name == key for name, key in zip(names, self.scp, strict=True)), bool, len(names))
        groups = {name: index for index, name in enumerate(sorted(set(names)))}
        self.group_of = np.fromiter((groups[name] for name in names), np.int32, len(names))
        self.vectors: dict[str, Attached] = {}
        self.dim = int(self.scp.read(0, 0, 1).shape[1]) if audio else 0

    def __len__(self) -> int:
        return len(self.scp)

    def attach(self, name: str, path: str | Path, missing: str = "error") -> None:
        """Batches will hold each utterance's vector of this file, under this name.

        Where it is all that there is of an utterance, an augmented copy must have its own: the original's won't do.
        """
        keys, uniq = list(self.scp), self.folder / "utt2uniq"
        originals = list(_column(uniq, self.scp)) if self.audio and uniq.exists() else keys
        self.vectors[name] = attach(name, path, keys, originals, missing)

    def complete(self) -> np.ndarray:
        """(entries,) bool: has it all the vectors that were attached?"""
        return np.logical_and.reduce([np.ones(len(self), bool), *(each.present for each in self.vectors.values())])


def _column(path: Path, scp: Scp) -> "list[str]":
    """The second column of a table that must have the utterances of the scp, in its order."""
    values = []
    for index, (number, line) in enumerate(read_lines(path)):
        key, _, value = line.partition(" ")
        if index >= len(scp) or key != scp.key(index):
            expected = scp.key(index) if index < len(scp) else "the end"
            raise ValueError(f"{path}:{number}: '{key}' where {Path(scp.path).name} has '{expected}'; {FIX}")
        values.append(value.strip())
    if len(values) != len(scp):
        raise ValueError(f"{path}: {len(values)} lines, {Path(scp.path).name} has {len(scp)}; {FIX}")
    return values


def hold_out(utterances: Utterances, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(entries to train on, originals of `count` other speakers, their speakers); the classes left are numbered anew.

    Copies at other speeds, which are speakers of their own, go with their speaker: sp0.9-anna and anna are one person, and
    whoever knows the one knows something of the other.
    """
    nothing = np.zeros(0, np.int64)
    if count and utterances.labels is None:
        raise ValueError(
            f"--valid-speakers={count}: this method is trained without labels, so no speakers can be held out; "
            "leave it out, and score a test set"
        )
    if utterances.labels is None or count == 0:
        return np.arange(len(utterances)), nothing, nothing
    names = np.array(utterances.speakers)
    people, person_of = np.unique([without_speed(name) for name in names], return_inverse=True)
    if not 2 <= count <= len(people) - 2:
        raise ValueError(
            f"--valid-speakers={count}: from 2 to {len(people) - 2} of {len(people)} speakers can be held out"
        )
    held = np.isin(person_of, np.random.default_rng(seed).permutation(len(people))[:count])
    away = held[utterances.labels]
    valid = np.flatnonzero(away & utterances.original)
    if len(valid) == 0:
        raise ValueError(
            f"{utterances.folder}: the speakers held out have no original utterance: {first_few(names[held])}"
        )
    speakers = utterances.labels[valid]
    number = np.cumsum(~held) - 1
    utterances.labels = np.where(away, -1, number[utterances.labels]).astype(np.int32)
    utterances.speakers = tuple(names[~held].tolist())
    return np.flatnonzero(~away), valid, speakers
