"""What a method is: a module that owns everything that is trained, says what it needs, and turns a batch into losses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.batches.dataset import Batch, View
from speakerkd.kd.teacher import Teacher, VectorTeacher
from speakerkd.losses.margin import margin_ramp
from speakerkd.models.base import Encoded, SpeakerNet
from speakerkd.schedules import ROUNDING, require_part, rise, rise_in_epochs


@dataclass(frozen=True)
class Needs:
    """What a method needs. train.py reads it and builds Components and batches accordingly."""

    labels: bool = True
    teacher: bool = False
    teacher_net: bool = False  # the teacher must be a net that hears the crop: the method reads its stages
    vectors: tuple[str, ...] = ()  # vectors of each utterance, by their names in --vectors
    may_have: tuple[str, ...] = ()  # vectors that are used if they are given
    views: tuple[View, ...] = (View(1.0),)  # (): no audio and no net, only vectors
    classifier: bool = True  # if there are labels
    utts_per_speaker: int = 0  # 0: shuffled utterances; n: a batch has n utterances of each of its speakers, in a row


@dataclass(frozen=True)
class Components:
    """What train.py builds for a method, according to its Needs."""

    student: SpeakerNet | None  # None: the method has no audio
    speakers: tuple[str, ...]
    teacher: Teacher | None = None
    vector_dims: dict[str, int] = field(default_factory=dict)  # read from the data, never from a conf


@dataclass(frozen=True)
class Clock:
    """How far the run is. The unit of all schedules is the part of the run that is done."""

    epoch: float  # 3.25: a quarter into the fourth epoch
    num_epochs: int

    @property
    def part(self) -> float:
        """The part of the run that is done, from 0 to 1."""
        return self.epoch / self.num_epochs

    def before(self, end: float) -> bool:
        return self.part < end - ROUNDING

    def rise(self, end: float) -> float:
        """Rises linearly from 0 to 1, until this part of the run is done."""
        return rise(self.part, 0.0, end)

    def rise_in_epochs(self, end: float) -> float:
        """Rises like rise(), but in equal steps, one per epoch: 1/n in the first of n epochs."""
        return rise_in_epochs(int(self.epoch), self.num_epochs, end)


@dataclass
class Outcome:
    losses: dict[str, Tensor]  # weighted; the loop minimises the sum and logs each
    metrics: dict[str, Tensor] = field(default_factory=dict)  # logged only


class Distiller(nn.Module):
    """A method. The loop calls forward, then after_step. At the end it saves what exports() returns."""

    Conf: ClassVar[type]
    needs: ClassVar[Needs] = Needs()
    results: ClassVar[tuple[str, ...]] = ("final",)  # the names in exports()
    sync_batch_norm: ClassVar[bool] = False  # whether the authors' batch norm sees the batch of all GPUs

    def __init__(self, conf: Any, components: Components) -> None:
        super().__init__()
        self.conf = conf

    @classmethod
    def needs_of(cls, conf: Any) -> Needs:
        """What the method needs with these options; `needs` holds for the defaults."""
        return cls.needs

    def start_from(self, path: str) -> None:
        """Reads what --init names, for methods without a net."""
        raise ValueError(f"--init={path}: this method can't start from anything")

    def forward(self, batch: Batch, clock: Clock) -> Outcome:
        raise NotImplementedError

    def unregularised_parameters(self) -> list[nn.Parameter]:
        """Parameters without weight decay and clipping. (Biases and norms always go without weight decay.)"""
        return []

    def after_step(self, clock: Clock) -> None:
        """What is to be done after the optimiser's step, such as moving averages."""

    def exports(self) -> Mapping[str, nn.Module]:
        """File name without .pt -> its content: a SpeakerNet or a VectorMap."""
        raise NotImplementedError


class Supervised(Distiller):
    """Classification of the training speakers with the head's margin."""

    def __init__(self, conf: Any, components: Components) -> None:
        super().__init__(conf, components)
        assert components.student is not None, "train.py makes a net for methods that hear audio"
        self.student = components.student
        if self.student.head is None:
            raise ValueError("training with labels needs a classifier: give --head conf/head.conf")

    def forward(self, batch: Batch, clock: Clock) -> Outcome:
        return self.classify(self.student(batch.feats[0]), batch, clock)[0]

    def classify(self, encoded: Encoded, batch: Batch, clock: Clock) -> tuple[Outcome, Tensor]:
        """The cross entropy, and the logits that it was computed from."""
        assert self.student.head is not None and batch.labels is not None
        head = self.student.head.conf
        ramp = margin_ramp(head, clock.part)
        logits = self.student.logits(encoded.embedding, batch.labels, ramp)  # (B, speakers)
        with torch.no_grad():
            correct = (logits.argmax(1) == batch.labels).float().mean()
        return Outcome({"ce": F.cross_entropy(logits, batch.labels)}, {"accuracy": correct}), logits

    def exports(self) -> Mapping[str, nn.Module]:
        return {"final": self.student}


class TeacherStudent(Supervised):
    """Classification, and a distance from a teacher. The weight of the distance rises over the first part of the run.

    A subclass defines distance(). Its Conf has `weight` and `warmup`.
    """

    needs: ClassVar[Needs] = Needs(teacher=True)

    def __init__(self, conf: Any, components: Components) -> None:
        super().__init__(conf, components)
        assert components.teacher is not None, "train.py gives methods that need a teacher one"
        if self.needs_of(conf).teacher_net and isinstance(components.teacher, VectorTeacher):
            raise ValueError(
                f"{components.teacher.name}: this method compares stages, and vectors have none. Give a net, "
                "--teacher exp/<teacher>/final.pt. From vectors learn cosine, mse, relation, rkd, kld, enskd, mkd and vgsr"
            )
        self._unregistered = (components.teacher,)  # in a tuple, so that it is no submodule
        require_part("--warmup", conf.warmup)
        if conf.weight < 0:
            raise ValueError(f"--weight={conf.weight} can't be negative")

    @property
    def teacher(self) -> Teacher:
        return self._unregistered[0]

    def forward(self, batch: Batch, clock: Clock) -> Outcome:
        student = self.student(batch.feats[0])
        outcome, logits = self.classify(student, batch, clock)
        self.learn(student, logits, outcome, batch, clock)
        return outcome

    def learn(self, student: Encoded, logits: Tensor, outcome: Outcome, batch: Batch, clock: Clock) -> None:
        """Adds the loss "kd" and the metrics to the outcome."""
        teacher = self.teacher.embed(batch)
        with torch.autocast(logits.device.type, enabled=False):
            each = of_samples(self.distance(student, logits, teacher, batch, outcome.metrics))
            present = self.teacher.present(batch)
            each = each if present is None else each * present
        outcome.losses["kd"] = self.conf.weight * clock.rise_in_epochs(self.conf.warmup) * each.mean()

    def distance(
        self, student: Encoded, logits: Tensor, teacher: Encoded, batch: Batch, metrics: dict[str, Tensor]
    ) -> Tensor:
        """(B,), or (B, n) if a sample has several; float32. `logits` are those of the cross entropy."""
        raise NotImplementedError

    def distance_mask(self, batch: Batch) -> Tensor | None:
        """bool, of the shape of distance(): True: it is a distance; False: it is an empty 0. None: all are distances."""
        return self.teacher.present(batch)


def of_samples(distances: Tensor) -> Tensor:
    """(B,) or (B, n) -> (B,)."""
    return distances if distances.ndim == 1 else distances.mean(1)
