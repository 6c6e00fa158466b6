"""Several teachers for any method that has one: each teaches alone, and the weighted mean of their losses is minimised.

The losses are logged by the teachers' names: kd_big, kd_face. If a method trains something beside the student, such as a
projection, each teacher has its own. mkd's weights of the samples are averaged in the same way as the losses.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from speakerkd.batches.dataset import Batch
from speakerkd.kd.base import Clock, Components, Distiller, Outcome, Supervised, TeacherStudent
from speakerkd.kd.teacher import Teacher


def named_teachers(text: str) -> dict[str, str]:
    """--teacher: a file, or name=file,name=file -> {name: file}. A single teacher may have no name ('')."""
    found: dict[str, str] = {}
    parts = [part for part in text.split(",") if part]
    for part in parts:
        name, _, path = part.rpartition("=")
        if not path or (len(parts) > 1 and not name):
            raise ValueError(
                f"--teacher={text}: give each of several teachers a name: big=exp/a/final.pt,face=face.scp"
            )
        if name in found:
            raise ValueError(f"--teacher={text}: two teachers are called '{name}'; give them different names")
        if not (name or "_").isidentifier():
            raise ValueError(f"--teacher={text}: '{name}' is not a name; use letters, digits and _")
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
    if text and "=" not in text and len(names) == 1:
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
