"""Margin-based distillation and quality weights (VGSR: Visual-Guided Speaker Recognition, AAAI 2023; arXiv 2507.16296).

Confirmed by the paper's abstract: a face-recognition teacher guides the speaker model, in training only. Voices and
faces differ, so a strict match overfits. A margin loosens the match (MKD); it works round any distillation loss.
Samples are weighted by their quality (QAW). Reconstructed, since the paper's formulas could not be read, is the form of
both:
    L = mean_i w_i · [CE_i + weight · max(0, d_i - m)]
d_i is the distance of one of the other methods (--base); a method on pairs has one per pair. Inside the margin there is
no gradient. With m = 0, --quality=none and the --warmup of the base (0 here) the loss is exactly that of the base. The
margin by percentile counts only distances that exist: no missing faces, no speakers that the teacher doesn't know. The
weight w_i comes from z = clip((q - mean) / (deviation / h), -1, 1), for the quality q of the speech and of the face.
Mean and deviation are moving averages. w_i grows with exp((z_speech + z_face) / kappa), lies within [--lowest-weight, 2]
and has mean 1 over the batch. No gradient flows through it. --weighted=distance leaves CE_i as it is: if the teacher is
wrong, the label need not be. The quality of the speech is the length of the student's embedding.
The quality of the face is the length of the teacher's vector, or the figure of --vectors quality=<utt2quality>. If one
of the two is missing, the other decides. With several processes all this is computed over the whole batch. Only the
percentile is an average over the processes.

The faces are a teacher of vectors: --teacher data/train/face.scp. Any other teacher can take their place.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.batches.dataset import Batch
from speakerkd.conf import opt
from speakerkd.kd.base import Clock, Components, Needs, Outcome, TeacherStudent, of_samples
from speakerkd.kd.embed import MSE, Cosine, EmbedConf, Relation
from speakerkd.kd.label import DKD, KLD, DKDConf
from speakerkd.models.base import Encoded
from speakerkd.parallel import mean_over_processes

BASES: dict[str, type[TeacherStudent]] = {"cosine": Cosine, "dkd": DKD, "kld": KLD, "mse": MSE, "relation": Relation}
QUALITIES = ("none", "both", "speech", "teacher")
WEIGHTED = ("both", "distance")
HIGHEST = 2.0  # weight of a sample
QUANTILE_OF = 1 << 24  # distances at most, of which PyTorch takes a quantile
FORGETTING = 0.99  # of the moving averages


@dataclass(frozen=True)
class MKDConf(DKDConf, EmbedConf):
    weight: float = opt(1.0, "weight of the distance beyond the margin; the cross entropy has weight 1")
    warmup: float = opt(0.0, "part of the run's epochs over which the weight rises to this")
    base: str = opt("cosine", "method of the distance: cosine, dkd, kld, mse or relation; its options are allowed here")
    margin: float = opt(0.25, "margin m: smaller distances cost nothing")
    margin_percentile: float = opt(
        0.0, "margin m as this percentile of the distances (moving average); 0: --margin decides"
    )
    quality: str = opt("none", "quality that weights the samples: none, speech, teacher or both")
    quality_reach: float = opt(0.33, "h: quality is measured in standard deviations divided by this")
    kappa: float = opt(2.0, "kappa: the larger, the less the weights depend on the quality")
    lowest_weight: float = opt(0.5, "smallest weight of a sample")
    weighted: str = opt("both", "terms that the weights apply to: both (cross entropy and distance) or distance")


class MovingStatistics(nn.Module):
    """Moving averages of a figure's mean and variance. They start with the values of the first batch."""

    mean: Tensor
    variance: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, value in (("mean", 0.0), ("variance", 1.0), ("seen", 0.0)):
            self.register_buffer(name, torch.tensor(value))

    def update(self, values: Tensor) -> None:
        """Takes the values of all processes. If no process has any, nothing changes."""
        count = mean_over_processes(torch.tensor(float(len(values)), device=values.device))
        mean = mean_over_processes(values.sum()) / count.clamp(min=1e-6)
        variance = mean_over_processes((values - mean).square().sum()) / count.clamp(min=1e-6)
        keep = torch.where(count > 0, FORGETTING * self.seen, 1.0)
        self.mean.copy_(keep * self.mean + (1 - keep) * mean)
        self.variance.copy_(keep * self.variance + (1 - keep) * variance)
        self.seen.copy_(torch.where(count > 0, 1.0, self.seen))


