"""Every method on the small recipe; teachers, their class spaces, and what is refused."""

import json
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, environment
from toy import DIM, SPEAKERS, command, map_weights, same, weights, write_sides

from speakerkd.batches.attached import Attached
from speakerkd.batches.dataset import Batch
from speakerkd.batches.utterances import Utterances
from speakerkd.conf import typed_conf
from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.tables import write_table
from speakerkd.kd import METHODS, Clock, Components, Distiller
from speakerkd.kd.find_teacher import find_teacher, mean_vectors
from speakerkd.kd.teacher import NetTeacher, Teacher, VectorTeacher
from speakerkd.losses.margin import MarginConf, MarginHead
from speakerkd.models import SpeakerNet, load_net, make_net, save_net

Run = Callable[..., subprocess.CompletedProcess[str]]
CONFS = sorted((ROOT / "egs/mini/v1/conf/kd").glob("*.conf"))
WITH_TEACHER = [path for path in CONFS if typed_conf(path, METHODS)[1].needs.teacher]
FROM_VECTORS = [path for path in WITH_TEACHER if not typed_conf(path, METHODS)[1].needs.teacher_net]
OF_PAIRS = [path for path in WITH_TEACHER if path.stem.startswith(("relation", "rkd"))]
BY_QUALITY = [path for path in WITH_TEACHER if getattr(typed_conf(path, METHODS)[2], "quality", "none") != "none"]
NAMES = tuple(f"s{i}" for i in range(SPEAKERS))


def net_of(seed: int, speakers: tuple[str, ...] = NAMES, dim: int = 6, head: MarginConf | None = None) -> SpeakerNet:
    """A small x-vector with running statistics of its own."""
    torch.manual_seed(seed)
    conf = Path(__file__).parent / "data/xvector_toy.conf"
    net = make_net(conf, DIM, speakers, head or MarginConf())
    if dim != 6:
        raise AssertionError("the toy has 6 dimensions")
    net.train()
    net(torch.randn(8, 30, DIM))
    return net


def vector_teacher() -> VectorTeacher:
    return VectorTeacher("t", NAMES, torch.randn(SPEAKERS, 9), torch.ones(SPEAKERS, dtype=torch.bool), MarginConf())


def batch_of(size: int = 8, seed: int = 0, **vectors: torch.Tensor) -> Batch:
    torch.manual_seed(seed)
    labels = torch.arange(size) % SPEAKERS
    return Batch([torch.randn(size, 24, DIM)], labels, vectors)


def method_of(path: Path, teacher: Teacher | None, student: SpeakerNet | None = None, **changed: Any) -> Distiller:
    _, kind, conf = typed_conf(path, METHODS)
    conf = type(conf)(**{**vars(conf), **changed})
    return kind(conf, Components(student or net_of(1), NAMES, teacher, {}))


def state_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize(
    ("path", "kind"),
    [(path, "net") for path in WITH_TEACHER] + [(path, "vectors") for path in FROM_VECTORS],
    ids=lambda value: value if isinstance(value, str) else value.stem,
)
def test_the_student_learns_and_the_teacher_stays(path: Path, kind: str) -> None:
    teacher: Teacher = NetTeacher(net_of(0), "t", NAMES) if kind == "net" else vector_teacher()
    method = method_of(path, teacher)
    method.train()
    before = state_of(teacher)
    optimizer = torch.optim.SGD([each for each in method.parameters() if each.requires_grad], 0.1)
    for seed in range(3):
        batch = batch_of(seed=seed, teacher=torch.randn(8, 9))
        outcome = method(batch, Clock(3.0, 4))
        torch.stack(list(outcome.losses.values())).sum().backward()
        assert all(each.grad is not None and each.grad.any() for each in method.parameters() if each.requires_grad)
        optimizer.step()
    after = teacher.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "batch norm's statistics included"
    assert all(each.grad is None and not each.requires_grad for each in teacher.parameters())
    assert not teacher.training and all(not module.training for module in teacher.modules())
    assert not any(module is each for module in method.modules() for each in teacher.modules())
    assert not any("teacher" in name for name in method.state_dict())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_teacher_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    compile_it = torch.compile

    def traced(forward: Any) -> Any:
        calls.append(forward)
        return compile_it(forward, backend="eager")  # traced as for a GPU, but no compiler is needed

    monkeypatch.setattr(torch, "compile", traced)
    plain, compiled = NetTeacher(net_of(0), "t", NAMES), NetTeacher(net_of(0), "t", NAMES)
    compiled.compiled = True
    for seed in range(3):
        batch = batch_of(seed=seed)
        torch.testing.assert_close(compiled.embed(batch).embedding, plain.embed(batch).embedding)
    assert len(calls) == 1, "once, not at each step"
    assert not any("orig_mod" in name for name in compiled.state_dict())


