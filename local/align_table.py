#!/usr/bin/env python3
"""The matrix of align.sh: EERs of each map by who enrols and who verifies, and the gain recovered.

Usage: local/align_table.py [options] <trials> <out-dir> <enroll system> <test system> <map> [<map> ...]
  local/align_table.py data/test/trials exp/xvector_none_s0_resnet_tiny_s0_nessa xvector_none_s0 resnet_tiny_s0 raw nessa

Reads <out-dir>/<map>/scores/<trials>.<enroll|test>-<enroll|test>. T is the system of the lower EER by itself, S the other;
TS: T enrols and S verifies. G = (SS - TS) / (SS - TT), and the same with ST in the place of TS. SS and TT are of the
unmapped vectors. So G is the gain from upgrading one side, divided by the gain from upgrading both. The intervals are 95 %
intervals over the speakers. All terms of a G are computed with the same draws of the speakers.
Printed, and written to <out-dir>/matrix.md and matrix.tsv (--table).
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.conf import opt, parse_args, run
from speakerkd.files.backend import read_spk2utt
from speakerkd.files.tables import read_utt2spk, replacing
from speakerkd.score.bootstrap import draw_speakers, replicate
from speakerkd.score.intervals import Interval, difference_interval, estimate, percentile_interval, share_interval
from speakerkd.score.markdown import markdown
from speakerkd.score.metrics import eer, roc
from speakerkd.score.trials import Trials, read_scores, read_trials, speakers_of

CELLS = ("TT", "TS", "ST", "SS")


@dataclass
class Options:
    utt2spk: str = opt("", "utt2spk of the trials' utterances; default: the one in the folder of the trials")
    enroll_spk2utt: str = opt("", "spk2utt of the enrolment models, if the trials name models")
    scorings: str = opt("cosine", "cosine, or cosine,asnorm")
    table: str = opt("matrix", "name of the two files")
    num_bootstrap: int = opt(1000, "how often the speakers are resampled for the intervals")
    seed: int = opt(0, "random seed of the resampling")


@dataclass
class Cell:
    """The EER (a fraction), and its replicates."""

    rate: float
    draws: np.ndarray


Matrix = dict[tuple[str, str, str], Cell]  # map, side that enrols, side that verifies


def load(trials: Trials, out: Path, maps: list[str], scoring: str, options: Options) -> tuple[Matrix, int]:
    """The EERs of the score files that exist, and the number of speakers."""
    utt2spk = Path(options.utt2spk) if options.utt2spk else Path(trials.path).parent / "utt2spk"
    models = read_spk2utt(options.enroll_spk2utt) if options.enroll_spk2utt else {}
    speakers = speakers_of(trials, read_utt2spk(utt2spk), models, str(utt2spk))
    draws = draw_speakers(speakers.count, options.num_bootstrap, options.seed)
    suffix = "" if scoring == "cosine" else f".{scoring}"
    matrix: Matrix = {}
    for name in maps:
        for one in ("enroll", "test"):
            for other in ("enroll", "test"):
                path = out / name / "scores" / f"{Path(trials.path).name}.{one}-{other}{suffix}"
                if not path.exists():
                    continue
                scores, _ = read_scores(path, trials)
                if np.isnan(scores).any():
                    raise ValueError(
                        f"{path}: {int(np.isnan(scores).sum())} trials have no score; extract the vectors again"
                    )
                rates = replicate(scores, trials.target, speakers, draws)[:, 0]
                matrix[name, one, other] = Cell(eer(roc(scores, trials.target))[0], rates)
    return matrix, speakers.count


def gain(cell: Cell, old: Cell, new: Cell, num_speakers: int) -> tuple[float, Interval]:
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = (old.draws - cell.draws) / (old.draws - new.draws)
        value = float((np.float64(old.rate) - cell.rate) / (old.rate - new.rate))
    draws[~np.isfinite(draws)] = np.nan
    return value, percentile_interval(draws, num_speakers)


def with_interval(value: float, ends: Interval) -> str:
    return f"{value:.2f}" + ("" if math.isnan(ends.low) else f" [{ends.low:.2f}, {ends.high:.2f}]")


def rows_of(
    matrix: Matrix, maps: list[str], sides: dict[str, str], num_speakers: int
) -> tuple[list[list[str]], list[list[str]]]:
    """Cells for people, and lines of the tsv: map, cell, EER, its ends, gain, its ends."""
    new, old = (matrix["raw", side, side] for side in (sides["T"], sides["S"]))
    rows, lines = [], []
    for name in maps:
        rates, gains = [], []
        for label in CELLS:
            cell = matrix.get((name, sides[label[0]], sides[label[1]]))
            if cell is None:
                rates.append("-")
                gains += ["-"] if label in ("TS", "ST") else []
                continue
            low, high = share_interval(estimate([cell.rate], cell.draws, num_speakers))
            percent = [100 * each for each in (cell.rate, low, high)]
            rates.append(with_interval(percent[0], Interval(*percent[1:])))
            line = [name, label, *(f"{each:.6g}" for each in percent)]
            if label in ("TS", "ST"):
                part, limits = gain(cell, old, new, num_speakers)
                gains.append(with_interval(part, limits))
                line += [f"{each:.6g}" for each in (part, *limits)]
            lines.append([*line, *["nan"] * (8 - len(line))])
        rows.append([name, *rates, *gains])
    return rows, lines


def main(argv: list[str]) -> None:
    options, rest = parse_args(Options, argv, __doc__, None)
    if len(rest) < 5:
        raise ValueError("the arguments are <trials> <out-dir> <enroll system> <test system> <map> ... (see --help)")
    trials, out, maps = read_trials(rest[0]), Path(rest[1]), rest[4:]
    names = dict(zip(("enroll", "test"), rest[2:4], strict=True))
    text, lines = "", [["scoring", "map", "cell", "eer", "eer_low", "eer_high", "gain", "gain_low", "gain_high"]]
    for scoring in options.scorings.split(","):
        matrix, num_speakers = load(trials, out, maps, scoring, options)
        own = {side: matrix.get(("raw", side, side)) for side in names}
        enroll, test = own["enroll"], own["test"]
        if enroll is None or test is None:
            raise ValueError(f"{out}/raw/scores: the systems' own scores are missing; run local/align.sh again")
        better = "enroll" if enroll.rate < test.rate else "test"
        sides = {"T": better, "S": "test" if better == "enroll" else "enroll"}
        sides_named = ", ".join(f"{letter} = {names[side]} (the maps' {side} side)" for letter, side in sides.items())
        text += f"{Path(trials.path).name} by {scoring}: {len(trials)} trials, {num_speakers} speakers. "
        text += f"{sides_named}. EER %:\n\n"
        rows, more = rows_of(matrix, maps, sides, num_speakers)
        text += markdown(["map", *CELLS, "G of TS", "G of ST"], rows) + "\n\n"
        new, old = (test, enroll) if better == "test" else (enroll, test)
        apart = estimate([old.rate - new.rate], old.draws - new.draws, num_speakers)
        if options.num_bootstrap and not difference_interval(apart).low > 0:
            text += "The two systems by themselves do not differ beyond chance on these trials: G says little.\n\n"
        lines += [[scoring, *line] for line in more]
    with replacing(out / f"{options.table}.md") as file:
        file.write(text)
    with replacing(out / f"{options.table}.tsv") as file:
        file.writelines("\t".join(line) + "\n" for line in lines)
    print(text, end="")


if __name__ == "__main__":
    run(main)
