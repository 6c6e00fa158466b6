"""Embedding-level distillation: the student's embedding follows the teacher's.

cosine    1 - cos(student, teacher)
mse       mean over the dimensions of the squared difference
relation  |cos(student i, student j) - cos(teacher i, teacher j)|, mean over the other samples j of the batch (of all
          processes). It teaches which samples are similar. It needs no common space, so there is no projection.

cosine and mse are ENSKD's and Wang et al.'s (ICASSP 2019) baselines. Their weight (1) is reconstructed. So is the linear
projection to the teacher's dimension if the two differ: the published students have the teacher's dimension. The projection
is trained with the student and not kept.
relation is this repository's own: the mean absolute difference of two matrices of cosines. It is not RKD (kd_type=rkd).
It is not similarity-preserving distillation either (Tung and Mori, ICCV 2019), which squares the differences of
row-normalised products.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from speakerkd.batches.dataset import Batch
from speakerkd.conf import opt
from speakerkd.kd.base import Components, TeacherStudent
from speakerkd.losses.distill import cosine_distance, squared_distance
from speakerkd.losses.relation import cosine_relation
from speakerkd.models.base import Encoded
from speakerkd.parallel import gather_rows, own_rows


@dataclass(frozen=True)
class EmbedConf:
    weight: float = opt(1.0, "weight of the distance; the cross entropy has weight 1")
    warmup: float = opt(0.0, "part of the run's epochs over which the weight rises to this")
    projection: str = opt("auto", "linear layer to the teacher's dimension: auto (if they differ), always or never")


class EmbeddingLevel(TeacherStudent):
    """A subclass writes compare()."""

    Conf: ClassVar[type] = EmbedConf

    def __init__(self, conf: EmbedConf, components: Components) -> None:
        super().__init__(conf, components)
        self.projection = projection(conf.projection, self.student.dim, self.teacher.dim)

    def distance(
        self, student: Encoded, logits: Tensor, teacher: Encoded, batch: Batch, metrics: dict[str, Tensor]
    ) -> Tensor:
        return self.compare(self.projection(student.embedding.float()), teacher.embedding.float())

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Embeddings (B, D) of one dimension, in float32 -> (B,)."""
        raise NotImplementedError


class Cosine(EmbeddingLevel):
    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        return cosine_distance(student, teacher)


class MSE(EmbeddingLevel):
    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        return squared_distance(student, teacher)


class Relation(EmbeddingLevel):
    def __init__(self, conf: EmbedConf, components: Components) -> None:
        super().__init__(conf, components)
        self.projection = nn.Identity()

    def distance(
        self, student: Encoded, logits: Tensor, teacher: Encoded, batch: Batch, metrics: dict[str, Tensor]
    ) -> Tensor:
        """(B, N - 1): the difference for each other sample among the N samples of all processes."""
        rows = gather_rows(student.embedding.float(), same_loss=False)
        pairs = cosine_relation(rows, gather_rows(teacher.embedding.float()), own_rows(len(student.embedding)))
        present = self.present_pairs(batch)
        return without_self(pairs if present is None else pairs * present)

    def distance_mask(self, batch: Batch) -> Tensor | None:
        present = self.present_pairs(batch)
        return None if present is None else without_self(present)

    def present_pairs(self, batch: Batch) -> Tensor | None:
        """(B, N) bool: both samples have a teacher; None: all have one."""
        present = self.teacher.present(batch)
        return None if present is None else present[:, None] & gather_rows(present.float()).bool()


def without_self(pairs: Tensor) -> Tensor:
    """(B, N): own samples with all samples -> (B, N - 1): without the pair of each sample with itself."""
    own = own_rows(len(pairs))
    others = torch.arange(pairs.shape[1] - 1, device=pairs.device)
    me = torch.arange(own.start, own.stop, device=pairs.device).unsqueeze(1)
    return pairs.gather(1, others + (others >= me).long())


def projection(kind: str, student_dim: int, teacher_dim: int) -> nn.Module:
    if kind not in ("auto", "always", "never"):
        raise ValueError(f"--projection={kind} is not one of: auto always never")
    if kind == "never" and student_dim != teacher_dim:
        raise ValueError(
            f"--projection=never, but the student's embeddings have {student_dim} dimensions, the teacher's {teacher_dim}: "
            "give the student --embedding-dim of the teacher's, or take --projection=auto"
        )
    differ = student_dim != teacher_dim
    return nn.Linear(student_dim, teacher_dim) if kind == "always" or differ else nn.Identity()