@pytest.mark.parametrize("path", WITH_TEACHER, ids=lambda path: path.stem)
def test_weight_0_is_plain_training(path: Path) -> None:
    gradients = []
    for conf in (path, ROOT / "egs/mini/v1/conf/kd/none.conf"):
        changed: dict[str, Any] = {"weight": 0.0} if conf == path else {}
        if path in BY_QUALITY and changed:
            changed["quality"] = "none"
        method = method_of(conf, NetTeacher(net_of(0), "t", NAMES), **changed)
        method.train()
        outcome = method(batch_of(), Clock(3.0, 4))
        torch.stack(list(outcome.losses.values())).sum().backward()
        student = method.exports()["final"]
        gradients.append({name: each.grad for name, each in student.named_parameters()})
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name])


def test_the_weight_rises_as_published() -> None:
    """1/20 in the first of 150 epochs, 1 from the twentieth on; the same part of shorter runs."""
    enskd = typed_conf(ROOT / "egs/mini/v1/conf/kd/enskd.conf", METHODS)[2]
    assert (enskd.temperature, enskd.gamma, enskd.target_weight, enskd.weight) == (1.0, 2.0, 1.0, 1.0)
    weights_ = [Clock(epoch + 0.7, 150).rise_in_epochs(enskd.warmup) for epoch in range(150)]
    np.testing.assert_allclose(weights_, [min(number / 20, 1) for number in range(1, 151)])
    assert [Clock(epoch, 24).rise_in_epochs(enskd.warmup) for epoch in (0.0, 1.5, 2.0, 3.0)] == [1 / 3, 2 / 3, 1, 1]
    assert Clock(0.0, 4).rise_in_epochs(0.0) == 1.0


@pytest.mark.parametrize("plain", [False, True])
def test_enskd_by_hand(plain: bool) -> None:
    """The loss of a batch, from the heads' cosines and the definition."""
    teacher, student = net_of(0), net_of(1, head=MarginConf(margin=0.3, margin_start=2 / 24, margin_end=6 / 24))
    method = method_of(
        ROOT / "egs/mini/v1/conf/kd/enskd.conf", NetTeacher(teacher, "t", NAMES), student, plain_cosines=plain
    )
    method.eval()
    batch = batch_of()
    outcome = method(batch, Clock(3.0, 24))  # the margin has begun to rise, the weight is at 1
    assert batch.labels is not None
    ramp = 1 - 0.001**0.25

    def logits(net: SpeakerNet, margin: float) -> torch.Tensor:
        assert net.head is not None and batch.labels is not None
        cosine = net.head.cosines(net(batch.feats[0]).embedding).double()
        angle = cosine.acos() + margin * torch.nn.functional.one_hot(batch.labels, SPEAKERS)
        return (32 * angle.cos()).detach()

    student_margin, teacher_margin = (0.0, 0.0) if plain else (0.3 * ramp, 0.2)
    with torch.no_grad():
        p, q = logits(teacher.eval(), teacher_margin).softmax(1), logits(student, student_margin).softmax(1)
    rows = torch.arange(8)
    p_y, q_y = p[rows, batch.labels], q[rows, batch.labels]
    target = p_y * (p_y / q_y).log() + (1 - p_y) * ((1 - p_y) / (1 - q_y)).log()
    other = torch.nn.functional.one_hot(batch.labels, SPEAKERS) == 0
    p_rest, q_rest = p / (1 - p_y)[:, None], q / (1 - q_y)[:, None]
    others = (p_rest * (p_rest / q_rest).log() * other).sum(1)
    assert outcome.losses["kd"].item() == pytest.approx((target + 2 * others).mean().item(), rel=1e-3)


