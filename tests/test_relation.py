"""Relations between samples: against loops over pairs and triples, invariances, missing teachers, and several processes."""

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_kd import NAMES, batch_of, method_of, net_of, vector_teacher
from torch import Tensor
from torch.nn import functional as F

from speakerkd.conf import typed_conf
from speakerkd.kd import METHODS, Clock
from speakerkd.kd.rkd import RKD, RKDConf
from speakerkd.kd.teacher import NetTeacher
from speakerkd.losses.relation import cosine_relation, rkd_angle, rkd_distance

Run = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "egs/mini/v1/conf/kd"
N = 9
ALL = slice(0, N)


def sides(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two systems' embeddings, far from the origin and of unlike scales."""
    generator = torch.Generator().manual_seed(seed)
    student = 3 + 0.2 * torch.randn(N, 5, generator=generator)
    return student, 4 * torch.randn(N, 7, generator=generator) - 2


def huber(one: float, other: float) -> float:
    gap = abs(one - other)
    return gap**2 / 2 if gap < 1 else gap - 0.5


def length(vector: list[float]) -> float:
    return sum(value**2 for value in vector) ** 0.5


def slow_distance(student: Tensor, teacher: Tensor) -> list[list[float]]:
    """RKD-D by loops over lists of double precision."""
    tables = []
    for rows in (student.double().tolist(), teacher.double().tolist()):
        table = [[length([a - b for a, b in zip(x, y, strict=True)]) for y in rows] for x in rows]
        apart = [table[i][j] for i in range(len(rows)) for j in range(len(rows)) if i != j]
        tables.append([[value / (sum(apart) / len(apart)) for value in line] for line in table])
    return [[huber(a, b) for a, b in zip(*lines, strict=True)] for lines in zip(*tables, strict=True)]


def cosine_at(rows: list[list[float]], i: int, j: int, k: int) -> float:
    one = [a - b for a, b in zip(rows[j], rows[i], strict=True)]
    other = [a - b for a, b in zip(rows[k], rows[i], strict=True)]
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / (length(one) * length(other)) if i not in (j, k) else 0.0


def slow_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """RKD-A by loops over lists of double precision."""
    found = torch.zeros(len(student), len(student), len(student), dtype=torch.float64)
    lists = student.double().tolist(), teacher.double().tolist()
    for i, j, k in itertools.product(range(len(student)), repeat=3):
        found[i, j, k] = huber(cosine_at(lists[0], i, j, k), cosine_at(lists[1], i, j, k))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_rkd_by_loops(seed: int) -> None:
    student, teacher = sides(seed)
    expected = torch.tensor(slow_distance(student, teacher), dtype=torch.float64)
    torch.testing.assert_close(rkd_distance(student, teacher, ALL).double(), expected, rtol=1e-4, atol=1e-5)
    assert expected.max() > 0.1
    angles = slow_angle(student, teacher)
    torch.testing.assert_close(rkd_angle(student, teacher, ALL).double(), angles, rtol=1e-4, atol=1e-4)
    assert angles.max() > 1, "both branches of Huber's loss"
    own = slice(3, 6)
    torch.testing.assert_close(rkd_distance(student, teacher, own).double(), expected[own], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rkd_angle(student, teacher, own).double(), angles[own], rtol=1e-4, atol=1e-4)


def test_rkd_gradients_by_differences_of_embeddings() -> None:
    """The formulas with explicit differences, in double precision and through autograd."""
    student, teacher = sides()

    def differences(rows: Tensor) -> Tensor:
        return rows[None] - rows[:, None]

    def gradient(loss: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Tensor:
        leaf = student.clone().to(dtype).requires_grad_()
        loss(leaf).backward()
        assert leaf.grad is not None
        return leaf.grad.double()

    def distance(rows: Tensor) -> Tensor:
        upper = torch.triu_indices(N, N, 1)
        values = [(each[upper[0]] - each[upper[1]]).norm(dim=1) for each in (rows, teacher.double())]
        return F.smooth_l1_loss(*(each / each.mean() for each in values), reduction="sum") * 2 / N**2

    def angle(rows: Tensor) -> Tensor:
        units = [F.normalize(differences(each), dim=2) for each in (rows, teacher.double())]
        return F.smooth_l1_loss(*(unit @ unit.transpose(1, 2) for unit in units))

    for ours, theirs in ((rkd_distance, distance), (rkd_angle, angle)):
        found = gradient(lambda rows, ours=ours: ours(rows, teacher, ALL).mean(), torch.float32)  # type: ignore[misc]
        torch.testing.assert_close(found, gradient(theirs, torch.float64), rtol=1e-3, atol=1e-6)


def test_moved_turned_and_scaled_is_the_same() -> None:
    student, teacher = sides()
    turned = 0.3 * teacher @ torch.linalg.qr(torch.randn(7, 7))[0] + 5
    for loss in (rkd_distance, rkd_angle):
        assert loss(turned, teacher, ALL).max() < 1e-6
        torch.testing.assert_close(loss(student, turned, ALL), loss(student, teacher, ALL), rtol=1e-3, atol=1e-5)
    assert cosine_relation(teacher @ torch.linalg.qr(torch.randn(7, 7))[0] * 3, teacher, ALL).max() < 1e-5


def test_samples_that_coincide() -> None:
    """Two crops of one utterance may be equal; a collapsed student is all one point."""
    student, teacher = sides()
    student[4], teacher[4] = student[2], teacher[2]
    for rows in (student, torch.ones(N, 5)):
        for loss in (rkd_distance, rkd_angle, cosine_relation):
            leaf = rows.clone().requires_grad_()
            value = loss(leaf, teacher, ALL)
            value.sum().backward()
            assert leaf.grad is not None and value.isfinite().all() and leaf.grad.isfinite().all()
    assert rkd_angle(student, teacher, ALL)[4, 2].abs().max() == 0


def test_a_sample_without_a_teacher_is_in_no_relation() -> None:
    student, teacher = sides()
    present = torch.arange(N) != 3
    teacher[3] = 0
    whole = rkd_distance(student, teacher, ALL, present)
    torch.testing.assert_close(
        whole[present][:, present], rkd_distance(student[present], teacher[present], slice(0, N - 1))
    )
    assert (whole[3] == 0).all() and (whole[:, 3] == 0).all()
    whole = rkd_angle(student, teacher, ALL, present)
    some = rkd_angle(student[present], teacher[present], slice(0, N - 1))
    torch.testing.assert_close(whole[present][:, present][:, :, present], some, rtol=1e-4, atol=1e-5)
    assert (whole[3] == 0).all() and (whole[:, 3] == 0).all() and (whole[:, :, 3] == 0).all()
    assert (rkd_distance(student, teacher, ALL, torch.zeros(N, dtype=torch.bool)) == 0).all()


@pytest.mark.parametrize("unit_length", ["both", "teacher", "none"])
def test_the_published_weights_and_lengths(unit_length: str) -> None:
    both = typed_conf(CONF / "rkd.conf", METHODS)[2]
    assert (both.distance, both.angle, both.weight, both.unit_length) == (25, 50, 1, "both")
    assert (
        typed_conf(CONF / "rkd_distance.conf", METHODS)[2].angle
        == typed_conf(CONF / "rkd_angle.conf", METHODS)[2].distance
        == 0
    )
    net = net_of(0)
    method = method_of(CONF / "rkd.conf", NetTeacher(net, "t", NAMES), unit_length=unit_length).eval()
    batch = batch_of()
    with torch.no_grad():
        student, teacher = method.student(batch.feats[0]).embedding, net.eval()(batch.feats[0]).embedding
        student = F.normalize(student) if unit_length == "both" else student
        teacher = teacher if unit_length == "none" else F.normalize(teacher)
        outcome = method(batch, Clock(3.0, 4))
    distance, angle = (
        torch.tensor(slow_distance(student, teacher), dtype=torch.float64).mean(),
        slow_angle(student, teacher).mean(),
    )
    assert outcome.losses["kd"].item() == pytest.approx((25 * distance + 50 * angle).item(), rel=1e-3)
    assert outcome.metrics["rkd_d"].item() == pytest.approx(distance.item(), rel=1e-3)


def test_relation_by_a_loop() -> None:
    net = net_of(0)
    method = method_of(CONF / "relation.conf", NetTeacher(net, "t", NAMES)).eval()
    batch = batch_of()
    with torch.no_grad():
        cosines = [F.normalize(each(batch.feats[0]).embedding) for each in (method.student, net.eval())]
        found = method(batch, Clock(3.0, 4)).losses["kd"].item()
    gaps = [
        abs(float(cosines[0][i] @ cosines[0][j] - cosines[1][i] @ cosines[1][j]))
        for i, j in itertools.permutations(range(8), 2)
    ]
    assert found == pytest.approx(sum(gaps) / len(gaps), rel=1e-3)


PROCESSES = """
import sys
import torch
from speakerkd.batches.dataset import Batch
from speakerkd.conf import typed_conf
from speakerkd.kd import METHODS, Clock, Components
from speakerkd.kd.teacher import VectorTeacher
from speakerkd.losses.margin import MarginConf
from speakerkd.models import make_net
from speakerkd.parallel import start

torch.manual_seed(0)
world = start("cpu")
names = tuple("abcdef")
found = {}
for conf in sys.argv[3:]:
    torch.manual_seed(1)
    net = make_net(sys.argv[2], 8, names, MarginConf())
    teacher = VectorTeacher("t", names, torch.randn(6, 9), torch.ones(6, dtype=torch.bool), MarginConf())
    _, kind, options = typed_conf(conf, METHODS)
    method = kind(options, Components(net, names, teacher)).eval()
    feats, vectors = torch.randn(8, 24, 8), torch.randn(8, 9)
    vectors[5] = 0
    own = slice(world.rank * 8 // world.size, (world.rank + 1) * 8 // world.size)
    batch = Batch([feats[own]], torch.arange(8)[own] % 6, {"teacher": vectors[own]})
    loss = method(batch, Clock(3.0, 4)).losses["kd"]
    loss.backward()
    values = [loss.detach(), *(each.grad for each in net.encoder.parameters())]
    found[conf] = [world.mean(value) for value in values]
if world.first:
    torch.save(found, sys.argv[1])
world.close()
"""


def test_two_processes_relate_all_samples_as_one_does(recipe: Path, sh: Run) -> None:
    """The loss and its gradient in the student, by the mean over the processes, as DistributedDataParallel takes it."""
    (recipe / "processes.py").write_text(PROCESSES)
    (recipe / "exp").mkdir()
    confs = [f"conf/kd/{name}.conf" for name in ("relation", "rkd", "rkd_distance", "rkd_angle", "cosine")]
    words: list[Any] = ["processes.py", "exp/one", ROOT / "tests/data/xvector_toy.conf", *confs]
    sh("python3", *words)
    words[1] = "exp/two"
    sh("local/launch.sh", 1, 1, 2, "exp/two", *words)
    one, two = (torch.load(recipe / "exp" / name) for name in ("one", "two"))
    for conf in confs:
        assert all(each.abs().max() > 0 for each in one[conf])
        for ours, whole in zip(two[conf], one[conf], strict=True):
            torch.testing.assert_close(ours, whole, rtol=0.01, atol=0.01 * float(whole.abs().max()))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"unit_length": "student"}, "--unit-length=student is not one of: both teacher none"),
        ({"distance": 0.0, "angle": 0.0}, "--distance=0.0 and --angle=0.0 can't be negative, nor both be 0"),
        ({"angle": -1.0}, "--angle=-1.0 can't be negative"),
    ],
)
def test_bad_options(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method_of(CONF / "rkd.conf", vector_teacher(), **changed)
    assert RKD.Conf is RKDConf
