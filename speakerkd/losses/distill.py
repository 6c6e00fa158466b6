"""Distances of a student from its teacher, one figure for each sample: (B, ...) -> (B,).

x is a row of logits, y its label, T the temperature and p = softmax(x / T):
    b = (p_y, sum of the others)              target or not
    q_j = p_j / (1 - p_y), j != y             which of the others: a softmax over the non-target logits only
    TCKD = T² KL(b teacher || b student)      NCKD = T² KL(q teacher || q student)
    T² KL(p teacher || p student) = TCKD + (1 - p_y of the teacher) NCKD           (sample by sample)
Everything is computed in float32, outside autocast, and in log space. 1 - p_y is never computed, so the terms stay finite
and keep their relative size if the teacher is certain. They are still rounded: TCKD by about 1e-7, so it can be as low as
-2e-7 for equal logits.
Facts: Zhao et al., "Decoupled Knowledge Distillation" (CVPR 2022); Truong et al., arXiv 2309.14838 (ENSKD).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def label_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T² KL(teacher || student) over all classes; (B, C) logits."""
    learnt, taught = (F.log_softmax(each.float() / temperature, 1) for each in (student, teacher))
    return temperature**2 * kl(learnt, taught)


def target_kl(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """TCKD."""
    learnt, taught = (target_or_not(each.float() / temperature, labels) for each in (student, teacher))
    return temperature**2 * kl(learnt, taught)


def others_kl(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """NCKD."""
    target = F.one_hot(labels, student.shape[1]).bool()
    learnt, taught = (
        F.log_softmax((each.float() / temperature).masked_fill(target, -torch.inf), 1) for each in (student, teacher)
    )
    # the target's column is -inf on both sides, so it is left out of the sum: q is 0 there
    return temperature**2 * kl(learnt.masked_fill(target, 0), taught.masked_fill(target, 0), ~target)


def target_or_not(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, C) -> (B, 2): log p of the target and of all others together."""
    column = labels.unsqueeze(1)
    others = logits.scatter(1, column, -torch.inf).logsumexp(1, keepdim=True)
    return F.log_softmax(torch.cat([logits.gather(1, column), others], 1), 1)


def kl(learnt: Tensor, taught: Tensor, where: Tensor | None = None) -> Tensor:
    """Sum of exp(taught)·(taught - learnt) over the columns (those of `where`); both are log probabilities."""
    each = taught.exp() * (taught - learnt)
    return (each if where is None else each * where).sum(1)


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cos of (B, D) embeddings."""
    return 1 - F.cosine_similarity(student.float(), teacher.float(), dim=1)


def squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over the dimensions of the squared difference of (B, D) embeddings."""
    return (student.float() - teacher.float()).square().mean(1)
