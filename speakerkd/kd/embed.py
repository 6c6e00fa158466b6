"""Embedding-level distillation: the student's embedding follows the teacher's.

cosine    1 - cos(student, teacher)
mse       mean over the dimensions of the squared difference
relation  |cos(student i, student j) - cos(teacher i, teacher j)|, mean over the others j of the batch: what the teacher
          finds alike (relational distillation); the two need no common space, so no projection

The first two are ENSKD's and Wang et al.'s (ICASSP 2019) baselines; their weight (1) is reconstructed, and so is the linear
projection to the teacher's dimension where the two differ: the published students have the teacher's dimension. The
projection is trained with the student and not kept.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from speakerkd.batches.dataset import Batch
from speakerkd.conf import opt
from speakerkd.kd.base import Parts, TeacherStudent
from speakerkd.losses.distill import cosine_distance, relation_distance, squared_distance
from speakerkd.models.base import Encoded


@dataclass(frozen=True)
class EmbedConf:
    weight: float = opt(1.0, "weight of the distance; the cross entropy has weight 1")
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


class Relation(EmbeddingLevel):
    def __init__(self, conf: EmbedConf, parts: Parts) -> None:
        super().__init__(conf, parts)
        self.projection = nn.Identity()

    def distance(
        self, student: Encoded, logits: Tensor, teacher: Encoded, batch: Batch, metrics: dict[str, Tensor]
    ) -> Tensor:
        """(B, B - 1): each of the others."""
        pairs = relation_distance(student.embedding, teacher.embedding)
        present = self.teacher.present(batch)
        return without_diagonal(pairs if present is None else pairs * present)

    def counted(self, batch: Batch) -> Tensor | None:
        present = self.teacher.present(batch)
        return None if present is None else without_diagonal(present[:, None] & present)


def without_diagonal(pairs: Tensor) -> Tensor:
    """(B, B) -> (B, B - 1)."""
    count = len(pairs)
    return pairs.flatten()[1:].unflatten(0, (count - 1, count + 1))[:, :-1].reshape(count, count - 1)


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
