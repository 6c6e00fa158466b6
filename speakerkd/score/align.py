"""Closed-form maps between two systems' vectors of the same utterances: the baselines of a trained map. NumPy only.

All maps take vectors of length 1. They are matrices without offset: A e, which the caller length-normalises again.
    ridge        maps the test's vectors to the enrolment's: least squares with a penalty on A (0: plain least squares)
    procrustes   does the same by a rotation. If the dimensions differ, A has orthonormal rows or columns
    cca          maps both to the directions in which they agree: the canonical correlations
    logits       maps both to the space of the training speakers: each coordinate is the cosine with one speaker
"""

import numpy as np

from speakerkd.score.cosine import length_normalise


def ridge(test: np.ndarray, enroll: np.ndarray, penalty: float) -> np.ndarray:
    """(N, dy), (N, dx) -> (dx, dy); the penalty is relative to the mean variance of the test's dimensions."""
    test, enroll = test.astype(np.float64), enroll.astype(np.float64)
    gram = test.T @ test
    if penalty == 0:
        return np.linalg.lstsq(test, enroll, rcond=None)[0].T
    return np.linalg.solve(gram + penalty * np.trace(gram) / len(gram) * np.eye(len(gram)), test.T @ enroll).T


def procrustes(test: np.ndarray, enroll: np.ndarray) -> np.ndarray:
    """(N, dy), (N, dx) -> (dx, dy): the best map with orthonormal rows or columns (Schönemann 1966)."""
    left, _, right = np.linalg.svd(enroll.T.astype(np.float64) @ test.astype(np.float64), full_matrices=False)
    return left @ right


def inverse_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors / np.sqrt(np.maximum(values, 1e-12 * values[-1]))) @ vectors.T


def cca(test: np.ndarray, enroll: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """(N, dy), (N, dx) -> (d, dx), (d, dy), d = min(dx, dy): a map for the enrolment's vectors, one for the test's.

    Each side is whitened, and turned to the directions of the highest correlations across the sides (Hotelling 1936). Each
    direction is weighted by the root of its correlation, so an inner product across the sides weights it by the correlation.
    The second moments are not centred, since the maps have no offset. The penalty is relative to their mean variance.
    """
    test, enroll = test.astype(np.float64), enroll.astype(np.float64)
    whiten = []
    for side in (enroll, test):
        moment = side.T @ side / len(side)
        whiten.append(inverse_root(moment + penalty * np.trace(moment) / len(moment) * np.eye(len(moment))))
    left, correlations, right = np.linalg.svd(
        whiten[0] @ (enroll.T @ test / len(test)) @ whiten[1], full_matrices=False
    )
    weights = np.sqrt(correlations)[:, None]
    return weights * (left.T @ whiten[0]), weights * (right @ whiten[1])


def centroids(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(C, D): the mean of each speaker's vectors of length 1, scaled to length 1. All labels 0 to C - 1 must occur."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    return length_normalise(np.add.reduceat(vectors[order], starts, axis=0, dtype=np.float64))


def logits(rows: np.ndarray, centred: bool = False) -> np.ndarray:
    """(C, D) class weights or centroids -> the map. centred: the mean of each vector's logits is subtracted."""
    unit = length_normalise(rows.astype(np.float64))
    return unit - unit.mean(0) if centred else unit


def in_fewer_dimensions(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C, dx), (C, dy) -> two maps to at most dx + dy dimensions, with the same inner products within and across.

    The columns of both maps span no more dimensions. With thousands of speakers, vectors of logits would take gigabytes.
    """
    if len(one) <= one.shape[1] + other.shape[1]:
        return one, other
    triangle = np.asarray(np.linalg.qr(np.hstack([one, other]), mode="r"))
    return triangle[:, : one.shape[1]], triangle[:, one.shape[1] :]
