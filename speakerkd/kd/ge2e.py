"""Contrastive training of a model, without a classifier. NESSA was made for such models; they can also be teachers.

--loss   ge2e      each utterance against all speakers' profiles (Wan et al., ICASSP 2018)
         ge2e-xs   the same with the false pairs of all speakers in one sum (Pelecanos et al., Interspeech 2021)
         angular   one utterance against profiles of the others (angular prototypes; Chung et al., Interspeech 2020)
Departure of angular: a profile is the mean of embeddings of length 1. The authors' code (voxceleb_trainer) averages the
embeddings as they are, so longer ones count more.
A batch has several utterances of each of its speakers. With --classify a classifier is trained as well; final.pt keeps it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.batches.dataset import Batch
from speakerkd.conf import opt
from speakerkd.kd.base import Clock, Components, Distiller, Needs, Outcome, Supervised
from speakerkd.losses.contrastive import Scale, ge2e, ge2e_xs, own_cosines, own_scores, prototype_cosines
from speakerkd.parallel import gather_rows

Function = Callable[[Tensor], Tensor]
LOSSES: dict[str, tuple[Function, Function]] = {
    "angular": (prototype_cosines, ge2e),
    "ge2e": (own_cosines, ge2e),
    "ge2e-xs": (own_cosines, ge2e_xs),
}


@dataclass(frozen=True)
class GE2EConf:
    loss: str = opt("ge2e", "ge2e, ge2e-xs or angular")
    utts_per_speaker: int = opt(4, "utterances of a speaker in a batch")
    scale: float = opt(10.0, "w of w cos + b at the start")
    offset: float = opt(-5.0, "b at the start")
    classify: float = opt(0.0, "weight of a classifier's cross entropy; 0: no classifier")

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"--loss={self.loss} is not one of: {' '.join(LOSSES)}")
        if self.utts_per_speaker < 2 or self.classify < 0:
            raise ValueError("--utts-per-speaker must be 2 or more, --classify not negative")


class GE2E(Supervised):
    Conf: ClassVar[type] = GE2EConf
    needs: ClassVar[Needs] = Needs(classifier=False, utts_per_speaker=4)

    @classmethod
    def needs_of(cls, conf: GE2EConf) -> Needs:
        return Needs(classifier=conf.classify > 0, utts_per_speaker=conf.utts_per_speaker)

    def __init__(self, conf: GE2EConf, components: Components) -> None:
        if conf.classify:
            super().__init__(conf, components)
        else:
            Distiller.__init__(self, conf, components)
            assert components.student is not None
            self.student = components.student
        self.scale = Scale(conf.scale, conf.offset)

    def forward(self, batch: Batch, clock: Clock) -> Outcome:
        encoded = self.student(batch.feats[0])
        outcome = self.classify(encoded, batch, clock)[0] if self.conf.classify else Outcome({}, {})
        if self.conf.classify:
            outcome.losses["ce"] = self.conf.classify * outcome.losses["ce"]
        with torch.autocast(encoded.embedding.device.type, enabled=False):
            rows = gather_rows(F.normalize(encoded.embedding.float()))
            cosines, loss = LOSSES[self.conf.loss]
            scores = self.scale(cosines(rows.unflatten(0, (-1, self.conf.utts_per_speaker))))
            outcome.losses[self.conf.loss] = loss(scores).mean()
        outcome.metrics["nearest"] = (own_scores(scores) == scores.amax(2)).float().mean()
        outcome.metrics["w"] = self.scale.log_scale.detach().exp()
        return outcome

    def unregularised_parameters(self) -> list[nn.Parameter]:
        return list(self.scale.parameters())

    def exports(self) -> Mapping[str, nn.Module]:
        return {"final": self.student}
