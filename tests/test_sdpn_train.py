"""SDPN and DINO through local/train.py on a data directory without speakers: killed and resumed, in two processes."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, environment

from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.tables import write_table
from speakerkd.models import load_net

Run = Callable[..., subprocess.CompletedProcess[str]]
DIM = 8


@pytest.fixture
def data(recipe: Path) -> Path:
    """48 utterances and a noisy copy of each; no utt2spk, so that whoever reads it fails."""
    rng = np.random.default_rng(0)
    colours = rng.uniform(0.3, 3, (6, DIM))
    folder = recipe / "data/train"
    frames, uniq = {}, {}
    with ArkWriter(folder / "feats", compress=True) as write:
        for number in range(48):
            length = int(rng.integers(30, 60))
            clean = colours[number % 6] * rng.standard_normal((length, DIM))
            for name, level in ((f"u{number:02}", 0.0), (f"u{number:02}-noise", 0.3)):
                write(name, (clean + level * rng.standard_normal(clean.shape)).astype(np.float32))
                frames[name], uniq[name] = length, f"u{number:02}"
    write_table(folder / "utt2num_frames", frames)
    write_table(folder / "utt2uniq", uniq)
    (recipe / "conf").unlink()
    (recipe / "conf/kd").mkdir(parents=True)
    (recipe / "conf/model").mkdir()
    for name in ("sdpn", "dino"):
        shutil.copy(ROOT / f"egs/mini/v1/conf/kd/{name}.conf", recipe / "conf/kd")
        text = (recipe / f"conf/kd/{name}.conf").read_text().splitlines()
        kept = [line for line in text if not line.startswith(("--prototypes", "--head-dims"))]
        (recipe / f"conf/kd/{name}.conf").write_text("\n".join([*kept, "--prototypes=16", "--head-dims=12:8", ""]))
    (recipe / "conf/model/xvector.conf").write_text(
        "--type=xvector\n--channels=8\n--stats-channels=12\n--embedding-dim=6\n"
    )
    (recipe / "conf/head.conf").write_text("--margin=0.1\n")
    (recipe / "conf/train.conf").write_text("--num-epochs=4\n--batch-size=12\n--num-frames=20\n--lr=0.05\n")
    return folder


def command(method: str, out: str, *more: object) -> list[str]:
    fast = ["--save-minutes", "0", "--log-interval", "2", "--threads", "1", "--kd", f"conf/kd/{method}.conf"]
    return ["local/train.py", "--config", "conf/train.conf", *fast, *map(str, more), "data/train", out]


def state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["method"]


def test_killed_and_resumed_is_bit_for_bit_the_same(recipe: Path, data: Path, sh: Run) -> None:
    """Without any label. Prototypes, moving average, its batch norm, the watch and the log all go on."""
    method, longer = "sdpn", ["--num-epochs", 25]
    done = sh(*command(method, "exp/whole", *longer))
    assert "exp/whole/final.pt is ready" in done.stderr
    process = subprocess.Popen(
        command(method, "exp/killed", *longer), cwd=recipe, env=environment(), stderr=subprocess.DEVNULL
    )
    while not (recipe / "exp/killed/last.pt").exists():
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (recipe / "exp/killed/final.pt").exists()
    sh(*command(method, "exp/killed", *longer))
    one, two = (state(recipe / out / "last.pt") for out in ("exp/whole", "exp/killed"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    owned = ("teacher.net.encoder.frame1.norm.running_mean", "teacher.head.layers.1.running_var", "watch.idle")
    assert one.keys() >= {*owned, "prototypes.weight"}
    assert (recipe / "exp/whole/log.tsv").read_text() == (recipe / "exp/killed/log.tsv").read_text()
    net = load_net(recipe / "exp/killed/final.pt")
    assert net.head is None and all(
        torch.equal(value, one[f"teacher.net.{name}"]) for name, value in net.state_dict().items()
    )
    assert not all(torch.equal(value, one[f"student.net.{name}"]) for name, value in net.state_dict().items())


def test_speakers_cannot_be_held_out(recipe: Path, data: Path, sh: Run) -> None:
    done = sh(*command("sdpn", "exp/a", "--valid-speakers", 2), fails=True)
    assert "--valid-speakers=2: this method is trained without labels" in done.stderr


@pytest.mark.parametrize("method", ["sdpn", "dino"])
def test_options_of_the_views_reach_the_batches(recipe: Path, data: Path, sh: Run, method: str) -> None:
    with (recipe / f"conf/kd/{method}.conf").open("a") as file:
        file.write("--num-short=1\n")
    done = sh(*command(method, "exp/a", "--num-epochs", 1))
    rows = [line.split("\t") for line in (recipe / "exp/a/log.tsv").read_text().splitlines()]
    losses = ["ce", "memax", "koleo"] if method == "sdpn" else ["ce"]
    assert rows[0] == ["step", "epoch", *losses, "std", "rank", "prototypes", "entropy", "lr"]
    assert "final.pt is ready" in done.stderr
    state = torch.load(recipe / "exp/a/last.pt", weights_only=True)["method"]
    assert int(state["watch.steps"]) == 4 and (method == "sdpn" or state["centre"].any())


TWO_METHODS = """
import sys, torch
from speakerkd.batches.dataset import Batches
from speakerkd.batches.utterances import Utterances
from speakerkd.kd import METHODS, Components
from speakerkd.models import Encoded, SpeakerNet
from speakerkd.parallel import start
from speakerkd.train.runfolder import RunFolder
from speakerkd.train.loop import train
from speakerkd.train.options import LoopSettings, TrainConf

