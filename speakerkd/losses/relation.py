"""Relational distillation: how two systems differ in what they say about pairs and triples of samples.

student (N, D) and teacher (N, D') are the embeddings of the same N samples, from all processes. `own` are the rows of this
process; their relations to all N samples are returned. The two systems need no common space. Everything is computed in
float32, outside autocast.
    cosine_relation   |cos(s_i, s_j) - cos(t_i, t_j)|
    rkd_distance      h(|s_i - s_j| / mean, |t_i - t_j| / mean); each mean distance is that of the same system
    rkd_angle         h(cos of the angle at s_i between s_j and s_k, the same for t)
h is Huber's loss (smooth L1) of the difference x: x² / 2 up to 1, and |x| - 1/2 beyond.
`present` (N,) says which samples have a teacher row. A pair or triple with any other sample is 0 and counts in no mean.
Facts: Park et al., "Relational Knowledge Distillation" (CVPR 2019), by the authors' code. The means are over pairs of
different samples, and gradients flow through them. Samples that coincide have the angle 0.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

COINCIDENT = 1e-5  # samples coincide if their squared distance is at most this part of the mean


def cosine_relation(student: Tensor, teacher: Tensor, own: slice) -> Tensor:
    """(own, N)."""
    cosines = [rows[own] @ rows.T for rows in (F.normalize(each.float()) for each in (student, teacher))]
    return (cosines[0] - cosines[1]).abs()


def rkd_distance(student: Tensor, teacher: Tensor, own: slice, present: Tensor | None = None) -> Tensor:
    """(own, N); zero for a sample with itself."""
    learnt, taught = (relative_distances(each, present)[own] for each in (student, teacher))
    return F.smooth_l1_loss(learnt, taught, reduction="none")


def rkd_angle(student: Tensor, teacher: Tensor, own: slice, present: Tensor | None = None) -> Tensor:
    """(own, N, N): the losses of the angles at each own sample."""
    learnt, taught = (angles(each, own, present) for each in (student, teacher))
    return F.smooth_l1_loss(learnt, taught, reduction="none")


def relative_distances(rows: Tensor, present: Tensor | None) -> Tensor:
    """(N, N): Euclidean distances, divided by the mean of those that are not 0."""
    squared = squared_distances(centred(rows, present))
    apart = squared > 0
    if present is not None:
        apart = apart & present[:, None] & present
    # at 0 the square root has no gradient
    distance = torch.where(apart, squared.masked_fill(~apart, 1).sqrt(), 0)
    return distance / (distance.sum() / apart.sum().clamp(min=1)).clamp(min=1e-12)


def angles(rows: Tensor, own: slice, present: Tensor | None) -> Tensor:
    """(own, N, N): cosines of the angles at i between the directions to j and to k.

    Computed from inner products, (x_j - x_i)·(x_k - x_i) = x_j·x_k - x_i·x_j - x_i·x_k + x_i·x_i, because the differences
    themselves would need D times the memory.
    """
    rows = centred(rows, present)
    squared = squared_distances(rows)
    apart = squared > COINCIDENT * squared.detach().mean()
    if present is not None:
        apart = apart & present[:, None] & present
    inverse = torch.where(apart, squared.masked_fill(~apart, 1).rsqrt(), 0)[own]  # (own, N)
    products = rows @ rows.T
    toward = products[own]  # (own, N): x_i·x_j
    length = products.diagonal()[own]
    ways = products - toward.unsqueeze(2) - toward.unsqueeze(1) + length[:, None, None]
    return ways * inverse.unsqueeze(2) * inverse.unsqueeze(1)


def centred(rows: Tensor, present: Tensor | None) -> Tensor:
    """Subtracts the mean. Distances and angles stay the same, but products far from 0 would lose digits by cancellation."""
    rows = rows.float()
    if present is None:
        return rows - rows.mean(0)
    return (rows - rows[present].mean(0)) * present.unsqueeze(1) if present.any() else rows


def squared_distances(rows: Tensor) -> Tensor:
    """(N, N), exactly 0 on the diagonal."""
    square = rows.square().sum(1)
    return (square[:, None] + square - 2 * rows @ rows.T).clamp(min=0).fill_diagonal_(0)
