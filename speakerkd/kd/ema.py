"""What the methods without labels share: a student, its moving average as teacher, heads, and a check for collapse."""

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.conf import opt
from speakerkd.kd.base import Clock, Components, Distiller
from speakerkd.kd.collapse import Watch
from speakerkd.losses.prototype import koleo
from speakerkd.models.base import SpeakerNet
from speakerkd.parallel import gather_rows
from speakerkd.schedules import half_cosine


@dataclass(frozen=True)
class SelfTaughtConf:
    head_dims: tuple[int, ...] = opt(
        (2048, 2048, 256), "sizes of the head's layers; outputs of the last layer are compared"
    )
    head_norm: str = opt("batch", "normalisation between the layers of the head: batch or none")
    prototypes: int = opt(1024, "number of vectors that a head's output is compared with")
    temperature: float = opt(0.1, "temperature of the student's cosines")
    momentum: float = opt(0.996, "share of the teacher that is kept in a step; it rises to 1 as half a cosine")
    koleo: float = opt(0.0, "weight of KoLeo, the diversity term")
    koleo_group: int = opt(96, "number of the batch's utterances among which KoLeo looks for neighbours; 0: all")
    least_std: float = opt(0.02, "collapse: the run stops if the spread of the embeddings falls below this (1: ideal)")
    least_rank: float = opt(1.2, "collapse: the run stops if the embeddings have fewer effective dimensions")
    least_prototypes: int = opt(2, "collapse: the run stops if fewer prototypes are chosen within 100 steps")

    def __post_init__(self) -> None:
        if self.head_norm not in ("batch", "none"):
            raise ValueError(f"--head-norm={self.head_norm} is not one of: batch none")
        if not self.head_dims or min(self.head_dims) < 1 or self.prototypes < 2:
            raise ValueError("--head-dims needs one or more sizes of 1 or more; --prototypes must be 2 or more")
        if self.temperature <= 0 or not 0 <= self.momentum <= 1:
            raise ValueError("--temperature must be positive, --momentum from 0 to 1")
        if min(self.koleo, self.koleo_group) < 0:
            raise ValueError("--koleo and --koleo-group can't be negative")


class Head(nn.Module):
    """(N, D) embeddings -> points on the unit sphere."""

    def __init__(self, dim: int, dims: Sequence[int], norm: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, out in enumerate(dims):
            linear = nn.Linear(dim, out)
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
            layers.append(linear)
            if index < len(dims) - 1:
                layers += [nn.BatchNorm1d(out)] * (norm == "batch") + [nn.GELU()]
            dim = out
        self.layers = nn.Sequential(*layers)

    def forward(self, embeddings: Tensor) -> Tensor:
        return F.normalize(self.layers(embeddings).float())


class Prototypes(nn.Module):
    """Points -> their cosines with each prototype."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, dim).uniform_(-(dim**-0.5), dim**-0.5))

    def forward(self, points: Tensor, gradient: float = 1.0) -> Tensor:
        """The prototypes get `gradient` times their gradient."""
        rows = F.normalize(self.weight)
        if gradient != 1 and rows.requires_grad:
            rows.register_hook(lambda found: found * gradient)
        return points @ rows.T


class Branch(nn.Module):
    """Encoder and head. The encoder takes views of the same length together; the head takes all views together."""

    def __init__(self, net: SpeakerNet, head: Head) -> None:
        super().__init__()
        self.net, self.head = net, head

    def forward(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(B, T, F) each -> embeddings (V, B, D) and points (V, B, P), in float32."""
        groups = [torch.cat(list(group)) for _, group in itertools.groupby(views, lambda view: view.shape[1])]
        embeddings = torch.cat([self.net(group).embedding for group in groups])
        points = self.head(embeddings)
        shape = (len(views), len(views[0]))
        return embeddings.float().unflatten(0, shape), points.unflatten(0, shape)


class SelfTaught(Distiller):
    """The teacher starts as a copy of the student and follows its parameters. Its batch norms have their own statistics."""

    sync_batch_norm: ClassVar[bool] = True

    def __init__(self, conf: Any, components: Components) -> None:
        super().__init__(conf, components)
        assert components.student is not None, "train.py makes a net for methods that hear audio"
        self.student = self.branch(components.student)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.watch = Watch(conf.prototypes, conf.least_std, conf.least_rank, conf.least_prototypes)

    def diversity(self, embedding: Tensor) -> Tensor:
        """The weighted KoLeo of the student's embeddings (V, B, D), among those of all processes."""
        everyone = gather_rows(embedding.transpose(0, 1)).transpose(0, 1)
        return self.conf.koleo * koleo(everyone, self.conf.koleo_group)

    def branch(self, net: SpeakerNet) -> Branch:
        return Branch(net, Head(net.dim, self.conf.head_dims, self.conf.head_norm))

    def after_step(self, clock: Clock) -> None:
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.teacher.parameters()),
                list(self.student.parameters()),
                1 - momentum(self.conf.momentum, clock),
            )
        self.watch.stop_if_collapsed(clock)

    def exports(self) -> Mapping[str, nn.Module]:
        return {"final": self.teacher.net}


def momentum(start: float, clock: Clock) -> float:
    """Rises from start to 1 over the run, as half a cosine."""
    return half_cosine(start, 1.0, clock.part)
