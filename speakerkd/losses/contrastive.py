"""Contrastive losses over batches of N speakers x M utterances. All vectors here have length 1 and are float32.

Scores are (N, R, N): the r-th test of speaker j against the voice profile of each speaker k, S = w cos + b, w > 0.
A profile is the length-normalised mean of a speaker's utterances. The test utterance is never part of it. The utterances
have length 1 here; the published angular prototypes average them with their own lengths.
    GE2E      -S_jrj + log sum_k exp S_jrk
    GE2E-XS   -S_jrj + log (exp S_jrj + sum of exp S_irk over all i, k with i != k): every false pair of round r
Facts: Wan et al., "Generalized end-to-end loss for speaker verification" (ICASSP 2018); Pelecanos et al., "Dr-Vectors"
(Interspeech 2021) for GE2E-XS; Chung et al., "In defence of metric learning" (Interspeech 2020) for the angular prototypes.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def profiles(rows: Tensor) -> Tensor:
    """(..., M, D) -> (..., D)."""
    return F.normalize(rows.mean(-2), dim=-1)


def cross_cosines(enroll: Tensor, test: Tensor) -> Tensor:
    """Two models' (N, M, D) of the same utterances -> (N, M, N): one half of the utterances makes the profiles by the one
    model, the other half are tests by the other; then the halves change places."""
    half = enroll.shape[1] // 2
    first, second = profiles(enroll[:, half:]), profiles(enroll[:, :half])
    return torch.cat([test[:, :half] @ first.T, test[:, half:] @ second.T], 1)


def own_cosines(rows: Tensor) -> Tensor:
    """One model's (N, M, D) -> (N, M, N): each utterance against the profiles, its own speaker's made without it."""
    count = rows.shape[1]
    cosines = rows @ profiles(rows).T
    others = F.normalize((rows.sum(1, keepdim=True) - rows) / (count - 1), dim=2)
    own = torch.eye(len(rows), dtype=torch.bool, device=rows.device).unsqueeze(1)
    return torch.where(own, (rows * others).sum(2).unsqueeze(2), cosines)


def prototype_cosines(rows: Tensor) -> Tensor:
    """One model's (N, M, D) -> (N, 1, N): the first utterance against the profiles of all the others."""
    return rows[:, :1] @ profiles(rows[:, 1:]).T


def ge2e(scores: Tensor) -> Tensor:
    """(N, R, N) -> (N, R)."""
    return scores.logsumexp(2) - own_scores(scores)


def ge2e_xs(scores: Tensor) -> Tensor:
    """(N, R, N) -> (N, R)."""
    own = own_scores(scores)
    target = torch.eye(len(scores), dtype=torch.bool, device=scores.device).unsqueeze(1)
    false = scores.masked_fill(target, -torch.inf).logsumexp((0, 2))  # (R,)
    return torch.logaddexp(own, false.expand_as(own)) - own


def own_scores(scores: Tensor) -> Tensor:
    """(N, R, N) -> (N, R): the score of each test against its own speaker."""
    return scores.diagonal(dim1=0, dim2=2).T


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {"ge2e": ge2e, "ge2e-xs": ge2e_xs}


class Scale(nn.Module):
    """w cos + b. log w is learnt, so that w stays positive."""

    def __init__(self, scale: float, offset: float) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(f"--scale={scale} must be positive")
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.offset = nn.Parameter(torch.tensor(offset))

    def forward(self, cosines: Tensor) -> Tensor:
        return self.log_scale.exp() * cosines + self.offset
