"""LDA and PLDA as Kaldi has them: ivector-compute-lda, ivector-compute-plda, ivector-plda-scoring and their files.

The model has two covariances: a speaker's mean is N(mean, between), an utterance is N(the speaker's mean, within). It is
stored as the transform that makes within = 1 and between = diag(psi). Everything here is computed in float64. Kaldi
rounds to float32 between its programs, so scores agree within about 1e-5 of their size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.files.backend import binary_array, read_arrays
from speakerkd.files.tables import replacing
from speakerkd.score.cosine import length_normalise, score_trials

MAX_LDA_DIM = 150


def _descending_eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(matrix)
    return values[::-1], vectors[:, ::-1]


def _class_means(matrix: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means (C, D) and sizes (C,) of the classes 0 to C - 1."""
    sizes = np.bincount(labels)
    ordered = matrix[np.argsort(labels, kind="stable")]
    sums = np.add.reduceat(ordered, np.concatenate([[0], np.cumsum(sizes)[:-1]]), axis=0)
    return sums / sizes[:, None], sizes


def check_lda_dim(dim: int, full: int, num_speakers: int) -> None:
    """LDA has at most speakers - 1 useful directions. Further ones are arbitrary, and differ from Kaldi's."""
    if num_speakers < 2:
        raise ValueError(f"LDA and PLDA tell speakers apart, but the training vectors are of {num_speakers} speaker")
    most = min(full, num_speakers - 1)
    if not 0 < dim <= most:
        raise ValueError(
            f"--lda-dim {dim}: vectors of {full} dimensions and {num_speakers} training speakers allow 1 to {most}"
        )


def default_lda_dim(full: int, num_speakers: int) -> int:
    return max(1, min(MAX_LDA_DIM, full - 1, num_speakers - 1))


def train_lda(
    matrix: np.ndarray,
    labels: np.ndarray,
    dim: int,
    total_covariance_factor: float = 0.0,
    covariance_floor: float = 1e-6,
) -> np.ndarray:
    """transform.mat: (dim, D + 1), the last column the offset that takes the mean to zero. labels are 0 to C - 1."""
    count, full = matrix.shape
    check_lda_dim(dim, full, int(labels.max()) + 1)
    if count < full:
        raise ValueError(f"LDA of {full} dimensions needs at least as many training vectors; there are {count}")
    if count == labels.max() + 1:
        raise ValueError("each training speaker has only one vector: LDA can't tell the spread within a speaker")
    mean = matrix.mean(axis=0, dtype=np.float64)
    centred = matrix.astype(np.float64) - mean
    means, sizes = _class_means(centred, labels)
    total = centred.T @ centred / count
    between = (means * sizes[:, None]).T @ means / count
    within = total - between
    values, vectors = _descending_eigh(total_covariance_factor * total + (1 - total_covariance_factor) * within)
    whiten = vectors.T / np.sqrt(np.maximum(values, covariance_floor * values[0]))[:, None]
    _, directions = _descending_eigh(whiten @ between @ whiten.T)
    linear = directions[:, :dim].T @ whiten
    return np.hstack([linear, -(linear @ mean)[:, None]])