class Means(torch.nn.Module):
    # No batch norm: on CPUs it would see but a process's share.
    def __init__(self):
        super().__init__()
        self.feat_dim, self.dim = 8, 6
        self.layers = torch.nn.Sequential(torch.nn.Linear(8, 20), torch.nn.Tanh(), torch.nn.Linear(20, 6))
    def forward(self, feats):
        return Encoded(self.layers(feats.square().mean(1)))

world = start("cpu")
for name, kind, more in (
    ("sdpn", "sdpn", {"koleo_group": 0}), ("sdpn_groups", "sdpn", {"koleo_group": 4}), ("dino", "dino", {}),
    ("dino_koleo", "dino", {"koleo": 0.1, "koleo_group": 0}),
):
    kind = METHODS[kind]
    conf = kind.Conf(head_dims=(10, 8), head_norm="none", prototypes=12, momentum=0.8, **more)
    folder = RunFolder(sys.argv[1] + "/" + name)
    if world.first:
        folder.open({})
    world.barrier()
    torch.manual_seed(0)
    method = kind(conf, Components(SpeakerNet(Means()), ()))
    data = Utterances("data/train", labels=False)
    batches = Batches(data, kind.needs_of(conf).views, 20, 12, 0, rank=world.rank, world_size=world.size)
    train_conf = TrainConf(num_epochs=4, batch_size=12, warmup=0, lr=0.05, clip=1.0)
    train(method, batches, train_conf, folder, world, LoopSettings(2))
world.close()
"""


def test_two_processes_of_half_the_batch_are_one_of_the_whole(recipe: Path, data: Path, sh: Run) -> None:
    """Targets, mean choice, nearest neighbours, centre, prototypes' gradient and watch are those of the whole batch."""
    (recipe / "small.py").write_text(TWO_METHODS)
    sh("python3", "small.py", "exp/one")
    sh("local/launch.sh", 1, 1, 2, "exp/two", "small.py", "exp/two")
    for method in ("sdpn", "sdpn_groups", "dino", "dino_koleo"):
        one, two = (state(recipe / out / method / "last.pt") for out in ("exp/one", "exp/two"))
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=2e-6, msg=f"{method} {name}")
        tables = [np.genfromtxt(recipe / out / method / "log.tsv", names=True) for out in ("exp/one", "exp/two")]
        for name in tables[0].dtype.names:
            np.testing.assert_allclose(tables[0][name], tables[1][name], rtol=1e-3, atol=1e-5, err_msg=name)
        assert len(tables[0]) == 8
