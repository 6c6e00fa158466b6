#!/usr/bin/env python3
"""LDA and PLDA without Kaldi's binaries: the numpy side of score_plda.sh, with Kaldi's formulas and files.

Usage: local/plda_backend.py train [options] <train xvector.scp> <train utt2spk> <backend-dir>
       local/plda_backend.py lda-dim [--lda-dim n] <train xvector.scp> <train utt2spk>
       local/plda_backend.py score [options] <backend-dir> <trials> <enroll xvector.scp> <test xvector.scp> <score file>
  local/plda_backend.py train --lda-dim 150 exp/ecapa/xvectors_train/xvector.scp data/train/utt2spk exp/ecapa/plda
  local/plda_backend.py train --help

lda-dim prints the number of dimensions that LDA will keep. More than the data allow is an error.
train writes mean.vec (unless it exists), transform.mat and plda into <backend-dir>. score reads these files; Kaldi may
have written them.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.conf import first_few, opt, parse_args, run
from speakerkd.files.backend import (
    read_matrix,
    read_num_utts,
    read_spk2utt,
    read_vector,
    write_matrix,
    write_text_vector,
)
from speakerkd.files.tables import read_utt2spk
from speakerkd.files.vectors import Vectors, average, read_vectors
from speakerkd.score.plda import check_lda_dim, default_lda_dim, prepare, read_plda, train_lda, train_plda
from speakerkd.score.trials import read_trials, write_scores


@dataclass
class TrainOptions:
    lda_dim: int = opt(0, "dimensions that LDA keeps; 0: the smallest of 150, dimensions - 1 and speakers - 1")
    total_covariance_factor: float = opt(0.0, "0: LDA makes the covariance within speakers unit; 1: the total one")
    covariance_floor: float = opt(1e-6, "floor of the eigenvalues in LDA, relative to the largest")
    num_em_iters: int = opt(10, "iterations of EM for PLDA")


@dataclass
class LdaDimOptions:
    lda_dim: int = opt(0, "dimensions to keep; 0: the default")


@dataclass
class ScoreOptions:
    enroll_spk2utt: str = opt("", "spk2utt of the enrolment models, if the trials name models")
    num_utts: str = opt("", "num_utts.ark of an spk_xvector.scp, if the enrolments are such averages already")
    smoothing: float = opt(0.0, "share of the between-speaker covariance that is added to the within-speaker one")


def train(argv: Sequence[str]) -> None:
    options, (scp, utt2spk_path, folder) = parse_args(TrainOptions, argv, __doc__, 3)
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    vectors, utt2spk = read_vectors(scp), read_utt2spk(utt2spk_path)
    rows = np.array([row for row, utt in enumerate(vectors.ids) if utt in utt2spk], dtype=np.int64)
    if not len(rows):
        raise ValueError(f"{utt2spk_path} has none of the utterances of {scp}")
    if len(rows) < len(vectors.ids):
        without = first_few([utt for utt in vectors.ids if utt not in utt2spk])
        logging.warning("%d vectors have no speaker in %s: %s", len(vectors.ids) - len(rows), utt2spk_path, without)
    labels = np.unique([utt2spk[vectors.ids[row]] for row in rows], return_inverse=True)[1]
    mean = vectors.matrix.mean(axis=0, dtype=np.float64)
    centred = vectors.matrix[rows] - mean
    lda_dim = options.lda_dim or default_lda_dim(vectors.dim, int(labels.max()) + 1)
    # From here on the rounded values of the files are used, so that training again from them gives the same.
    transform = train_lda(centred, labels, lda_dim, options.total_covariance_factor, options.covariance_floor).astype(
        np.float32
    )
    plda = train_plda(prepare(centred, np.zeros_like(mean), transform), labels, options.num_em_iters)
    if not (out / "mean.vec").exists():
        write_text_vector(out / "mean.vec", mean)
    write_matrix(out / "transform.mat", transform)
    plda.write(out / "plda")
    logging.info(
        "LDA from %d to %d dimensions and PLDA from %d vectors of %d speakers; psi from %.3g to %.3g",
        vectors.dim, lda_dim, len(rows), labels.max() + 1, plda.psi[0], plda.psi[-1],
    )  # fmt: skip


def load_enrolments(scp: str, names: Sequence[str], options: ScoreOptions) -> tuple[Vectors, np.ndarray]:
    """The vector of each enrolment, and the number of utterances of which it is the mean."""
    if options.enroll_spk2utt:
        models = {name: utts for name, utts in read_spk2utt(options.enroll_spk2utt).items() if name in set(names)}
        vectors = read_vectors(scp, {utt for utts in models.values() for utt in utts})
        means, counts, absent = average(vectors, models)
        if absent:
            logging.warning(
                "%d utterances of the models are not in %s; each model is the mean of its others", absent, scp
            )
        return means, counts
    vectors = read_vectors(scp, names)
    if not options.num_utts:
        return vectors, np.ones(len(vectors.ids), np.int64)
    counts_of = read_num_utts(options.num_utts)
    absent_names = [name for name in vectors.ids if name not in counts_of]
    if absent_names:
        raise ValueError(
            f"{options.num_utts}: lacks {first_few(absent_names)}; does it belong to another spk_xvector.scp?"
        )
    return vectors, np.array([counts_of[name] for name in vectors.ids])


def score(argv: Sequence[str]) -> None:
    options, (folder, trials_path, enroll_scp, test_scp, path) = parse_args(ScoreOptions, argv, __doc__, 5)
    if options.enroll_spk2utt and options.num_utts:
        raise ValueError("--enroll-spk2utt counts the utterances itself: leave --num-utts out")
    backend = Path(folder)
    mean, transform = read_vector(backend / "mean.vec"), read_matrix(backend / "transform.mat")
    plda = read_plda(backend / "plda").smoothed(options.smoothing)
    trials = read_trials(trials_path, need_labels=False)
    enroll, num_utts = load_enrolments(enroll_scp, trials.enroll_ids, options)
    test = read_vectors(test_scp, trials.test_ids)
    rows, columns = enroll.rows_of(trials.enroll_ids)[trials.enroll], test.rows_of(trials.test_ids)[trials.test]
    known = (rows >= 0) & (columns >= 0)
    scores = plda.score(
        plda.project(prepare(enroll.matrix, mean, transform), num_utts),
        num_utts,
        plda.project(prepare(test.matrix, mean, transform), np.ones(len(test.ids))),
        rows[known],
        columns[known],
    )
    write_scores(path, trials.select(known), scores.astype(np.float32))
    logging.info("%d trials scored, %d without a vector", known.sum(), (~known).sum())


def lda_dim(argv: Sequence[str]) -> None:
    """Used before Kaldi's programs: with too many dimensions they stop, or go on with arbitrary ones."""
    options, (scp, utt2spk_path) = parse_args(LdaDimOptions, argv, __doc__, 2)
    vectors, utt2spk = read_vectors(scp), read_utt2spk(utt2spk_path)
    num_speakers = len({utt2spk[utt] for utt in vectors.ids if utt in utt2spk})
    dim = options.lda_dim or default_lda_dim(vectors.dim, num_speakers)
    check_lda_dim(dim, vectors.dim, num_speakers)
    print(dim)


ACTIONS = {"train": train, "lda-dim": lda_dim, "score": score}


def main(argv: list[str]) -> None:
    if argv[:1] in (["--help"], ["-h"]):
        print((__doc__ or "").strip())
        return
    if not argv or argv[0] not in ACTIONS:
        raise ValueError(f"the first argument is {' or '.join(ACTIONS)} (see {sys.argv[0]} --help)")
    ACTIONS[argv[0]](argv[1:])


if __name__ == "__main__":
    run(main)
