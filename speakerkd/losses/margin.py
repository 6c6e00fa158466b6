"""The classifier: softmax, additive margin (AM), additive angular margin (AAM), sub-centres, and the rise of the margin.

cos θ is the cosine of an embedding with the weight row of a class, s the scale, m the margin times the ramp. The logit of
a class is s·cos θ. For the labelled class it is
    AM     s·(cos θ - m)
    AAM    s·cos(θ + m)                  if cos θ > cos(π - m)
           s·(cos θ - (1 + cos(π - m)))  otherwise, because cos(θ + m) would rise again there; this is continuous and
                                         still falls. It is WeSpeaker's formula. SpeechBrain has
                                         s·(cos θ - m·sin m): a classifier imported from it gives other logits for
                                         embeddings that are almost opposite to their own class
    AAM, easy margin                     s·cos(θ + m) if cos θ > 0, otherwise s·cos θ
With K sub-centres a class has K rows, and cos θ is the largest of their cosines. The caller computes the cross entropy.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.conf import opt
from speakerkd.schedules import RISES, require_parts_in_order, rise

TYPES = ("softmax", "am", "aam")
SMALLEST_SINE_SQUARED = 1e-7  # at |cos θ| = 1 the gradient of the square root is infinite


@dataclass(frozen=True)
class MarginConf:
    type: str = opt("aam", "softmax, am or aam")
    scale: float = opt(32.0, "scale of the cosines (not used by softmax)")
    margin: float = opt(0.2, "full margin: in radians for aam, in cosine for am")
    sub_centers: int = opt(1, "number of weight rows of each class")
    easy_margin: bool = opt(False, "aam: no margin if the cosine is negative")
    margin_start: float = opt(0.0, "part of the run, from its start, without margin: 19/150 for 19 of 150 epochs")
    margin_end: float = opt(0.0, "part of the run after which the margin is full")
    margin_shape: str = opt("exponential", "how the margin rises in between: exponential or linear")


def margin_ramp(conf: MarginConf, part: float) -> float:
    """The share of the margin that is used when this part of the run is done."""
    return rise(part, conf.margin_start, conf.margin_end, conf.margin_shape)


def require_margin_schedule(conf: MarginConf) -> None:
    """Checks the schedule of a new run. (Older nets, whose schedule has another unit, can still be loaded.)"""
    require_parts_in_order(("--margin-start", conf.margin_start), ("--margin-end", conf.margin_end))


class MarginHead(nn.Module):
    """Embeddings -> logits. `weight` has a row for each class, or sub_centers rows one after the other."""

    def __init__(self, conf: MarginConf, dim: int, num_classes: int) -> None:
        super().__init__()
        require_possible_options(conf, num_classes)
        self.conf, self.dim, self.num_classes = conf, dim, num_classes
        self.weight = nn.Parameter(torch.empty(num_classes * conf.sub_centers, dim))
        nn.init.xavier_uniform_(self.weight)
        self.bias = nn.Parameter(torch.zeros(num_classes)) if conf.type == "softmax" else None

    def forward(self, embedding: Tensor, labels: Tensor | None = None, ramp: float = 1.0) -> Tensor:
        """(B, D) [, (B,)] -> (B, classes). Without labels there is no margin. Always float32, also under autocast."""
        with torch.autocast(embedding.device.type, enabled=False):
            embedding = embedding.to(self.weight.dtype)
            if self.bias is not None:
                return F.linear(embedding, self.weight, self.bias)
            cosines = self.cosines(embedding)
            if labels is not None:
                column = labels.unsqueeze(1)
                cosines = cosines.scatter(1, column, self.with_margin(cosines.gather(1, column), ramp))
            return self.conf.scale * cosines

    def cosines(self, embedding: Tensor) -> Tensor:
        """(B, D) -> (B, classes): the cosine with the closest sub-centre."""
        found = F.linear(F.normalize(embedding), F.normalize(self.weight))
        return found if self.conf.sub_centers == 1 else found.unflatten(1, (-1, self.conf.sub_centers)).amax(2)

    def with_margin(self, cosine: Tensor, ramp: float) -> Tensor:
        """cos θ of the labelled classes -> the value with margin that replaces it."""
        margin = self.conf.margin * ramp
        if self.conf.type == "am":
            return cosine - margin
        sine = (1 - cosine.square()).clamp(min=SMALLEST_SINE_SQUARED).sqrt()
        shifted = cosine * math.cos(margin) - sine * math.sin(margin)
        if self.conf.easy_margin:
            return torch.where(cosine > 0, shifted, cosine)
        turn = math.cos(math.pi - margin)
        return torch.where(cosine > turn, shifted, cosine - (1 + turn))

    def class_vectors(self) -> Tensor:
        """(classes, D): a unit vector for each class; with sub-centres, the direction of their mean."""
        rows = F.normalize(self.weight)
        if self.conf.sub_centers > 1:
            rows = F.normalize(rows.unflatten(0, (-1, self.conf.sub_centers)).mean(1))
        return rows


def require_possible_options(conf: MarginConf, num_classes: int) -> None:
    """The options must be possible."""
    if conf.type not in TYPES:
        raise ValueError(f"a classifier of type '{conf.type}' is not known (allowed: {' '.join(TYPES)})")
    if conf.margin_shape not in RISES:
        raise ValueError(f"--margin-shape={conf.margin_shape} is not known (allowed: {' '.join(RISES)})")
    if conf.sub_centers < 1 or (conf.type == "softmax" and conf.sub_centers > 1):
        raise ValueError(f"--sub-centers={conf.sub_centers} must be 1 or more, and 1 for a softmax classifier")
    if conf.scale <= 0 or not 0 <= conf.margin < math.pi / 2:
        raise ValueError(f"--scale={conf.scale} must be positive and --margin={conf.margin} from 0 to π/2")
    if num_classes < 1:
        raise ValueError("a classifier needs speakers, and there are none")
