"""Attention transfer (Zagoruyko, Komodakis, ICLR 2017): the student looks where the teacher looks, stage by stage.

    L = CE + weight · Σ over pairs of stages of mean (φ(S) - φ(T))²
φ of a stage is the mean of the squares over its channels, flattened over frequency and time and scaled to length 1. The
teacher must be a net that hears the student's crop: vectors have no stages.

--stages says which stages form pairs. With auto, the last stages of both nets form a pair, and so do earlier ones, evenly
spread: as many as the shallower net has. --stages=2:1,4:3 names the pairs (the student's stage, the teacher's, counted
from 1). If two stages differ in size, both are averaged to the smaller size along each axis before φ is scaled. Some nets
have no frequency axis (x-vector, ECAPA-TDNN, CAM++). Their stages are compared over time only, with the mean over the
frequencies of the other net.

Confirmed by the authors' code (images, nets of the same resolutions): φ, the mean of the squared difference, and the
last layer of each resolution as the stages. The weight of 1000 is not confirmed. Departures: the averaging to the
smaller size, and the mean over frequencies. With N points, a map's part of the loss is at most weight · 2 / N. So long
crops need a larger weight.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from speakerkd.batches.dataset import Batch
from speakerkd.conf import opt
from speakerkd.kd.base import Components, Needs, TeacherStudent
from speakerkd.models.base import Encoded
from speakerkd.models.pooling import single


@dataclass(frozen=True)
class AttentionConf:
    weight: float = opt(1000.0, "weight of the distance; the cross entropy has weight 1")
    warmup: float = opt(0.0, "part of the run over which the weight rises from 0")
    stages: str = opt("auto", "pairs of stages student:teacher, counted from 1, such as 2:1,4:3; auto: evenly spread")


class AttentionTransfer(TeacherStudent):
    Conf: ClassVar[type] = AttentionConf
    needs: ClassVar[Needs] = Needs(teacher=True, teacher_net=True)

    def __init__(self, conf: AttentionConf, components: Components) -> None:
        super().__init__(conf, components)
        self.given = None if conf.stages == "auto" else parse(conf.stages)

    def distance(
        self, student: Encoded, logits: Tensor, teacher: Encoded, batch: Batch, metrics: dict[str, Tensor]
    ) -> Tensor:
        """(B,): the sum over the pairs of stages."""
        pairs = self.given or spread(len(student.stages), len(teacher.stages))
        outside = [(s, t) for s, t in pairs if s > len(student.stages) or t > len(teacher.stages)]
        if outside or not pairs:
            wrong = f"--stages={self.conf.stages}: " if self.given else ""
            raise ValueError(
                f"{wrong}the student has {len(student.stages)} stages and the teacher {self.teacher.name} "
                f"{len(teacher.stages)}; attention transfer needs stages of both (local/model_info.py lists the models)"
            )
        each = [stage_distance(student.stages[s - 1], teacher.stages[t - 1]) for s, t in pairs]
        for (s, t), distance in zip(pairs, each, strict=True):
            metrics[f"stage{s}:{t}"] = distance.detach().mean()
        return sum(each[1:], each[0])


def parse(text: str) -> list[tuple[int, int]]:
    """2:1,4:3 -> [(2, 1), (4, 3)]."""
    pairs = [part.partition(":")[::2] for part in text.split(",")]
    if not all(number.isdecimal() and int(number) > 0 for pair in pairs for number in pair):
        raise ValueError(
            f"--stages={text}: not pairs of stages, counted from 1, such as 2:1,4:3 (the student's, the teacher's)"
        )
    return [(int(student), int(teacher)) for student, teacher in pairs]


def spread(student: int, teacher: int) -> list[tuple[int, int]]:
    """As many pairs of stages as the shallower net has, evenly spread over the depth of both; the last with the last."""
    count = min(student, teacher)
    return [(-(-k * student // count), -(-k * teacher // count)) for k in range(1, count + 1)]


def stage_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """(B, C, F, T) or (B, C, T) each -> (B,)."""
    learnt, taught = power(student), power(teacher.detach())
    if learnt.ndim != taught.ndim:  # one of them has no frequency axis
        learnt, taught = (each.mean(1) if each.ndim == 3 else each for each in (learnt, taught))
    size = [min(sizes) for sizes in zip(learnt.shape[1:], taught.shape[1:], strict=True)]
    learnt, taught = (F.normalize(averaged(each, size).flatten(1)) for each in (learnt, taught))
    return (learnt - taught).square().mean(1)


def power(maps: Tensor) -> Tensor:
    """(B, C, F, T) or (B, C, T) -> (B, F, T) or (B, T): the mean over the channels of the squares."""
    return single(maps).square().mean(1)


def averaged(maps: Tensor, size: list[int]) -> Tensor:
    """(B, F, T) or (B, T) -> this size; each new point is the mean of the points that it covers."""
    if list(maps.shape[1:]) == size:
        return maps
    if len(size) == 2:
        return F.adaptive_avg_pool2d(maps, (size[0], size[1]))
    return F.adaptive_avg_pool1d(maps, size[0])
