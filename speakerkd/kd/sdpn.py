"""SDPN: self-distillation prototypes network (Chen et al., ICASSP 2025, arXiv 2308.02774), without any label.

The teacher is the moving average of the student. It hears one long clean view of an utterance; the student hears short
augmented views. Both are compared with the same learnt prototypes. The student has to choose the prototypes that the
teacher chooses, after Sinkhorn has balanced the teacher's choices over the batch. Two terms prevent collapse: the
student's mean choice has to be even (me-max), and each embedding has to keep away from its nearest neighbour (KoLeo).

    loss = cross entropy + memax · (log K - H(mean choice)) + koleo · Σ over views of KoLeo

The batch is that of all processes together. All this is as in the authors' code, with one departure: here only the mean
of a crop is subtracted; the authors also divide by its standard deviation.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from speakerkd.batches.dataset import Batch, View
from speakerkd.conf import opt
from speakerkd.kd.base import Clock, Components, Needs, Outcome
from speakerkd.kd.ema import Prototypes, SelfTaught, SelfTaughtConf
from speakerkd.losses.prototype import cross_entropy, entropy, me_max, sinkhorn
from speakerkd.parallel import gather_rows, mean_over_processes, own_share


@dataclass(frozen=True)
class SDPNConf(SelfTaughtConf):
    teacher_temperature: float = opt(0.025, "temperature of the teacher's cosines: 0.1, sharpened by the power 4")
    sinkhorn_iterations: int = opt(3, "iterations of Sinkhorn; 0: targets are not balanced")
    memax: float = opt(1.0, "weight of me-max")
    koleo: float = opt(0.1, "weight of KoLeo")
    prototype_gradient: float = opt(
        4.0, "factor on the prototypes' gradient; 4: as published, where 4 GPUs sum it and do not average"
    )
    long_view: float = opt(1.0, "length of the teacher's crop, times --num-frames")
    short_view: float = opt(0.5, "length of the student's crops, times --num-frames")
    num_short: int = opt(4, "number of the student's crops")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher_temperature <= 0 or min(self.long_view, self.short_view) <= 0 or self.num_short < 1:
            raise ValueError(
                "--teacher-temperature, --long-view and --short-view must be positive, --num-short 1 or more"
            )
        if min(self.sinkhorn_iterations, self.memax, self.prototype_gradient) < 0:
            raise ValueError("--sinkhorn-iterations, --memax and --prototype-gradient can't be negative")


class SDPN(SelfTaught):
    Conf: ClassVar[type] = SDPNConf
    needs: ClassVar[Needs] = Needs(labels=False, views=(View(1.0, clean=True), *[View(0.5)] * 4))

    @classmethod
    def needs_of(cls, conf: SDPNConf) -> Needs:
        views = (View(conf.long_view, clean=True), *[View(conf.short_view)] * conf.num_short)
        return Needs(labels=False, views=views)

    def __init__(self, conf: Any, components: Components) -> None:
        super().__init__(conf, components)
        self.prototypes = Prototypes(conf.head_dims[-1], conf.prototypes)

    def unregularised_parameters(self) -> list[nn.Parameter]:
        return [self.prototypes.weight]

    def forward(self, batch: Batch, clock: Clock) -> Outcome:
        clean, *short = batch.feats
        with torch.no_grad():
            (teacher_embedding,), (teacher_point,) = self.teacher([clean])  # (B, D), (B, P)
        embedding, point = self.student(short)  # (V, B, D), (V, B, P)
        with torch.autocast(clean.device.type, enabled=False):
            targets, metrics = self.targets(teacher_embedding, teacher_point)
            logits = self.prototypes(point, self.conf.prototype_gradient) / self.conf.temperature  # (V, B, K)
            choice = mean_over_processes(logits.softmax(-1).mean((0, 1)))
            losses = {
                "ce": cross_entropy(targets, logits),
                "memax": self.conf.memax * me_max(choice),
                "koleo": self.diversity(embedding),
            }
        return Outcome(losses, metrics)

    @torch.no_grad()
    def targets(self, embedding: Tensor, point: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The teacher's balanced choices for the utterances of this process, and figures about the teacher."""
        embedding, point = gather_rows(torch.cat([embedding, point], 1)).split([embedding.shape[1], point.shape[1]], 1)
        targets = sinkhorn(self.prototypes(point) / self.conf.teacher_temperature, self.conf.sinkhorn_iterations)
        chosen = torch.zeros(self.conf.prototypes, dtype=torch.bool, device=point.device)
        chosen[targets.argmax(1)] = True
        return own_share(targets), self.watch.see(embedding, chosen) | {"entropy": entropy(targets)}
