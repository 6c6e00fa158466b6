"""Vectors that belong to the utterances of a data directory: a teacher's embeddings, faces, a quality figure."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.conf import first_few
from speakerkd.files.tables import read_table
from speakerkd.files.vectors import read_vectors

MISSING = ("error", "zero", "skip")


@dataclass(frozen=True)
class Attached:
    """Entry i of the data directory has rows[row_of[i]]; the last row is for entries that have none: zeros, figures nan."""

    rows: np.ndarray  # (N + 1, D) float32
    row_of: np.ndarray  # (entries,) int32

    @property
    def dim(self) -> int:
        return self.rows.shape[1]

    @property
    def present(self) -> np.ndarray:
        """(entries,) bool."""
        return self.row_of >= 0

    def of(self, entries: np.ndarray) -> np.ndarray:
        return self.rows[self.row_of[entries]]


def attach(name: str, path: str | Path, keys: list[str], uniq: list[str], missing: str = "error") -> Attached:
    """Vectors of an scp, or figures of a text table, for each key; else those of its original, by utt2uniq.

    missing: what happens where neither is there: error, zero (a vector of zeros or a figure of nan, which methods leave
    out), or skip (the same, and training leaves the utterance out).
    """
    if missing not in MISSING:
        raise ValueError(f"--missing={missing} is not one of: {' '.join(MISSING)}")
    if str(path).endswith(".scp"):
        vectors = read_vectors(path, set(keys) | set(uniq))
        ids, matrix, nothing = vectors.ids, vectors.matrix, 0.0
    else:
        ids, matrix = _figures(Path(path))
        nothing = np.nan
    row = {key: index for index, key in enumerate(ids)}
    row_of = np.fromiter(
        (row.get(key, row.get(original, -1)) for key, original in zip(keys, uniq, strict=True)), np.int32, len(keys)
    )
    absent = np.flatnonzero(row_of < 0)
    if len(absent):
        text = f"{path}: {len(absent)} of {len(keys)} utterances have no {name}: {first_few([keys[i] for i in absent])}"
        if missing == "error" or len(absent) == len(keys):
            raise ValueError(
                f"{text}; make it for the same data directory that is trained on, or allow it: --missing zero or skip"
            )
        logging.warning("%s; %s", text, "they are left out" if missing == "skip" else "the method leaves them out")
    return Attached(np.concatenate([matrix, np.full((1, matrix.shape[1]), nothing, np.float32)]), row_of)


def _figures(path: Path) -> tuple[list[str], np.ndarray]:
    """A table of an id and one or more numbers."""
    table = {key: text.split() for key, text in read_table(path).items()}
    if not table:
        raise ValueError(f"{path}: is empty")
    width = len(next(iter(table.values())))
    matrix = np.empty((len(table), width), np.float32)
    for index, (key, words) in enumerate(table.items()):
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            numbers = []
        if len(numbers) != width:
            raise ValueError(f"{path}: '{key} {' '.join(words)}': {width} number(s) must stand after the id")
        matrix[index] = numbers
        if not np.isfinite(matrix[index]).all():
            raise ValueError(f"{path}: '{key} {' '.join(words)}': not a finite number")
    return list(table), matrix
