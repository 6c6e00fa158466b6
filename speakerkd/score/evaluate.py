"""What a set of scores is worth: one row of metrics.tsv, a table to read."""

import fcntl
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from speakerkd.files.tables import replacing
from speakerkd.score.bootstrap import FEW_SPEAKERS, draw_speakers, intervals, replicate
from speakerkd.score.calibrate import NUM_FOLDS, Calibration, cross_validate
from speakerkd.score.metrics import PRIORS, act_dcf, cllr, eer, kaldi_eer, min_cllr, min_dcf, roc
from speakerkd.score.trials import Speakers

Row = dict[str, str | int | float]

# EERs are in percent; thresholds are of the raw scores; lost counts trials without a score.
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


def evaluate(
    scores: np.ndarray,
    target: np.ndarray,
    speakers: Speakers | None,
    calibration: Calibration | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> Row:
    """All figures but the names. Without speakers there are no intervals, and no Cllr unless a calibration is given."""
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
    bounds = [(math.nan, math.nan)] * (1 + len(PRIORS))
    if speakers and speakers.count > 1 and num_bootstrap:
        draws = draw_speakers(speakers.count, num_bootstrap, seed)
        bounds = list(intervals(replicate(scores, target, speakers, draws), speakers.count))
    row["eer_low"], row["eer_high"] = 100 * bounds[0][0], 100 * bounds[0][1]
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
    lines.append(f"{'Cllr':<15}{_number(row, 'cllr', 3):>8}   min Cllr: {_number(row, 'min_cllr', 3)}")
    return "\n".join(lines + [f"note: {note}" for note in notes(row)])


def notes(row: Row) -> list[str]:
    """What a reader of the figures must know of how they were made."""
    found = [
        {
            "cross-validated": f"actDCF and Cllr: calibrated by up to {NUM_FOLDS} folds over the speakers of these "
            "very trials, no trial by a line that heard its speakers; other data need a calibration of their own",
            "stored": "actDCF and Cllr: with the calibration that was given",
            "none": "no actDCF and Cllr: they need utt2spk and six speakers at least, to calibrate on some and judge "
            "others; or give --calibration",
        }[str(row["calibration"])]
    ]
    count = int(row["speakers"])
    if math.isnan(float(row["eer_low"])):
        found.append("no intervals: they need --num-bootstrap and some speakers")
    elif count < FEW_SPEAKERS:
        found.append(
            f"{count} speakers are few: the intervals speak of speakers like these, and hold the truth less often than "
            "95 % says"
        )
    return found


def read_metrics(path: str | Path) -> list[dict[str, str]]:
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    names = lines[0].split("\t") if lines else []
    if names[:2] != ["trials", "scoring"]:
        raise ValueError(f"{path}: not a metrics.tsv of score.py")
    rows = [dict(zip(names, line.split("\t"), strict=False)) for line in lines[1:]]
    if any(len(row) != len(names) for row in rows):
        raise ValueError(f"{path}: a row has not the {len(names)} fields of the first line")
    return rows


def add_to_metrics(path: str | Path, row: Row) -> None:
    """The row takes the place of the one with its trials and scoring. Several jobs may do so at once."""
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
