"""What a method is: a module that owns whatever is trained, says what it must be given, and turns a batch into losses."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.data.dataset import Batch, View
from speakerkd.losses.margin import margin_ramp
from speakerkd.models.base import Encoded, SpeakerNet


@dataclass(frozen=True)
class Needs:
    """Read by train.py, which builds Parts and batches to suit."""

    labels: bool = True
    views: tuple[View, ...] = (View(1.0),)


@dataclass(frozen=True)
class Parts:
    """Built by train.py to suit Needs."""

    student: SpeakerNet
    speakers: tuple[str, ...]


@dataclass(frozen=True)
class Clock:
    epoch: float  # 3.25: a quarter into the fourth epoch
    num_epochs: int

    def ramp(self, epochs: float) -> float:
        """From 0 to 1 over the first `epochs`."""
        return 1.0 if epochs <= 0 else min(self.epoch / epochs, 1.0)


@dataclass
class Outcome:
    losses: dict[str, Tensor]  # weighted; the loop minimises the sum and logs each
    metrics: dict[str, Tensor] = field(default_factory=dict)  # logged only


class Distiller(nn.Module):
    """A method. The loop calls forward, then after_step, and in the end saves what exports() gives."""

    Conf: ClassVar[type]
    needs: ClassVar[Needs] = Needs()

    def __init__(self, conf: Any, parts: Parts) -> None:
        super().__init__()
        self.conf = conf

    @classmethod
    def needs_of(cls, conf: Any) -> Needs:
        """With these options; `needs` is that of the defaults."""
        return cls.needs

    def forward(self, batch: Batch, clock: Clock) -> Outcome:
        raise NotImplementedError

    def free(self) -> list[nn.Parameter]:
        """Parameters that are neither decayed nor clipped, beside biases and norms, which are not decayed."""
        return []

    def after_step(self, clock: Clock) -> None:
        """For what follows the optimiser, such as moving averages."""

    def exports(self) -> dict[str, SpeakerNet]:
        """File name without .pt -> what goes into it."""
        raise NotImplementedError


class Supervised(Distiller):
    """Classification of the training speakers with the head's margin."""

    def __init__(self, conf: Any, parts: Parts) -> None:
        super().__init__(conf, parts)
        self.student = parts.student
        if self.student.head is None:
            raise ValueError("training with labels needs a classifier: give --head conf/head.conf")

    def forward(self, batch: Batch, clock: Clock) -> Outcome:
        return self.classify(self.student(batch.feats[0]), batch, clock)[0]

    def classify(self, encoded: Encoded, batch: Batch, clock: Clock) -> tuple[Outcome, Tensor]:
        """The cross entropy, and the logits it was taken of."""
        assert self.student.head is not None and batch.labels is not None
        head = self.student.head.conf
        ramp = margin_ramp(clock.epoch, head.margin_start, head.margin_end, head.margin_shape)
        logits = self.student.logits(encoded.embedding, batch.labels, ramp)  # (B, speakers)
        with torch.no_grad():
            correct = (logits.argmax(1) == batch.labels).float().mean()
        return Outcome({"ce": F.cross_entropy(logits, batch.labels)}, {"accuracy": correct}), logits

    def exports(self) -> dict[str, SpeakerNet]:
        return {"final": self.student}
