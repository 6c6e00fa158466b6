#!/usr/bin/env python3
"""How often the test of two equal methods finds a difference, and how often the intervals hold the truth.

Usage: tests/simulate_statistics.py <part> [simulations per case] [words of a case's name]
  tests/simulate_statistics.py size 600                         # 20 minutes on one core
  tests/simulate_statistics.py size 2000 40 speakers, 3 seeds   # these cases alone
  tests/simulate_statistics.py coverage 600                     # 20 minutes
  tests/simulate_statistics.py grid                             # half a minute
The figures in the docstring of speakerkd/score/intervals.py are what it printed.
  size      false positives of the test of two equal methods
  coverage  how often the intervals hold the truth, and the false alarms at minDCF's threshold
  grid      the test's size for normal variables, by the weight of the seeds' term in the degrees of freedom

The scores are sums of normal variables: a level per speaker, which both sides of a trial have, a level per speaker of its
target trials, a level per utterance, and noise per trial. Then the true EER and minDCF are known. The two methods
have levels of their own for each speaker, half as wide as those that they share. Seeds differ in nothing ("none"), in
levels for each speaker, 0.3 times as wide ("speakers"), in how far apart the method holds target and nontarget
scores ("quality"), or in both and in noise per trial ("all").
"""

import functools
import sys
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import NormalDist

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from any folder
from speakerkd.score.bootstrap import draw_speakers, replicate
from speakerkd.score.intervals import difference_interval, estimate, freedom_of, p_value, share_interval
from speakerkd.score.metrics import PRIORS, eer, min_dcf, roc
from speakerkd.score.student import student_quantile
from speakerkd.score.trials import Speakers

LEVEL, TARGET_LEVEL, UTTERANCE, TRIAL = 0.35, 0.5, 0.35, 0.7  # standard deviations
SEED_NOISE = {
    "none": (0.0, 0.0, 0.0),
    "speakers": (0.3, 0.0, 0.0),
    "quality": (0.0, 0.15, 0.0),
    "all": (0.3, 0.15, 0.35),
}
MAX_NONTARGET = 20000  # so many of the nontarget trials are picked
# Speakers, utterances of each, nontarget trials at most. minDCF(0.001) wants 24,975 of them or more.
COVERED = (
    *((speakers, 5, MAX_NONTARGET) for speakers in (16, 40, 100)),
    *((40, 6, 10**6), (40, 12, 10**6), (125, 2, 10**6), (125, 5, 10**6)),
)
WEIGHTS = (1.0, 1.25, 1.5, 1.75, 2.0)  # of the grid


@dataclass(frozen=True)
class Population:
    """All pairs of some utterances of each speaker; distance is between target and nontarget scores."""

    speakers: int
    utterances: int
    distance: float = 3.2
    nontarget: int = MAX_NONTARGET

    def truth(self) -> list[float]:
        """EER and minDCF of infinitely many speakers."""
        nontarget = NormalDist(0, sqrt(2 * LEVEL**2 + 2 * UTTERANCE**2 + TRIAL**2))
        target = NormalDist(self.distance, sqrt(4 * LEVEL**2 + TARGET_LEVEL**2 + 2 * UTTERANCE**2 + TRIAL**2))
        thresholds = np.linspace(-2, self.distance + 4, 20001).tolist()
        miss = np.array([target.cdf(each) for each in thresholds])
        alarm = 1 - np.array([nontarget.cdf(each) for each in thresholds])
        costs = [(prior * miss + (1 - prior) * alarm).min() / min(prior, 1 - prior) for prior in PRIORS]
        return [float(miss[np.argmax(miss >= alarm)]), *map(float, costs)]