def subset(net: SpeakerNet, names: list[str]) -> SpeakerNet:
    """The same net, its classifier over these speakers in this order."""
    assert net.head is not None
    head = MarginHead(net.head.conf, net.dim, len(names))
    head.weight.data.copy_(net.head.weight[[net.speakers.index(name) for name in names]].detach())
    other = SpeakerNet(net.encoder, head, names)
    return other.eval()


@pytest.mark.parametrize("name", ["kld", "enskd"])
def test_class_spaces(name: str) -> None:
    """Another order and more speakers are no matter; a missing one is an error with the remedies, or left out."""
    path = ROOT / f"egs/mini/v1/conf/kd/{name}.conf"
    large = net_of(0, tuple(sorted([*NAMES, "alice", "zoe"]))).eval()
    batch, clock = batch_of(), Clock(3.0, 4)

    def loss(teacher: SpeakerNet, **changed: Any) -> float:
        method = method_of(path, NetTeacher(teacher, "exp/t/final.pt", NAMES), **changed)
        method.eval()
        return method(batch, clock).losses["kd"].item()

    exact = loss(subset(large, list(NAMES)))
    assert loss(large) == pytest.approx(exact, rel=1e-5)
    assert loss(subset(large, [*reversed(NAMES), "zoe"])) == pytest.approx(exact, rel=1e-5)
    renamed = subset(large, list(NAMES))
    renamed.speakers = (*NAMES[1:], NAMES[0])
    assert loss(renamed) != pytest.approx(exact, rel=1e-2)

    fewer = subset(large, ["s5", "s1", "s2", "s0"])
    with pytest.raises(ValueError, match=r"doesn't know 2 of the 6 training speakers: s3, s4\. ") as error:
        loss(fewer)
    for remedy in ("Train the teacher", "another speed", "--unknown-speakers=skip", "distil embeddings"):
        assert remedy in str(error.value)
    # left out: the mean over all 8, of those of the four known speakers among the four
    student = net_of(1).eval()
    assert batch.labels is not None
    for known in (["s0", "s1", "s2", "s5"], ["s2", "s3", "s4", "s5"]):  # without some in the middle, without the first
        rows = torch.tensor([i for i, label in enumerate(batch.labels.tolist()) if NAMES[label] in known])
        few = Batch([batch.feats[0][rows]], torch.tensor([known.index(NAMES[i]) for i in batch.labels[rows].tolist()]))
        _, kind, conf = typed_conf(path, METHODS)
        method = kind(
            conf, Components(subset(student, known), tuple(known), NetTeacher(subset(large, known), "t", known), {})
        )
        expected = method.eval()(few, clock).losses["kd"].item() * len(rows) / 8
        assert loss(subset(large, known[::-1]), unknown_speakers="skip") == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="knows only one of the training speakers, so its probabilities say nothing"):
        loss(subset(large, ["s1", "zoe"]), unknown_speakers="skip")
    with pytest.raises(ValueError, match="knows none of the training speakers"):
        loss(subset(net_of(0, ("alice", "zoe")).eval(), ["alice", "zoe"]), unknown_speakers="skip")


