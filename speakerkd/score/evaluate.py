"""The error rates and costs of a set of scores: a row of metrics.tsv, and a table to read."""

import fcntl
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from speakerkd.files.tables import replacing
from speakerkd.score.bootstrap import draw_speakers, replicate
from speakerkd.score.calibrate import NUM_FOLDS, Calibration, cross_validate
from speakerkd.score.intervals import UNKNOWN, estimate, share_interval
from speakerkd.score.metrics import PRIORS, act_dcf, cllr, eer, kaldi_eer, min_cllr, min_dcf, roc
from speakerkd.score.trials import Speakers

FEW_SPEAKERS = 40
FEW_SPEAKERS_FOR_MIN_DCF = 100
COARSE = 0.04  # what one false alarm adds to a minDCF; above it the interval is too narrow (intervals.py)
FINE = 0.01  # the same; from here down the interval of minDCF(0.001) is no worse than that of the others

Row = dict[str, str | int | float]

# EERs are in percent. Thresholds apply to the raw scores. "lost" counts the trials without a score.
COLUMNS = (
    *("trials", "scoring", "target", "nontarget", "lost", "speakers"),
    *("eer", "eer_low", "eer_high", "eer_kaldi", "eer_threshold"),
    *(
        f"{name}_{prior:g}"
        for prior in PRIORS
        for name in ("min_dcf", "min_dcf_low", "min_dcf_high", "min_dcf_threshold", "act_dcf")
    ),
    *("cllr", "min_cllr", "calibration", "num_bootstrap", "seed"),
)
TEXT_COLUMNS = ("trials", "scoring", "calibration")


