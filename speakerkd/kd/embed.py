"""Embedding-level distillation: the student's embedding follows the teacher's.

cosine  1 - cos(student, teacher)
mse     mean over the dimensions of the squared difference

Both are ENSKD's and Wang et al.'s (ICASSP 2019) baselines; their weight (1) is reconstructed, and so is the linear
projection to the teacher's dimension where the two differ: the published students have the teacher's dimension. The
projection is trained with the student and not kept.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from speakerkd.conf import opt
from speakerkd.data.dataset import Batch
from speakerkd.kd.base import Parts, TeacherStudent
from speakerkd.losses.distill import cosine_distance, squared_distance
from speakerkd.models.base import Encoded


@dataclass(frozen=True)
class EmbedConf:
    weight: float = opt(1.0, "of the distance, beside the cross entropy's 1")
    warmup: float = opt(0.0, "part of the run's epochs over which the weight rises to this")
    projection: str = opt("auto", "linear layer to the teacher's dimension: auto (where they differ), always or never")


class EmbeddingLevel(TeacherStudent):
    """A subclass writes compare()."""

    Conf: ClassVar[type] = EmbedConf

    def __init__(self, conf: EmbedConf, parts: Parts) -> None:
        super().__init__(conf, parts)
        self.projection = projection(conf.projection, self.student.dim, self.teacher.dim)

    def distance(
        self, student: Encoded, logits: Tensor, teacher: Encoded, batch: Batch, metrics: dict[str, Tensor]
    ) -> Tensor:
        return self.compare(self.projection(student.embedding.float()), teacher.embedding)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        raise NotImplementedError


class Cosine(EmbeddingLevel):
    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        return cosine_distance(student, teacher)


class MSE(EmbeddingLevel):
    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        return squared_distance(student, teacher)


def projection(kind: str, student_dim: int, teacher_dim: int) -> nn.Module:
    if kind not in ("auto", "always", "never"):
        raise ValueError(f"--projection={kind} is none of auto always never")
    if kind == "never" and student_dim != teacher_dim:
        raise ValueError(
            f"--projection=never, but the student's embeddings have {student_dim} dimensions, the teacher's {teacher_dim}: "
            "give the student --embedding-dim of the teacher's, or take --projection=auto"
        )
    differ = student_dim != teacher_dim
    return nn.Linear(student_dim, teacher_dim) if kind == "always" or differ else nn.Identity()