class MKD(TeacherStudent):
    Conf: ClassVar[type] = MKDConf
    needs: ClassVar[Needs] = Needs(teacher=True, may_have=("quality",))

    def __init__(self, conf: MKDConf, components: Components) -> None:
        super().__init__(conf, components)
        require_possible_options(conf)
        if components.vector_dims.get("quality", 1) != 1:
            found = components.vector_dims["quality"]
            raise ValueError(f"--vectors quality=...: {found} numbers per utterance; give one, as in utt2quality")
        kind = BASES[conf.base]
        base = kind(kind.Conf(**{each.name: getattr(conf, each.name) for each in fields(kind.Conf)}), components)
        self._base = (base,)  # a tuple: no submodule, since it shares the student; the rest is registered below
        self.projection: nn.Module = getattr(base, "projection", nn.Identity())
        self.speech, self.taught, self.edge = MovingStatistics(), MovingStatistics(), MovingStatistics()

    def learn(self, student: Encoded, logits: Tensor, outcome: Outcome, batch: Batch, clock: Clock) -> None:
        """Adds the loss "kd", and replaces the cross entropy by one with weighted samples."""
        assert batch.labels is not None
        teacher = self.teacher.embed(batch)
        with torch.autocast(logits.device.type, enabled=False):
            distances = self._base[0].distance(student, logits, teacher, batch, outcome.metrics)
            present, distance_mask = self.teacher.present(batch), self._base[0].distance_mask(batch)
            margin = self.margin(distances.detach() if distance_mask is None else distances.detach()[distance_mask])
            excess = F.relu(distances - margin) if margin is not None else distances
            beyond = of_samples(excess) if present is None else of_samples(excess) * present
            weights = self.weights(student, teacher, batch, present)
            ce = F.cross_entropy(logits.float(), batch.labels, reduction="none")
            outcome.losses["ce"] = (ce if self.conf.weighted == "distance" else weights * ce).mean()
            outcome.losses["kd"] = self.conf.weight * clock.rise_in_epochs(self.conf.warmup) * (weights * beyond).mean()
        for name, each in (("beyond", (excess.detach() > 0).float()), ("distance", distances.detach())):
            outcome.metrics[name] = (
                each.mean()
                if distance_mask is None
                else (each * distance_mask).sum() / distance_mask.sum().clamp(min=1)
            )

    def margin(self, distances: Tensor) -> Tensor | float | None:
        """The margin m; None: there is none."""
        if self.conf.margin_percentile == 0:
            return self.conf.margin or None
        if self.training:
            values = distances.flatten()
            values = values[:: -(-len(values) // QUANTILE_OF) or 1]
            self.edge.update(values.quantile(self.conf.margin_percentile / 100)[None] if len(values) else values)
        return self.edge.mean

    @torch.no_grad()
    def weights(self, student: Encoded, teacher: Encoded, batch: Batch, present: Tensor | None) -> Tensor:
        """(B,), of mean 1."""
        here = torch.ones(len(student.embedding), dtype=torch.bool, device=student.embedding.device)
        total = torch.zeros(len(here), device=here.device)
        if self.conf.quality in ("both", "speech"):
            total += self.standardised(self.speech, student.embedding.float().norm(dim=1), here)
        if self.conf.quality in ("both", "teacher"):
            given = batch.vectors.get("quality")
            quality = teacher.embedding.float().norm(dim=1) if given is None else given[:, 0]
            judged = quality.isfinite() if present is None else quality.isfinite() & present  # nan: without a figure
            total += self.standardised(self.taught, quality.nan_to_num(), judged)
        return of_mean_one((total / self.conf.kappa).exp(), self.conf.lowest_weight)

    def standardised(self, moving: MovingStatistics, quality: Tensor, present: Tensor) -> Tensor:
        """z in [-1, 1]; 0 for samples without a figure."""
        if self.training:
            moving.update(quality[present])
        spread = moving.variance.sqrt().clamp(min=1e-6) / self.conf.quality_reach
        return ((quality - moving.mean) / spread).clamp(-1, 1) * present


def of_mean_one(raw: Tensor, lowest: float = 0.5) -> Tensor:
    """Scales to mean 1 over the batch of all processes, within [lowest, 2]. If one is cut, the others make up for it."""
    weights = raw / mean_over_processes(raw.mean())
    for _ in range(10):
        weights = weights.clamp(lowest, HIGHEST)
        weights = weights / mean_over_processes(weights.mean())
    return weights


def require_possible_options(conf: Any) -> None:
    if conf.base not in BASES:
        raise ValueError(f"--base={conf.base} is not one of: {' '.join(BASES)}")
    if conf.quality not in QUALITIES:
        raise ValueError(f"--quality={conf.quality} is not one of: {' '.join(QUALITIES)}")
    if conf.margin < 0 or not 0 <= conf.margin_percentile < 100:
        raise ValueError(
            f"--margin={conf.margin} can't be negative, --margin-percentile={conf.margin_percentile} is from 0 to below 100"
        )
    if conf.quality_reach <= 0 or conf.kappa <= 0:
        raise ValueError("--quality-reach and --kappa must be positive")
    if not 0 <= conf.lowest_weight <= 1:
        raise ValueError(f"--lowest-weight={conf.lowest_weight} is from 0 to 1")
    if conf.weighted not in WEIGHTED:
        raise ValueError(f"--weighted={conf.weighted} is not one of: {' '.join(WEIGHTED)}")
