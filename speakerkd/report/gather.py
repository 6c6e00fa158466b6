"""Collects what an experiment folder has: systems with their scores, settings and logs; comparisons, noise tables, maps."""

import csv
import itertools
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from speakerkd.score.evaluate import is_stale, read_metrics
from speakerkd.score.trials import Trials, read_scores, read_trials

SEED = re.compile(r"_s\d+$")


@dataclass
class System:
    """A folder of exp with a model or with scores."""

    name: str
    folder: Path
    results: list[dict[str, str]]  # rows of metrics.tsv
    settings: dict[str, Any]  # conf.json
    log: dict[str, list[float]]  # columns of log.tsv
    parameters: float = math.nan
    macs: float = math.nan  # per second of speech
    real_time_factor: float = math.nan

    @property
    def family(self) -> str:
        """The name without the seed: systems that differ only in the seed are one family."""
        return SEED.sub("", self.name)

    @property
    def method(self) -> str:
        return str(self.settings.get("options", {}).get("method", {}).get("type", ""))

    @property
    def command(self) -> str:
        command = self.settings.get("run", {}).get("command", "")
        return command if isinstance(command, str) else " ".join(map(str, command))

    @property
    def commit(self) -> str:
        return str(self.settings.get("run", {}).get("commit", ""))


@dataclass
class Experiment:
    folder: Path
    systems: list[System]
    comparisons: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    noise: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    maps: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def gather(folder: Path) -> Experiment:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give the exp folder of a recipe")
    experiment = Experiment(folder, [])
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        metrics = place / "scores/metrics.tsv"
        if not metrics.exists() and not (place / "final.pt").exists():
            continue
        try:
            results = read_metrics(metrics) if metrics.exists() else []
            settings = json.loads((place / "conf.json").read_text()) if (place / "conf.json").exists() else {}
            if not isinstance(settings, dict):
                raise ValueError(f"{place}/conf.json: is not a record of a run")
            system = System(place.name, place, results, settings, read_log(place / "log.tsv"))
        except (ValueError, KeyError, OSError) as error:
            experiment.warnings.append(f"{place} was left out: {error}")
            continue
        old = [row for row in results if is_stale(place, row)]
        if old:
            system.results = [row for row in results if row not in old]
            names = ", ".join(f"{row['trials']} by {row['scoring']}" for row in old)
            experiment.warnings.append(f"{place}: scores are older than its final.pt and were left out: {names}")
        experiment.systems.append(system)
    for path in sorted(path for path in folder.rglob("*.tsv") if path.is_file()):
        try:
            kind = kind_of(path)
            if kind:
                getattr(experiment, kind)[str(path.relative_to(folder))] = read_tsv(path)
        except (ValueError, OSError) as error:
            experiment.warnings.append(f"{path} was left out: {error}")
    if not experiment.systems and not experiment.comparisons:
        raise ValueError(f"{folder}: has no system with scores/metrics.tsv or final.pt; run stages 3 to 6 first")
    return experiment


def kind_of(path: Path) -> str:
    """The list of the experiment that a table belongs to, according to its header."""
    with path.open() as file:
        head = file.readline().rstrip("\n").split("\t")
    if {"student", "kd_type"} <= set(head):
        return "comparisons"
    if {"system", "noise", "snr", "eer"} <= set(head):
        return "noise"
    return "maps" if {"map", "cell", "gain"} <= set(head) else ""


def read_tsv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        lines = list(csv.reader(file, delimiter="\t"))
    if not lines:
        raise ValueError(f"{path}: is empty")
    head, seen = [], dict[str, int]()
    for name in lines[0]:  # a table has one column p per reference
        seen[name] = seen.get(name, 0) + 1
        head.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return [dict(zip(head, line, strict=False)) for line in lines[1:]]


def read_log(path: Path) -> dict[str, list[float]]:
    """The columns of log.tsv; text that is not a number is NaN."""
    if not path.exists():
        return {}
    rows = read_tsv(path)
    return {name: [number(row.get(name, "")) for row in rows] for name in (rows[0] if rows else {})}


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def measure_costs(experiment: Experiment, seconds: float, runs: int) -> None:
    """Parameters, multiply-accumulates and the real-time factor (on one thread) of each model."""
    import torch

    from speakerkd.models import load_net
    from speakerkd.models.cost import count_macs, num_parameters, time_run

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for system in experiment.systems:
        path = system.folder / "final.pt"
        if not path.exists():
            continue
        try:
            net = load_net(path)
        except ValueError as error:
            experiment.warnings.append(str(error))
            continue
        encoder: Any = net.encoder
        system.parameters = num_parameters(encoder)
        if runs:
            system.real_time_factor = time_run(encoder, net.feat_dim, round(100 * seconds), runs) / seconds
        system.macs = count_macs(encoder, net.feat_dim, round(100 * seconds)) / seconds
    torch.set_num_threads(threads)


def labelled_scores(system: System, trials: str, scoring: str, where: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """(scores, target) of a system's score file; None if the file or the trials (where/*/<trials>) are not there."""
    path = system.folder / f"scores/{trials}.{scoring}"
    lists = [each for each in sorted(where.glob(f"*/{trials}")) if each.is_file()]
    for each in lists:
        if path.is_file():
            try:
                known: Trials = read_trials(each)
                scores, _ = read_scores(path, known)
            except ValueError:  # a list of the same name without labels, or of other things
                continue
            keep = ~np.isnan(scores)
            if keep.mean() > 0.5 and known.target[keep].any() and not known.target[keep].all():
                return scores[keep], known.target[keep]
    return None


def teacher_of(system: System, systems: list[System]) -> System | None:
    """The system whose final.pt or vectors taught this one, according to its conf.json."""
    options = system.settings.get("options", {})
    words = system.command.split()
    given = [value for name, value in itertools.pairwise(words) if name in ("--teacher", "--vectors")]
    named = json.dumps([options.get("teacher", ""), options.get("files", {}), given])
    taught = [each for each in systems if each is not system and re.search(rf"[/ \"=,]{re.escape(each.name)}/", named)]
    return max(taught, key=lambda each: len(each.name)) if taught else None


def interval_of(text: str) -> tuple[float, float, float] | None:
    """'+0.38 [-0.90, +2.19]' -> its three numbers."""
    found = re.fullmatch(r"\s*([+-]?[\d.]+)\s*\[([+-]?[\d.]+),\s*([+-]?[\d.]+)\]\s*", text)
    return (float(found[1]), float(found[2]), float(found[3])) if found else None
