"""Cosine scores of many trials beside a loop over trials, and AS-norm."""

import importlib.util
import time
from pathlib import Path

import numpy as np
import torch

from speakerkd.score.asnorm import cohort_statistics, normalise_scores
from speakerkd.score.cosine import length_normalise, score_trials
from tools.benchmarks.common import Options, Row, compare

UTTERANCES, DIM = 5000, 192


def vectors(options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((UTTERANCES, DIM)).astype(np.float32)
    pairs = rng.integers(UTTERANCES, size=(2, options.trials))
    return matrix, pairs[0], pairs[1]


def score(options: Options, folder: Path) -> list[Row]:
    matrix, first, second = vectors(options)
    names = [f"id{number:05}" for number in range(UTTERANCES)]
    table = dict(zip(names, matrix, strict=True))
    few = min(4000, options.trials)
    trials = [(names[a], names[b]) for a, b in zip(first[:few].tolist(), second[:few].tolist(), strict=True)]

    def ours() -> None:
        unit = length_normalise(matrix)
        score_trials(unit, unit, first, second)

    def numpy_loop() -> None:
        for a, b in trials:
            x, y = table[a], table[b]
            float(np.dot(x, y) / np.linalg.norm(x) / np.linalg.norm(y))

    def torch_loop() -> None:
        for a, b in trials:
            float(torch.nn.functional.cosine_similarity(torch.from_numpy(table[a]), torch.from_numpy(table[b]), 0))

    def sklearn_loop() -> None:  # WeSpeaker's and 3D-Speaker's way
        from sklearn.metrics.pairwise import cosine_similarity

        for a, b in trials:
            cosine_similarity(table[a].reshape(1, -1), table[b].reshape(1, -1))[0][0]

    rows = []
    loops = {"numpy": numpy_loop, "torch": torch_loop}
    if importlib.util.find_spec("sklearn"):  # not one of our packages; for this row: pip install scikit-learn
        loops["sklearn"] = sklearn_loop
    for name, loop in loops.items():
        mine, theirs, ratio = compare(ours, loop, options.seconds)
        rows.append(
            Row(
                "score", f"{options.trials} trials of {UTTERANCES} x {DIM}", f"{options.trials / mine:.2g} trials/s",
                f"a loop with {name} {few / theirs:.2g} trials/s", f"{ratio * options.trials / few:.0f}", "100",
            )
        )  # fmt: skip
    return rows


def asnorm(options: Options, folder: Path) -> list[Row]:
    matrix, first, second = vectors(options)
    unit = length_normalise(matrix)
    cohort = length_normalise(np.random.default_rng(1).standard_normal((options.cohort, DIM)).astype(np.float32))
    start = time.perf_counter()
    scores = score_trials(unit, unit, first, second)
    statistics = cohort_statistics(unit, cohort, min(300, options.cohort))
    normalise_scores(scores, statistics, statistics, first, second)
    seconds = time.perf_counter() - start
    what = f"{options.trials} trials, cohort of {options.cohort}, best 300"
    return [Row("asnorm", what, f"{seconds:.1f} s", aim="under 10 s")]
