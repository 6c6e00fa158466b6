"""Relational knowledge distillation (RKD: Park, Kim, Lu, Cho, CVPR 2019): distances and angles among the samples of a batch.

    L = CE + weight · (distance · RKD-D + angle · RKD-A)
RKD-D compares the distance of each pair of embeddings, divided by the batch's mean distance. RKD-A compares the angle of
each three embeddings. Both use Huber's loss and the mean over all pairs or triples (speakerkd/losses/relation.py). The
embeddings of student and teacher need no common space, so there is no projection. conf/kd/rkd.conf uses both terms,
rkd_distance.conf and rkd_angle.conf one each.

Confirmed by the authors' code: both formulas; and for classifiers, distance 25 and angle 50 beside a cross entropy and
label-level distillation, with the embeddings of both nets scaled to length 1. For metric learning without any other
loss, the code has 1 and 2, and scales only the teacher's embeddings (--unit-length=teacher).
Departures: the mean of RKD-A and RKD-D is over the samples of all processes. An utterance without a teacher's vector is in
no pair.
RKD-A needs memory for batch³ angles: 64 MB for 256 samples, about five times in a step. Several processes share them.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from speakerkd.batches.dataset import Batch
from speakerkd.conf import opt
from speakerkd.kd.base import Components, TeacherStudent
from speakerkd.losses.relation import rkd_angle, rkd_distance
from speakerkd.models.base import Encoded
from speakerkd.parallel import gather_rows, own_rows

UNIT_LENGTH = ("both", "teacher", "none")


@dataclass(frozen=True)
class RKDConf:
    weight: float = opt(1.0, "weight of both terms together; the cross entropy has weight 1")
    warmup: float = opt(0.0, "part of the run over which the weight rises from 0")
    distance: float = opt(25.0, "weight of RKD-D, the distances of pairs; 0: none")
    angle: float = opt(50.0, "weight of RKD-A, the angles of triples; 0: none")
    unit_length: str = opt("both", "embeddings that are first scaled to length 1: both, teacher or none")


class RKD(TeacherStudent):
    Conf: ClassVar[type] = RKDConf

    def __init__(self, conf: RKDConf, components: Components) -> None:
        super().__init__(conf, components)
        if conf.unit_length not in UNIT_LENGTH:
            raise ValueError(f"--unit-length={conf.unit_length} is not one of: {' '.join(UNIT_LENGTH)}")
        if min(conf.distance, conf.angle) < 0 or not conf.distance + conf.angle > 0:
            raise ValueError(f"--distance={conf.distance} and --angle={conf.angle} can't be negative, nor both be 0")

    def distance(
        self, student: Encoded, logits: Tensor, teacher: Encoded, batch: Batch, metrics: dict[str, Tensor]
    ) -> Tensor:
        """(B,): the mean over the pairs and triples that a sample is in."""
        learnt, taught = student.embedding.float(), teacher.embedding.float()
        if self.conf.unit_length == "both":
            learnt = F.normalize(learnt)
        if self.conf.unit_length != "none":
            taught = F.normalize(taught)
        own, present = own_rows(len(learnt)), self.teacher.present(batch)
        everyone = None if present is None else gather_rows(present.float()).bool()
        sides = gather_rows(learnt, same_loss=False), gather_rows(taught)
        total = learnt.new_zeros(len(learnt))
        if self.conf.distance:
            pairs = rkd_distance(*sides, own, everyone).mean(1)
            metrics["rkd_d"] = pairs.detach().mean()
            total = total + self.conf.distance * pairs
        if self.conf.angle:
            triples = rkd_angle(*sides, own, everyone).mean((1, 2))
            metrics["rkd_a"] = triples.detach().mean()
            total = total + self.conf.angle * triples
        return total