def test_vectors_teach_whatever_the_students_classifier_is() -> None:
    """The centroids are one row a class; with softmax, too, the length of the teacher's vectors does not count."""
    torch.manual_seed(0)
    centroids, everyone = torch.randn(6, 5), torch.ones(6, dtype=torch.bool)
    for conf in (MarginConf(sub_centers=3), MarginConf(type="softmax")):
        teacher = VectorTeacher("t.scp", NAMES, centroids, everyone, conf)
        logits = teacher.logits(torch.eye(5))  # unit vectors
        assert logits.shape == (5, 6) and torch.allclose(logits, teacher.logits(7 * torch.eye(5)), atol=1e-5)
        assert torch.allclose(logits, 32 * torch.nn.functional.normalize(centroids).T, atol=1e-4)


def test_speeds_that_the_teacher_has_not_heard(recipe: Path, data: Path, sh: Run) -> None:
    """The published code runs out of its classes here."""
    sh("local/train.sh", "--train-options", "--num-epochs 1 --average 1 --valid-speakers 0", "data/train", "exp/t")
    speeds = data.parent / "speeds"
    speeds.mkdir()
    for table in ("utt2spk", "feats.scp", "utt2num_frames"):
        lines = (data / table).read_text().splitlines()
        new = [f"{prefix}{line}" for prefix in ("sp0.9-", "sp1.1-") for line in lines]
        if table == "utt2spk":
            new = [line.replace(" ", f" {line.split('-')[0]}-") for line in new]
        (speeds / table).write_text("".join(f"{line}\n" for line in sorted([*lines, *new])))
    options = "--num-epochs 1 --average 1 --valid-speakers 0"
    words = ["local/train.sh", "--teacher", "exp/t/final.pt", "--train-options", options]
    done = sh(*words, "--kd", "conf/kd/enskd.conf", "data/speeds", "exp/a", fails=True)
    assert "doesn't know 12 of the 18 training speakers: sp0.9-s0" in done.stderr
    assert not (recipe / "exp/a/last.pt").exists()
    (recipe / "conf/kd/enskd.conf").write_text("--type=dkd\n--unknown-speakers=skip\n")
    sh(*words, "--kd", "conf/kd/enskd.conf", "data/speeds", "exp/a")
    assert len(load_net(recipe / "exp/a/final.pt").speakers) == 18
    sh(*words, "--kd", "conf/kd/cosine.conf", "data/speeds", "exp/b")


