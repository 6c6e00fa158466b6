"""What a method is: a module that owns whatever is trained, says what it must be given, and turns a batch into losses."""

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
    """Read by train.py, which builds Components and batches to suit."""

    labels: bool = True
    teacher: bool = False
    teacher_net: bool = False  # which must be a net that hears the crop: the method reads its stages
    vectors: tuple[str, ...] = ()  # of each utterance, by the name that --vectors gives
    may_have: tuple[str, ...] = ()  # such vectors too, but it works without
    views: tuple[View, ...] = (View(1.0),)  # () = no audio, hence no net: vectors alone
    classifier: bool = True  # where there are labels
    utts_per_speaker: int = 0  # 0: plain shuffling; n: batches of speakers x n utterances, speaker after speaker


@dataclass(frozen=True)
class Components:
    """Built by train.py to suit Needs."""

    student: SpeakerNet | None  # None where there is no audio
    speakers: tuple[str, ...]
    teacher: Teacher | None = None
    vector_dims: dict[str, int] = field(default_factory=dict)  # from the data, never from a conf


@dataclass(frozen=True)
class Clock:
    """How far the run is. All schedules have the part of the run that is done as their unit."""

    epoch: float  # 3.25: a quarter into the fourth epoch
    num_epochs: int

    @property
    def part(self) -> float:
        """The part of the run that is done, from 0 to 1."""
        return self.epoch / self.num_epochs

    def before(self, end: float) -> bool:
        return self.part < end - ROUNDING

    def rise(self, end: float) -> float:
        """From 0 to 1 over the first part of the run, linearly."""
        return rise(self.part, 0.0, end)

    def rise_in_epochs(self, end: float) -> float:
        """The same in equal steps, epoch by epoch: 1/n in the first of n epochs."""
        return rise_in_epochs(int(self.epoch), self.num_epochs, end)


@dataclass
class Outcome:
    losses: dict[str, Tensor]  # weighted; the loop minimises the sum and logs each
    metrics: dict[str, Tensor] = field(default_factory=dict)  # logged only


class Distiller(nn.Module):
    """A method. The loop calls forward, then after_step, and in the end saves what exports() gives."""

    Conf: ClassVar[type]
    needs: ClassVar[Needs] = Needs()
    results: ClassVar[tuple[str, ...]] = ("final",)  # the names that exports() gives
    sync_batch_norm: ClassVar[bool] = False  # whether the authors' batch norm sees the batch of all GPUs

    def __init__(self, conf: Any, components: Components) -> None:
        super().__init__()
        self.conf = conf

    @classmethod
    def needs_of(cls, conf: Any) -> Needs:
        """With these options; `needs` is that of the defaults."""
        return cls.needs

    def start_from(self, path: str) -> None:
        """--init of methods without a net."""
        raise ValueError(f"--init={path}: this method can't start from anything")

    def forward(self, batch: Batch, clock: Clock) -> Outcome:
        raise NotImplementedError

    def unregularised_parameters(self) -> list[nn.Parameter]:
        """Parameters that are neither decayed nor clipped, beside biases and norms, which are not decayed."""
        return []

    def after_step(self, clock: Clock) -> None:
        """For what follows the optimiser, such as moving averages."""

    def exports(self) -> Mapping[str, nn.Module]:
        """File name without .pt -> what goes into it: a SpeakerNet, or a VectorMap."""
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
        """The cross entropy, and the logits it was taken of."""
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
    """Classification, and a distance from a teacher whose weight rises over the first part of the run.

    A subclass writes distance(). Its Conf has `weight` and `warmup`.
    """

    needs: ClassVar[Needs] = Needs(teacher=True)

    def __init__(self, conf: Any, components: Components) -> None:
        super().__init__(conf, components)
        assert components.teacher is not None, "train.py gives methods that need a teacher one"
        if self.needs_of(conf).teacher_net and isinstance(components.teacher, VectorTeacher):
            raise ValueError(
                f"{components.teacher.name}: this method reads the stages of its teacher, and vectors have none: give a "
                "net, --teacher exp/<teacher>/final.pt. From vectors learn cosine, mse, relation, rkd, kld and enskd"
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
        """Enters the loss "kd", and the metrics."""
        teacher = self.teacher.embed(batch)
        with torch.autocast(logits.device.type, enabled=False):
            each = of_samples(self.distance(student, logits, teacher, batch, outcome.metrics))
            present = self.teacher.present(batch)
            each = each if present is None else each * present
        outcome.losses["kd"] = self.conf.weight * clock.rise_in_epochs(self.conf.warmup) * each.mean()

    def distance(
        self, student: Encoded, logits: Tensor, teacher: Encoded, batch: Batch, metrics: dict[str, Tensor]
    ) -> Tensor:
        """(B,), or (B, n) where a sample has several; single precision. `logits` are those of the cross entropy."""
        raise NotImplementedError

    def distance_mask(self, batch: Batch) -> Tensor | None:
        """bool, of the shape of distance(): True where it is a distance, False where it is an empty 0. None: all are."""
        return self.teacher.present(batch)


def of_samples(distances: Tensor) -> Tensor:
    """(B,) or (B, n) -> (B,)."""
    return distances if distances.ndim == 1 else distances.mean(1)
