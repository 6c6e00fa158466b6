"""The loop: killed at any moment and started again it ends with the same weights; what it refuses; several processes."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import environment
from toy import DIM, SPEAKERS, UTTERANCES, command, same, weights

from speakerkd.batches.dataset import Batch, Batches, View
from speakerkd.batches.utterances import Utterances
from speakerkd.files.kaldi import ArkWriter, Scp
from speakerkd.files.tables import write_table
from speakerkd.kd import Clock, Components, Outcome
from speakerkd.kd.none import NoneConf, NoTeacher
from speakerkd.losses.margin import MarginConf
from speakerkd.models import load_net, make_net
from speakerkd.parallel import World
from speakerkd.schedules import learning_rate
from speakerkd.train.loop import train
from speakerkd.train.options import LoopSettings, TrainConf
from speakerkd.train.precision import autocast_dtype
from speakerkd.train.runfolder import RunFolder
from speakerkd.train.step import clip_gradients, make_optimizer

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_it_learns_and_says_how_it_goes(recipe: Path, data: Path, sh: Run) -> None:
    done = sh(*command("exp/a", "--num-epochs", 25, "--valid-interval", 5))
    rows = [line.split("\t") for line in (recipe / "exp/a/log.tsv").read_text().splitlines()]
    assert rows[0] == ["step", "epoch", "ce", "accuracy", "lr", "valid_eer_percent"]
    column = {name: [row[index] for row in rows[1:]] for index, name in enumerate(rows[0])}
    losses = [float(value) for value in column["ce"] if value]
    assert losses[-1] < 0.5 * losses[0]
    assert len([value for value in column["valid_eer_percent"] if value]) == 5
    for part in ("encoder of 0.00 M", "crops/s", "left", "EER of the speakers held out", "exp/a/final.pt is ready"):
        assert part in done.stderr
    net = load_net(recipe / "exp/a/final.pt")
    assert len(net.speakers) == SPEAKERS - 2 and set(net.speakers) < {f"s{i}" for i in range(SPEAKERS)}
    assert (recipe / "exp/a/spk2id").read_text() == "".join(f"{name} {i}\n" for i, name in enumerate(net.speakers))
    assert (recipe / "exp/a/log/curves.png").read_bytes()[:4] == b"\x89PNG"
    run = json.loads((recipe / "exp/a/conf.json").read_text())["run"]
    assert run["torch"] == torch.__version__ and " --num-epochs 25 " in " ".join(run["command"])
    assert sorted(path.name for path in (recipe / "exp/a").glob("epoch.*")) == ["epoch.24.pt", "epoch.25.pt"]
    record = (recipe / "exp/a/conf.json").read_text()
    again = sh(*command("exp/a", "--num-epochs", 25, "--valid-interval", 5))
    assert "is complete already" in again.stderr
    assert (recipe / "exp/a/conf.json").read_text() == record  # it tells of the run that made the model


def test_average_of_the_last_epochs(recipe: Path, data: Path, sh: Run) -> None:
    sh(*command("exp/a"))
    states = [torch.load(recipe / f"exp/a/epoch.{number}.pt", weights_only=True) for number in (3, 4)]
    final = weights(recipe / "exp/a/final.pt")
    for name, value in final.items():
        one, two = (state[f"student.{name}"] for state in states)
        assert torch.allclose(
            value.double(), (one.double() + two.double()) / 2 if value.is_floating_point() else two.double()
        )


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_and_resumed_is_bit_for_bit_the_same(recipe: Path, data: Path, sh: Run, seed: int) -> None:
    """SIGKILL at random moments, and in the middle of writing last.pt."""
    longer = ["--num-epochs", 60, "--valid-interval", 10]
    sh(*command("exp/whole", *longer))
    moments = random.Random(seed)
    log = (recipe / "exp/whole/log.tsv").read_text()
    kills = 0
    for attempt in range(5):
        process = subprocess.Popen(
            command("exp/killed", *longer), cwd=recipe, env=environment(), stderr=subprocess.DEVNULL
        )
        while not (recipe / "exp/killed/conf.json").exists() and process.poll() is None:
            time.sleep(0.005)
        if attempt % 2:
            while process.poll() is None and not list((recipe / "exp/killed").glob(".last.pt.*.tmp")):
                pass
        else:
            time.sleep(moments.uniform(0, 2))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 2
    sh(*command("exp/killed", *longer))
    assert same(weights(recipe / "exp/killed/final.pt"), weights(recipe / "exp/whole/final.pt"))
    assert (recipe / "exp/killed/log.tsv").read_text() == log
    assert not [path for path in (recipe / "exp/killed").iterdir() if path.name.endswith(".tmp")]


def test_a_folder_of_another_run_is_refused_with_the_difference(recipe: Path, data: Path, sh: Run) -> None:
    sh(*command("exp/a"))
    done = sh(*command("exp/a", "--lr", 0.2, "--batch-size", 4), fails=True)
    assert "exp/a holds a run with other options:" in done.stderr
    assert "train.batch_size: 8 -> 4" in done.stderr and "train.lr: 0.05 -> 0.2" in done.stderr
    assert "missing: error -> skip" in sh(*command("exp/a", "--missing", "skip"), fails=True).stderr
    record = recipe / "exp/a/conf.json"
    older = json.loads(record.read_text())
    del older["options"]["missing"]  # a record of before it was recorded
    record.write_text(json.dumps(older))
    assert "complete already" in sh(*command("exp/a", "--missing", "skip")).stderr
    (recipe / "conf/model/xvector.conf").write_text(
        "--type=xvector\n--channels=9\n--stats-channels=12\n--embedding-dim=6\n"
    )
    assert "model.channels: 8 -> 9" in sh(*command("exp/a"), fails=True).stderr


def test_a_second_run_in_one_folder_is_refused(recipe: Path, data: Path, sh: Run) -> None:
    first = subprocess.Popen(
        command("exp/a", "--num-epochs", 5000), cwd=recipe, env=environment(), stderr=subprocess.DEVNULL
    )
    while not (recipe / "exp/a/conf.json").exists():
        assert first.poll() is None
        time.sleep(0.01)
    done = sh(*command("exp/a", "--num-epochs", 5000), fails=True)
    assert "exp/a: another run is at work in this folder" in done.stderr
    # train.sh leaves the log of the run at work as it is.
    (recipe / "exp/a/log/train.1.log").write_text("the first run's\n")
    done = sh("local/train.sh", "--train-options", "--num-epochs 5000", "data/train", "exp/a", fails=True)
    assert "exp/a: another run is at work in this folder" in done.stderr
    assert (recipe / "exp/a/log/train.1.log").read_text() == "the first run's\n"
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    # With the run gone, a second one goes on, and keeps what the first one told.
    sh("local/train.sh", "--train-options", "--num-epochs 1 --average 1", "data/train", "exp/b")
    (recipe / "exp/b/log/train.1.log").write_text("the first run's\n")
    done = sh("local/train.sh", "--train-options", "--num-epochs 1 --average 1", "data/train", "exp/b")
    assert "complete already" in done.stdout
    (earlier,) = (recipe / "exp/b/log/earlier").iterdir()
    assert earlier.read_text() == "the first run's\n"


def test_a_second_train_sh_is_refused_while_the_first_waits_for_its_job(recipe: Path, data: Path, sh: Run) -> None:
    """On a cluster the job may not have begun yet."""
    (recipe / "queue").write_text("#!/bin/sh\necho $$ > pid\nmv pid waiting\nexec sleep 60\n")
    (recipe / "queue").chmod(0o755)
    first = subprocess.Popen(
        ["local/train.sh", "--cmd", "./queue", "data/train", "exp/a"], cwd=recipe, env=environment()
    )
    while not (recipe / "waiting").exists():
        assert first.poll() is None
        time.sleep(0.01)
    done = sh("local/train.sh", "data/train", "exp/a", fails=True)
    assert "exp/a: another run is at work in this folder" in done.stderr and not list((recipe / "exp/a/log").iterdir())
    os.kill(int((recipe / "waiting").read_text()), signal.SIGTERM)
    assert first.wait() != 0


SMALL_RUN = """
import sys, torch
from speakerkd.batches.dataset import Batches, View
from speakerkd.batches.utterances import Utterances
from speakerkd.kd.base import Distiller, Outcome
from speakerkd.parallel import start
from speakerkd.train.runfolder import RunFolder
from speakerkd.train.loop import train
from speakerkd.train.options import LoopSettings, TrainConf

