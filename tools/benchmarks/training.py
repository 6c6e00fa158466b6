"""The training loop beside the bare steps of the same model."""

import itertools
from pathlib import Path

import numpy as np
import torch

from speakerkd.batches.dataset import Batch, Batches, View
from speakerkd.batches.utterances import Utterances
from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.tables import write_data_dir, write_table
from speakerkd.kd import Clock, Components, Distiller
from speakerkd.kd.none import NoneConf, NoTeacher
from speakerkd.losses.margin import MarginConf
from speakerkd.models import make_net
from speakerkd.parallel import World
from speakerkd.train.loop import train as run_training
from speakerkd.train.options import LoopSettings, TrainConf
from speakerkd.train.runfolder import RunFolder
from speakerkd.train.step import Stepper, make_optimizer
from tools.benchmarks.common import Options, Row, compare

MODEL = Path(__file__).resolve().parents[2] / "egs/mini/v1/conf/model/xvector.conf"
WORLD = World(0, 1, torch.device("cpu"))
STEPS = 53  # an epoch of egs/mini


def train(options: Options, folder: Path) -> list[Row]:
    """Compares an epoch with its checkpoint with the same number of steps on batches in memory."""
    data = features(folder / "data", options.utterances)
    conf = TrainConf(num_epochs=1, batch_size=min(64, options.utterances // 2 * 2), warmup=0, lr=1e-3, final_lr=1e-3)
    entries = np.repeat(np.arange(len(data)), 1)
    batches = Batches(data, [View()], conf.num_frames, conf.batch_size, 0, entries)
    batches.per_epoch = STEPS  # the few utterances are used again and again
    batches.num_groups = STEPS * conf.batch_size
    batches._permutation, batches._epoch = np.tile(np.arange(len(data)), 1 + STEPS * conf.batch_size // len(data)), 0
    memory: list[Batch] = [batches[step] for step in range(STEPS)]
    number = itertools.count()

    def method() -> Distiller:
        net = make_net(MODEL, data.dim, data.speakers, MarginConf())
        return NoTeacher(NoneConf(), Components(net, data.speakers)).train()

    def ours() -> None:
        run = RunFolder(folder / f"exp{next(number)}")
        run.open({})
        run_training(method(), batches, conf, run, WORLD, LoopSettings(log_interval=10))

    def bare() -> None:
        module = method()
        optimizer = make_optimizer(conf, module)
        for batch in memory:
            Stepper(module, optimizer, conf, torch.device("cpu"))(batch, Clock(0, 1), 1e-3)

    mine, theirs, ratio = compare(ours, bare, options.seconds)
    rates = [f"{STEPS * conf.batch_size / seconds:.0f} crops/s" for seconds in (mine, theirs)]
    return [
        Row(
            "train",
            "0.3 M x-vector, loop with log and checkpoint",
            rates[0],
            f"bare steps {rates[1]}",
            f"{ratio:.2f}",
            "0.95",
        )
    ]


def features(folder: Path, count: int) -> Utterances:
    rng = np.random.default_rng(0)
    names = [f"s{number % 10}-{number:04}" for number in range(count)]
    write_data_dir(folder, dict.fromkeys(names, "x"), {name: name.split("-")[0] for name in names})
    with ArkWriter(folder / "feats", compress=True) as write:
        for name in sorted(names):
            write(name, rng.standard_normal((1000, 80)).astype(np.float32))
    write_table(folder / "utt2num_frames", dict.fromkeys(names, 1000))
    return Utterances(folder)
