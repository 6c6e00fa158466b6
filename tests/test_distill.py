"""The distances: closed forms, identities, invariances and extremes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from speakerkd.losses.distill import cosine_distance, label_kl, others_kl, squared_distance, target_kl

torch.manual_seed(0)
B, C = 7, 11
STUDENT, TEACHER = 4 * torch.randn(B, C, dtype=torch.float64).float(), 4 * torch.randn(B, C)
LABELS = torch.randint(0, C, (B,))
PARTS = (target_kl, others_kl)


def slow(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """The textbook's formulas with explicit probabilities, in double precision."""
    p, q = ((each.double() / temperature).softmax(1) for each in (teacher, student))
    rows = torch.arange(len(labels))
    target = p[rows, labels] * (p[rows, labels] / q[rows, labels]).log()
    target += (1 - p[rows, labels]) * ((1 - p[rows, labels]) / (1 - q[rows, labels])).log()
    others = []
    for row, label in enumerate(labels.tolist()):
        keep = [column for column in range(p.shape[1]) if column != label]
        one, other = p[row, keep] / (1 - p[row, label]), q[row, keep] / (1 - q[row, label])
        others.append((one * (one / other).log()).sum())
    return temperature**2 * target, temperature**2 * torch.stack(others), p[rows, labels]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_closed_forms_and_the_identity_of_each_sample(temperature: float) -> None:
    target, others, sure = slow(STUDENT, TEACHER, LABELS, temperature)
    torch.testing.assert_close(target_kl(STUDENT, TEACHER, LABELS, temperature).double(), target, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(others_kl(STUDENT, TEACHER, LABELS, temperature).double(), others, rtol=1e-4, atol=1e-5)
    whole = label_kl(STUDENT, TEACHER, temperature)
    torch.testing.assert_close(whole.double(), target + (1 - sure) * others, rtol=1e-4, atol=1e-5)
    reference = F.kl_div(F.log_softmax(STUDENT / temperature, 1), F.softmax(TEACHER / temperature, 1), reduction="none")
    torch.testing.assert_close(whole, temperature**2 * reference.sum(1))


@pytest.mark.parametrize("loss", PARTS)
def test_equal_logits_cost_nothing_and_pull_nowhere(loss: Callable[..., Tensor]) -> None:
    student = TEACHER.clone().requires_grad_()
    value = loss(student, TEACHER, LABELS)
    value.sum().backward()
    assert student.grad is not None
    assert value.abs().max() < 1e-6 and student.grad.abs().max() < 1e-6


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_the_target_logit_is_nothing_to_the_others(which: str) -> None:
    """To single precision: the other columns are left as they are."""
    changed = {"student": STUDENT.clone(), "teacher": TEACHER.clone()}
    changed[which][torch.arange(B), LABELS] = 17.0
    torch.testing.assert_close(
        others_kl(changed["student"], changed["teacher"], LABELS), others_kl(STUDENT, TEACHER, LABELS), rtol=0, atol=0
    )
    student = STUDENT.clone().requires_grad_()
    others_kl(student, TEACHER, LABELS).sum().backward()
    assert student.grad is not None
    assert (student.grad[torch.arange(B), LABELS] == 0).all() and (student.grad != 0).sum() == B * (C - 1)


def test_the_target_part_knows_the_others_by_their_sum_alone() -> None:
    other = STUDENT.clone()
    mask = F.one_hot(LABELS, C).bool()
    for row in range(B):  # all of it on the first of the others
        rest = other[row].masked_fill(mask[row], -torch.inf)
        total = rest.logsumexp(0)
        first = int(torch.arange(C)[~mask[row]][0])
        other[row, ~mask[row]] = -60.0
        other[row, first] = total
    torch.testing.assert_close(
        target_kl(other, TEACHER, LABELS), target_kl(STUDENT, TEACHER, LABELS), rtol=1e-4, atol=1e-5
    )
    assert (others_kl(other, TEACHER, LABELS) - others_kl(STUDENT, TEACHER, LABELS)).abs().min() > 1e-2


@pytest.mark.parametrize("loss", PARTS)
def test_not_negative_and_blind_to_constants(loss: Callable[..., Tensor]) -> None:
    value = loss(STUDENT, TEACHER, LABELS, 2.0)
    assert (value > 0).all()
    shift = torch.randn(B, 1)
    torch.testing.assert_close(loss(STUDENT + shift, TEACHER - 3 * shift, LABELS, 2.0), value, rtol=1e-3, atol=1e-4)


def test_renaming_the_speakers_changes_nothing_if_all_do_it() -> None:
    order = torch.randperm(C)
    renamed = torch.argsort(order)[LABELS]
    for loss in PARTS:
        value = loss(STUDENT, TEACHER, LABELS)
        torch.testing.assert_close(loss(STUDENT[:, order], TEACHER[:, order], renamed), value)
        assert (loss(STUDENT[:, order], TEACHER, renamed) - value).abs().max() > 0.1


def test_two_speakers_have_no_others() -> None:
    student = STUDENT[:, :2].clone().requires_grad_()
    value = others_kl(student, TEACHER[:, :2], LABELS % 2)
    value.sum().backward()
    assert student.grad is not None
    assert (value == 0).all() and (student.grad == 0).all()


@pytest.mark.parametrize("temperature", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_at_extremes(temperature: float, dtype: torch.dtype) -> None:
    """A certain and right teacher, a certain and wrong student, at s = 32; under autocast too."""
    student, teacher = torch.full((2, C), -32.0, dtype=dtype), torch.full((2, C), -32.0, dtype=dtype)
    labels = torch.tensor([0, 1])
    teacher[0, 0] = teacher[1, 1] = student[0, 5] = student[1, 1] = 32.0
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
        for loss in (target_kl, others_kl):
            leaf = student.clone().requires_grad_()
            value = loss(leaf, teacher, labels, temperature)
            value.sum().backward()
            assert leaf.grad is not None
            assert value.dtype == torch.float32 and value.isfinite().all() and leaf.grad.isfinite().all()
    # by hand: p is (1, 0, ...) against all on a wrong one, 64 / T apart; nothing else is of that size
    assert target_kl(student, teacher, labels, temperature)[0].item() == pytest.approx(64 * temperature, rel=0.02)


def test_embeddings() -> None:
    one, other = torch.randn(B, 5), torch.randn(B, 5)
    torch.testing.assert_close(2 * cosine_distance(one, other), (F.normalize(one) - F.normalize(other)).square().sum(1))
    torch.testing.assert_close(cosine_distance(one, 3 * one), torch.zeros(B), atol=1e-6, rtol=0)
    assert squared_distance(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])).item() == 6.5
