"""Cosine scores of many trials by matrix products."""

import numpy as np

_BLOCK = 1 << 22  # scores of a block of a product: 16 MiB
_DENSE = 48  # a matrix product computes this many pairs in the time that one single pair takes


def length_normalise(matrix: np.ndarray, scale_up: bool = False) -> np.ndarray:
    """Rows of length 1, or sqrt(D) as ivector-normalize-length --scaleup=true. A row of zeros stays as it is."""
    lengths = np.sqrt(np.einsum("nd,nd->n", matrix, matrix, dtype=np.float64))
    if scale_up:
        lengths /= np.sqrt(matrix.shape[1])
    unit = np.empty_like(matrix)  # filled in place: a temporary in float64 would take twice this memory
    return np.divide(matrix, np.where(lengths > 0, lengths, 1)[:, None], out=unit, casting="same_kind")


def score_trials(
    enroll_matrix: np.ndarray, test_matrix: np.ndarray, enroll_index: np.ndarray, test_index: np.ndarray
) -> np.ndarray:
    """For all i, the inner product of row enroll_index[i] of the first matrix and row test_index[i] of the second.

    Whole blocks of the product of both matrices are computed and the trials picked out of them: far faster than trial
    by trial as long as some percent of the pairs are trials. Where they are fewer, the rows are picked first.
    """
    scores = np.empty(len(enroll_index), np.result_type(enroll_matrix, test_matrix))
    step = max(1, _BLOCK // max(len(test_matrix), 1))
    block_of = enroll_index // step
    if len(enroll_matrix) // step < 1 << 15:
        block_of = block_of.astype(np.int16)  # which numpy sorts by counting
    order = np.argsort(block_of, kind="stable")
    limits = np.concatenate([[0], np.cumsum(np.bincount(block_of))])
    for block, (start, stop) in enumerate(zip(limits[:-1].tolist(), limits[1:].tolist(), strict=True)):
        first = block * step
        rows = enroll_matrix[first : first + step]
        trials = order[start:stop]
        if (stop - start) * _DENSE >= len(rows) * len(test_matrix):
            product = rows @ test_matrix.T
            place = (enroll_index[trials] - first).astype(np.int64) * len(test_matrix) + test_index[trials]
            scores[trials] = product.ravel().take(place)
            continue
        for part in np.array_split(trials, 1 + len(trials) * rows.shape[1] // _BLOCK):
            scores[part] = np.einsum("nd,nd->n", enroll_matrix[enroll_index[part]], test_matrix[test_index[part]])
    return scores
