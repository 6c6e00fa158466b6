"""The systems that local/compare_kd.sh trains: their error rates and replicates, by student, method and teacher."""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from speakerkd.conf import build, parse_args, read_conf, typed_conf
from speakerkd.kd import METHODS
from speakerkd.losses.margin import MarginConf
from speakerkd.models import read_model
from speakerkd.models.base import load_net
from speakerkd.score.bootstrap import replicate
from speakerkd.score.intervals import Estimate, estimate
from speakerkd.score.metrics import eer, min_dcf, roc
from speakerkd.score.trials import Speakers, Trials, read_scores
from speakerkd.train.identity import fingerprint, fingerprints_of_tables, options_of
from speakerkd.train.options import RunOptions, TrainConf
from speakerkd.train.runfolder import flat

PRIOR = 0.01


@dataclass
class Cell:
    """One student, method and teacher, several seeds."""

    student: str
    kd_type: str
    teacher: str
    seeds: list[int] = field(default_factory=list)
    points: list[tuple[float, float]] = field(default_factory=list)  # EER (a fraction) and minDCF of each seed
    replicates: list[np.ndarray] = field(default_factory=list)  # (R, 2) of each seed
    seconds: list[float] = field(default_factory=list)
    parameters: int = 0

    @property
    def mean(self) -> np.ndarray:
        """EER, a fraction, and minDCF."""
        return np.mean(self.points, 0)

    def rate(self, seeds: list[int]) -> float:
        """The mean EER of some of the seeds."""
        return float(np.mean([self.points[self.seeds.index(seed)][0] for seed in seeds]))

    def estimate(self, column: int, num_speakers: int) -> Estimate:
        """The mean over the seeds: column 0 is the EER, 1 is minDCF."""
        points = [point[column] for point in self.points]
        return estimate(points, np.stack([each[:, column] for each in self.replicates]), num_speakers)


def difference(one: Cell, other: Cell, num_speakers: int) -> tuple[list[int], Estimate]:
    """The seeds that both have, and the difference of the two EERs for each seed and each draw of the speakers."""
    seeds = sorted(set(one.seeds) & set(other.seeds))
    pairs = [(one.seeds.index(seed), other.seeds.index(seed)) for seed in seeds]
    points = [one.points[i][0] - other.points[j][0] for i, j in pairs]
    replicates = [one.replicates[i][:, 0] - other.replicates[j][:, 0] for i, j in pairs]
    if not seeds:
        return [], Estimate(math.nan, math.nan, math.nan, 1)
    return seeds, estimate(points, np.stack(replicates), num_speakers)


def cells_of(
    systems: list[Path], folders: list[Path], trials: Trials, speakers: Speakers, draws: np.ndarray
) -> dict[tuple[str, str, str], Cell]:
    cells: dict[tuple[str, str, str], Cell] = {}
    for system, folder in zip(systems, folders, strict=True):
        add(cells, system, folder, trials, speakers, draws)
    return cells