def evaluate(
    scores: np.ndarray,
    target: np.ndarray,
    speakers: Speakers | None,
    calibration: Calibration | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> Row:
    """All figures of a row. Without speakers there are no intervals, and without speakers or a calibration no Cllr."""
    curve = roc(scores, target)
    value, threshold = eer(curve)
    row: Row = {
        "target": int(target.sum()),
        "nontarget": int((~target).sum()),
        "speakers": speakers.count if speakers else 0,
        "eer": 100 * value,
        "eer_kaldi": 100 * kaldi_eer(scores, target),
        "eer_threshold": threshold,
        "min_cllr": min_cllr(scores, target),
        "num_bootstrap": num_bootstrap if speakers else 0,
        "seed": seed,
    }
    for prior in PRIORS:
        row[f"min_dcf_{prior:g}"], row[f"min_dcf_threshold_{prior:g}"] = min_dcf(curve, prior)
    _add_calibrated(row, scores, target, speakers, calibration)
    bounds = [UNKNOWN] * (1 + len(PRIORS))
    if speakers and speakers.count > 1 and num_bootstrap:
        draws = draw_speakers(speakers.count, num_bootstrap, seed)
        points = [value, *(min_dcf(curve, prior)[0] for prior in PRIORS)]
        columns = replicate(scores, target, speakers, draws).T
        bounds = [
            share_interval(estimate([point], column, speakers.count))
            for point, column in zip(points, columns, strict=True)
        ]
    row["eer_low"], row["eer_high"] = 100 * bounds[0].low, 100 * bounds[0].high
    for prior, (low, high) in zip(PRIORS, bounds[1:], strict=True):
        row[f"min_dcf_low_{prior:g}"], row[f"min_dcf_high_{prior:g}"] = low, high
    return row


def _add_calibrated(
    row: Row, scores: np.ndarray, target: np.ndarray, speakers: Speakers | None, calibration: Calibration | None
) -> None:
    ratios = None
    row["calibration"] = "none"
    if calibration is not None:
        ratios, row["calibration"] = calibration(scores), "stored"
    elif speakers is not None:
        ratios = cross_validate(scores, target, speakers)
        row["calibration"] = "none" if ratios is None else "cross-validated"
    row["cllr"] = math.nan if ratios is None else cllr(ratios, target)
    for prior in PRIORS:
        row[f"act_dcf_{prior:g}"] = math.nan if ratios is None else act_dcf(ratios, target, prior)


def _number(row: Mapping[str, str | int | float], name: str, digits: int) -> str:
    value = float(row[name])
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def table(row: Row) -> str:
    """The row as a few lines to read."""

    def line(title: str, name: str, suffix: str, digits: int) -> str:
        low, high = (_number(row, f"{name}_{end}{suffix}", digits) for end in ("low", "high"))
        value = _number(row, name + suffix, digits)
        return f"{title:<15}{value:>8}   {f'[{low}, {high}]':<18}{_number(row, f'{name}_threshold{suffix}', 4):>10}"

    lines = [
        f"{row['trials']} by {row['scoring']}: {row['target']} target and {row['nontarget']} nontarget trials of "
        f"{row['speakers'] or 'unknown'} speakers; {row['lost']} lost",
        f"{'':<15}{'value':>8}   {'95 % interval':<18}{'threshold':>10}",
        line("EER %", "eer", "", 2) + f"   compute-eer: {_number(row, 'eer_kaldi', 2)}",
    ]
    for prior in PRIORS:
        actual = _number(row, f"act_dcf_{prior:g}", 3)
        lines.append(line(f"minDCF({prior:g})", "min_dcf", f"_{prior:g}", 3) + f"   actDCF: {actual}")
    lines.append(
        f"{'Cllr':<15}{_number(row, 'cllr', 3):>8}   min Cllr: {_number(row, 'min_cllr', 3)}   "
        f"calibration: {row['calibration']}"
    )
    return "\n".join(lines + [f"note: {note}" for note in notes(row)])


def notes(row: Row) -> list[str]:
    """What a reader must know about how the figures were made."""
    calibrated = {
        "cross-validated": "actDCF and Cllr: the scores were calibrated by cross-validation over the speakers of these "
        f"trials (at most {NUM_FOLDS} folds). For other data, store a calibration and give it with --calibration.",
        "stored": "actDCF and Cllr: the scores were calibrated with the --calibration that was given.",
        "none": "There is no actDCF and no Cllr. Cross-validation needs utt2spk and at least six speakers; "
        "otherwise give --calibration.",
    }
    return [calibrated[str(row["calibration"])], *interval_notes(row)]


def interval_notes(row: Row) -> list[str]:
    count = int(row["speakers"])
    lines = []
    if math.isnan(float(row["eer_low"])):
        if not int(row["num_bootstrap"]):
            lines.append("There are no intervals. They need utt2spk and a --num-bootstrap above 0.")
        elif float(row["eer"]) == 0:
            lines.append(
                f"There is no interval: no trial is wrong at the best threshold. {count} speakers can't show how small "
                "the error rate is; test with more speakers or harder trials."
            )
        else:
            lines.append(
                f"There are no intervals: {count} speakers are too few to resample, or all scores are the same."
            )
    if 0 < count < FEW_SPEAKERS:
        lines.append(
            f"{count} test speakers are few: EER and minDCF may be far from those of other speakers. A 95 % interval "
            f"of the EER then holds the truth in about 90 to 95 % of cases, that of minDCF({PRIORS[-1]:g}) in 70 to 90 %."
        )
    elif 0 < count < FEW_SPEAKERS_FOR_MIN_DCF:
        lines.append(
            f"{count} test speakers are few for minDCF: its value is too low on average, and a 95 % interval of "
            f"minDCF({PRIORS[-1]:g}) holds the truth in less than 95 % of cases, about 90 %."
        )
    for prior in PRIORS if count and not math.isnan(float(row["eer_low"])) else ():
        odds = (1 - prior) / prior  # one false alarm costs as much as so many targets' part of the misses
        if int(row["nontarget"]) < odds / COARSE:
            lines.append(
                f"minDCF({prior:g}): {row['nontarget']} nontarget trials are few. One false alarm adds "
                f"{odds / int(row['nontarget']):.2f} to it, so the best threshold allows hardly any, the value is too low "
                f"and its 95 % interval too narrow. Take {math.ceil(odds / COARSE)} nontarget trials or more."
            )
        elif prior == PRIORS[-1] and count >= FEW_SPEAKERS_FOR_MIN_DCF and int(row["nontarget"]) < odds / FINE:
            lines.append(
                f"minDCF({prior:g}): its 95 % interval holds the truth in 90 to 95 % of cases, because {row['nontarget']} "
                f"nontarget trials allow few false alarms. Take {math.ceil(odds / FINE)} or more."
            )
    return lines


def is_stale(system: Path, row: Mapping[str, str]) -> bool:
    """Are the scores of this row of scores/metrics.tsv older than the system's final.pt?"""
    model, scores = system / "final.pt", system / f"scores/{row['trials']}.{row['scoring']}"
    if not scores.exists():
        scores = system / "scores/metrics.tsv"
    return model.exists() and model.stat().st_mtime > scores.stat().st_mtime


def read_metrics(path: str | Path) -> list[dict[str, str]]:
    """The rows; each number is checked, so that nobody has to look for the file later."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: can't be read ({error})") from error
    names = lines[0].split("\t") if lines else []
    if names[:2] != ["trials", "scoring"] or len(set(names)) != len(names):
        raise ValueError(f"{path}: not a metrics.tsv of score.py; remedy: remove the file and run score.py again")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if len(cells) != len(names):
            raise ValueError(f"{path}:{number}: has {len(cells)} fields, the first line has {len(names)}")
        for name, text in zip(names, cells, strict=True):
            if name in COLUMNS and name not in TEXT_COLUMNS:
                _check_number(text, f"{path}:{number}: {name}")
        rows.append(dict(zip(names, cells, strict=True)))
    return rows


def _check_number(text: str, where: str) -> None:
    try:
        float(text)
    except ValueError:
        raise ValueError(f"{where} is '{text}', not a number; remedy: run score.py again") from None


def add_to_metrics(path: str | Path, row: Row) -> None:
    """The row replaces an older one of the same trials and scoring. Several jobs may write at the same time."""
    path = Path(path)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = read_metrics(path) if path.exists() else []
        mine = {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in row.items()}
        key = (mine["trials"], mine["scoring"])
        rows = [old for old in rows if (old["trials"], old["scoring"]) != key] + [mine]
        rows.sort(key=lambda each: (each["trials"], each["scoring"]))
        with replacing(path) as file:
            file.write("\t".join(COLUMNS) + "\n")
            file.writelines("\t".join(each.get(name, "nan") for name in COLUMNS) + "\n" for each in rows)
