"""The vectors of an xvector.scp as one matrix, and their averages by model or speaker."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.conf import first_few
from speakerkd.files.kaldi import Scp


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
        """The row of each name, -1 where there is none."""
        row = {name: index for index, name in enumerate(self.ids)}
        return np.array([row.get(name, -1) for name in names], dtype=np.int64)


def read_vectors(path: str | Path, wanted: Collection[str] | None = None) -> Vectors:
    """All vectors of an scp, or those that are wanted and there. Unequal lengths and NaN are errors."""
    scp = Scp(path)
    names = set(wanted) if wanted is not None else None
    chosen = [(index, key) for index, key in enumerate(scp) if names is None or key in names]
    if not chosen:
        raise ValueError(
            f"{path}: none of the {len(names or ())} ids that are wanted ({first_few(sorted(names or ()))}) is there; "
            f"the first id there is '{scp.key(0)}'"
        )
    matrix = np.empty((0, 0), np.float32)
    for row, (index, key) in enumerate(chosen):
        vector = scp.read(index)
        if vector.ndim == 2 and len(vector) == 1:  # a toolkit that writes (1, D) matrices
            vector = vector[0]
        if vector.ndim != 1:
            raise ValueError(f"{path}: '{key}' is a matrix of {len(vector)} rows, not a vector")
        if row == 0:
            matrix = np.empty((len(chosen), len(vector)), np.float32)
        if len(vector) != matrix.shape[1]:
            raise ValueError(
                f"{path}: '{key}' has {len(vector)} dimensions, '{chosen[0][1]}' has {matrix.shape[1]}; "
                "are these vectors of one system?"
            )
        matrix[row] = vector
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(bad):
        examples = first_few([chosen[row][1] for row in bad])
        raise ValueError(
            f"{path}: {len(bad)} of {len(chosen)} vectors hold NaN or infinite values: {examples}; "
            "remedy: look at the training log of this system, then extract again"
        )
    return Vectors(str(path), [key for _, key in chosen], matrix)


def average(vectors: Vectors, groups: Mapping[str, Sequence[str]]) -> tuple[Vectors, np.ndarray, int]:
    """The mean of each group's vectors, as ivector-mean makes it: of the raw vectors, of those that are there.

    Returns the means, how many vectors are in each, and how many utterances were not there. A group without any vector
    is left out.
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
