"""Vectors that belong to the utterances of a data directory: a teacher's embeddings, faces, a quality figure."""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.files.kaldi import Scp
from speakerkd.files.names import Names, places
from speakerkd.files.stored import Sink, held, stored
from speakerkd.files.tables import read_table
from speakerkd.files.vectors import none_of_them, vector_blocks

MISSING = ("error", "zero", "skip")


@dataclass(frozen=True)
class Attached:
    """Entry i of the data directory has rows[row_of[i]]. The last row is for entries without one (zeros or nan)."""

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


@dataclass(frozen=True)
class Originals:
    """Entry i is a copy of names[number[i]]. The names are sorted."""

    names: Names
    number: np.ndarray  # (entries,) int32


def attach(
    name: str,
    path: str | Path,
    keys: Names,
    originals: Originals | None = None,
    missing: str = "error",
    folder: Path | None = None,
    tables: Sequence[str | Path] = (),
) -> Attached:
    """For each key, its vector in an scp or its figure in a text table; otherwise that of its original (utt2uniq).

    missing: what to do if there is neither: error, zero (a vector of zeros or a figure of nan, which methods leave
    out), or skip (the same, and training leaves the utterance out).
    folder: a large matrix is kept there and mapped; tables: the files that keys and originals come from.
    """
    if missing not in MISSING:
        raise ValueError(f"--missing={missing} is not one of: {' '.join(MISSING)}")
    if str(path).endswith(".scp"):
        attached = _vectors(Path(path), keys, originals, folder, tables)
    else:
        ids, matrix = _figures(Path(path))
        rows = np.concatenate([matrix, np.full((1, matrix.shape[1]), np.nan, np.float32)])
        attached = Attached(rows, _row_of(keys, originals, Names.of(ids)))
    absent = np.flatnonzero(attached.row_of < 0)
    if len(absent):
        examples = ", ".join(keys[index] for index in absent[:3].tolist())
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        text = f"{path}: {len(absent)} of {len(keys)} utterances have no {name}: {examples}{more}"
        if missing == "error" or len(absent) == len(keys):
            raise ValueError(
                f"{text}; make it for the same data directory that is trained on, or allow it: --missing zero or skip"
            )
        logging.warning("%s; %s", text, "they are left out" if missing == "skip" else "the method leaves them out")
    return attached


def _row_of(keys: Names, originals: Originals | None, there: Names) -> np.ndarray:
    """(entries,) int32: where each entry's own vector is, else its original's, else -1."""
    own = places(keys, there)
    if originals is None:
        return own
    return np.where(own >= 0, own, places(originals.names, there)[originals.number])


def _vectors(
    path: Path, keys: Names, originals: Originals | None, folder: Path | None, tables: Sequence[str | Path]
) -> Attached:
    scp = Scp(path, keep=True)

    def make(sink: Sink) -> None:
        line_of = _row_of(keys, originals, scp.names)
        chosen = np.unique(line_of[line_of >= 0])
        if not len(chosen):
            raise none_of_them(scp, keys)
        sink.add("row_of", np.where(line_of < 0, -1, np.searchsorted(chosen, line_of)).astype(np.int32))
        for _, rows in vector_blocks(scp, chosen):
            sink.add("rows", rows)
        sink.add("rows", np.zeros((1, rows.shape[1]), np.float32))

    if folder is None:
        arrays = held(make)
    else:
        archives = [source for source in scp.sources if Path(source).is_file()]
        place = hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:8]
        sources = [path, *archives, *tables]
        arrays = stored(folder, f"vectors.{place}", sources, ("rows", "row_of"), make)
    return Attached(arrays["rows"], arrays["row_of"])


def _figures(path: Path) -> tuple[list[str], np.ndarray]:
    """Reads a table with an id and one or more numbers per line."""
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
            raise ValueError(f"{path}: '{key} {' '.join(words)}': {width} number(s) must follow the id")
        matrix[index] = numbers
        if not np.isfinite(matrix[index]).all():
            raise ValueError(f"{path}: '{key} {' '.join(words)}': not a finite number")
    return list(table), matrix
