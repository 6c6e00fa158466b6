#!/usr/bin/env python3
"""How often the test of two equal methods finds a difference, and how often the intervals hold the truth.

Usage: tests/simulate_statistics.py [size|coverage] [simulations per case]    # about 30 minutes on one core with 600
The figures in the docstring of speakerkd/score/intervals.py are what it printed.

The scores are sums of normal variables: a level per speaker, which both sides of a trial have, a level per speaker of its
target trials, a level per utterance, and noise per trial. Then the true EER and minDCF are known. The two methods
have levels of their own for each speaker, half as wide as those that they share. Seeds differ in nothing ("none"), in
levels for each speaker, 0.3 times as wide ("speakers"), in how far apart the method holds target and nontarget
scores ("quality"), or in both and in noise per trial ("all").
"""

import sys
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import NormalDist

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from any folder
from speakerkd.score.bootstrap import draw_speakers, replicate
from speakerkd.score.intervals import difference_interval, estimate, p_value, share_interval
from speakerkd.score.metrics import PRIORS, eer, min_dcf, roc
from speakerkd.score.trials import Speakers

LEVEL, TARGET_LEVEL, UTTERANCE, TRIAL = 0.35, 0.5, 0.35, 0.7  # standard deviations
SEED_NOISE = {
    "none": (0.0, 0.0, 0.0),
    "speakers": (0.3, 0.0, 0.0),
    "quality": (0.0, 0.15, 0.0),
    "all": (0.3, 0.15, 0.35),
}
MAX_NONTARGET = 20000  # so many of the nontarget trials are picked


@dataclass(frozen=True)
class Population:
    """All pairs of some utterances of each speaker; distance is between target and nontarget scores."""

    speakers: int
    utterances: int
    distance: float = 3.2

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
        if len(nontarget) > MAX_NONTARGET:
            picked = np.sort(np.r_[np.flatnonzero(same), rng.choice(nontarget, MAX_NONTARGET, replace=False)])
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


def holds(population: Population, rng: np.random.Generator, num_replicates: int = 400) -> list[bool]:
    """Does the interval hold the truth? Of the EER and of minDCF at each prior."""
    trials = Trials(population, rng)
    curve = roc(trials.scores, trials.target)
    values = [eer(curve)[0], *(min_dcf(curve, prior)[0] for prior in PRIORS)]
    draws = draw_speakers(population.speakers, num_replicates, int(rng.integers(1 << 30)))
    columns = replicate(trials.scores, trials.target, trials.speakers, draws).T
    found = []
    for value, column, truth in zip(values, columns, population.truth(), strict=True):
        low, high = share_interval(estimate([value], column, population.speakers))
        found.append(low <= truth <= high)
    return found


def main() -> None:
    part = sys.argv[1] if len(sys.argv) > 1 else "both"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 600
    if part not in ("size", "coverage", "both"):
        sys.exit(str(__doc__))
    if part != "coverage":
        print(
            f"p below 0.05, in % of {count} comparisons of two equal methods (chance: ± {98 * sqrt(0.19 / count):.1f})"
        )
        for speakers, utterances in ((16, 4), (40, 3), (300, 3)):
            for seeds in (3, 5):
                for kind in SEED_NOISE:
                    rng = np.random.default_rng(7)
                    population = Population(speakers, utterances)
                    below = [p_of_equal_methods(population, seeds, kind, rng) < 0.05 for _ in range(count)]
                    print(f"{speakers} speakers, {seeds} seeds, noise {kind}: {100 * np.mean(below):.1f}", flush=True)
    if part != "size":
        print(f"\n95 % intervals that hold the truth, in % of {count}: EER, minDCF at {', '.join(map(str, PRIORS))}")
        for distance in (3.2, 4.6):
            for speakers in (16, 40, 100):
                population, rng = Population(speakers, 5, distance), np.random.default_rng(8)
                shares = np.mean([holds(population, rng) for _ in range(count)], 0)
                name = f"EER {100 * population.truth()[0]:.1f} %, {speakers} speakers x 5"
                print(f"{name}: {(100 * shares).round(1)}", flush=True)


if __name__ == "__main__":
    main()
