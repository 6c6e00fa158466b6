"""A run that meets nan, a damaged file, a signal, too little memory or a file system without locks."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import environment
from toy import DIM, command, same, weights

from speakerkd.batches.dataset import Batch, Batches, View
from speakerkd.batches.utterances import Utterances
from speakerkd.files.kaldi import Scp
from speakerkd.finite import not_finite
from speakerkd.kd.base import Clock, Distiller, Outcome
from speakerkd.kd.nessa import NESSA
from speakerkd.losses.margin import MarginConf, MarginHead
from speakerkd.models import load_net, make_net, save_net
from speakerkd.parallel import World
from speakerkd.train import runfolder
from speakerkd.train.loop import loader, synchronised, train
from speakerkd.train.options import LoopSettings, TrainConf
from speakerkd.train.runfolder import RunFolder
from speakerkd.train.step import FIRST_SCALE, NotFiniteError, Stepper
from speakerkd.train.summary import speakers_with_one_utterance

Run = Callable[..., subprocess.CompletedProcess[str]]
CPU = World(0, 1, torch.device("cpu"))


class BadGradient(torch.autograd.Function):
    """Lets values pass, and gives a gradient of nan."""

    @staticmethod
    def forward(ctx: object, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: object, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * float("nan")


class Faulty(Distiller):
    """Goes wrong in one of three ways at one step."""

    def __init__(self, step: int = -1, fault: str = "") -> None:
        super().__init__(None, None)  # type: ignore[arg-type]
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(DIM, 6)
        self.register_buffer("moving", torch.zeros(1))
        self.at, self.fault, self.count = step, fault, 0

    def forward(self, batch: Batch, clock: Clock) -> Outcome:
        logits = self.layer(batch.feats[0].square().mean(1))
        assert batch.labels is not None
        loss = torch.nn.functional.cross_entropy(logits, batch.labels)
        now = round(clock.epoch * 6) == self.at
        if now and self.fault == "gradient":
            loss = BadGradient.apply(loss)
        if now and self.fault == "loss":
            loss = loss * float("inf")
        if now and self.fault == "buffer":
            self.get_buffer("moving").fill_(float("nan"))
        return Outcome({"ce": loss})


def run_of(recipe: Path, name: str, method: Distiller, **more: object) -> tuple[RunFolder, Callable[[], None]]:
    data = Utterances(recipe / "data/train")
    folder = RunFolder(recipe / name)
    folder.open({})
    batches = Batches(data, [View()], 24, 8, 0)
    conf = TrainConf(num_epochs=3, batch_size=8, average=2, warmup=0, **more)  # type: ignore[arg-type]

    def run() -> None:
        try:
            train(method, batches, conf, folder, CPU, LoopSettings(2, save_minutes=0))
        finally:
            folder.close()

    return folder, run


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "gradient",
            r"step 10: the gradient is not finite, although the loss is \(ce [0-9.]+\). Try a lower --lr",
        ),
        ("loss", r"step 10: the loss is not finite \(ce inf\)"),
        ("buffer", r"step 10: 1 tensor\(s\) of the state are not finite, the first is weights.moving"),
    ],
)
def test_nothing_that_is_not_finite_is_saved(recipe: Path, data: Path, fault: str, message: str) -> None:
    """The last good state stays, and a resumed run ends as if nothing had been."""
    folder, whole = run_of(recipe, "exp/whole", good := Faulty())
    whole()
    folder, broken = run_of(recipe, "exp/broken", Faulty(9, fault))
    with pytest.raises(
        ValueError, match=message + r".*/last.pt holds the state after step 9, which is finite"
    ) as error:
        broken()
    assert len(str(error.value).splitlines()) == 1
    for path in folder.path.glob("*.pt"):
        assert not_finite(torch.load(path, weights_only=True)) == [], path
    assert folder.load("last.pt")["step"] == 9
    _, again = run_of(recipe, "exp/broken", resumed := Faulty())
    again()
    assert same(good.state_dict(), resumed.state_dict())


def test_at_the_first_step_the_learning_rate_is_not_blamed(recipe: Path, data: Path) -> None:
    with pytest.raises(
        ValueError, match=r"step 1: .* No weight has changed yet, so the cause is the features, the teacher"
    ):
        run_of(recipe, "exp/a", Faulty(0, "loss"))[1]()


def test_features_that_are_not_finite_are_named(recipe: Path, data: Path) -> None:
    method = Faulty()
    stepper = Stepper(method, torch.optim.SGD(method.parameters(), 0.1), TrainConf(), torch.device("cpu"))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    feats = torch.randn(4, 24, DIM)
    feats[1, 2, 3] = float("nan")
    with pytest.raises(NotFiniteError, match="The features of this batch are not finite: make them again"):
        stepper(Batch([feats], torch.zeros(4, dtype=torch.long)), Clock(1, 3), 0.1)
    assert same(method.state_dict(), before), "the weights stay as they were"


def test_not_finite_finds_everything() -> None:
    bad = torch.tensor([1.0, float("inf")])
    state = {"a": {"b": [torch.zeros(2), bad]}, "n": torch.tensor([1, 2]), "t": (bad.bfloat16(),), "x": 3}
    assert not_finite(state) == ["a.b.1", "t.0"] and not_finite({}) == []


def test_weights_that_are_not_finite_are_neither_written_nor_read(recipe: Path, data: Path) -> None:
    net = make_net(recipe / "conf/model/xvector.conf", DIM, ("a", "b"), MarginConf())
    save_net(recipe / "good.pt", net)
    record = torch.load(recipe / "good.pt", weights_only=True)
    record["weights"]["head.weight"][0, 0] = float("nan")
    torch.save(record, recipe / "bad.pt")
    with pytest.raises(ValueError, match=r"bad.pt: 1 weight\(s\) are not finite \(head.weight\): the training"):
        load_net(recipe / "bad.pt")
    assert isinstance(net.head, MarginHead)
    net.head.weight.data[1] = float("inf")
    with pytest.raises(ValueError, match=r"worse.pt: not written, because weights are not finite: head.weight"):
        save_net(recipe / "worse.pt", net)
    assert not (recipe / "worse.pt").exists()


def test_fp16_skips_what_overflows_and_goes_on_bit_for_bit(recipe: Path, data: Path) -> None:
    """Loss scaling: a gradient that is not finite halves the scale; its state goes with last.pt."""
    folder, whole = run_of(recipe, "exp/whole", one := Faulty(2, "gradient"), amp="fp16")
    whole()
    assert not_finite(one.state_dict()) == [] and folder.load("last.pt")["scaler"]["scale"] == FIRST_SCALE / 2
    folder, first = run_of(recipe, "exp/cut", Faulty(9, "buffer"), amp="fp16")
    with pytest.raises(ValueError, match="step 10"):
        first()
    _, rest = run_of(recipe, "exp/cut", two := Faulty(), amp="fp16")
    rest()
    plain = Faulty()
    run_of(recipe, "exp/plain", plain, amp="fp16")[1]()
    assert same(plain.state_dict(), two.state_dict())
    broken = Faulty()
    stepper = Stepper(broken, torch.optim.SGD(broken.parameters(), 0.1), TrainConf(amp="fp16"), torch.device("cpu"))
    batch = Batch([torch.full((4, 24, DIM), float("nan"))], torch.zeros(4, dtype=torch.long))
    with pytest.raises(NotFiniteError, match=r"in fp16, however small the loss scale. The features of this batch"):
        for _ in range(40):
            stepper(batch, Clock(1, 3), 0.1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_saves_and_ends(recipe: Path, data: Path, sh: Run, number: int, workers: int) -> None:
    """Also if it comes to the whole group of processes. The resumed run is bit for bit the undisturbed one."""
    words = ["--num-epochs", 40, "--valid-interval", 20, "--save-minutes", 60, "--workers", workers]
    process = subprocess.Popen(
        command("exp/a", *words),
        cwd=recipe,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (recipe / "exp/a/epoch.3.pt").exists():
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number, said
    assert "the same command goes on from step" in said and "Traceback" not in said
    step = torch.load(recipe / "exp/a/last.pt", weights_only=True)["step"]
    assert f"goes on from step {step} of" in said
    done = sh(*command("exp/a", *words))
    assert f"going on from step {step} of" in done.stderr
    sh(*command("exp/whole", *words))
    assert same(weights(recipe / "exp/a/final.pt"), weights(recipe / "exp/whole/final.pt"))
    assert (recipe / "exp/a/log.tsv").read_text() == (recipe / "exp/whole/log.tsv").read_text()


@pytest.mark.parametrize("how", ["cut", "noise", "empty"])
def test_damaged_files_are_named_with_the_remedy(recipe: Path, data: Path, sh: Run, how: str) -> None:
    def damage(name: str) -> bytes:
        path = recipe / "exp/a" / name
        whole = path.read_bytes()
        path.write_bytes({"cut": whole[: len(whole) // 2], "noise": os.urandom(400), "empty": b""}[how])
        return whole

    def refused() -> str:
        return sh(*command("exp/a", "--valid-speakers", 0), fails=True).stderr.splitlines()[-1]

    sh(*command("exp/a", "--valid-speakers", 0))
    good = weights(recipe / "exp/a/final.pt")
    damage("final.pt")
    assert re.search("exp/a/final.pt: .*remove it and start its training again, which makes it from last.pt", refused())
    (recipe / "exp/a/final.pt").unlink()
    whole = damage("epoch.4.pt")
    assert refused().endswith(
        "exp/a/epoch.4.pt: damaged. Remove it and last.pt; training then starts from the beginning"
    )
    (recipe / "exp/a/epoch.4.pt").unlink()
    assert "exp/a/epoch.4.pt is missing, but the result needs it. Remove exp/a/last.pt; training" in refused()
    (recipe / "exp/a/epoch.4.pt").write_bytes(whole)
    whole = damage("conf.json")
    assert "exp/a/conf.json: damaged. Remove it, and training goes on from last.pt; whether the options" in refused()
    (recipe / "exp/a/conf.json").unlink()
    assert "is ready" in sh(*command("exp/a", "--valid-speakers", 0)).stderr, "makes it from last.pt"
    assert same(good, weights(recipe / "exp/a/final.pt"))
    (recipe / "exp/a/final.pt").unlink()
    damage("last.pt")
    assert refused().endswith("exp/a/last.pt: damaged. Remove it; training then starts from the beginning")


def test_other_pt_files_do_not_make_a_run_complete(tmp_path: Path) -> None:
    """A copy, an export or a map that somebody put there."""
    folder, maps = RunFolder(tmp_path), RunFolder(tmp_path, NESSA.results)
    for name in ("last.pt", "epoch.3.pt", "best.pt", "final_old.pt", "enroll.pt"):
        (tmp_path / name).touch()
        assert not folder.complete and not maps.complete
    (tmp_path / "test.pt").touch()
    assert maps.complete and not folder.complete
    (tmp_path / "final.pt").touch()
    assert folder.complete


def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(file: object, how: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(runfolder.fcntl, "flock", no_locks)
    RunFolder(tmp_path / "a").open({"lr": 1})
    assert "this file system has no locks (Function not implemented): do not start a second run" in caplog.text
    assert json.loads((tmp_path / "a/conf.json").read_text())["options"] == {"lr": 1}


def test_too_little_memory_is_one_line(recipe: Path, data: Path, sh: Run) -> None:
    words = command("exp/a", "--num-frames", 20_000_000, "--batch-size", 40, "--valid-speakers", 0)
    done = sh("bash", "-c", 'ulimit -v 8000000; "$@"', "bash", *words, fails=True)
    last = done.stderr.splitlines()[-1]
    assert "there is too little memory for batches of 40 crops of 20000000 frames: lower --batch-size" in last


def test_an_error_of_a_loading_process_ends_the_run(recipe: Path, data: Path, sh: Run) -> None:
    archive = Path(Scp(data / "feats.scp").sources[0])
    archive.write_bytes(archive.read_bytes()[:-200])
    done = sh("timeout", 120, *command("exp/a", "--workers", 1, "--valid-speakers", 0), fails=True)
    assert done.returncode == 1 and str(archive) in done.stderr and "Traceback" not in done.stderr


def test_options_out_of_range(recipe: Path, data: Path, sh: Run) -> None:
    for option, value in (("--log-interval", 0), ("--threads", -1), ("--workers", -2), ("--mask-frames", -3)):
        assert option in sh(*command("exp/a", option, value), fails=True).stderr.splitlines()[-1]


def test_batches_draw_nothing_from_the_methods_random_state(recipe: Path, data: Path) -> None:
    batches = Batches(Utterances(data), [View()], 24, 8, 0)
    for workers in (0, 2):
        torch.manual_seed(5)
        before = torch.get_rng_state()
        list(loader(batches, 0, 3, workers, 0, CPU))
        assert torch.equal(torch.get_rng_state(), before), workers


def test_batch_norm_over_gpus_is_the_methods_choice() -> None:
    gpus, cpus = World(0, 2, torch.device("cuda", 0)), World(0, 2, torch.device("cpu"))
    for choice, authors, expected in (
        ("auto", True, True), ("auto", False, False), ("true", False, True), ("false", True, False),
    ):  # fmt: skip
        method = SimpleNamespace(sync_batch_norm=authors)
        conf = TrainConf(sync_batch_norm=choice)
        assert synchronised(conf, method, gpus) == expected  # type: ignore[arg-type]
        assert not synchronised(conf, method, World(0, 1, torch.device("cuda", 0)))  # type: ignore[arg-type]
    assert not synchronised(TrainConf(), SimpleNamespace(sync_batch_norm=True), cpus)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="PyTorch has it for GPUs only"):
        synchronised(TrainConf(sync_batch_norm="true"), SimpleNamespace(sync_batch_norm=False), cpus)  # type: ignore[arg-type]
    from speakerkd.kd import METHODS

    assert {name for name, kind in METHODS.items() if kind.sync_batch_norm} == {"sdpn", "dino"}


def test_speakers_with_one_utterance() -> None:
    """Copies of one recording are one. It was 2.3 ms for each speaker: minutes for the 500,000 here."""
    labels, groups = np.array([0, 0, 1, 1, 2, 2, 2]), np.array([5, 5, 6, 7, 8, 8, 8])
    assert speakers_with_one_utterance(labels, groups) == 2
    many = np.arange(1_000_000)
    assert speakers_with_one_utterance(many // 2, many // 2 * 2 + (many % 4 == 1)) == 250_000
