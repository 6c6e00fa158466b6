#!/usr/bin/env python3
"""Cosine scores of trials, and their error rates and costs: EER, minDCF, actDCF, Cllr, with 95 % intervals over speakers.

Usage: local/score.py [options] <trials> <enroll xvector.scp> <test xvector.scp> <out-dir>
       local/score.py --scores <score file> [options] <trials> <out-dir>
  local/score.py --mean exp/ecapa/xvectors_train/mean.vec data/test/trials \\
    exp/ecapa/xvectors_test/xvector.scp exp/ecapa/xvectors_test/xvector.scp exp/ecapa/scores
  local/score.py --norm asnorm --cohort exp/ecapa/xvectors_train/xvector.scp --cohort-spk2utt data/train/spk2utt ...

Trials are lines `enrol test target|nontarget`. If all lines are `enrol test`, without labels, the script writes the
scores only: there are no error rates then, and utt2spk is not needed. An enrolment is an utterance of the scp, or a model
of --enroll-spk2utt: the mean of its utterances' raw vectors, as ivector-mean and stage 5's spk_xvector.scp have it, then
length-normalised. The second form evaluates scores that were made elsewhere, for example by PLDA or by Kaldi.

It writes into <out-dir>, where <trials> is the name of the trials file and <name> is cosine, asnorm, snorm or --name:
  <trials>.<name>              enrol test score
  <trials>.<name>.lost         enrol test reason: the trials that could not be scored, if there are any
  <trials>.<name>.calibration  log likelihood ratio = scale * score + offset, trained on all of these trials
  <trials>.<name>.det.png      detection error trade-off
  <trials>.<name>.hist.png     histogram of the scores
  metrics.tsv                  one row per trials file and name; EERs in percent

The EER is interpolated (where the ROC crosses p_miss = p_fa); compute-eer's value is printed beside it. Both errors cost 1,
and minDCF is normalised. The intervals resample speakers, not trials: they need utt2spk, by default the one in the folder
of the trials.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.conf import opt, parse_args, run
from speakerkd.files.backend import read_spk2utt
from speakerkd.files.tables import read_utt2spk, replacing
from speakerkd.score.asnorm import cohort_statistics, normalise_scores
from speakerkd.score.calibrate import fit, read_calibration, write_calibration
from speakerkd.score.cosine import score_trials
from speakerkd.score.evaluate import Row, add_to_metrics, evaluate, table
from speakerkd.score.plots import can_plot, det_plot, histogram
from speakerkd.score.sides import load_cohort, load_side
from speakerkd.score.trials import (
    Speakers,
    Trials,
    num_duplicates,
    num_identical,
    read_scores,
    read_trials,
    speakers_of,
    write_scores,
)

Models = Mapping[str, Sequence[str]]  # their utterances


@dataclass
class Options:
    name: str = opt("", "name of the scoring in files and tables; default: cosine, asnorm or snorm")
    scores: str = opt("", "evaluate this score file instead of scoring vectors")
    enroll_spk2utt: str = opt("", "spk2utt of the enrolment models, if the trials name models")
    mean: str = opt("", "mean.vec to subtract from all vectors")
    enroll_mean: str = opt("", "mean.vec of the enrolments, if another system made them")
    norm: str = opt("none", "none, asnorm (each side's top-n of the cohort) or snorm (all of the cohort)")
    cohort: str = opt("", "xvector.scp or spk_xvector.scp of the cohort; its speakers must not be in the trials")
    cohort_spk2utt: str = opt("", "spk2utt of the cohort: use the mean of each speaker's vectors")
    enroll_cohort: str = opt("", "cohort of the enrolments, if another system made them")
    top_n: int = opt(300, "asnorm: number of the closest cohort vectors that are used")
    calibration: str = opt("", ".calibration that score.py wrote for other trials; default: cross-validation")
    utt2spk: str = opt("", "utt2spk of the trials' utterances; default: the one in the folder of the trials")
    num_bootstrap: int = opt(1000, "how often the speakers are resampled for the intervals; 0: no intervals")
    seed: int = opt(0, "random seed of the resampling")
    max_lost: float = opt(5.0, "more lost trials than this, in percent, are an error")
    plots: bool = opt(True, "draw the plots")


def cosine(
    options: Options, trials: Trials, models: Models, enroll_scp: str, test_scp: str
) -> tuple[np.ndarray, dict[int, str]]:
    """The scores, NaN for lost trials, and the reason of each lost trial by its number."""
    enroll_mean = options.enroll_mean or options.mean
    enroll = load_side(enroll_scp, trials.enroll_ids, models, enroll_mean)
    test = load_side(test_scp, trials.test_ids, {}, options.mean)
    if enroll.matrix.shape[1] != test.matrix.shape[1]:
        raise ValueError(
            f"vectors of {enroll.matrix.shape[1]} dimensions ({enroll_scp}) can't be compared with "
            f"{test.matrix.shape[1]} ({test_scp}); local/map_vectors.py brings one system's vectors to the other's"
        )
    rows, columns = enroll.rows[trials.enroll], test.rows[trials.test]
    known = np.flatnonzero((rows >= 0) & (columns >= 0))
    values = score_trials(enroll.matrix, test.matrix, rows[known], columns[known])
    if options.norm != "none":
        # One side's vectors are scored against a cohort in the other side's space.
        utterances = {utt for utts in models.values() for utt in utts}
        heard = {*trials.enroll_ids, *trials.test_ids, *utterances}
        cohort = other = load_cohort(options.cohort, options.cohort_spk2utt, options.mean, heard)
        if options.enroll_cohort:
            other = load_cohort(options.enroll_cohort, options.cohort_spk2utt, enroll_mean, heard)
        top_n = options.top_n if options.norm == "asnorm" else 0
        by_enroll, by_test = (
            cohort_statistics(enroll.matrix, cohort, top_n),
            cohort_statistics(test.matrix, other, top_n),
        )
        values = normalise_scores(values, by_enroll, by_test, rows[known], columns[known])
    scores = np.full(len(trials), np.nan, np.float32)
    scores[known] = values
    lost = np.flatnonzero((rows < 0) | (columns < 0))
    sides = [(enroll, trials.enroll_ids, trials.enroll, rows), (test, trials.test_ids, trials.test, columns)]
    reasons = {
        int(trial): " ".join(side.reasons[ids[index[trial]]] for side, ids, index, row in sides if row[trial] < 0)
        for trial in lost
    }
    return scores, reasons


def require_valid_options(options: Options) -> None:
    if options.norm not in ("none", "asnorm", "snorm"):
        raise ValueError(f"--norm {options.norm}: none, asnorm and snorm are known")
    if (options.norm != "none") != bool(options.cohort):
        raise ValueError("--norm asnorm and snorm need a --cohort, and --cohort needs one of them")
    if options.norm == "none" and (options.cohort_spk2utt or options.enroll_cohort):
        raise ValueError("--cohort-spk2utt and --enroll-cohort describe a cohort: give --norm asnorm and --cohort too")
    needs_vectors = ("mean", "enroll_mean", "cohort", "cohort_spk2utt", "enroll_cohort")
    given = [name for name in needs_vectors if getattr(options, name)]
    if options.scores and (given or options.norm != "none"):
        names = " ".join(f"--{name.replace('_', '-')}" for name in [*given, *["norm"] * (options.norm != "none")])
        raise ValueError(f"{names}: these need vectors, and with --scores there are only scores")
    if options.norm == "asnorm" and options.top_n < 2:
        raise ValueError("--top-n must be 2 or more")
    if options.num_bootstrap < 0 or options.max_lost < 0:
        raise ValueError("--num-bootstrap and --max-lost must not be negative")


def load_speakers(options: Options, trials: Trials, models: Models) -> Speakers | None:
    path = Path(options.utt2spk) if options.utt2spk else Path(trials.path).parent / "utt2spk"
    if path.exists():
        return speakers_of(trials, read_utt2spk(path), models, str(path))
    if options.utt2spk or options.num_bootstrap:
        raise ValueError(f"{path}: no such file; name one with --utt2spk, or give --num-bootstrap 0 for no intervals")
    return None


def note_lost(
    stem: Path, trials: Trials, scores: np.ndarray, reasons: Mapping[int, str], max_lost: float
) -> np.ndarray:
    """Writes the list of the trials without a score; too many are an error. Returns which trials have a score."""
    lost = np.flatnonzero(np.isnan(scores))
    listing = stem.with_name(f"{stem.name}.lost")
    listing.unlink(missing_ok=True)
    if len(lost):
        with replacing(listing) as file:
            file.writelines(f"{trials.pair(trial)} {reasons.get(int(trial), 'not-scored')}\n" for trial in lost)
        first = f"for example '{trials.pair(lost[0])} {reasons.get(int(lost[0]), 'not-scored')}'"
        message = f"{len(lost)} of {len(trials)} trials have no score, {first}; all are in {listing}"
        if 100 * len(lost) > max_lost * len(trials):
            raise ValueError(f"{message}; that is more than --max-lost {max_lost:g} %")
        logging.warning(message)
    keep = ~np.isnan(scores)
    kinds = trials.target[keep]
    if trials.labelled and (not len(kinds) or kinds.all() or not kinds.any()):
        raise ValueError(f"{trials.path}: of the trials with a score none is a target, or all are")
    return keep


def main(argv: list[str]) -> None:
    options, rest = parse_args(Options, argv, __doc__, None)
    if len(rest) != (2 if options.scores else 4):
        needed = "<trials> <out-dir>" if options.scores else "<trials> <enroll scp> <test scp> <out-dir>"
        raise ValueError(f"the arguments are {needed}; given: {' '.join(rest)} (see --help)")
    require_valid_options(options)
    trials = read_trials(rest[0], need_labels=False)
    name = options.name or {"none": "scores" if options.scores else "cosine"}.get(options.norm, options.norm)
    out = Path(rest[-1])
    out.mkdir(parents=True, exist_ok=True)
    stem = out / f"{Path(rest[0]).name}.{name}"
    own = stem.with_name(f"{stem.name}.calibration")
    if options.calibration and Path(options.calibration).resolve() == own.resolve():
        raise ValueError(f"--calibration {own} was trained on these same trials; give one of other trials, or none")
    calibration = read_calibration(options.calibration) if options.calibration else None
    models = read_spk2utt(options.enroll_spk2utt) if options.enroll_spk2utt else {}
    speakers = load_speakers(options, trials, models) if trials.labelled else None
    duplicates = num_duplicates(trials)
    if duplicates:
        logging.warning("%s: %d trials occur more than once; each occurrence counts", rest[0], duplicates)
    identical = num_identical(trials, models)
    if identical:
        logging.warning(
            "%s: %d trials compare an utterance with itself or its own model; this lowers the error rates",
            rest[0],
            identical,
        )
    for each in (".calibration", ".det.png", ".hist.png"):  # of earlier scores
        stem.with_name(stem.name + each).unlink(missing_ok=True)
    if options.scores:
        (scores, others), reasons = read_scores(options.scores, trials), dict[int, str]()
        if others:
            logging.warning("%s: %d lines have pairs that are not in the trials of %s", options.scores, others, rest[0])
    else:
        scores, reasons = cosine(options, trials, models, rest[1], rest[2])
    keep = note_lost(stem, trials, scores, reasons, options.max_lost)
    trials, scores = trials.select(keep), scores[keep]
    write_scores(stem, trials, scores)
    if not trials.labelled:
        print(f"{len(trials)} trials without labels scored, {int((~keep).sum())} lost; no error rates: {stem}")
        return
    judged = speakers.select(keep) if speakers else None
    row = evaluate(scores, trials.target, judged, calibration, options.num_bootstrap, options.seed)
    row.update(trials=Path(trials.path).name, scoring=name, lost=int((~keep).sum()))
    if np.ptp(scores) > 0:
        write_calibration(own, fit(scores, trials.target))
    add_to_metrics(stem.parent / "metrics.tsv", row)
    print(table(row))
    draw(options, trials, scores, row, stem)


def draw(options: Options, trials: Trials, scores: np.ndarray, row: Row, stem: Path) -> None:
    if options.plots and not can_plot():
        logging.info("no pictures: matplotlib is not installed (pip install matplotlib)")
    elif options.plots and np.ptp(scores) == 0:
        logging.warning("no pictures: all scores are the same; has the training collapsed?")
    elif options.plots:
        title = f"{stem.parent.resolve().parent.name}: {row['trials']} by {row['scoring']}"
        det_plot(stem.with_name(f"{stem.name}.det.png"), {str(row["scoring"]): (scores, trials.target)}, title)
        histogram(stem.with_name(f"{stem.name}.hist.png"), scores, trials.target, float(row["eer_threshold"]), title)


if __name__ == "__main__":
    run(main)