class Trials:
    """One draw of speakers and utterances, and what the trials' scores are made of."""

    def __init__(self, population: Population, rng: np.random.Generator) -> None:
        count = population.speakers * population.utterances
        one, other = np.triu_indices(count, 1)
        same = one // population.utterances == other // population.utterances
        nontarget = np.flatnonzero(~same)
        if len(nontarget) > population.nontarget:
            picked = np.sort(np.r_[np.flatnonzero(same), rng.choice(nontarget, population.nontarget, replace=False)])
            one, other, same = one[picked], other[picked], same[picked]
        self.rng, self.target = rng, same
        self.speakers = Speakers(one // population.utterances, other // population.utterances, population.speakers)
        of_utterance = rng.normal(0, UTTERANCE, count)
        self.scores = of_utterance[one] + of_utterance[other] + self.levels(1) + self.noise(TRIAL)
        self.scores += population.distance * same

    def levels(self, share: float) -> np.ndarray:
        of_speaker, of_target = self.rng.normal(0, [[LEVEL * share], [TARGET_LEVEL * share]], (2, self.speakers.count))
        return of_speaker[self.speakers.enroll] + of_speaker[self.speakers.test] + (
            self.target * of_target[self.speakers.enroll]
        )  # fmt: skip

    def noise(self, deviation: float) -> np.ndarray:
        return self.rng.normal(0, deviation, len(self.target))


def p_of_equal_methods(
    population: Population, seeds: int, kind: str, rng: np.random.Generator, num_replicates: int = 150
) -> float:
    """p of the EERs' difference between two methods that differ by chance only."""
    by_speaker, quality, by_trial = SEED_NOISE[kind]
    trials = Trials(population, rng)
    draws = draw_speakers(population.speakers, num_replicates, int(rng.integers(1 << 30)))
    values = np.zeros((2, seeds))
    replicates = np.zeros((2, seeds, num_replicates))
    for method in range(2):
        base = trials.scores + trials.levels(0.5) + trials.noise(0.3)
        for seed in range(seeds):
            if kind == "none" and seed:
                values[method, seed], replicates[method, seed] = values[method, 0], replicates[method, 0]
                continue
            scores = base + trials.levels(by_speaker) + quality * rng.normal() * trials.target + trials.noise(by_trial)
            values[method, seed] = eer(roc(scores, trials.target))[0]
            replicates[method, seed] = replicate(scores, trials.target, trials.speakers, draws)[:, 0]
    about = estimate(values[1] - values[0], replicates[1] - replicates[0], population.speakers)
    low, high = difference_interval(about)
    assert (p_value(about) < 0.05) == (not low <= 0 <= high)
    return p_value(about)


def holds(population: Population, rng: np.random.Generator, num_replicates: int = 400) -> list[float]:
    """Does the interval hold the truth? Of the EER and of minDCF at each prior; then the false alarms of the latter."""
    trials = Trials(population, rng)
    curve = roc(trials.scores, trials.target)
    values = [eer(curve)[0], *(min_dcf(curve, prior)[0] for prior in PRIORS)]
    draws = draw_speakers(population.speakers, num_replicates, int(rng.integers(1 << 30)))
    columns = replicate(trials.scores, trials.target, trials.speakers, draws).T
    found: list[float] = []
    for value, column, truth in zip(values, columns, population.truth(), strict=True):
        low, high = share_interval(estimate([value], column, population.speakers))
        found.append(low <= truth <= high)
    strangers = trials.scores[~trials.target]
    return found + [float((strangers >= min_dcf(curve, prior)[1]).sum()) for prior in PRIORS]


@functools.cache
def reaches(most: int) -> tuple[np.ndarray, np.ndarray]:
    """Degrees of freedom, and the quantile of Student's t that belongs to each."""
    steps = np.geomspace(1, most, 400)
    return steps, np.array([student_quantile(0.975, step) for step in steps.tolist()])


def size_for_normal_variables(
    speakers: int, seeds: int, of_seeds: float, weight: float, count: int, rng: np.random.Generator
) -> float:
    """False positives at 5 % if both variances are those of normal variables; `of_seeds` is the seeds' part of the whole."""
    value = rng.standard_normal(count)
    by_seeds = of_seeds * rng.chisquare(seeds - 1, count) / (seeds - 1)
    by_speakers = (1 - of_seeds) * rng.chisquare(speakers - 1, count) / (speakers - 1)
    freedom = freedom_of(by_seeds, by_speakers, seeds, speakers, weight)
    reach = np.interp(freedom, *reaches(speakers + seeds))
    return float((np.abs(value) > reach * np.sqrt(by_seeds + by_speakers)).mean())


def print_grid(count: int) -> None:
    print(f"false positives at 5 %, the lowest and highest of 21 mixtures of the variances, in % of {count}")
    for weight in WEIGHTS:
        cases = []
        for seeds in (3, 5):
            for speakers in (16, 40, 300):
                rng = np.random.default_rng(9)
                sizes = [
                    size_for_normal_variables(speakers, seeds, part, weight, count, rng)
                    for part in np.linspace(0, 1, 21).tolist()
                ]
                cases.append((min(sizes), max(sizes)))
        low, high = min(case[0] for case in cases), max(case[1] for case in cases)
        print(f"weight {weight}: {100 * low:.1f} to {100 * high:.1f}", flush=True)


def interval_of(count: int, of: int) -> str:
    """95 % interval of a share, in percent (Wilson)."""
    share, z = count / of, 1.96
    centre = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z * sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return f"{100 * share:.1f} [{100 * (centre - half):.1f}, {100 * (centre + half):.1f}]"


def main() -> None:
    part, number, *words = [*sys.argv[1:], "", ""][: max(2, len(sys.argv) - 1)]
    if part not in ("size", "coverage", "grid") or not (number or "1").isdigit():
        sys.exit(str(__doc__))
    count, wanted = int(number or 600), " ".join(words)
    if part == "grid":
        print_grid(int(number or 200_000))
    if part == "size":
        print(f"p below 0.05, in % of {count} comparisons of two equal methods, and a 95 % interval of that share")
        for speakers, utterances in ((16, 4), (40, 3), (300, 3)):
            for seeds in (3, 5):
                for kind in SEED_NOISE:
                    name = f"{speakers} speakers, {seeds} seeds, noise {kind}"
                    if wanted not in name:
                        continue
                    rng = np.random.default_rng(7)
                    population = Population(speakers, utterances)
                    below = sum(p_of_equal_methods(population, seeds, kind, rng) < 0.05 for _ in range(count))
                    print(f"{name}: {interval_of(below, count)}", flush=True)
    if part == "coverage":
        print(f"95 % intervals that hold the truth, in % of {count}: EER, minDCF at {', '.join(map(str, PRIORS))}; and")
        print("the mean number of false alarms at minDCF's threshold")
        for distance in (3.2, 4.6):
            for speakers, utterances, nontarget in COVERED:
                population, rng = Population(speakers, utterances, distance, nontarget), np.random.default_rng(8)
                trials = min(nontarget, utterances**2 * speakers * (speakers - 1) // 2)
                eer_in_percent = f"EER {100 * population.truth()[0]:.1f} %"
                name = f"{eer_in_percent}, {speakers} speakers x {utterances}, {trials} nontarget trials"
                if wanted not in name:
                    continue
                means = np.mean([holds(population, rng) for _ in range(count)], 0)
                held, alarms = means[: 1 + len(PRIORS)], means[1 + len(PRIORS) :]
                print(f"{name}: {(100 * held).round(1)}; {alarms.round(1)}", flush=True)


if __name__ == "__main__":
    main()