def test_batches_of_one_speaker() -> None:
    for path in WITH_TEACHER:
        method = method_of(path, NetTeacher(net_of(0), "t", NAMES))
        method.train()
        batch = batch_of()
        batch.labels = torch.full((8,), 2)
        losses = method(batch, Clock(3.0, 4)).losses
        torch.stack(list(losses.values())).sum().backward()
        assert all(value.isfinite() for value in losses.values())
        assert all(each.grad.isfinite().all() for each in method.parameters() if each.grad is not None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast(dtype: torch.dtype) -> None:
    """The distance is that of single precision, but for the nets' own rounding."""
    for path in WITH_TEACHER:
        method = method_of(path, NetTeacher(net_of(0), "t", NAMES))
        method.eval()
        plain = method(batch_of(), Clock(3.0, 4)).losses["kd"]
        with torch.autocast("cpu", dtype):
            half = method(batch_of(), Clock(3.0, 4)).losses["kd"]
        assert half.dtype == torch.float32
        # Relative distances of embeddings that are much alike feel the rounding more.
        assert half.item() == pytest.approx(plain.item(), rel=0.3 if path in OF_PAIRS else 0.1, abs=0.02)


@pytest.mark.parametrize("kind", ["net", "vectors"])
@pytest.mark.parametrize("path", CONFS, ids=lambda path: path.stem)
def test_forward_and_backward_in_bf16(path: Path, kind: str) -> None:
    """As with --amp=fast: what a method adds to its nets must stand the mixture of precisions, in both directions."""
    _, method_class, conf = typed_conf(path, METHODS)
    if hasattr(conf, "utts_per_speaker"):
        conf = replace(conf, utts_per_speaker=2)
    needs = method_class.needs_of(conf)
    if kind == "vectors" and (not needs.teacher or needs.teacher_net):
        pytest.skip("no teacher of vectors")
    vectors = {name: torch.randn(8, 6) for name in needs.vectors}
    if needs.teacher and kind == "vectors":
        vectors["teacher"] = torch.randn(8, 9)
    teacher = (
        None if not needs.teacher else vector_teacher() if kind == "vectors" else NetTeacher(net_of(0), "t", NAMES)
    )
    net = net_of(1) if needs.views else None
    method = method_class(conf, Components(net, NAMES, teacher, dict.fromkeys(needs.vectors, 6))).train()
    labels = torch.arange(8) // max(needs.utts_per_speaker, 1) % SPEAKERS if needs.labels else None
    batch = Batch([torch.randn(8, round(24 * view.length), DIM) for view in needs.views], labels, vectors)
    with torch.autocast("cpu", torch.bfloat16):
        outcome = method(batch, Clock(3.0, 4))
    loss = torch.stack(list(outcome.losses.values())).sum()
    assert loss.dtype == torch.float32 and loss.isfinite()
    loss.backward()
    assert any(each.grad is not None and each.grad.abs().max() > 0 for each in method.parameters())
    assert all(each.grad is None or each.grad.isfinite().all() for each in method.parameters())


@pytest.mark.parametrize("path", CONFS, ids=lambda path: path.stem)
def test_a_run_of_every_method(recipe: Path, data: Path, sh: Run, path: Path) -> None:
    """Killed and resumed is bit for bit the same; the result is a plain net of the model's conf."""
    needs = typed_conf(path, METHODS)[1].needs
    more: list[object] = ["--kd", f"conf/kd/{path.name}", "--num-epochs", 12, "--valid-interval", 10]
    if not needs.labels:
        more += ["--valid-speakers", 0]
    if needs.utts_per_speaker:
        with (recipe / f"conf/kd/{path.name}").open("a") as conf:
            conf.write("--utts-per-speaker=2\n")
    if needs.vectors:
        write_sides(recipe)
        more += [
            "--vectors",
            ",".join(f"{name}=exp/{name}/v/xvector.scp" for name in needs.vectors),
            "--num-epochs",
            90,
        ]
    if needs.teacher:
        (recipe / "exp/t").mkdir(parents=True)
        save_net(recipe / "exp/t/final.pt", net_of(7))
        more += ["--teacher", "exp/t/final.pt"]
    sh(*command("exp/whole", *more))
    process = subprocess.Popen(command("exp/cut", *more), cwd=recipe, env=environment(), stderr=subprocess.DEVNULL)
    while not (recipe / "exp/cut/last.pt").exists() and process.poll() is None:
        time.sleep(0.005)
    time.sleep(random.Random(path.stem).uniform(0, 0.2))
    assert process.poll() is None, "it was over before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "going on from step" in sh(*command("exp/cut", *more)).stderr
    names = [file.name for file in (recipe / "exp/whole").glob("*.pt") if not file.name.startswith(("last", "epoch"))]
    for name in names:
        load = weights if needs.views else map_weights
        assert same(load(recipe / "exp/cut" / name), load(recipe / "exp/whole" / name))
    assert names
    assert (recipe / "exp/cut/log.tsv").read_text() == (recipe / "exp/whole/log.tsv").read_text()
    if "final.pt" in names and needs.views:
        net = load_net(recipe / "exp/whole/final.pt")
        plain = make_net(recipe / "conf/model/xvector.conf", DIM, net.speakers, net.head and net.head.conf)
        assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}