def apply_transform(transform: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """As transform-vec does: if the matrix has one column more than the vectors have dimensions, it is the offset."""
    rows, columns = transform.shape
    dim = matrix.shape[1]
    if columns not in (dim, dim + 1):
        raise ValueError(f"a transform of {rows} x {columns} does not fit vectors of {dim} dimensions")
    offset = transform[:, dim] if columns == dim + 1 else 0
    return matrix @ transform[:, :dim].T + offset


def prepare(matrix: np.ndarray, mean: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Raw vectors made ready for the PLDA: mean subtracted, transformed, length sqrt(dimension)."""
    if len(mean) != matrix.shape[1]:
        raise ValueError(f"the mean has {len(mean)} dimensions, the vectors have {matrix.shape[1]}")
    return length_normalise(apply_transform(transform, matrix.astype(np.float64) - mean), scale_up=True)


@dataclass(frozen=True)
class Plda:
    mean: np.ndarray  # (D,)
    transform: np.ndarray  # (D, D)
    psi: np.ndarray  # (D,) between-speaker variances, largest first

    def smoothed(self, factor: float) -> "Plda":
        """The within-speaker covariance plus factor times the between-speaker one: ivector-copy-plda --smoothing."""
        within = 1 + factor * self.psi
        return Plda(self.mean, self.transform / np.sqrt(within)[:, None], self.psi / within)

    def project(self, matrix: np.ndarray, num_utts: np.ndarray) -> np.ndarray:
        """Means of num_utts utterances each, in the space where within is 1, scaled to the expected length."""
        if matrix.shape[1] != len(self.mean):
            raise ValueError(f"the PLDA has {len(self.mean)} dimensions, the vectors have {matrix.shape[1]}")
        projected = (matrix - self.mean) @ self.transform.T
        expected = self.psi + 1 / np.asarray(num_utts, np.float64)[:, None]
        squared = (projected**2 / expected).sum(axis=1)
        return projected * np.sqrt(len(self.mean) / np.where(squared > 0, squared, 1))[:, None]

    def score(
        self,
        enroll: np.ndarray,
        num_utts: np.ndarray,
        test: np.ndarray,
        enroll_index: np.ndarray,
        test_index: np.ndarray,
    ) -> np.ndarray:
        """Log likelihood ratios of trials between projected vectors.

        log N(test; c enroll, v) - log N(test; 0, 1 + psi), c = n psi / (n psi + 1), v = 1 + psi / (n psi + 1), which
        splits into a term of the enrolment, one of the test and of n, and an inner product.
        """
        scores = np.empty(len(enroll_index), np.float64)
        counts = num_utts[enroll_index]
        alone = 1 + self.psi
        for count in np.unique(counts):
            chosen = np.flatnonzero(counts == count)
            shrink = count * self.psi / (count * self.psi + 1)
            spread = 1 + self.psi / (count * self.psi + 1)
            constant = 0.5 * (np.log(alone).sum() - np.log(spread).sum())
            of_enroll = -0.5 * (enroll**2 @ (shrink**2 / spread))
            of_test = -0.5 * (test**2 @ (1 / spread - 1 / alone))
            rows, columns = enroll_index[chosen], test_index[chosen]
            inner = score_trials(enroll * (shrink / spread), test, rows, columns)
            scores[chosen] = constant + of_enroll[rows] + of_test[columns] + inner
        return scores

    def write(self, path: str | Path) -> None:
        parts = (binary_array(np.asarray(part, np.float64)) for part in (self.mean, self.transform, self.psi))
        with replacing(path, "wb") as file:
            file.write(b"\0B<Plda> " + b"".join(parts) + b"</Plda> ")


def read_plda(path: str | Path) -> Plda:
    arrays = read_arrays(path)
    if [array.ndim for array in arrays] != [1, 2, 1]:
        raise ValueError(f"{path}: not a Kaldi PLDA, which holds a vector, a matrix and a vector")
    mean, transform, psi = arrays
    if transform.shape != (len(mean), len(mean)) or len(psi) != len(mean):
        raise ValueError(f"{path}: the sizes of mean, transform and psi do not match; the file may be truncated")
    return Plda(mean, transform, psi)


def train_plda(matrix: np.ndarray, labels: np.ndarray, num_em_iters: int = 10) -> Plda:
    """Kaldi's expectation maximisation over the speakers' means, from unit covariances. labels are 0 to C - 1."""
    matrix = matrix.astype(np.float64)
    means, sizes = _class_means(matrix, labels)
    if len(matrix) == len(means):
        raise ValueError("each training speaker has only one vector: PLDA can't tell the spread within a speaker")
    mean = means.mean(axis=0)  # each speaker counts once, however many vectors it has
    scatter = matrix.T @ matrix - (means * sizes[:, None]).T @ means
    by_size = [(int(size), means[sizes == size] - mean) for size in np.unique(sizes)]
    within = between = np.eye(matrix.shape[1])
    for _ in range(num_em_iters):
        within, between = _em_step(within, between, scatter, by_size, len(matrix))
    whiten = np.linalg.inv(np.linalg.cholesky(within))
    psi, directions = _descending_eigh(whiten @ between @ whiten.T)
    return Plda(mean, directions.T @ whiten, np.maximum(psi, 0))


def _em_step(
    within: np.ndarray,
    between: np.ndarray,
    scatter: np.ndarray,
    by_size: Sequence[tuple[int, np.ndarray]],
    num_vectors: int,
) -> tuple[np.ndarray, np.ndarray]:
    """A mean of n vectors is x + y, x ~ N(0, between), y ~ N(0, within / n). The posterior of x gives both."""
    within_inverse, between_inverse = np.linalg.inv(within), np.linalg.inv(between)
    within_sum, between_sum, num_speakers = scatter.copy(), np.zeros_like(scatter), 0
    for size, means in by_size:
        posterior = np.linalg.inv(between_inverse + size * within_inverse)
        x = means @ (size * within_inverse) @ posterior
        between_sum += len(means) * posterior + x.T @ x
        within_sum += size * (len(means) * posterior + (means - x).T @ (means - x))
        num_speakers += len(means)
    # The scatter within speakers has num_vectors - num_speakers degrees of freedom, each mean adds one.
    return within_sum / num_vectors, between_sum / num_speakers
