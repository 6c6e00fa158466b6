"""Score normalisation against a cohort. S-norm takes the whole cohort; AS-norm takes the top N vectors of each side.

Matejka et al., "Analysis of score normalization in multilingual speaker recognition", Interspeech 2017 (adaptive
S-norm 1: enrolment and test each have their own top N).
"""

from typing import NamedTuple

import numpy as np

_BLOCK = 1 << 22  # scores against the cohort held at once


class Statistics(NamedTuple):
    """Mean and standard deviation of the cohort's scores for each vector."""

    mean: np.ndarray
    deviation: np.ndarray


def cohort_statistics(matrix: np.ndarray, cohort: np.ndarray, top_n: int = 0) -> Statistics:
    """For each row of matrix: its top_n highest scores against the cohort (0: all). Both are length-normalised."""
    size = len(cohort)
    if matrix.shape[1] != cohort.shape[1]:
        raise ValueError(f"the cohort has {cohort.shape[1]} dimensions, the vectors of the trials {matrix.shape[1]}")
    if top_n > size:
        raise ValueError(f"the cohort holds {size} vectors, fewer than --top-n {top_n}")
    if min(top_n or size, size) < 2:
        raise ValueError("a standard deviation needs at least two scores; take a larger cohort, or a larger --top-n")
    mean = np.empty(len(matrix), np.float64)
    deviation = np.empty(len(matrix), np.float64)
    step = max(1, _BLOCK // size)
    for start in range(0, len(matrix), step):
        scores = matrix[start : start + step] @ cohort.T
        if 0 < top_n < size:
            scores.partition(size - top_n, axis=1)
            scores = scores[:, size - top_n :]
        mean[start : start + step] = scores.mean(axis=1, dtype=np.float64)
        deviation[start : start + step] = scores.std(axis=1, dtype=np.float64)
    if not (deviation > 0).all():
        raise ValueError("the scores of a vector against the cohort are all the same: are the cohort's vectors copies?")
    return Statistics(mean, deviation)


def normalise_scores(
    scores: np.ndarray, enroll: Statistics, test: Statistics, enroll_index: np.ndarray, test_index: np.ndarray
) -> np.ndarray:
    """The mean of two normalised scores: by the enrolment's cohort statistics, and by the test's."""
    by_enroll = (scores - enroll.mean[enroll_index]) / enroll.deviation[enroll_index]
    by_test = (scores - test.mean[test_index]) / test.deviation[test_index]
    return (0.5 * (by_enroll + by_test)).astype(np.float32)
