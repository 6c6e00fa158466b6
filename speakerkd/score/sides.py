"""Reads an xvector.scp for scoring: the vectors of one side of the trials, or of a cohort, scaled to length 1."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from speakerkd.conf import first_few
from speakerkd.files.backend import read_spk2utt, read_vector
from speakerkd.files.vectors import Vectors, average, read_vectors
from speakerkd.score.cosine import length_normalise


@dataclass
class Side:
    """Length-normalised vectors, the row of each id (-1: it has none), and why some ids have none."""

    matrix: np.ndarray
    rows: np.ndarray
    reasons: dict[str, str]


def load_side(path: str, ids: list[str], models: Mapping[str, Sequence[str]], mean: str) -> Side:
    if models and not any(name in models for name in ids):
        raise ValueError(f"--enroll-spk2utt: none of the {len(ids)} enrolment ids is a model there: {first_few(ids)}")
    used = {name: models.get(name, (name,)) for name in ids}  # a name that is no model's is an utterance's
    vectors = read_vectors(path, {utt for each in used.values() for utt in each})
    if models:
        vectors, _, absent = average(vectors, used)
        if absent:
            logging.warning(
                "%d utterances of the models are not in %s; each model is the mean of its others", absent, path
            )
    matrix = length_normalise(_centred(vectors, mean))
    reasons = dict.fromkeys(set(ids) - set(vectors.ids), f"no-vector-in-{path}")
    zero = (matrix == 0).all(axis=1)
    reasons.update((vectors.ids[row], f"zero-vector-in-{path}") for row in np.flatnonzero(zero))
    usable = Vectors(path, [vectors.ids[row] for row in np.flatnonzero(~zero)], matrix[~zero])
    return Side(usable.matrix, usable.rows_of(ids), reasons)


def _centred(vectors: Vectors, mean: str) -> np.ndarray:
    if not mean:
        return vectors.matrix
    centre = read_vector(mean)
    if len(centre) != vectors.dim:
        raise ValueError(f"{mean} has {len(centre)} dimensions, the vectors of {vectors.path} have {vectors.dim}")
    return vectors.matrix - centre.astype(np.float32)


def load_cohort(path: str, spk2utt: str, mean: str, heard: Iterable[str]) -> np.ndarray:
    """Length-normalised vectors of the cohort, which must not hold utterances or models of the trials."""
    vectors = read_vectors(path)
    both = sorted(set(vectors.ids) & set(heard))
    if both:
        raise ValueError(
            f"{path}: {len(both)} of the cohort's ids are also in the trials ({first_few(both)}); "
            "remedy: a cohort of other speakers, as a rule those of the training"
        )
    if spk2utt:
        vectors, _, absent = average(vectors, read_spk2utt(spk2utt))
        logging.info("cohort: means of %d speakers of %s (%d utterances not there)", len(vectors.ids), path, absent)
    matrix = length_normalise(_centred(vectors, mean))
    known = (matrix != 0).any(axis=1)
    if not known.all():
        logging.warning("%d of the cohort's %d vectors are zero and left out", (~known).sum(), len(known))
    return matrix[known]
