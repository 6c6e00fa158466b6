"""Watches for collapse: embeddings learnt without labels must not become one point, one line, or one prototype."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.kd.base import Clock

RECENT = 100  # a prototype counts as in use if it was chosen within this many steps
INTERVAL = 50  # steps between checks; each check makes the GPU wait
SMOOTHING = 0.02  # weight of one step in the moving averages of std and rank


def spread_and_rank(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """(N, D) -> their standard deviation on the unit sphere in units of 1/√D (1: all directions, 0: one point), and how
    many directions it has: (Σλ)² / Σλ² of the covariance's eigenvalues, which needs none of them."""
    unit = F.normalize(embeddings)
    centred = unit - unit.mean(0)
    gram = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    total = gram.diagonal().sum()
    return (total / len(unit)).sqrt(), total.square() / gram.square().sum().clamp(min=torch.finfo(gram.dtype).tiny)


class Watch(nn.Module):
    """Its buffers are saved in the checkpoint, so that a resumed run logs the same."""

    running: Tensor
    idle: Tensor
    steps: Tensor

    def __init__(self, prototypes: int, least_std: float, least_rank: float, least_prototypes: int) -> None:
        super().__init__()
        self.least = {"std": least_std, "rank": least_rank, "prototypes": float(least_prototypes)}
        self.register_buffer("running", torch.zeros(2))
        self.register_buffer("idle", torch.full((prototypes,), RECENT))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._seen = 0

    @torch.no_grad()
    def see(self, embeddings: Tensor, chosen: Tensor) -> dict[str, Tensor]:
        """Embeddings (N, D) of all processes; chosen (K,) is true for prototypes that some row is nearest to."""
        if not self._seen:
            self._seen = int(self.steps)  # of the run before it was stopped
        self._seen += 1
        self.steps += 1
        self.idle.add_(1).masked_fill_(chosen, 0)
        std, rank = spread_and_rank(embeddings)
        self.running.lerp_(torch.stack([std, rank]), (1 / self.steps).clamp(min=SMOOTHING))
        return {"std": std, "rank": rank, "prototypes": self.in_use()}

    def in_use(self) -> Tensor:
        return (self.idle < RECENT).sum().float()

    def stop_if_collapsed(self, clock: Clock) -> None:
        """Not in the first epoch, nor in the first steps: a net that has learnt nothing also looks collapsed."""
        if self._seen < RECENT or self._seen % INTERVAL or clock.epoch < 1:
            return
        found = dict(zip(self.least, [*self.running.tolist(), float(self.in_use())], strict=True))
        below = [name for name, least in self.least.items() if found[name] < least]
        if below:
            values = ", ".join(f"{name} {value:.3g} (at least {self.least[name]:g})" for name, value in found.items())
            raise ValueError(
                f"the embeddings have collapsed in epoch {clock.epoch:.1f}, in {' and '.join(below)}: {values}. Try in "
                "another folder a lower --lr or a longer --warmup, a larger --batch-size, and in the method's conf "
                "fewer --prototypes, larger --memax and --koleo (sdpn) or a lower --teacher-temperature (dino)"
            )
