#!/usr/bin/env python3
"""Is one system better than another on the same trials? A paired test over speakers.

Usage: local/compare_scores.py [options] <trials> <score file A> <score file B>
  local/compare_scores.py data/test/trials exp/student/scores/trials.cosine exp/student_enskd/scores/trials.cosine

The speakers are resampled, with the same draws for both systems. The interval and the two-sided p-value are those of
B - A, so what the two systems have in common (hard speakers, bad recordings) does not widen them. p is below 0.05 exactly
if 0 is outside the 95 % interval. The test speaks of other speakers of this kind, not of other seeds of the training: for
those, train each method with three or more seeds (local/compare_kd.sh).

A last line has the ratio of the two EERs with its interval. With the scores of one system on clean speech as A and in
noise as B (local/score_noise.sh), it says how many times as many errors noise makes.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.conf import opt, parse_args, run
from speakerkd.files.backend import read_spk2utt
from speakerkd.files.tables import read_utt2spk
from speakerkd.score.bootstrap import draw_speakers, replicate
from speakerkd.score.evaluate import FEW_SPEAKERS_FOR_MIN_DCF
from speakerkd.score.intervals import difference_interval, estimate, p_value, percentile_interval
from speakerkd.score.markdown import p_text
from speakerkd.score.metrics import PRIORS, eer, min_dcf, roc
from speakerkd.score.plots import can_plot, det_plot
from speakerkd.score.trials import Trials, read_scores, read_trials, speakers_of


@dataclass
class Options:
    utt2spk: str = opt("", "utt2spk of the trials' utterances; default: the one in the folder of the trials")
    enroll_spk2utt: str = opt("", "spk2utt of the enrolment models, if the trials name models")
    intersect: bool = opt(False, "if the files have different trials, compare on those that are in both")
    num_bootstrap: int = opt(2000, "how often the speakers are resampled")
    seed: int = opt(0, "random seed of the resampling")
    det: str = opt("", "file for a plot of both DET curves: .png, .pdf or .svg")


def load_both(trials: Trials, paths: list[str], intersect: bool) -> tuple[Trials, list[np.ndarray]]:
    """The trials that are in both files. It is an error, or a warning with --intersect, if the files' trials differ."""
    both, counts = [], []
    for path in paths:
        scores, others = read_scores(path, trials)
        both.append(scores)
        counts.append(
            f"{path}: {int(np.isnan(scores).sum())} of the trials are missing, {others} lines belong to no trial"
        )
    missing = np.isnan(np.stack(both))
    keep = ~missing.any(axis=0)
    foreign = any(not line.endswith(" 0 lines belong to no trial") for line in counts)
    if foreign or (missing.any(axis=0) != missing.all(axis=0)).any():
        message = "the files do not have the same trials: " + "; ".join(counts)
        if not intersect:
            raise ValueError(f"{message}; --intersect true compares on the {int(keep.sum())} trials that both have")
        logging.warning("%s; compared on %d of %d trials", message, keep.sum(), len(trials))
    elif not keep.all():
        logging.warning("both files lack the same %d trials of %s; they are left out", np.sum(~keep), trials.path)
    kinds = trials.target[keep]
    if not len(kinds) or kinds.all() or not kinds.any():
        raise ValueError(
            "the trials that are in both files are all target or all nontarget trials; error rates need both"
        )
    return trials.select(keep), [scores[keep] for scores in both]


def main(argv: list[str]) -> None:
    options, (trials_path, *paths) = parse_args(Options, argv, __doc__, 3)
    if options.num_bootstrap < 100:
        raise ValueError("--num-bootstrap must be 100 or more: the standard error comes from the resamplings")
    utt2spk = Path(options.utt2spk) if options.utt2spk else Path(trials_path).parent / "utt2spk"
    if not utt2spk.exists():
        raise ValueError(f"{utt2spk}: no such file; name one with --utt2spk")
    models = read_spk2utt(options.enroll_spk2utt) if options.enroll_spk2utt else {}
    trials, systems = load_both(read_trials(trials_path), paths, options.intersect)
    speakers = speakers_of(trials, read_utt2spk(utt2spk), models, str(utt2spk))
    draws = draw_speakers(speakers.count, options.num_bootstrap, options.seed)
    first, second = (replicate(scores, trials.target, speakers, draws) for scores in systems)
    curves = [roc(scores, trials.target) for scores in systems]
    names = ["EER %", *(f"minDCF({prior:g})" for prior in PRIORS)]
    points = [[100 * eer(curve)[0], *(min_dcf(curve, prior)[0] for prior in PRIORS)] for curve in curves]
    print(
        f"A: {paths[0]}\nB: {paths[1]}\n{len(trials)} trials ({trials.target.sum()} target), {speakers.count} speakers"
    )
    print(f"{'':<15}{'A':>8}{'B':>8}{'B - A':>9}   {'95 % interval':<19}{'p':>7}")
    for column, (name, one, other) in enumerate(zip(names, *points, strict=True)):
        scale, digits = (100, 2) if column == 0 else (1, 3)
        about = estimate([(other - one) / scale], second[:, column] - first[:, column], speakers.count)
        low, high = (f"{scale * end:+.{digits}f}" for end in difference_interval(about))
        p = p_value(about)
        verdict = "no clear difference" if not p < 0.05 else f"{'B' if other < one else 'A'} is better"
        print(
            f"{name:<15}{one:>8.{digits}f}{other:>8.{digits}f}{other - one:>+9.{digits}f}   {f'[{low}, {high}]':<19}"
            f"{p_text(p):>7}   {verdict}"
        )
    if points[0][0] > 0:
        ratios = np.full(len(first), np.nan)
        np.divide(second[:, 0], first[:, 0], out=ratios, where=first[:, 0] > 0)
        low, high = (f"{end:.2f}" for end in percentile_interval(ratios, speakers.count))
        print(f"{'EER of B : A':<31}{points[1][0] / points[0][0]:>9.2f}   [{low}, {high}]")
    if speakers.count < FEW_SPEAKERS_FOR_MIN_DCF:
        print(
            f"note: {speakers.count} speakers are few: a p-value just below 0.05 is weak evidence, minDCF's above all"
        )
    if options.det and not can_plot():
        logging.info("no picture: matplotlib is not installed (pip install matplotlib)")
    elif options.det:
        pairs = {
            f"{mark} {path}": (scores, trials.target) for mark, path, scores in zip("AB", paths, systems, strict=True)
        }
        det_plot(options.det, pairs, Path(trials_path).name)


if __name__ == "__main__":
    run(main)
