"""The vectors of an xvector.scp as one matrix, and their averages by model or speaker."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.conf import first_few
from speakerkd.files.kaldi import Scp

BLOCK = 8192  # vectors


@dataclass(frozen=True)
class Vectors:
    """Row i of the matrix belongs to ids[i]."""

    path: str
    ids: list[str]
    matrix: np.ndarray  # (N, D) float32

    @property
    def dim(self) -> int:
        return self.matrix.shape[1]

    def rows_of(self, names: Iterable[str]) -> np.ndarray:
        """The row of each name; -1: there is none."""
        row = {name: index for index, name in enumerate(self.ids)}
        return np.array([row.get(name, -1) for name in names], dtype=np.int64)


def read_vectors(path: str | Path, wanted: Collection[str] | None = None) -> Vectors:
    """All vectors of an scp, or the wanted ones that exist. Unequal lengths and NaN are errors."""
    scp = Scp(path)
    names = set(wanted) if wanted is not None else None
    chosen = np.array([index for index, key in enumerate(scp) if names is None or key in names], np.int64)
    if not len(chosen):
        raise none_of_them(scp, names or ())
    matrix = np.empty((0, 0), np.float32)
    for first, rows in vector_blocks(scp, chosen):
        if first == 0:
            matrix = np.empty((len(chosen), rows.shape[1]), np.float32)
        matrix[first : first + len(rows)] = rows
    return Vectors(str(path), [scp.key(index) for index in chosen.tolist()], matrix)


def none_of_them(scp: Scp, wanted: Collection[str]) -> ValueError:
    return ValueError(
        f"{scp.path}: none of the {len(wanted)} ids that are wanted ({first_few(sorted(wanted))}) is there; "
        f"the first id there is '{scp.key(0)}'"
    )


def vector_blocks(scp: Scp, chosen: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first, (n, D) float32) of these entries, some at a time; NaN is an error at the end."""
    dim = 0
    bad: list[int] = []
    for first in range(0, len(chosen), BLOCK):
        entries = chosen[first : first + BLOCK].tolist()
        rows = np.empty((len(entries), dim), np.float32)
        for row, index in enumerate(entries):
            vector = scp.read(index)
            if vector.ndim == 2 and len(vector) == 1:  # some toolkits write (1, D) matrices
                vector = vector[0]
            if vector.ndim != 1:
                raise ValueError(f"{scp.path}: '{scp.key(index)}' is a matrix of {len(vector)} rows, not a vector")
            if first == row == 0:
                dim = len(vector)
                rows = np.empty((len(entries), dim), np.float32)
            if len(vector) != dim:
                raise ValueError(
                    f"{scp.path}: '{scp.key(index)}' has {len(vector)} dimensions, '{scp.key(int(chosen[0]))}' has "
                    f"{dim}; are these vectors of one system?"
                )
            rows[row] = vector
        bad += [entries[row] for row in np.flatnonzero(~np.isfinite(rows).all(axis=1)).tolist()]
        yield first, rows
    if bad:
        raise ValueError(
            f"{scp.path}: {len(bad)} of {len(chosen)} vectors hold NaN or infinite values: "
            f"{first_few([scp.key(index) for index in bad])}; "
            "remedy: look at the training log of this system, then extract again"
        )


def average(vectors: Vectors, groups: Mapping[str, Sequence[str]]) -> tuple[Vectors, np.ndarray, int]:
    """The mean of each group's vectors, as ivector-mean computes it: from the raw vectors, as far as they exist.

    Returns the means, how many vectors are in each, and how many utterances have none. A group without any vector is
    left out.
    """
    rows = vectors.rows_of(utt for utts in groups.values() for utt in utts)
    owner = np.repeat(np.arange(len(groups)), [len(utts) for utts in groups.values()])
    absent = int((rows < 0).sum())
    owner, rows = owner[rows >= 0], rows[rows >= 0]
    if not len(rows):
        raise ValueError(f"{vectors.path}: none of the utterances of the groups is there")
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    counts = np.diff(starts, append=len(rows))
    means = np.empty((len(starts), vectors.dim), np.float32)
    for row, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
        means[row] = vectors.matrix[rows[start : start + count]].mean(axis=0, dtype=np.float64)
    names = list(groups)
    return Vectors(vectors.path, [names[index] for index in owner[starts]], means), counts, absent
