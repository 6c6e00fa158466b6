"""Self-knowledge distillation with feature enhancement (SKDFE: Liu, Wang, Chen, Wang, Qian, ICASSP 2022).

Confirmed by the paper's abstract: an auxiliary self-teacher network refines the features of the student. The refined
features teach the student at the label level and at the feature level. There is no pretrained teacher.
Everything else is reconstructed, because the paper's text could not be read. It is FRSKD (Ji et al., CVPR 2021; its code
was read), applied to speaker verification:
    L = CE(x, y) + CE(x', y) + alpha · T² · KL(softmax(x'/T) ‖ softmax(x/T)) + beta · Σ_i mean (φ(F_i) - φ(R_i))²
F_i are the student's stages, R_i the refined stages. x and x' are the logits of student and self-teacher; both have the
margin, by the same schedule. φ is the mean of the squares over the channels, flattened over frequency and time, of length
1. The last two terms send no gradient to the self-teacher. FRSKD's authors published alpha 2, beta 100, T 4, width 2 and
depth 2 for images. Embedding, pooling, margin head and warm-up are this repository's choice. With N points, a map's part
of the feature term is at most beta · 2 / N. So long crops and large maps need a larger beta.

The label term has to fit the classifier. Its gradient on a logit is alpha · T · (q - p), p and q being the softmax of x'/T
and x/T. That of the cross entropy is softmax(x) - y. With alpha 2 and T 4 the label term is eight times as strong, and
small nets learn less in short runs (egs/mini/v1/RESULTS.md). With alpha 1 and T 1 both are equally strong.
--plain-cosines leaves the margin out of the label term, on both sides: x = s·cos θ for each speaker, with the head's scale
s. Then T is a temperature of T / s for the cosines: 1/32 with T 1 and scale 32, 1/8 with T 4.
The self-teacher is for training only. The plain student is exported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from speakerkd.batches.dataset import Batch
from speakerkd.conf import opt
from speakerkd.kd.base import Clock, Components, Outcome, Supervised
from speakerkd.kd.refine import SelfTeacher
from speakerkd.losses.distill import label_kl
from speakerkd.losses.margin import MarginHead, margin_ramp
from speakerkd.models.pooling import single
from speakerkd.schedules import require_part


@dataclass(frozen=True)
class SKDFEConf:
    alpha: float = opt(2.0, "weight of the label term; 0: none")
    beta: float = opt(100.0, "weight of the feature term; 0: none")
    temperature: float = opt(4.0, "temperature T of the label term; for the cosines of a head with scale s it is T / s")
    plain_cosines: bool = opt(False, "label term of logits without margin on both sides")
    warmup: float = opt(0.1, "part of the run over which both weights rise from 0: the self-teacher is untrained")
    detach_teacher_input: bool = opt(False, "the self-teacher's own cross entropy does not train the student")
    width: int = opt(2, "channels of the refined stages, in multiples of the student's")
    depth: int = opt(2, "number of convolutions in a block of the self-teacher")
    repeats: int = opt(1, "number of times that the stages are refined")
    embedding_dim: int = opt(256, "dimension of the self-teacher's embedding")

    def __post_init__(self) -> None:
        require_part("--warmup", self.warmup)
        if min(self.alpha, self.beta) < 0 or self.temperature <= 0:
            raise ValueError("--alpha and --beta must not be negative, --temperature must be positive")
        if min(self.width, self.depth, self.repeats, self.embedding_dim) < 1:
            raise ValueError("--width, --depth, --repeats and --embedding-dim must be 1 or more")


def label_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student) of logits (B, speakers), mean over the batch; the teacher gets no gradient."""
    with torch.autocast(student.device.type, enabled=False):
        return label_kl(student, teacher.detach(), temperature).mean()


def attention_map(maps: Tensor) -> Tensor:
    """φ: (B, C, F, T) or (B, C, T) -> (B, F·T) or (B, T), rows of length 1 (a map of zeros gives zeros)."""
    return F.normalize(single(maps).square().mean(1).flatten(1))


def feature_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Sum over the stages of the mean squared difference of attention maps; the teacher gets no gradient."""
    with torch.autocast(student[0].device.type, enabled=False):
        pairs = zip(student, teacher, strict=True)
        return torch.stack([F.mse_loss(attention_map(s), attention_map(t.detach())) for s, t in pairs]).sum()


class SKDFE(Supervised):
    Conf: ClassVar[type] = SKDFEConf

    def __init__(self, conf: SKDFEConf, components: Components) -> None:
        super().__init__(conf, components)
        assert self.student.head is not None
        self.teacher = SelfTeacher(self.student.encoder, conf.width, conf.depth, conf.repeats, conf.embedding_dim)
        self.teacher_head = MarginHead(self.student.head.conf, conf.embedding_dim, self.student.head.num_classes)

    def forward(self, batch: Batch, clock: Clock) -> Outcome:
        assert batch.labels is not None
        encoded = self.student(batch.feats[0])
        outcome, logits = self.classify(encoded, batch, clock)
        stages = [stage.detach() for stage in encoded.stages] if self.conf.detach_teacher_input else encoded.stages
        refined = self.teacher(stages)
        head = self.teacher_head.conf
        margin = margin_ramp(head, clock.part)
        teacher_logits = self.teacher_head(refined.embedding, batch.labels, margin)
        outcome.losses["teacher_ce"] = F.cross_entropy(teacher_logits, batch.labels)
        outcome.metrics["teacher_accuracy"] = (teacher_logits.detach().argmax(1) == batch.labels).float().mean()
        warm = clock.rise(self.conf.warmup)
        if self.conf.alpha > 0:
            if self.conf.plain_cosines:
                logits, teacher_logits = self.student.logits(encoded.embedding), self.teacher_head(refined.embedding)
            label = label_loss(logits, teacher_logits, self.conf.temperature)
            outcome.losses["label"] = warm * self.conf.alpha * label
        if self.conf.beta > 0:
            outcome.losses["feature"] = warm * self.conf.beta * feature_loss(encoded.stages, refined.stages)
        return outcome
