#!/usr/bin/env python3
"""The table of a comparison of methods, over students and seeds. Called by compare_kd.sh.

Usage: local/compare_kd_table.py [options] <trials> <exp-dir>
  local/compare_kd_table.py --teachers "own=exp/resnet_tiny_s0" data/test/trials exp/compare
  local/compare_kd_table.py --noise exp/compare/noise --conditions noise10,noise0 data/test/trials exp/compare

Reads <exp-dir>/systems (one name per line: <student>_<kd_type>[_<teacher>]_s<seed>) and each system's scores.

EER and minDCF are means over the seeds, with 95 % intervals over speakers and seeds. The difference to kd_type none (or to
--reference, with the same teacher if it has one) uses the same seeds and the same draws of the speakers on both sides. p is
two-sided and below 0.05 exactly if 0 is outside the interval of the difference; it is not corrected for the number of rows.
Both need three seeds or more. speakerkd/score/intervals.py describes the test and how it was checked.
"gap closed" is how much of the EER's gap between the student without a teacher and the teacher was closed. "training" is
the mean wall time of the training. Systems that are trained side by side slow each other down.

It prints the table and writes into <exp-dir>:
  table.md table.tsv table.tex   the table, for LaTeX with the package booktabs
  systems.tsv                    one line per system and seed: EER, minDCF, parameters, multiply-accumulates per second of
                                 speech, real-time factor on one thread, epochs, training time, commit
  eer, cost, det (.png, .pdf)    figures: EER with intervals, EER against parameters, DET curves of the first seed
With --noise, the folder of score_noise.sh, it also makes
table_noise.md, .tsv and .tex: EER without noise and in each condition, and the mean over the conditions with its
interval and difference.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.conf import opt, parse_args, run
from speakerkd.files.tables import read_utt2spk, replacing
from speakerkd.score.bootstrap import draw_speakers
from speakerkd.score.evaluate import FEW_SPEAKERS
from speakerkd.score.intervals import MIN_SEEDS, Interval, difference_interval, p_value, share_interval
from speakerkd.score.markdown import markdown, p_text
from speakerkd.score.plots import can_plot
from speakerkd.score.trials import Trials, read_scores, read_trials, speakers_of
from speakerkd.train.comparison import Cell, asked_for, cells_of, check_alike, difference, mean_cell, points
from speakerkd.train.comparison_files import latex, write_figures, write_systems

ABOUT = ("student", "kd_type", "teacher", "seeds")


@dataclass
class Options:
    teachers: str = opt("", "name=folder ...: the teachers' folders, with their scores of the same trials")
    utt2spk: str = opt("", "utt2spk of the trials' utterances; default: the one in the folder of the trials")
    reference: str = opt("none", "kd_types to compare with; two columns each")
    noise: str = opt("", "folder of score_noise.sh, for a second table with one column per condition")
    conditions: str = opt("", "conditions of --noise, such as noise10,noise0")
    scores: str = opt("scores", "name of a system's folder of scores")
    table: str = opt("table", "name of the table's files; that of --noise has _noise after it")
    plots: bool = opt(True, "also draw figures, and write systems.tsv")
    check: str = opt("", "a train directory: only check that the systems were trained on it and with the same options")
    train_config: str = opt("conf/train.conf", "the optimisation that --check asks for")
    train_options: str = opt("", "options of local/train.py that override it")
    num_bootstrap: int = opt(2000, "how often the speakers are resampled")
    seed: int = opt(0, "random seed of the resampling")


def main(argv: list[str]) -> None:
    options, (trials_path, folder) = parse_args(Options, argv, __doc__, 2)
    out = Path(folder)
    systems = [out / name for name in (out / "systems").read_text(encoding="utf-8").split()]
    if options.check:
        trained = [system for system in systems if (system / "final.pt").exists()]
        check_alike(trained, asked_for(options.check, options.train_config, options.train_options))
        return
    check_alike(systems)
    trials = read_trials(trials_path)
    utt2spk = Path(options.utt2spk) if options.utt2spk else Path(trials_path).parent / "utt2spk"
    speakers = speakers_of(trials, read_utt2spk(utt2spk), {}, str(utt2spk))
    draws = draw_speakers(speakers.count, options.num_bootstrap, options.seed)
    cells = cells_of(systems, [system / options.scores for system in systems], trials, speakers, draws)
    teachers = {}
    for word in options.teachers.split():
        name, _, place = word.partition("=")
        scores, _ = read_scores(Path(place) / options.scores / f"{Path(trials_path).name}.cosine", trials)
        teachers[name] = points(scores, trials)
    rows = [row_of(cell, cells, teachers, speakers.count, options) for cell in cells.values()]
    header = (*ABOUT, "EER %", "minDCF(0.01)", *differences("EER", options), "gap closed", "parameters", "training")
    text = head(teachers, trials, speakers.count) + markdown(header, rows) + "\n"
    text += "".join(f"\n{line}\n" for line in warnings(cells, teachers, speakers.count))
    write(out / options.table, text, header, rows)
    if options.plots:
        write_systems(out / "systems.tsv", systems, cells)
    if options.plots and can_plot():
        write_figures(out, systems, cells, trials, speakers.count)
    elif options.plots:
        logging.info("no figures: matplotlib is not installed (pip install matplotlib)")
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
        rates = (f"{100 * found[key].mean[0]:.2f}" for found in (cells, *noisy.values()))
        rows.append([*row[:4], *rates, row[4], *row[6:-3]])
    header = (*ABOUT, "clean", *noisy, "mean of noisy", *differences("mean", options))
    text = "\n" + head({}, trials, speakers.count) + markdown(header, rows) + "\n"
    write(out / f"{options.table}_noise", text, header, rows)


def write(path: Path, text: str, header: tuple[str, ...], rows: list[list[str]]) -> None:
    with replacing(path.with_suffix(".md")) as file:
        file.write(text)
    with replacing(path.with_suffix(".tex")) as file:
        file.write(latex(header, rows))
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
    rate, cost = (share_interval(cell.estimate(column, num_speakers)) for column in (0, 1))
    changes = []
    for reference in options.reference.split():
        other = next((cells[key] for key in keys_of(cell, reference) if key in cells), cell)
        changes += change_of(cell, other, num_speakers, options)
    gap = "-"
    plain = cells.get((cell.student, "none", ""), cell)
    both = sorted(set(cell.seeds) & set(plain.seeds))
    if plain is not cell and both and cell.teacher in teachers and teachers[cell.teacher][0] < plain.rate(both):
        alone = plain.rate(both)
        gap = f"{100 * (alone - cell.rate(both)) / (alone - teachers[cell.teacher][0]):.0f} %"
    known = [value for value in cell.seconds if not math.isnan(value)]
    return [
        cell.student, cell.kd_type, cell.teacher or "-", str(len(cell.seeds)),
        f"{100 * cell.mean[0]:.2f}{span(rate, 2, scale=100)}", f"{cell.mean[1]:.3f}{span(cost, 3)}",
        *changes, gap, f"{cell.parameters / 1e6:.2f} M", f"{np.mean(known):.0f} s" if known else "-",
    ]  # fmt: skip


def keys_of(cell: Cell, kd_type: str) -> list[tuple[str, str, str]]:
    """The systems to compare with: taught by the same teacher, or without one."""
    return [(cell.student, kd_type, cell.teacher), (cell.student, kd_type, "")]


def change_of(cell: Cell, other: Cell, num_speakers: int, options: Options) -> list[str]:
    """The difference with its interval, and p. With fewer than three seeds, only the difference."""
    seeds, about = difference(cell, other, num_speakers)
    if other is cell or not seeds:
        return ["-", "-"]
    if len(seeds) < MIN_SEEDS:
        return [f"{100 * about.value:+.2f}", "-"]
    ends = span(difference_interval(about), 2, "+", scale=100)
    return [f"{100 * about.value:+.2f}{ends}", p_text(p_value(about))]


def differences(of: str, options: Options) -> list[str]:
    return [name for reference in options.reference.split() for name in (f"{of} - {reference}", "p")]


def span(ends: Interval, digits: int, sign: str = "", scale: int = 1) -> str:
    """The interval in brackets after a blank; nothing if it is unknown."""
    if math.isnan(ends.low):
        return ""
    return f" [{scale * ends.low:{sign}.{digits}f}, {scale * ends.high:{sign}.{digits}f}]"


def head(teachers: dict[str, tuple[float, float]], trials: Trials, num_speakers: int) -> str:
    judged = "; ".join(f"{name} {100 * rate:.2f} %, {cost:.3f}" for name, (rate, cost) in teachers.items())
    targets = int(trials.target.sum())
    about = (
        f"{Path(trials.path).name}: {len(trials)} trials, {targets} of them target, {num_speakers} speakers, cosine."
    )
    return f"{about}\n" + (f"Teachers (EER, minDCF): {judged}.\n" if judged else "") + "\n"


def warnings(
    cells: dict[tuple[str, str, str], Cell], teachers: dict[str, tuple[float, float]], num_speakers: int
) -> list[str]:
    found = []
    if len(cells) > 1 and max(len(cell.seeds) for cell in cells.values()) < MIN_SEEDS:
        found.append(f"No p-values: a test over seeds needs {MIN_SEEDS} seeds or more.")
    if num_speakers < FEW_SPEAKERS:
        found.append(f"{num_speakers} test speakers are few: a p-value just below 0.05 is weak evidence.")
    for (student, kd_type, _), cell in cells.items():
        for name, (rate, _) in teachers.items():
            if kd_type == "none" and rate >= cell.mean[0]:
                found.append(
                    f"The teacher {name} ({100 * rate:.2f} %) is no better than the student {student} without a "
                    f"teacher ({100 * cell.mean[0]:.2f} %): there is little to learn from it."
                )
    for line in found:
        logging.warning("%s", line)
    return found


if __name__ == "__main__":
    run(main)
