"""Vectors of fixed crops of the utterances. The student's crops are then drawn from the places that a teacher has heard.

They are named <utterance>-<first frame>-<frame after the last>, as local/extract_crop_xvectors.sh names them.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.conf import first_few
from speakerkd.files.kaldi import Scp
from speakerkd.files.names import Names
from speakerkd.files.tables import read_lines

NAME = re.compile(r"(.+)-(\d{8,})-(\d{8,})")


@dataclass(frozen=True)
class CropVectors:
    """The crops of entry e are first_of[e] to first_of[e] + count_of[e] of `starts`. Vectors are read when needed."""

    scp: Scp
    line: np.ndarray  # (crops,) int64, in the scp
    starts: np.ndarray  # (crops,) int32: first frames
    frames: int  # of each crop
    first_of: np.ndarray  # (entries,) int64
    count_of: np.ndarray  # (entries,) int64: 0 for entries without a crop
    dim: int

    @property
    def present(self) -> np.ndarray:
        """(entries,) bool."""
        return self.count_of > 0

    def choose(self, entries: np.ndarray, part: np.ndarray) -> np.ndarray:
        """(B,) numbers in [0, 1) -> a crop of each entry; -1: it has none."""
        return np.where(
            self.present[entries], self.first_of[entries] + (part * self.count_of[entries]).astype(np.int64), -1
        )

    def of(self, crops: np.ndarray) -> np.ndarray:
        """(B, D) float32; zeros for -1."""
        rows = np.zeros((len(crops), self.dim), np.float32)
        for row, crop in zip(rows, crops.tolist(), strict=True):
            if crop >= 0:
                row[:] = self.scp.read(int(self.line[crop]))
        return rows

    def same_places(self, other: "CropVectors") -> bool:
        return self.frames == other.frames and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in ("starts", "first_of", "count_of")
        )

    def means(self, entries: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
        """(classes, D): sums of the vectors of length 1 over the crops of these entries. Each crop counts once."""
        sums = np.zeros((classes, self.dim))
        owned = entries[self.present[entries]]
        _, once = np.unique(self.first_of[owned], return_index=True)  # copies may share their original's crops
        for entry in owned[once].tolist():
            first = int(self.first_of[entry])
            rows = self.of(np.arange(first, first + int(self.count_of[entry])))
            rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
            sums[labels[entry]] += rows.sum(0)
        return sums


def may_be_crops(path: str | Path, keys: Names) -> bool:
    """Only by the first name: whether it is worth while to look at all of them."""
    first = next((line.split(None, 1)[0] for _, line in read_lines(path)), "")
    return bool(NAME.fullmatch(first)) and keys.find(first) < 0


def crop_vectors(
    name: str, path: str | Path, keys: Sequence[str], originals: Sequence[str], missing: str
) -> CropVectors | None:
    """The vectors of the entries with these keys, or of their originals. None: the scp has vectors of whole utterances."""
    scp = Scp(path)
    known = set(keys) | set(originals)
    found: dict[str, list[tuple[int, int, int]]] = {}
    for line, key in enumerate(scp):
        parsed = NAME.fullmatch(key)
        if key in known or not parsed:
            return None
        if parsed[1] in known:
            found.setdefault(parsed[1], []).append((int(parsed[2]), int(parsed[3]), line))
    lengths = {end - start for each in found.values() for start, end, _ in each}
    if not found:
        raise ValueError(f"{path}: no crop belongs to a training utterance; the first crop is {scp.key(0)}")
    if len(lengths) > 1 or min(lengths) < 1:
        raise ValueError(
            f"{path}: crops of {first_few(map(str, sorted(lengths)))} frames; all must have one length: make them with "
            "local/extract_crop_xvectors.sh"
        )
    crops = [(utterance, start, line) for utterance, each in found.items() for start, _, line in sorted(each)]
    place: dict[str, tuple[int, int]] = {}
    for number, (utterance, _, _) in enumerate(crops):
        first, count = place.get(utterance, (number, 0))
        place[utterance] = (first, count + 1)
    of_entry = [place.get(key) or place.get(original) or (0, 0) for key, original in zip(keys, originals, strict=True)]
    absent = [key for key, (_, count) in zip(keys, of_entry, strict=True) if count == 0]
    if absent:
        text = f"{path}: {len(absent)} of {len(keys)} utterances have no {name}: {first_few(absent)}"
        if missing == "error":
            raise ValueError(
                f"{text}; make it for the same data directory that is trained on, or allow it: --missing zero or skip"
            )
        logging.warning("%s; %s", text, "they are left out" if missing == "skip" else "the method leaves them out")
    first_of, count_of = np.array(of_entry, np.int64).T
    line_of = np.array([line for _, _, line in crops], np.int64)
    starts = np.array([start for _, start, _ in crops], np.int32)
    return CropVectors(scp, line_of, starts, lengths.pop(), first_of, count_of, len(scp.read(0)))
