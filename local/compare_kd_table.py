#!/usr/bin/env python3
"""The table of a comparison of methods, over students and seeds. Called by compare_kd.sh.

Usage: local/compare_kd_table.py [options] <trials> <exp-dir>
  local/compare_kd_table.py --teachers "own=exp/resnet_tiny_s0" data/test/trials exp/compare
  local/compare_kd_table.py --noise exp/compare/noise --conditions clean,noise10,noise0 data/test/trials exp/compare

Reads <exp-dir>/systems (a name a line: <student>_<kd_type>[_<teacher>]_s<seed>) and each system's scores. Figures are means
over the seeds. Intervals are of 95 %: speakers are drawn as local/score.py draws them, and with every draw as many of the
seeds, again with replacement. The difference to kd_type none, or to --reference taught by the same teacher, is taken draw
by draw, with the same speakers and seeds on both sides, so what the two have in common doesn't widen it. p is two-sided;
nothing is corrected for the number of rows.
"gap closed" is the part of the way from the student alone to its teacher. Times are of the training alone.
Printed, and written to <exp-dir>/table.md and table.tsv. With --noise, the folder of score_noise.sh, to table_noise.md and
table_noise.tsv: EERs in each condition, clean being the systems' own scores, and their mean over all the others, whose
interval and difference are given.
"""

import json
import logging
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from speakerkd.conf import opt, parse_args, run
from speakerkd.data.tables import read_utt2spk, replacing
from speakerkd.models.base import load_net
from speakerkd.score.bootstrap import Interval, draw_speakers, intervals, p_value, replicate
from speakerkd.score.markdown import markdown
from speakerkd.score.metrics import eer, min_dcf, roc
from speakerkd.score.trials import Speakers, Trials, read_scores, read_trials, speakers_of

PRIOR = 0.01
ABOUT = ("student", "kd_type", "teacher", "seeds")


@dataclass
class Options:
    teachers: str = opt("", "name=folder ..., with their scores of the same trials")
    utt2spk: str = opt("", "speakers of the trials' utterances; default: utt2spk beside the trials")
    reference: str = opt("none", "kd_types that the differences are to; each has two columns")
    noise: str = opt("", "folder of score_noise.sh, for a table by its conditions")
    conditions: str = opt("", "of --noise, as clean,noise10,noise0")
    num_bootstrap: int = opt(2000, "resamplings of speakers and seeds")
    seed: int = opt(0, "of the resampling")


@dataclass
class Cell:
    """A row of the table: one student, method and teacher, several seeds."""

    student: str
    kd_type: str
    teacher: str
    seeds: list[int] = field(default_factory=list)
    points: list[tuple[float, float]] = field(default_factory=list)  # EER, minDCF of each seed
    replicates: list[np.ndarray] = field(default_factory=list)  # (R, 2) of each seed
    seconds: list[float] = field(default_factory=list)
    parameters: int = 0

    @property
    def mean(self) -> np.ndarray:
        return np.mean(self.points, 0)


def main(argv: list[str]) -> None:
    options, (trials_path, folder) = parse_args(Options, argv, __doc__, 2)
    out = Path(folder)
    trials = read_trials(trials_path)
    utt2spk = Path(options.utt2spk) if options.utt2spk else Path(trials_path).parent / "utt2spk"
    speakers = speakers_of(trials, read_utt2spk(utt2spk), {}, str(utt2spk))
    draws = draw_speakers(speakers.count, options.num_bootstrap, options.seed)
    systems = [out / name for name in (out / "systems").read_text(encoding="utf-8").split()]
    check_alike(systems)
    if options.noise:
        write_noise(options, systems, trials, speakers, draws, out)
        return
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


def write(path: Path, text: str, header: tuple[str, ...], rows: list[list[str]]) -> None:
    with replacing(path.with_suffix(".md")) as file:
        file.write(text)
    with replacing(path.with_suffix(".tsv")) as file:
        file.writelines("\t".join(row) + "\n" for row in (header, *rows))
    print(text, end="")


def write_noise(
    options: Options, systems: list[Path], trials: Trials, speakers: Speakers, draws: np.ndarray, out: Path
) -> None:
    """EER by condition, and the mean over the noisy ones beside none's."""
    conditions = options.conditions.split(",")
    noisy = [name for name in conditions if name != "clean"]
    if not noisy:
        raise ValueError(f"--conditions={options.conditions}: no noise; give such as clean,noise10,noise0")
    found = {}
    for name in conditions:
        folders = [Path(options.noise) / system.name / f"scores_{name}" for system in systems]
        if name == "clean":
            folders = [system / "scores" for system in systems]
        found[name] = cells_of(systems, folders, trials, speakers, draws)
    mean = {key: mean_cell([found[name][key] for name in noisy]) for key in found[noisy[0]]}
    rows = []
    for key, cell in mean.items():
        row = row_of(cell, mean, {}, speakers.count, options)
        rows.append([*row[:4], *(f"{found[name][key].mean[0]:.2f}" for name in conditions), row[4], *row[6:-3]])
    header = (*ABOUT, *conditions, "mean of noisy", *differences("mean", options))
    write(out / "table_noise", head({}, trials, speakers.count) + markdown(header, rows) + "\n", header, rows)


