"""DINO (Caron et al. 2021, arXiv 2104.14294), the baseline without labels. Defaults are WeSpeaker's for speakers.

The teacher is the moving average of the student. It hears two long views of an utterance; the student hears these two and
four short views. For each view, the student has to give the outputs that the teacher gives for the other views. The
teacher's outputs are centred (minus their moving mean) and sharpened.

--koleo adds SDPN's diversity term for the student's embeddings of all views. It is not part of DINO: it is there to measure
what the term alone is worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from speakerkd.batches.dataset import Batch, View
from speakerkd.conf import opt
from speakerkd.kd.base import Clock, Components, Needs, Outcome
from speakerkd.kd.ema import Branch, Prototypes, SelfTaught, SelfTaughtConf
from speakerkd.losses.prototype import entropy, other_views_cross_entropy
from speakerkd.models.base import SpeakerNet
from speakerkd.parallel import gather_rows, mean_over_processes
from speakerkd.schedules import line_in_epochs, require_part


@dataclass(frozen=True)
class DINOConf(SelfTaughtConf):
    prototypes: int = opt(65536, "number of outputs, that is rows (of length 1) of the head's last layer")
    teacher_temperature: float = opt(0.07, "temperature of the teacher's cosines, after the rise")
    teacher_temperature_start: float = opt(0.04, "temperature of the teacher's cosines at the start")
    teacher_temperature_rise: float = opt(0.2, "part of the run over which the temperature rises")
    centre_momentum: float = opt(0.9, "share of the centre that is kept in a step")
    freeze_last_layer: float = opt(1 / 150, "part of the run, from its start, in which the last layer is frozen")
    long_view: float = opt(1.0, "length of long crops, times --num-frames")
    num_long: int = opt(2, "number of long crops; teacher and student hear them")
    short_view: float = opt(2 / 3, "length of short crops, times --num-frames")
    num_short: int = opt(4, "number of short crops; the student alone hears them")

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.teacher_temperature, self.teacher_temperature_start, self.long_view, self.short_view) <= 0:
            raise ValueError("the --teacher-temperatures, --long-view and --short-view must be positive")
        if self.num_long < 1 or self.num_short < 0 or self.num_long + self.num_short < 2:
            raise ValueError("--num-long must be 1 or more, --num-short 0 or more, and their sum 2 or more")
        if not 0 <= self.centre_momentum <= 1:
            raise ValueError("--centre-momentum is from 0 to 1")
        require_part("--teacher-temperature-rise", self.teacher_temperature_rise)
        require_part("--freeze-last-layer", self.freeze_last_layer)


class DINOBranch(Branch):
    """A branch and its last layer. The teacher's last layer is also a moving average."""

    def __init__(self, net: SpeakerNet, branch: Branch, prototypes: Prototypes) -> None:
        super().__init__(net, branch.head)
        self.prototypes = prototypes

    def forward(self, views: Sequence[Tensor], gradient: float = 1.0) -> tuple[Tensor, Tensor]:
        """Embeddings (V, B, D) and cosines (V, B, K)."""
        embeddings, points = super().forward(views)
        with torch.autocast(points.device.type, enabled=False):
            return embeddings, self.prototypes(points, gradient)


class DINO(SelfTaught):
    Conf: ClassVar[type] = DINOConf
    needs: ClassVar[Needs] = Needs(labels=False, views=(View(1.0), View(1.0), *[View(2 / 3)] * 4))
    centre: Tensor

    @classmethod
    def needs_of(cls, conf: DINOConf) -> Needs:
        views = (*[View(conf.long_view)] * conf.num_long, *[View(conf.short_view)] * conf.num_short)
        return Needs(labels=False, views=views)

    def __init__(self, conf: Any, components: Components) -> None:
        super().__init__(conf, components)
        self.register_buffer("centre", torch.zeros(conf.prototypes))

    def branch(self, net: SpeakerNet) -> DINOBranch:
        return DINOBranch(net, super().branch(net), Prototypes(self.conf.head_dims[-1], self.conf.prototypes))

    def forward(self, batch: Batch, clock: Clock) -> Outcome:
        with torch.no_grad():
            teacher_embedding, teacher = self.teacher(batch.feats[: self.conf.num_long])  # (G, B, D), (G, B, K)
        frozen = clock.before(self.conf.freeze_last_layer)
        embedding, student = self.student(batch.feats, 0.0 if frozen else 1.0)  # (V, B, K)
        with torch.autocast(student.device.type, enabled=False):
            targets = ((teacher - self.centre) / self.teacher_temperature(clock)).softmax(-1)
            losses = {"ce": other_views_cross_entropy(targets, student / self.conf.temperature)}
            if self.conf.koleo:
                losses["koleo"] = self.diversity(embedding)
            return Outcome(losses, self.watched(teacher_embedding, teacher, targets))

    def teacher_temperature(self, clock: Clock) -> float:
        conf, epoch = self.conf, int(clock.epoch)
        first, last = conf.teacher_temperature_start, conf.teacher_temperature
        return line_in_epochs(epoch, clock.num_epochs, first, last, conf.teacher_temperature_rise)

    @torch.no_grad()
    def watched(self, embedding: Tensor, cosines: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Moves the centre towards the mean of all processes' outputs, and collects figures about the teacher."""
        chosen = torch.zeros_like(self.centre)
        chosen[targets.argmax(-1).flatten()] = 1
        mean, chosen = mean_over_processes(torch.stack([cosines.mean((0, 1)), chosen]))
        self.centre.lerp_(mean, 1 - self.conf.centre_momentum)
        return self.watch.see(gather_rows(embedding[0]), chosen > 0) | {"entropy": entropy(targets)}
