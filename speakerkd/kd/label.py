"""Label-level distillation: the student's logits follow the teacher's.

kld   T² KL(teacher || student) over all speakers. The part of the non-target speakers has the weight 1 - p_y. So a teacher
      that is certain of the speaker (p_y near 1) teaches almost nothing about the others.
dkd   a part for the target and one for the non-target speakers, each with its own weight. ENSKD (Truong et al., arXiv
      2309.14838) is weight 1 for the target part, gamma = 2 for the non-target part and T = 1: conf/kd/enskd.conf.

Confirmed by the authors' code: these weights, T, and the rise of the weight over 20 of 150 epochs. Also confirmed: both
sides distil logits that include the margin. The student's logits are the ones its cross entropy uses, with the margin at
its current value. The teacher's logits have its full margin. --plain-cosines leaves both margins out. kld, the paper's
baseline, is reconstructed: the code has no class for it. The code does have the rise of its weight.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from speakerkd.batches.dataset import Batch
from speakerkd.conf import opt
from speakerkd.kd.base import Components, TeacherStudent
from speakerkd.kd.teacher import require_known
from speakerkd.losses.distill import label_kl, others_kl, target_kl
from speakerkd.models.base import Encoded


@dataclass(frozen=True)
class LabelConf:
    weight: float = opt(1.0, "weight of the distance; the cross entropy has weight 1")
    warmup: float = opt(20 / 150, "part of the run's epochs over which the weight rises to this")
    temperature: float = opt(1.0, "temperature T of both sides")
    plain_cosines: bool = opt(False, "distil logits without margin on both sides")
    unknown_speakers: str = opt(
        "error", "if the teacher lacks a training speaker: error, or skip (train this speaker without the teacher)"
    )


@dataclass(frozen=True)
class DKDConf(LabelConf):
    target_weight: float = opt(1.0, "weight of the target part")
    gamma: float = opt(2.0, "weight of the non-target part")


class LabelLevel(TeacherStudent):
    """Distillation of logits. A subclass defines compare()."""

    def __init__(self, conf: LabelConf, components: Components) -> None:
        super().__init__(conf, components)
        if conf.temperature <= 0:
            raise ValueError(f"--temperature={conf.temperature} must be positive")
        require_known(self.teacher, conf.unknown_speakers)
        self.all_known = not self.teacher.unknown()

    def distance(
        self, student: Encoded, logits: Tensor, teacher: Encoded, batch: Batch, metrics: dict[str, Tensor]
    ) -> Tensor:
        assert batch.labels is not None
        labels = batch.labels
        if self.conf.plain_cosines:
            logits = self.student.logits(student.embedding.float())
        taught = self.teacher.logits(teacher.embedding.float(), None if self.conf.plain_cosines else labels)
        known = self.teacher.known[labels]
        if not self.all_known:
            logits, labels = logits[:, self.teacher.known], self.teacher.columns[labels].clamp(min=0)
        with torch.no_grad():
            sure = taught.softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
            metrics["teacher_p"] = (sure * known).sum() / known.sum().clamp(min=1)
        return self.compare(logits, taught, labels, metrics) * known

    def distance_mask(self, batch: Batch) -> Tensor | None:
        present = self.teacher.present(batch)
        if self.all_known:
            return present
        known = self.teacher.known[batch.labels]
        return known if present is None else known & present

    def compare(self, logits: Tensor, taught: Tensor, labels: Tensor, metrics: dict[str, Tensor]) -> Tensor:
        raise NotImplementedError


class KLD(LabelLevel):
    Conf: ClassVar[type] = LabelConf

    def compare(self, logits: Tensor, taught: Tensor, labels: Tensor, metrics: dict[str, Tensor]) -> Tensor:
        return label_kl(logits, taught, self.conf.temperature)


class DKD(LabelLevel):
    Conf: ClassVar[type] = DKDConf

    def compare(self, logits: Tensor, taught: Tensor, labels: Tensor, metrics: dict[str, Tensor]) -> Tensor:
        target = target_kl(logits, taught, labels, self.conf.temperature)
        others = others_kl(logits, taught, labels, self.conf.temperature)
        metrics["target"], metrics["others"] = target.detach().mean(), others.detach().mean()
        return self.conf.target_weight * target + self.conf.gamma * others