def test_a_teacher_of_vectors(recipe: Path, data: Path, sh: Run) -> None:
    """Means of vectors of length one; copies take the vector of their original; what is missing or odd is refused."""
    rng = np.random.default_rng(3)
    utterances = Utterances(data)
    keys = list(utterances.scp)
    vectors = {key: rng.standard_normal(5).astype(np.float32) for key in keys}
    with ArkWriter(recipe / "exp/v/xvector") as write:
        for key in keys:
            write(key, vectors[key])
    scp = str(recipe / "exp/v/xvector.scp")
    teacher = find_teacher(scp, "", utterances, np.arange(len(keys)), MarginConf())
    assert teacher.head is not None
    mean = np.mean([vectors[key] / np.linalg.norm(vectors[key]) for key in keys if key.startswith("s2")], 0)
    np.testing.assert_allclose(teacher.head.weight[2], mean / np.linalg.norm(mean), rtol=1e-5)
    done = sh(*command("exp/a", "--kd", "conf/kd/enskd.conf", "--teacher", "exp/v/xvector.scp"))
    assert "teacher_p" in done.stderr

    uniq = {key: "s0-0" if key.startswith("s0") else key for key in keys}
    write_table(data / "utt2uniq", uniq)
    with ArkWriter(recipe / "exp/w/xvector") as write:
        for key in sorted(set(uniq.values())):
            write(key, vectors[key])
    copies = Utterances(data)
    copies.attach("teacher", recipe / "exp/w/xvector.scp")
    np.testing.assert_array_equal(copies.vectors["teacher"].of(np.array([3, 8])), [vectors["s0-0"], vectors["s1-0"]])
    (data / "utt2uniq").unlink()
    done = sh(*command("exp/b", "--kd", "conf/kd/kld.conf", "--teacher", "exp/w/xvector.scp"), fails=True)
    assert "exp/w/xvector.scp: 7 of 48 utterances have no teacher: s0-1, s0-2, s0-3 and 4 more" in done.stderr
    sh(*command("exp/c", "--kd", "conf/kd/kld.conf", "--teacher", "exp/w/xvector.scp", "--missing", "zero"))
    with ArkWriter(recipe / "exp/x/xvector") as write:
        for key in keys:
            if not key.startswith("s2"):
                write(key, vectors[key])
    words = "--teacher exp/x/xvector.scp --missing skip --kd conf/kd/cosine.conf --valid-speakers 0"
    done = sh(*command("exp/d", *words.split()))
    assert "leaves 1 of 6 speakers without utterances; they stay in the classifier: s2" in done.stderr


def test_missing_vectors_teach_nothing() -> None:
    """The rest counts as before, where a sample's distance is its own affair: neither pairs nor weights by quality."""
    for path in [each for each in FROM_VECTORS if each not in OF_PAIRS and each not in BY_QUALITY]:
        teacher = vector_teacher()
        method = method_of(path, teacher)
        method.eval()
        vectors = torch.randn(8, 9)
        whole = method(batch_of(teacher=vectors), Clock(3.0, 4)).losses["kd"]
        half = method(batch_of(teacher=vectors * (torch.arange(8) < 4)[:, None]), Clock(3.0, 4)).losses["kd"]
        other = method(batch_of(teacher=vectors * (torch.arange(8) >= 4)[:, None]), Clock(3.0, 4)).losses["kd"]
        torch.testing.assert_close(half + other, whole)


def test_centroids_in_the_place_of_a_classifier(recipe: Path, data: Path, sh: Run) -> None:
    sh(*command("exp/t", "--valid-speakers", 0))
    net = load_net(recipe / "exp/t/final.pt")
    net.head, net.speakers = None, ()
    save_net(recipe / "exp/t/bare.pt", net)
    words = ["--kd", "conf/kd/kld.conf", "--teacher", "exp/t/bare.pt", "--valid-speakers", 0]
    done = sh(*command("exp/a", *words), fails=True)
    assert "exp/t/bare.pt has no classifier, and label-level distillation needs one. Give --centroids" in done.stderr
    sh("local/extract_xvectors.sh", "exp/t/bare.pt", "data/train", "exp/t/xvectors")
    sh(*command("exp/b", *words, "--centroids", "exp/t/xvectors/spk_xvector.scp"))
    with ArkWriter(recipe / "exp/odd/spk_xvector") as write:
        write("s0", np.ones(3, np.float32))
    done = sh(*command("exp/c", *words, "--centroids", "exp/odd/spk_xvector.scp"), fails=True)
    assert "has vectors of 3 dimensions, the teacher exp/t/bare.pt gives 6" in done.stderr


