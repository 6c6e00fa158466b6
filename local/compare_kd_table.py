#!/usr/bin/env python3
"""The table of a comparison of methods, over students and seeds. Called by compare_kd.sh.

Usage: local/compare_kd_table.py [options] <trials> <exp-dir>
  local/compare_kd_table.py --teachers "own=exp/resnet_tiny_s0" data/test/trials exp/compare
  local/compare_kd_table.py --noise exp/compare/noise --conditions noise10,noise0 data/test/trials exp/compare

Reads <exp-dir>/systems (a name a line: <student>_<kd_type>[_<teacher>]_s<seed>) and each system's scores. Figures are means
over the seeds. Intervals are of 95 %: speakers are drawn as local/score.py draws them, and with every draw as many of the
seeds, again with replacement. The difference to kd_type none, or to --reference taught by the same teacher, is taken draw
by draw, with the same speakers and seeds on both sides, so what the two have in common doesn't widen it. p is two-sided;
nothing is corrected for the number of rows.
"gap closed" is the part of the way from the student alone to its teacher. Times are of the training alone.
Printed, and written to <exp-dir>/table.md and table.tsv. With --noise, the folder of score_noise.sh, there are
table_noise.md and table_noise.tsv too: EERs without noise and in each condition, and their mean over the conditions, whose
interval and difference are given.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.conf import opt, parse_args, run
from speakerkd.files.tables import read_utt2spk, replacing
from speakerkd.score.bootstrap import Interval, draw_speakers, intervals, p_value
from speakerkd.score.markdown import markdown
from speakerkd.score.trials import Trials, read_scores, read_trials, speakers_of
from speakerkd.train.comparison import Cell, cells_of, check_alike, drawn, mean_cell, points, rate_of

ABOUT = ("student", "kd_type", "teacher", "seeds")


@dataclass
class Options:
    teachers: str = opt("", "name=folder ..., with their scores of the same trials")
    utt2spk: str = opt("", "speakers of the trials' utterances; default: utt2spk beside the trials")
    reference: str = opt("none", "kd_types that the differences are to; each has two columns")
    noise: str = opt("", "folder of score_noise.sh, for a second table, by its conditions")
    conditions: str = opt("", "noise conditions, such as noise10,noise0")
    check: bool = opt(False, "only see whether those that are trained were trained with the same options")
    num_bootstrap: int = opt(2000, "resamplings of speakers and seeds")
    seed: int = opt(0, "random seed of the resampling")


def main(argv: list[str]) -> None:
    options, (trials_path, folder) = parse_args(Options, argv, __doc__, 2)
    out = Path(folder)
    systems = [out / name for name in (out / "systems").read_text(encoding="utf-8").split()]
    if options.check:
        check_alike([system for system in systems if (system / "final.pt").exists()])
        return
    check_alike(systems)
    trials = read_trials(trials_path)
    utt2spk = Path(options.utt2spk) if options.utt2spk else Path(trials_path).parent / "utt2spk"
    speakers = speakers_of(trials, read_utt2spk(utt2spk), {}, str(utt2spk))
    draws = draw_speakers(speakers.count, options.num_bootstrap, options.seed)
    cells = cells_of(systems, [system / "scores" for system in systems], trials, speakers, draws)
    teachers = {}
    for word in options.teachers.split():
        name, _, place = word.partition("=")
        scores, _ = read_scores(Path(place) / f"scores/{Path(trials_path).name}.cosine", trials)
        teachers[name] = points(scores, trials)
    rows = [row_of(cell, cells, teachers, speakers.count, options) for cell in cells.values()]
    header = (*ABOUT, "EER %", "minDCF(0.01)", *differences("EER", options), "gap closed", "parameters", "training")
    text = head(teachers, trials, speakers.count) + markdown(header, rows) + "\n"
    text += "".join(f"\n{line}\n" for line in warnings(cells, teachers))
    write(out / "table", text, header, rows)
    if not options.noise:
        return
    noisy = {}
    for name in options.conditions.split(","):
        folders = [Path(options.noise) / system.name / f"scores_{name}" for system in systems]
        noisy[name] = cells_of(systems, folders, trials, speakers, draws)
    mean = {key: mean_cell([found[key] for found in noisy.values()]) for key in cells}
    rows = []
    for key, cell in mean.items():
        row = row_of(cell, mean, {}, speakers.count, options)
        rates = (f"{found[key].mean[0]:.2f}" for found in (cells, *noisy.values()))
        rows.append([*row[:4], *rates, row[4], *row[6:-3]])
    header = (*ABOUT, "clean", *noisy, "mean of noisy", *differences("mean", options))
    text = "\n" + head({}, trials, speakers.count) + markdown(header, rows) + "\n"
    write(out / "table_noise", text, header, rows)


def write(path: Path, text: str, header: tuple[str, ...], rows: list[list[str]]) -> None:
    with replacing(path.with_suffix(".md")) as file:
        file.write(text)
    with replacing(path.with_suffix(".tsv")) as file:
        file.writelines("\t".join(row) + "\n" for row in (header, *rows))
    print(text, end="")


def row_of(
    cell: Cell,
    cells: dict[tuple[str, str, str], Cell],
    teachers: dict[str, tuple[float, float]],
    num_speakers: int,
    options: Options,
) -> list[str]:
    rate, cost = intervals(drawn(cell, cell.seeds, options.seed), num_speakers)
    changes = []
    for reference in options.reference.split():
        other = next((cells[key] for key in keys_of(cell, reference) if key in cells), cell)
        changes += change_of(cell, other, num_speakers, options)
    gap = "-"
    plain = cells.get((cell.student, "none", ""), cell)
    both = sorted(set(cell.seeds) & set(plain.seeds))
    if plain is not cell and both and cell.teacher in teachers and teachers[cell.teacher][0] < rate_of(plain, both):
        alone = rate_of(plain, both)
        gap = f"{100 * (alone - rate_of(cell, both)) / (alone - teachers[cell.teacher][0]):.0f} %"
    known = [value for value in cell.seconds if not math.isnan(value)]
    return [
        cell.student, cell.kd_type, cell.teacher or "-", str(len(cell.seeds)),
        f"{cell.mean[0]:.2f} {span(rate, 2)}", f"{cell.mean[1]:.3f} {span(cost, 3)}",
        *changes, gap, f"{cell.parameters / 1e6:.2f} M", f"{np.mean(known):.0f} s" if known else "-",
    ]  # fmt: skip


def keys_of(cell: Cell, kd_type: str) -> list[tuple[str, str, str]]:
    """Taught by the same teacher, else without one."""
    return [(cell.student, kd_type, cell.teacher), (cell.student, kd_type, "")]


def change_of(cell: Cell, other: Cell, num_speakers: int, options: Options) -> list[str]:
    """Difference with its interval, and p."""
    both = sorted(set(cell.seeds) & set(other.seeds))
    if other is cell or not both:
        return ["-", "-"]
    change = drawn(cell, both, options.seed) - drawn(other, both, options.seed)
    ends = intervals(change, num_speakers)[0]
    difference = f"{rate_of(cell, both) - rate_of(other, both):+.2f} {span(ends, 2, '+')}"
    return [difference, f"{p_value(change[:, 0], num_speakers):.3f}"]


def differences(of: str, options: Options) -> list[str]:
    return [name for reference in options.reference.split() for name in (f"{of} - {reference}", "p")]


def span(ends: Interval, digits: int, sign: str = "") -> str:
    return f"[{ends.low:{sign}.{digits}f}, {ends.high:{sign}.{digits}f}]"


def head(teachers: dict[str, tuple[float, float]], trials: Trials, num_speakers: int) -> str:
    told = "; ".join(f"{name} {rate:.2f} %, {cost:.3f}" for name, (rate, cost) in teachers.items())
    targets = int(trials.target.sum())
    about = (
        f"{Path(trials.path).name}: {len(trials)} trials, {targets} of them target, {num_speakers} speakers, cosine."
    )
    return f"{about}\n" + (f"Teachers (EER, minDCF): {told}.\n" if told else "") + "\n"


def warnings(cells: dict[tuple[str, str, str], Cell], teachers: dict[str, tuple[float, float]]) -> list[str]:
    found = []
    for (student, kd_type, _), cell in cells.items():
        for name, (rate, _) in teachers.items():
            if kd_type == "none" and rate >= cell.mean[0]:
                found.append(
                    f"The teacher {name} ({rate:.2f} %) is no better than the student {student} alone "
                    f"({cell.mean[0]:.2f} %): there is little to learn from it."
                )
    for line in found:
        logging.warning("%s", line)
    return found


if __name__ == "__main__":
    run(main)
