"""Several teachers for any method that has one: each teaches alone, and the weighted mean of their losses is minimised.

The losses are logged by the teachers' names: kd_big, kd_face. If a method trains something beside the student, such as a
projection, each teacher has its own. mkd's weights of the samples are averaged in the same way as the losses.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from speakerkd.batches.dataset import Batch
from speakerkd.batches.utterances import Utterances
from speakerkd.conf import opt
from speakerkd.kd.base import Clock, Components, Distiller, Outcome, Supervised, TeacherStudent
from speakerkd.kd.find_teacher import HEARS, find_teacher, vectors_beside
from speakerkd.kd.teacher import Teacher, key_of
from speakerkd.losses.margin import MarginConf


@dataclass(frozen=True)
class TeacherOptions:
    """Those of local/train.py."""

    teacher: str = opt("", "teacher: a final.pt, or an xvector.scp of the training utterances; several: name=file,...")
    hear: str = opt(
        "",
        "what a final.pt hears: crop (the default; models with other features need --source waves); utterance or places: "
        "its vectors teach, from the folder xvectors_<data> or crops_<data> beside it",
    )
    centroids: str = opt(
        "", "spk_xvector.scp with the training speakers' mean vectors, as the teacher's classifier; or name=file,..."
    )
    teacher_weights: str = opt("", "weights of several teachers: name=number,...; default: equal weights")
    missing: str = opt(
        "error",
        "what to do with utterances without a vector: error, zero (the method leaves them out) or skip (never used)",
    )
    compile_teachers: bool = opt(
        False,
        "true: nets as teachers go through torch.compile; for GPUs and long runs, since the first steps take minutes",
    )


def find_teachers(
    options: TeacherOptions, data: Utterances, entries: np.ndarray, head: MarginConf | None
) -> dict[str, Teacher]:
    files, centroids = named_teachers(options.teacher), centroids_of(options.centroids, options.teacher)
    weights_of(options.teacher_weights, files)  # names are checked before anything is read
    found = {
        name: find_teacher(
            path, centroids.get(name, ""), data, entries, head, options.missing, key_of(name), options.hear
        )
        for name, path in files.items()
    }
    for teacher in found.values():
        teacher.compiled = options.compile_teachers
    return found


def files_of(options: TeacherOptions, folder: str | Path) -> list[str]:
    """All that the teachers consist of."""
    nets = [path for path in named_teachers(options.teacher).values() if not path.endswith(".scp")]
    beside = [vectors_beside(path, folder, options.hear) for path in nets if HEARS.get(options.hear, ("",))[0]]
    tables = named_teachers(options.teacher), centroids_of(options.centroids, options.teacher)
    return [path for table in tables for path in table.values()] + beside


def named_teachers(text: str) -> dict[str, str]:
    """--teacher: a file, or name=file,name=file -> {name: file}. A single teacher may have no name ('')."""
    found: dict[str, str] = {}
    parts = [part for part in text.split(",") if part]
    for part in parts:
        name, equals, path = part.partition("=")
        if not equals or "/" in name:  # a folder may have the sign in its name
            name, path = "", part
        if not path or (len(parts) > 1 and not name):
            raise ValueError(
                f"--teacher={text}: give each of several teachers a name: big=exp/a/final.pt,face=face.scp"
            )
        if name in found:
            raise ValueError(f"--teacher={text}: two teachers are called '{name}'; give them different names")
        if not (name or "_").isidentifier():
            raise ValueError(f"--teacher={text}: '{name}' is not a name; use letters, digits and _")
        if hasattr(nn.ModuleDict(), name):  # PyTorch has these names for itself
            raise ValueError(f"--teacher={text}: a teacher can't be called '{name}'; give it another name")
        found[name] = path
    return found


def weights_of(text: str, names: Mapping[str, Any]) -> dict[str, float]:
    """--teacher-weights: name=number,... -> weights of all teachers, scaled to the sum 1. Default: equal weights."""
    weights = dict.fromkeys(names, 1.0)
    for part in (part for part in text.split(",") if part):
        name, _, number = part.partition("=")
        if name not in weights:
            raise ValueError(f"--teacher-weights={text}: there is no teacher '{name}' (there are: {' '.join(names)})")
        try:
            weights[name] = float(number)
        except ValueError as error:
            raise ValueError(f"--teacher-weights={text}: '{number}' is not a number") from error
    if not weights:
        return {}
    total = sum(weights.values())
    if not 0 < total < float("inf") or min(weights.values()) < 0:
        raise ValueError(f"--teacher-weights={text}: weights can't be negative, and at least one must be positive")
    return {name: weight / total for name, weight in weights.items()}


def centroids_of(text: str, teachers: str) -> dict[str, str]:
    """--centroids: a file for a single teacher, or name=file,... -> {name: file} of the teachers that have one."""
    names = named_teachers(teachers)
    name, equals, _ = text.partition("=")
    if text and len(names) == 1 and (not equals or "/" in name):  # a folder may have the sign in its name
        return dict.fromkeys(names, text)
    found = {name: path for name, _, path in (part.partition("=") for part in text.split(",") if part)}
    if not set(found) <= set(names):
        raise ValueError(f"--centroids={text}: give name=file, with the names of teachers: {' '.join(names)}")
    return found


class Several(Supervised):
    """The method `kind` once for each teacher, around one student that classifies once."""

    def __init__(
        self,
        kind: type[TeacherStudent],
        conf: Any,
        components: Components,
        teachers: Mapping[str, Teacher],
        shares: Mapping[str, float],
    ) -> None:
        super().__init__(conf, components)
        single = {name: kind(conf, replace(components, teacher=teacher)) for name, teacher in teachers.items()}
        # The student belongs to this module. What else each single method trains or keeps is registered here.
        self._single = tuple(single.items())
        self._shares = dict(shares)
        self.own = nn.ModuleDict(
            {name: nn.ModuleDict(dict(without_student(method))) for name, method in single.items()}
        )

    def train(self, mode: bool = True) -> "Several":
        super().train(mode)
        for _, method in self._single:
            method.training = mode
        return self

    def forward(self, batch: Batch, clock: Clock) -> Outcome:
        student = self.student(batch.feats[0])
        outcome, logits = self.classify(student, batch, clock)
        weighted = []
        for name, method in self._single:
            part, share = Outcome({}, {}), self._shares[name]
            method.learn(student, logits, part, batch, clock)
            outcome.losses[f"kd_{name}"] = share * part.losses["kd"]
            outcome.metrics |= {f"{metric}_{name}": value for metric, value in part.metrics.items()}
            if "ce" in part.losses:  # only a method that weights the samples has it
                weighted.append(share * part.losses["ce"])
        if weighted:
            outcome.losses["ce"] = sum(weighted[1:], weighted[0])
        return outcome


def without_student(method: TeacherStudent) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in method.named_children() if name != "student")


def make_method(
    kind: type[Distiller],
    conf: Any,
    components: Components,
    teachers: Mapping[str, Teacher],
    shares: Mapping[str, float],
) -> Distiller:
    """The method with its teachers: none, one or several."""
    if len(teachers) < 2:  # exactly as without names
        return kind(conf, replace(components, teacher=next(iter(teachers.values()), None)))
    if not issubclass(kind, TeacherStudent):
        raise ValueError(f"{' '.join(teachers)}: this method takes one teacher")
    return Several(kind, conf, components, teachers, shares)
