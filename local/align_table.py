#!/usr/bin/env python3
"""The matrix of align.sh: EERs of each map by who enrols and who verifies, and the gain recovered.

Usage: local/align_table.py [options] <trials> <out-dir> <enroll system> <test system> <map> [<map> ...]
  local/align_table.py data/test/trials exp/xvector_none_s0_resnet_tiny_s0_nessa xvector_none_s0 resnet_tiny_s0 raw nessa

Reads <out-dir>/<map>/scores/<trials>.<enroll|test>-<enroll|test>. T is the system of the lower EER by itself, S the other;
TS is enrolment by T and verification by S. G = (SS - TS) / (SS - TT), and the same of ST, with SS and TT of the unmapped
vectors: the part of the gain of replacing S by T on both sides that is had by replacing it on one. Intervals are of 95 %,
over the speakers; those of G draw the same speakers for all of its terms.
Printed, and written to <out-dir>/matrix.md and matrix.tsv.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.conf import opt, parse_args, run
from speakerkd.files.backend import read_spk2utt
from speakerkd.files.tables import read_utt2spk, replacing
from speakerkd.score.bootstrap import Interval, draw_speakers, intervals, replicate
from speakerkd.score.markdown import markdown
from speakerkd.score.metrics import eer, roc
from speakerkd.score.trials import Trials, read_scores, read_trials, speakers_of

CELLS = ("TT", "TS", "ST", "SS")


@dataclass
class Options:
    utt2spk: str = opt("", "speakers of the trials' utterances; default: utt2spk beside the trials")
    enroll_spk2utt: str = opt("", "enrolment models and their utterances, where trials name models")
    scorings: str = opt("cosine", "cosine, or cosine,asnorm")
    num_bootstrap: int = opt(1000, "resamplings of the speakers")
    seed: int = opt(0, "random seed of the resampling")


@dataclass
class Cell:
    """Point in percent, and replicates of it."""

    point: float
    draws: np.ndarray


Matrix = dict[tuple[str, str, str], Cell]  # map, side that enrols, side that verifies


def load(trials: Trials, out: Path, maps: list[str], scoring: str, options: Options) -> tuple[Matrix, int]:
    """What was scored, and the number of speakers."""
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
                found = replicate(scores, trials.target, speakers, draws)[:, 0]
                matrix[name, one, other] = Cell(100 * eer(roc(scores, trials.target))[0], 100 * found)
    return matrix, speakers.count


def gain(cell: Cell, old: Cell, new: Cell, num_speakers: int) -> tuple[float, Interval]:
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = (old.draws - cell.draws) / (old.draws - new.draws)
        point = float((np.float64(old.point) - cell.point) / (old.point - new.point))
    draws[~np.isfinite(draws)] = np.nan
    return point, intervals(draws[:, None], num_speakers)[0]


def shown(value: float, ends: Interval) -> str:
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
            ends = intervals(cell.draws[:, None], num_speakers)[0]
            rates.append(shown(cell.point, ends))
            line = [name, label, f"{cell.point:.6g}", f"{ends.low:.6g}", f"{ends.high:.6g}"]
            if label in ("TS", "ST"):
                part, limits = gain(cell, old, new, num_speakers)
                gains.append(shown(part, limits))
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
        better = "enroll" if enroll.point < test.point else "test"
        sides = {"T": better, "S": "test" if better == "enroll" else "enroll"}
        told = ", ".join(f"{letter} = {names[side]} (the maps' {side} side)" for letter, side in sides.items())
        text += (
            f"{Path(trials.path).name} by {scoring}: {len(trials)} trials, {num_speakers} speakers. {told}. EER %:\n\n"
        )
        rows, more = rows_of(matrix, maps, sides, num_speakers)
        text += markdown(["map", *CELLS, "G of TS", "G of ST"], rows) + "\n\n"
        new, old = (test, enroll) if better == "test" else (enroll, test)
        if not intervals((old.draws - new.draws)[:, None], num_speakers)[0].low > 0:
            text += "The two systems by themselves do not differ beyond chance on these trials: G says little.\n\n"
        lines += [[scoring, *line] for line in more]
    with replacing(out / "matrix.md") as file:
        file.write(text)
    with replacing(out / "matrix.tsv") as file:
        file.writelines("\t".join(line) + "\n" for line in lines)
    print(text, end="")


if __name__ == "__main__":
    run(main)