class Means(Distiller):
    # No batch norm: it would see but a process's share.
    def __init__(self):
        super().__init__(None, None)
        self.layer = torch.nn.Linear(8, 6)
    def forward(self, batch, clock):
        logits = self.layer(batch.feats[0].square().mean(1))
        return Outcome({"ce": torch.nn.functional.cross_entropy(logits, batch.labels)})

world = start("cpu")
folder = RunFolder(sys.argv[1])
if world.first:
    folder.open({})
world.barrier()
data = Utterances("data/train")
torch.manual_seed(0)
method = Means()
batches = Batches(data, [View()], 24, 8, 0, rank=world.rank, world_size=world.size)
train(method, batches, TrainConf(num_epochs=3, batch_size=8, average=2, warmup=0), folder, world, LoopSettings(2))
if world.first:
    folder.save("final.pt", method.state_dict())
world.close()
"""


def test_two_processes_do_what_one_does(recipe: Path, data: Path, sh: Run) -> None:
    """Each takes half of every batch; weights and log are the same but for the order of sums."""
    (recipe / "small.py").write_text(SMALL_RUN)
    sh("python3", "small.py", "exp/one")
    sh("local/launch.sh", 1, 1, 2, "exp/two", "small.py", "exp/two")
    one, two = (torch.load(recipe / out / "final.pt", weights_only=True) for out in ("exp/one", "exp/two"))
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
    tables = [np.genfromtxt(recipe / out / "log.tsv", names=True) for out in ("exp/one", "exp/two")]
    np.testing.assert_allclose(tables[0]["ce"], tables[1]["ce"], rtol=1e-4)
    assert len(tables[0]) == 9


def test_two_nodes_find_each_other(recipe: Path, data: Path, sh: Run) -> None:
    """Through the job runner, as on a cluster: two jobs of the array, each a node."""
    options = "--num-epochs 1 --average 1 --threads 1"
    sh("local/train.sh", "--nodes", 2, "--train-options", options, "data/train", "exp/a")
    logs = [(recipe / f"exp/a/log/train.{node}.log").read_text() for node in (1, 2)]
    assert sum("cpu in float32 x 2" in log for log in logs) == 1 and all("Ended (code 0)" in log for log in logs)
    assert weights(recipe / "exp/a/final.pt")


def test_fine_tuning_takes_encoder_and_rows(recipe: Path, data: Path, sh: Run) -> None:
    sh(*command("exp/a", "--valid-speakers", 0))
    still = ["--lr", 1e-12, "--final-lr", 1e-12, "--num-epochs", 1, "--average", 1, "--weight-decay", 0]
    done = sh(*command("exp/b", "--init", "exp/a/final.pt", *still))
    assert "the classifier's rows of 4 of 4 speakers" in done.stderr
    before, after = load_net(recipe / "exp/a/final.pt"), load_net(recipe / "exp/b/final.pt")
    assert before.head is not None and after.head is not None
    rows = [before.speakers.index(name) for name in after.speakers]
    assert torch.allclose(after.head.weight, before.head.weight[rows], atol=1e-6)
    names = [
        name
        for name, value in before.encoder.state_dict().items()
        if "running" not in name and value.is_floating_point()
    ]
    assert all(
        torch.allclose(after.encoder.state_dict()[name], before.encoder.state_dict()[name], atol=1e-6) for name in names
    )
    (recipe / "conf/model/xvector.conf").write_text(
        "--type=xvector\n--channels=9\n--stats-channels=12\n--embedding-dim=6\n"
    )
    assert "of another shape" in sh(*command("exp/c", "--init", "exp/a/final.pt"), fails=True).stderr
    (recipe / "conf/model/xvector.conf").write_text(
        "--type=resnet\n--blocks=1:1:1:1\n--base-channels=4\n--embedding-dim=6\n"
    )
    assert "XVector, not ResNet" in sh(*command("exp/d", "--init", "exp/a/final.pt"), fails=True).stderr


def test_vectors_for_kaldi(recipe: Path, data: Path, sh: Run) -> None:
    sh("local/train.sh", "--train-options", "--num-epochs 1 --average 1", "data/train", "exp/a")
    sh("local/extract_xvectors.sh", "--nj", 3, "exp/a/final.pt", "data/train", "exp/a/xvectors_train")
    out = recipe / "exp/a/xvectors_train"
    vectors = Scp(out / "xvector.scp")
    names = [f"s{i}-{j}" for i in range(SPEAKERS) for j in range(UTTERANCES)]
    assert list(vectors) == names
    net, features = load_net(recipe / "exp/a/final.pt"), Scp(data / "feats.scp")
    for index in (0, 20, 47):
        whole = torch.from_numpy(features.read(index))
        expected = net((whole - whole.mean(0))[None]).embedding[0]
        np.testing.assert_allclose(vectors.read(index), expected.detach().numpy(), rtol=1e-5, atol=1e-5)
    everything = np.stack([vectors.read(index) for index in range(len(names))])
    means = Scp(out / "spk_xvector.scp")
    assert list(means) == [f"s{i}" for i in range(SPEAKERS)]
    np.testing.assert_allclose(means.read(2), everything[16:24].mean(0), rtol=1e-5, atol=1e-6)
    assert (out / "num_utts.ark").read_text().splitlines()[0] == f"s0 {UTTERANCES}"
    mean = [float(word) for word in (out / "mean.vec").read_text().replace("[", "").replace("]", "").split()]
    np.testing.assert_allclose(mean, everything.mean(0), rtol=1e-4, atol=1e-6)
    sh("local/extract_xvectors.sh", "--nj", 1, "--max-frames", 20, "exp/a/final.pt", "data/train", "exp/a/chunks")
    halves = features.read(0)
    halves = halves - halves.mean(0)
    parts = [
        net(torch.from_numpy(part)[None]).embedding[0].detach().numpy()
        for part in np.array_split(halves, -(-len(halves) // 20))
    ]
    np.testing.assert_allclose(
        Scp(recipe / "exp/a/chunks/xvector.scp").read(0), np.mean(parts, 0), rtol=1e-5, atol=1e-5
    )


def test_features_of_another_width_are_refused(recipe: Path, data: Path, sh: Run) -> None:
    sh("local/train.sh", "--train-options", "--num-epochs 1 --average 1", "data/train", "exp/a")
    with ArkWriter(recipe / "data/wide/feats") as write:
        write("u", np.zeros((30, DIM + 1), np.float32))
    done = sh("local/extract_xvectors.sh", "exp/a/final.pt", "data/wide", "exp/a/wide", fails=True)
    assert f"'u' has features of shape (30, {DIM + 1}), the model of exp/a/final.pt takes {DIM} a frame" in done.stderr
    assert not (recipe / "exp/a/wide/xvector.scp").exists()


def test_speakers_of_one_utterance_are_counted(recipe: Path, data: Path, sh: Run) -> None:
    write_table(data / "utt2spk", {f"s{i}-{j}": f"s{i}-{j}" if i == 0 else f"s{i}" for i in range(6) for j in range(8)})
    done = sh(*command("exp/a", "--valid-speakers", 0, "--num-epochs", 1, "--average", 1))
    assert "8 speaker(s) have only one utterance" in done.stderr


@pytest.mark.parametrize(
    ("mishap", "message"),
    [
        ("one speaker", "1 speaker to train on; a classifier needs two or more"),
        ("no features", "feats.scp is missing or empty; run stage 2"),
        ("nan", r"step \d+: the loss is not finite .*Try a lower --lr"),
        ("huge rate", r"step \d+: the loss is not finite .*Try a lower --lr"),
        ("batch", r"--batch-size=9 can't be shared by 2 processes"),
        ("typo", "no option --num-epoch .*--num-epochs"),
        ("schedule", "--schedule=step is not one of: exponential cosine"),
        ("method", r"--type=nothing is not known \(allowed: .*none"),
        ("model", "conf/model/no.conf: no such file; there are: xvector.conf"),
        ("cuda", "--device=cuda: PyTorch sees no GPU here"),
    ],
)
def test_bad_input(recipe: Path, data: Path, sh: Run, mishap: str, message: str) -> None:
    import re

    words: list[object] = ["local/train.sh", "data/train", "exp/a"]
    if mishap == "one speaker":
        write_table(data / "utt2spk", {f"s{i}-{j}": "s" for i in range(SPEAKERS) for j in range(UTTERANCES)})
        words[1:1] = ["--train-options", "--valid-speakers 0"]
    elif mishap == "no features":
        (data / "feats.scp").unlink()
    elif mishap in ("nan", "huge rate"):
        words[1:1] = [
            "--train-options",
            "--lr 1e30 --warmup 0" if mishap == "huge rate" else "--lr 1e20 --warmup 0",
        ]
    elif mishap == "batch":
        words[1:1] = ["--processes", 2, "--train-options", "--batch-size 9"]
    elif mishap == "typo":
        words[1:1] = ["--train-options", "--num-epoch 3"]
    elif mishap == "schedule":
        words[1:1] = ["--train-options", "--schedule step"]
    elif mishap == "method":
        (recipe / "conf/kd/none.conf").write_text("--type=nothing\n")
    elif mishap == "model":
        words[1:1] = ["--model", "conf/model/no.conf"]
    elif mishap == "cuda":
        if torch.cuda.is_available():
            pytest.skip("there is a GPU here")
        words[1:1] = ["--train-options", "--device cuda"]
    done = sh(*words, fails=True)
    log = recipe / "exp/a/log/train.1.log"
    assert re.search(message, done.stderr + (log.read_text() if log.exists() else "")), done.stderr


def test_the_loop_keeps_to_its_schedules(recipe: Path, data: Path, sh: Run) -> None:
    """The rate of each step, as it is logged, and the clock that each method gets."""
    (recipe / "conf/head.conf").write_text("--margin=0.1\n--margin-start=1/4\n--margin-end=3/4\n")
    sh(*command("exp/a", "--log-interval", 1, "--valid-speakers", 0, "--schedule", "cosine", "--warmup", "1/4"))
    rows = np.genfromtxt(recipe / "exp/a/log.tsv", names=True)
    steps = len(rows)
    expected = [learning_rate("cosine", 0.05, 5e-5, 0.25, step, steps) for step in range(steps)]
    np.testing.assert_allclose(rows["lr"], expected, rtol=1e-5)
    clocks: list[float] = []

    class Watched(NoTeacher):
        def forward(self, batch: Batch, clock: Clock) -> Outcome:
            clocks.append(clock.part)
            return super().forward(batch, clock)

        def after_step(self, clock: Clock) -> None:
            assert clock.part == clocks[-1]

    conf = TrainConf(num_epochs=2, batch_size=8)
    batches = Batches(Utterances(recipe / "data/train"), [View()], 24, 8, 0)
    net = make_net(recipe / "conf/model/xvector.conf", DIM, batches.data.speakers, MarginConf())
    folder = RunFolder(recipe / "exp/b")
    folder.open({})
    world = World(0, 1, torch.device("cpu"))
    train(
        Watched(NoneConf(), Components(net, batches.data.speakers)),
        batches,
        conf,
        folder,
        world,
        LoopSettings(save_minutes=60),
    )
    assert clocks == [step / batches.per_epoch / 2 for step in range(2 * batches.per_epoch)]


@pytest.mark.parametrize("each", [True, False])
def test_clipping(each: bool) -> None:
    values = [torch.tensor([3.0, 4, 0]), torch.tensor([0.0, 0.3, 0.4]), torch.tensor([12.0, 0, 0])]
    gradients = [value.clone() for value in values]
    clip_gradients(gradients, [value.norm() for value in values], 1.0, each)
    norms = [5, 0.5, 12] if each else [(25 + 0.25 + 144) ** 0.5] * 3
    for gradient, value, norm in zip(gradients, values, norms, strict=True):
        torch.testing.assert_close(gradient, value * min(1, 1 / norm), rtol=1e-5, atol=1e-6)


def test_what_is_decayed() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    method = SimpleNamespace(parameters=net.parameters, unregularised_parameters=list)
    for on, decayed in (("matrices", [1e-4, 0.0]), ("all", [1e-4, 1e-4])):
        optimizer = make_optimizer(TrainConf(weight_decay_on=on, nesterov=False), method)  # type: ignore[arg-type]
        assert [group["weight_decay"] for group in optimizer.param_groups][:2] == decayed
        assert not optimizer.param_groups[0]["nesterov"]


def test_mixed_precision_is_where_it_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU before Ampere has no bf16: float32 there, or fp16 if asked for."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    half = torch.bfloat16
    for amx, avx, ampere in product((True, False), repeat=3):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda found=amx: found)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda found=avx: found)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, found=ampere: found)
        for amp, on_cpu, on_gpu in (
            ("auto", None, half if ampere else None),
            ("fast", half if amx or avx else None, half if ampere else None),
            ("fp16", torch.float16, torch.float16),
            ("none", None, None),
        ):
            assert (autocast_dtype(amp, cpu), autocast_dtype(amp, gpu)) == (on_cpu, on_gpu), amp
        assert autocast_dtype("bf16", cpu) == half
        if not ampere:
            with pytest.raises(ValueError, match="this GPU has no bf16; --amp=fp16 is fast on it"):
                autocast_dtype("bf16", gpu)


PAGES = """
import resource, torch
from speakerkd.parallel import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
keep_memory()
faults()  # the heap grows as far as it must
print(given_back, faults())
"""


def test_memory_of_tensors_is_kept(sh: Run) -> None:
    given_back, kept = map(int, sh("python3", "-c", PAGES).stdout.split())
    assert kept < 100 < given_back
