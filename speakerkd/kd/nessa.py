"""NESSA: enrol with one model, verify with another (Gao et al., arXiv 2401.12440).

Confirmed by abstract and introduction: two models are trained independently and frozen. A light network is trained
afterwards; it maps the embeddings of both into one space. A voice profile is the average of its enrolment embeddings.
The baseline compares the models' logits over the same speakers. Reconstructed are layers, widths, loss and data:
nothing about them could be read. The loss is GE2E or GE2E-XS across the two models (speakerkd/losses/contrastive.py).
Profiles come from the enrolment model, tests from the other model, on different utterances of the training speakers.
The method needs no audio; it learns from --vectors enroll=<scp>,test=<scp>.

--mode   two-sided        each model's vectors are mapped by an MLP
         test-to-enroll   an MLP maps the test model's vectors into the enrolment model's space; stored profiles stay valid
         linear           as test-to-enroll, but with a matrix, which is also written as Kaldi's transform.mat
Every map is a matrix plus an MLP that starts at zero. So a map starts as the identity, or with --init
as a closed-form map.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from speakerkd.batches.dataset import Batch
from speakerkd.conf import opt
from speakerkd.files.backend import read_matrix
from speakerkd.kd.base import Clock, Components, Distiller, Needs, Outcome
from speakerkd.losses.contrastive import LOSSES, Scale, cross_cosines, own_cosines, own_scores
from speakerkd.models.vectormap import VectorMap
from speakerkd.parallel import gather_rows

MODES = ("two-sided", "test-to-enroll", "linear")
SIDES = ("enroll", "test")


@dataclass(frozen=True)
class NESSAConf:
    mode: str = opt("two-sided", "two-sided, test-to-enroll or linear")
    hidden: int = opt(512, "width of the MLPs")
    dim: int = opt(256, "dimension of the shared space (two-sided)")
    loss: str = opt("ge2e", "ge2e or ge2e-xs")
    utts_per_speaker: int = opt(10, "utterances of a speaker in a batch")
    scale: float = opt(10.0, "w of w cos + b at the start")
    offset: float = opt(-5.0, "b at the start")
    both_ways: bool = opt(False, "also train with the models' components exchanged")
    pair: float = opt(0.0, "weight of the angle between both models' vectors of an utterance")
    within: float = opt(0.0, "weight of the same loss within each mapped model")

    def __post_init__(self) -> None:
        if self.mode not in MODES or self.loss not in LOSSES:
            raise ValueError(f"--mode must be one of {' '.join(MODES)}, --loss one of {' '.join(LOSSES)}")
        if self.utts_per_speaker < 2 or min(self.hidden, self.dim) < 1 or min(self.pair, self.within) < 0:
            raise ValueError(
                "--utts-per-speaker must be 2 or more, --hidden and --dim positive, --pair and --within not negative"
            )


class NESSA(Distiller):
    Conf: ClassVar[type] = NESSAConf
    results: ClassVar[tuple[str, ...]] = SIDES
    needs: ClassVar[Needs] = Needs(vectors=SIDES, views=(), classifier=False, utts_per_speaker=10)

    @classmethod
    def needs_of(cls, conf: NESSAConf) -> Needs:
        return Needs(vectors=SIDES, views=(), classifier=False, utts_per_speaker=conf.utts_per_speaker)

    def __init__(self, conf: NESSAConf, components: Components) -> None:
        super().__init__(conf, components)
        enroll, test = (components.vector_dims[side] for side in SIDES)
        both = conf.mode == "two-sided"
        dim = conf.dim if both else enroll
        self.maps = nn.ModuleDict(
            {
                "enroll": VectorMap("mlp" if both else "identity", enroll, dim, conf.hidden),
                "test": VectorMap("linear" if conf.mode == "linear" else "mlp", test, dim, conf.hidden),
            }
        )
        self.scale = Scale(conf.scale, conf.offset)

    def map_of(self, side: str) -> VectorMap:
        each = self.maps[side]
        assert isinstance(each, VectorMap)
        return each

    def start_from(self, path: str) -> None:
        """Starts from a closed-form map of local/align_maps.py: its folder, with enroll.mat and test.mat."""
        matrices = {side: torch.from_numpy(read_matrix(str(Path(path) / f"{side}.mat"))).float() for side in SIDES}
        for side, matrix in matrices.items():
            taken, given = matrix.shape[1], self.map_of(side).in_dim
            if taken != given:
                raise ValueError(
                    f"--init={path}: {side}.mat takes vectors of {taken} dimensions, but those here have {given}; "
                    "is it of another pair, or of this one the other way round?"
                )
        dim = len(matrices["test"])
        placed = torch.eye(self.map_of("test").out_dim, dim)
        if len(placed) < dim:  # the same fewer dimensions for both sides
            nn.init.orthogonal_(placed)
        for side, matrix in matrices.items():
            each = self.map_of(side)
            if each.kind != "identity":
                with torch.no_grad():  # what it gives has a length near 1, whatever the scale of the closed form
                    each.linear.weight.copy_(placed @ matrix * (each.in_dim**0.5 / matrix.norm()))
            elif not matrix.equal(torch.eye(len(matrix))):
                raise ValueError(
                    f"--init={path}: it maps the enrolment's vectors too, so it needs --mode=two-sided; ridge does not"
                )

    def forward(self, batch: Batch, clock: Clock) -> Outcome:
        # In float32: the maps are small, and cosines in bf16 have only two digits.
        with torch.autocast(self.scale.offset.device.type, enabled=False):
            return self.compare(batch)

    def compare(self, batch: Batch) -> Outcome:
        enroll, test = (
            gather_rows(self.maps[side](batch.vectors[side])).unflatten(0, (-1, self.conf.utts_per_speaker))
            for side in SIDES
        )  # (N, M, D) each, of all processes
        scores = self.scale(cross_cosines(enroll, test))
        losses = {"cross": self.loss(scores)}
        if self.conf.both_ways:
            losses["back"] = self.loss(self.scale(cross_cosines(test, enroll)))
        if self.conf.pair:
            losses["pair"] = self.conf.pair * (1 - (enroll * test).sum(2)).mean()
        if self.conf.within:
            mapped = [test] if self.conf.mode != "two-sided" else [enroll, test]
            own = [self.loss(self.scale(own_cosines(each))) for each in mapped]
            losses["within"] = self.conf.within * torch.stack(own).mean()
        found = (own_scores(scores) == scores.amax(2)).float().mean()
        return Outcome(losses, {"accuracy": found, "w": self.scale.log_scale.detach().exp()})

    def loss(self, scores: Tensor) -> Tensor:
        return LOSSES[self.conf.loss](scores).mean()

    def unregularised_parameters(self) -> list[nn.Parameter]:
        return list(self.scale.parameters())

    def exports(self) -> Mapping[str, nn.Module]:
        return dict(self.maps.items())
