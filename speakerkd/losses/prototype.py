"""Losses over prototypes: the parts of SDPN (arXiv 2308.02774) and DINO (arXiv 2104.14294).

The K prototypes are unit vectors. An utterance is the distribution softmax(cosines / temperature) over them. Everything
stays in log space. Call these functions in float32, outside autocast: at the teachers' temperatures the probabilities
underflow in 16 bits, and their powers even in float32.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

NEAREST = 1e-8  # added to distances, so that the logarithm of equal points is finite


def sinkhorn(logits: Tensor, iterations: int) -> Tensor:
    """(B, K) -> targets (B, K): rows that sum to 1, with about the same mass on every prototype.

    It starts from the softmax of each row. An iteration gives every prototype the same mass, then every row the sum 1.
    0 iterations: the softmax.
    """
    mass = logits.log_softmax(1)
    for _ in range(iterations):
        mass = mass - mass.logsumexp(0, keepdim=True)
        mass = mass - mass.logsumexp(1, keepdim=True)
    return mass.exp()


def cross_entropy(targets: Tensor, logits: Tensor) -> Tensor:
    """Targets (B, K), logits (V, B, K): the mean over views and rows."""
    return -(targets * logits.log_softmax(-1)).sum(-1).mean()


def other_views_cross_entropy(targets: Tensor, logits: Tensor) -> Tensor:
    """Targets (G, B, K) for the first G of V views, logits (V, B, K): the mean over all pairs of different views."""
    log_probs = logits.log_softmax(-1)
    others = log_probs.sum(0) - log_probs[: len(targets)]  # (G, B, K)
    pairs = len(targets) * (len(logits) - 1)
    return -(targets * others).sum(-1).mean(1).sum() / pairs


def me_max(mean_probs: Tensor) -> Tensor:
    """log K minus the entropy of the mean distribution (K,): 0 if it is uniform, log K if it is one prototype."""
    kept = mean_probs.clamp(min=torch.finfo(mean_probs.dtype).tiny)
    return math.log(len(mean_probs)) + (kept * kept.log()).sum()


def entropy(probs: Tensor) -> Tensor:
    """The mean entropy of distributions (..., K), in nats."""
    return torch.special.entr(probs).sum(-1).mean()


def koleo(embeddings: Tensor, group: int = 0) -> Tensor:
    """Spread of (V, B, D): minus the mean log distance to the nearest neighbour on the unit sphere, summed over V.

    Neighbours are searched among about `group` rows; 0: among all B rows.
    """
    count = -(-embeddings.shape[1] // group) if group else 1
    unit = F.normalize(embeddings, dim=-1)
    distances = [_nearest(part) for part in unit.tensor_split(count, dim=1)]  # (V, about group) each
    return -torch.cat(distances, 1).add(NEAREST).log().mean(1).sum()


def _nearest(unit: Tensor) -> Tensor:
    with torch.no_grad():
        cosines = unit @ unit.transpose(1, 2)  # (V, B, B)
        cosines.diagonal(dim1=1, dim2=2).fill_(-1)
        neighbour = cosines.argmax(2)
    chosen = unit.gather(1, neighbour.unsqueeze(2).expand_as(unit))
    return (unit - chosen + NEAREST).norm(dim=2)