def mean_cell(cells: list[Cell]) -> Cell:
    """The mean over several conditions. The draws of the speakers are the same in all."""
    return replace(
        cells[0],
        points=[tuple(each) for each in np.mean([cell.points for cell in cells], 0)],
        replicates=list(np.mean([cell.replicates for cell in cells], 0)),
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


def asked_for(train_dir: str, train_config: str, train_options: str) -> dict[str, Any]:
    """What a call of compare_kd.sh says of the training of all its systems: the options of local/train.py, and the data."""
    conf, _ = parse_args(RunOptions, ["--config", train_config, *train_options.split()], None)
    folder = Path(train_dir)
    return {"train": options_of(conf), "data": {"folder": str(folder), "tables": fingerprints_of_tables(folder)}}


def check_alike(systems: list[Path], wanted: Mapping[str, Any] | None = None) -> None:
    """Systems scored in an earlier call are not trained again. They must have been trained with the same options.

    The options of optimisation, data, augmentation and classifier must be the same in all systems. The options of the
    model must be the same for all systems of a student, those of the method for all systems of a method and teacher. A
    file that is learnt from, such as a teacher, must have the same content in all systems. Model, method, classifier and
    these files must be unchanged since then. If `wanted` is given (see asked_for), optimisation and data must be those. An
    option that is newer than a system counts as its default.
    """
    firsts: dict[tuple[str, ...], tuple[Path, dict[str, str]]] = {}
    for system in systems:
        conf = json.loads((system / "conf.json").read_text(encoding="utf-8"))
        kd_type, teacher, _ = parts_of(system, conf)
        student = system.name.split(f"_{kd_type}_")[0]
        options = conf["options"]
        options["train"] = {**defaults(TrainConf), **options["train"]}
        for name, (kind, now) in as_the_files_are_now(command_of(conf), options).items():
            if options[name] is not None:
                options[name] = {**defaults(kind), **options[name]}
                compare(system, "the files now say", flat(options[name], name), flat(now, name))
        options["train"].pop("seed")
        for name, now in (wanted or {}).items():
            asked, found = flat(now, name), flat(options[name], name)
            both = sorted(asked.keys() & found.keys())  # an option may be newer than the system
            compare(system, "this call asks for", {x: found[x] for x in both}, {x: asked[x] for x in both})
        for name, group in (
            ("train", ()),
            ("data", ()),
            ("init", ()),
            ("head", ()),
            ("waves", ()),
            ("augmentation", ()),
            ("init_utts", ()),
            ("model", (student,)),
            ("method", (kd_type, teacher)),
            ("files", (kd_type, teacher)),
        ):
            if name == "head" and options[name] is None:  # a method without a classifier
                continue
            found = flat(options.get(name), name)
            first, before = firsts.setdefault((name, *group), (system, found))
            compare(system, first.name, found, before)
        for path, content in options["files"].items():  # a file of the same name must have the same content everywhere
            first, before = firsts.setdefault(("file", path), (system, {path: content}))
            compare(system, first.name, {path: content}, before)


def command_of(conf: dict[str, Any]) -> list[str]:
    command = conf["run"]["command"]
    return command.split() if isinstance(command, str) else command  # earlier versions stored a string


def defaults(kind: type | None) -> dict[str, Any]:
    return {each.name: each.default for each in fields(kind) if each.default is not MISSING} if kind else {}


def as_the_files_are_now(command: list[str], options: dict[str, Any]) -> dict[str, tuple[type | None, dict[str, Any]]]:
    """Class and options of the model, method and classifier, and the files that were learnt from, if they still exist."""
    given = {word: path for word, path in pairwise(command) if Path(path).is_file()}
    before = options.get("files") or {}
    found: dict[str, tuple[type | None, dict[str, Any]]] = {
        "files": (None, {path: fingerprint(path) if Path(path).is_file() else old for path, old in before.items()})
    }
    if "--model" in given:
        kind, conf = read_model(given["--model"])
        found["model"] = type(conf), {"type": kind, **asdict(conf)}
    if "--kd" in given:
        kind, _, conf = typed_conf(given["--kd"], METHODS)
        found["method"] = type(conf), {"type": kind, **asdict(conf)}
    if "--head" in given:
        found["head"] = MarginConf, asdict(build(MarginConf, read_conf(given["--head"]), given["--head"]))
    return found


def compare(system: Path, other: str, found: dict[str, str], wanted: dict[str, str]) -> None:
    differ = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
    if differ:
        raise ValueError(
            f"{system} was trained with other options than {other} "
            f"({', '.join(f'{name} {found.get(name)} for {wanted.get(name)}' for name in differ)}): "
            "remove what is of the earlier options, or compare in another folder"
        )


def parts_of(system: Path, conf: dict) -> tuple[str, str, int]:
    """kd_type, teacher and seed, of a folder named <student>_<kd_type>[_<teacher>]_s<seed>."""
    command = command_of(conf)
    kd_type = Path(command[command.index("--kd") + 1]).stem
    _, found, rest = system.name.partition(f"_{kd_type}_")
    tag, _, number = f"_{rest}".rpartition("_s")
    if not found or not number.isdigit():
        raise ValueError(f"{system}: is not named <student>_<kd_type>[_<teacher>]_s<seed>, as compare_kd.sh names them")
    return kd_type, tag.removeprefix("_"), int(number)


def points(scores: np.ndarray, trials: Trials) -> tuple[float, float]:
    curve = roc(scores, trials.target)
    return eer(curve)[0], min_dcf(curve, PRIOR)[0]