@pytest.mark.parametrize(
    ("mishap", "message"),
    [
        ("no teacher", "the method dkd learns from a teacher: give --teacher"),
        ("needless", "the method none has no teacher; leave it out"),
        ("vectors", "--vectors=face=x.scp: the method dkd takes no --vectors"),
        ("no file", "exp/t/none.pt: can't be read"),
        ("width", f"takes {DIM + 1} features per frame, data/train has {DIM}, .*vectors that were made with it"),
        ("front end", r"features of another kind than those of data/train \(--num-mel-bins=8 for 40\)"),
        ("temperature", "--temperature=0.0 must be positive"),
        ("projection", "--projection=never, but the student's embeddings have 6 dimensions, the teacher's 5"),
        ("unknown", "--unknown-speakers=ignore is not one of: error skip"),
        ("weight", "--weight=-1.0 can't be negative"),
        ("nan", "1 of 48 vectors hold NaN or infinite values: s3-4"),
        ("lengths", "'s3-4' has 4 dimensions, 's0-0' has 5"),
    ],
)
def test_bad_teachers(recipe: Path, data: Path, sh: Run, mishap: str, message: str) -> None:

    kd, teacher, more = "enskd", "exp/t/final.pt", []
    (recipe / "exp/t").mkdir(parents=True)
    net = net_of(0)
    if mishap == "width":
        net = make_net(Path(__file__).parent / "data/xvector_toy.conf", DIM + 1, NAMES, MarginConf())
    if mishap == "front end":
        (data / "conf").mkdir()
        (data / "conf/fbank.conf").write_text("--num-mel-bins=8\n--dither=0\n")
        net.info = {"fbank": {"num_mel_bins": "40"}}
    save_net(recipe / teacher, net)
    if mishap in ("nan", "lengths", "projection"):
        teacher = "exp/t/xvector.scp"
        odd = np.ones(4, np.float32) if mishap == "lengths" else np.ones(5, np.float32)
        with ArkWriter(recipe / "exp/t/xvector", ragged=True) as write:
            for key in Utterances(data).scp:
                write(key, odd if key == "s3-4" else np.ones(5, np.float32))
        if mishap == "nan":
            ark = recipe / "exp/t/xvector.ark"
            raw = bytearray(ark.read_bytes())
            place = raw.index(b"s3-4 ") + len(b"s3-4 ") + 10  # binary mark, FV, width, count
            raw[place : place + 4] = np.array([np.nan], "<f4").tobytes()
            ark.write_bytes(raw)
    if mishap == "no teacher":
        teacher = ""
    elif mishap == "needless":
        kd = "none"
    elif mishap == "vectors":
        more = ["--vectors", "face=x.scp"]
    elif mishap == "no file":
        teacher = "exp/t/none.pt"
    extra = {
        "temperature": "--temperature=0", "unknown": "--unknown-speakers=ignore", "weight": "--weight=-1",
    }.get(mishap)  # fmt: skip
    if extra:
        (recipe / "conf/kd/enskd.conf").write_text(f"--type=dkd\n{extra}\n")
    if mishap == "projection":
        (recipe / "conf/kd/enskd.conf").write_text("--type=cosine\n--projection=never\n")
    words = ["--kd", f"conf/kd/{kd}.conf", "--teacher", teacher, "--valid-speakers", 0, *more]
    done = sh(*command("exp/a", *words), fails=True)
    assert re.search(message, done.stderr), done.stderr
    assert not (recipe / "exp/a/last.pt").exists()


def test_a_run_with_another_teacher_is_refused(recipe: Path, data: Path, sh: Run) -> None:
    (recipe / "exp/t").mkdir(parents=True)
    save_net(recipe / "exp/t/final.pt", net_of(0))
    words = command("exp/a", "--kd", "conf/kd/kld.conf", "--teacher", "exp/t/final.pt")
    sh(*words)
    save_net(recipe / "exp/t/final.pt", net_of(5))
    assert "files.exp/t/final.pt:" in sh(*words, fails=True).stderr
    options = json.loads((recipe / "exp/a/conf.json").read_text())["options"]
    assert list(options["files"]) == ["exp/t/final.pt"]