def cells_of(
    systems: list[Path], folders: list[Path], trials: Trials, speakers: Speakers, draws: np.ndarray
) -> dict[tuple[str, str, str], Cell]:
    cells: dict[tuple[str, str, str], Cell] = {}
    for system, folder in zip(systems, folders, strict=True):
        add(cells, system, folder, trials, speakers, draws)
    return cells


def mean_cell(cells: list[Cell]) -> Cell:
    """Of several conditions: speakers and seeds are drawn alike in all."""
    return replace(
        cells[0],
        points=[tuple(each) for each in np.mean([cell.points for cell in cells], 0)],
        replicates=list(np.mean([cell.replicates for cell in cells], 0)),
    )


def check_alike(systems: list[Path]) -> None:
    """What was scored in an earlier call is not trained again: it must have been trained with the same options."""
    first: dict[str, str] = {}
    for system in systems:
        options = json.loads((system / "conf.json").read_text(encoding="utf-8"))["options"]
        found = {name: str(value) for name, value in options["train"].items() if name != "seed"}
        found |= {name: str(value) for name, value in options["data"].items()}
        first = first or found
        other = [name for name in first if found.get(name) != first[name]]
        if other:
            raise ValueError(
                f"{system} was trained with other options than {systems[0].name} "
                f"({', '.join(f'{name} {found.get(name)} for {first[name]}' for name in other)}): "
                "remove what is of the earlier options, or compare in another folder"
            )


def add(
    cells: dict[tuple[str, str, str], Cell],
    system: Path,
    folder: Path,
    trials: Trials,
    speakers: Speakers,
    draws: np.ndarray,
) -> None:
    conf = json.loads((system / "conf.json").read_text(encoding="utf-8"))
    kd_type, teacher, seed = parts_of(system, conf)
    student = system.name.split(f"_{kd_type}_")[0]
    cell = cells.setdefault((student, kd_type, teacher), Cell(student, kd_type, teacher))
    scores, _ = read_scores(folder / f"{Path(trials.path).name}.cosine", trials)
    if np.isnan(scores).any():
        raise ValueError(f"{folder}: {int(np.isnan(scores).sum())} trials have no score; extract its vectors again")
    cell.seeds.append(seed)
    cell.points.append(points(scores, trials))
    cell.replicates.append(replicate(scores, trials.target, speakers, draws)[:, :2])
    cell.seconds.append(float(conf["run"].get("seconds", math.nan)))
    cell.parameters = sum(each.numel() for each in load_net(system / "final.pt").encoder.parameters())  # type: ignore[attr-defined]


def parts_of(system: Path, conf: dict) -> tuple[str, str, int]:
    """kd_type, teacher and seed, of a folder named <student>_<kd_type>[_<teacher>]_s<seed>."""
    command = conf["run"]["command"].split()
    kd_type = Path(command[command.index("--kd") + 1]).stem
    _, found, rest = system.name.partition(f"_{kd_type}_")
    tag, _, number = f"_{rest}".rpartition("_s")
    if not found or not number.isdigit():
        raise ValueError(f"{system}: is not named <student>_<kd_type>[_<teacher>]_s<seed>, as compare_kd.sh names them")
    return kd_type, tag.removeprefix("_"), int(number)


def points(scores: np.ndarray, trials: Trials) -> tuple[float, float]:
    curve = roc(scores, trials.target)
    return 100 * eer(curve)[0], min_dcf(curve, PRIOR)[0]


def drawn(cell: Cell, seeds: list[int], options: Options) -> np.ndarray:
    """(R, 2): replicate r is the mean over a draw of the seeds, the same draw for all cells of these seeds."""
    stack = np.stack([cell.replicates[cell.seeds.index(seed)] for seed in seeds])  # (S, R, 2)
    picks = np.random.default_rng([options.seed, 1]).integers(len(seeds), size=(stack.shape[1], len(seeds)))
    return stack[picks, np.arange(stack.shape[1])[:, None]].mean(1) * [100, 1]


def row_of(
    cell: Cell,
    cells: dict[tuple[str, str, str], Cell],
    teachers: dict[str, tuple[float, float]],
    num_speakers: int,
    options: Options,
) -> list[str]:
    rate, cost = intervals(drawn(cell, cell.seeds, options), num_speakers)
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
    change = drawn(cell, both, options) - drawn(other, both, options)
    ends = intervals(change, num_speakers)[0]
    difference = f"{rate_of(cell, both) - rate_of(other, both):+.2f} {span(ends, 2, '+')}"
    return [difference, f"{p_value(change[:, 0], num_speakers):.3f}"]


def differences(of: str, options: Options) -> list[str]:
    return [name for reference in options.reference.split() for name in (f"{of} - {reference}", "p")]


def rate_of(cell: Cell, seeds: list[int]) -> float:
    return float(np.mean([cell.points[cell.seeds.index(seed)][0] for seed in seeds]))


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