def test_kd_info(recipe: Path, data: Path, sh: Run) -> None:
    lines = sh("local/kd_info.py", "conf/kd/none.conf", "conf/kd/enskd.conf").stdout.splitlines()
    assert lines[0].split() == ["none", "--type=none", "needs", "labels,", "audio"]
    assert lines[1].split() == ["enskd", "--type=dkd", "needs", "labels,", "teacher,", "audio"]
    assert sh("local/kd_info.py", "--words", "true", "conf/kd/enskd.conf").stdout.split() == [
        "labels",
        "teacher",
        "audio",
    ]
    assert "conf/kd/no.conf: can't read this conf file" in sh("local/kd_info.py", "conf/kd/no.conf", fails=True).stderr


def test_check_teacher(recipe: Path, data: Path, sh: Run) -> None:
    sh(*command("exp/t", "--valid-speakers", 0, "--num-epochs", 1, "--average", 1))
    keys = list(Utterances(data).scp)
    lines = [f"{a} {b} {'target' if a[:2] == b[:2] else 'nontarget'}\n" for a in keys for b in keys if a < b]
    (data / "trials").write_text("".join(lines))
    words = ["--test", "data/train", "--trials", "data/train/trials"]
    told = sh("local/check_teacher.sh", *words, "exp/t/final.pt", "data/train").stdout
    assert re.search(r"^\| t +\| trials +\| cosine +\| +168 \| +960 ", told, re.M), told
    assert re.search(r"^model +XVector, 0.00 M parameters, embeddings of 6$", told, re.M)
    assert "6, 6 of them among the 6 training speakers" in told and told.splitlines()[-1].startswith("can serve")
    net = load_net(recipe / "exp/t/final.pt")
    save_net(recipe / "exp/t/few.pt", subset(net, ["s1", "s2"]))
    told = sh("local/check_teacher.sh", "exp/t/few.pt", "data/train", fails=True).stdout
    assert "2, 2 of them among the 6" in told and "can't serve" in told and "doesn't know 4 of the 6" in told
    assert (
        "can serve" in sh("local/check_teacher.sh", "--kd", "conf/kd/cosine.conf", "exp/t/few.pt", "data/train").stdout
    )
    told = sh("local/check_teacher.sh", "exp/t/xvectors_train/xvector.scp", "data/train").stdout
    assert "vectors    of 6, of 48 of the 48 training utterances" in told and "can serve" in told
    done = sh("local/check_teacher.sh", "--kd", "conf/kd/none.conf", "exp/t/final.pt", "data/train", fails=True)
    assert "conf/kd/none.conf: the method none has no teacher" in done.stderr


def test_mean_vectors_are_those_of_a_loop(rng: np.random.Generator) -> None:
    """Of the entries trained on, at length one; a speaker of whom no vector is there isn't known."""
    rows = np.concatenate([rng.standard_normal((50, 4)), np.zeros((1, 4))]).astype(np.float32)
    row_of = np.append(rng.permutation(50)[:39], [-1]).astype(np.int32)
    labels = np.append(rng.integers(0, 5, 39), [5]).astype(np.int32)  # speaker 5 has but the last, which has no vector
    data: Any = SimpleNamespace(
        labels=labels, speakers=tuple("abcdef"), crop_vectors={}, vectors={"teacher": Attached(rows, row_of)}
    )
    entries = np.arange(3, 40)
    means, known = mean_vectors(data, entries)
    assert known.tolist() == [True] * 5 + [False] and means.dtype == torch.float32
    for speaker in range(5):
        own = [rows[row_of[entry]].astype(float) for entry in entries if labels[entry] == speaker]
        np.testing.assert_allclose(means[speaker], sum(each / np.linalg.norm(each) for each in own), rtol=1e-5)
