"""Checks that need a GPU: training and vectors equal the CPU's within tolerance, and the loader keeps up with the GPU.

With --device cpu everything runs on the CPU. That only shows that the code works.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
from torch.nn import functional as F

from speakerkd.batches.dataset import Batch, Batches, View
from speakerkd.batches.utterances import Utterances
from speakerkd.kd import Clock, Components, Distiller, Outcome
from speakerkd.kd.none import NoneConf, NoTeacher
from speakerkd.losses.margin import MarginConf
from speakerkd.models import make_net
from speakerkd.models.extract import Cut, NetEncoder, vectors_of
from speakerkd.models.precision import hardware_half
from speakerkd.parallel import World
from speakerkd.train.loop import loader, train
from speakerkd.train.options import LoopSettings, TrainConf
from speakerkd.train.precision import autocast_dtype, dtype_name
from speakerkd.train.runfolder import RunFolder
from speakerkd.train.step import Stepper, make_optimizer
from tools.benchmarks.common import ROOT, Options, Row
from tools.benchmarks.training import features

MODELS = ROOT / "egs/voxceleb/v1/conf/model"
SMALL = ROOT / "egs/mini/v1/conf/model/xvector.conf"
SPEED = ("xvector", "ecapa512", "resnet34", "campplus")
STEPS = 20
LOSSES = {
    "none": 0.01,
    "bf16": 0.05,
    "fp16": 0.05,
}  # by --amp: largest difference of a loss from the CPU's, relative to the largest loss
PLAIN = MarginConf(
    type="softmax"
)  # with a margin at scale 32 so few utterances are a chaotic task: rounding errors grow fast
STARVED = 0.95  # part of the bare steps' speed; below it, the GPU waits for the loader
WORKERS = 8


def gpu(options: Options, folder: Path) -> list[Row]:
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        return [Row("gpu", "there is no GPU here: nothing was measured")]
    data = features(folder / "data", 64 if options.toy else 1024)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    rows = [Row("gpu", f"on {card}, PyTorch {torch.__version__}")]
    rows += [*same_losses(data, folder, device), resumed(data, folder, device), *two_processes(data, folder, device)]
    rows += same_vectors(data, device)
    for model in SPEED[: 1 if options.toy else None]:
        rows.append(speed(options, data, model, device))
    return rows


def checked(what: str, figure: str, beside: str, good: bool, aim: str) -> Row:
    return Row("gpu", what, figure, beside, "ok" if good else "FAILED", aim)


def supervised(data: Utterances, model: Path = SMALL, head: MarginConf | None = None) -> Distiller:
    torch.manual_seed(0)
    net = make_net(model, data.dim, data.speakers, head or MarginConf())
    return NoTeacher(NoneConf(), Components(net, data.speakers)).train()


def trained(method: Distiller, data: Utterances, folder: Path, world: World, amp: str = "none") -> list[float]:
    """Trains, and returns the losses of each step."""
    run = RunFolder(folder)
    if world.first:
        run.open({"amp": amp})
    world.barrier()
    conf = TrainConf(num_epochs=1, batch_size=16, lr=3e-3, final_lr=3e-3, warmup=0, amp=amp)
    batches = Batches(data, [View()], 100, 16, 0, np.arange(64), world.rank, world.size)
    batches.per_epoch, batches.num_groups = STEPS, STEPS * 16
    batches._permutation, batches._epoch = np.tile(np.arange(64), STEPS // 4), 0
    try:
        train(method, batches, conf, run, world, LoopSettings(log_interval=1, save_minutes=0))
    finally:
        if world.first:
            run.close()
    lines = (folder / "log.tsv").read_text().splitlines() if world.first else []
    return [float(line.split("\t")[2]) for line in lines[1:]]


def same_losses(data: Utterances, folder: Path, device: torch.device) -> Iterator[Row]:
    cpu = trained(supervised(data, head=PLAIN), data, folder / "cpu", World(0, 1, torch.device("cpu")))
    for amp, most in LOSSES.items():
        try:
            dtype = dtype_name(autocast_dtype(amp, device))
        except ValueError as error:
            yield Row("gpu", f"losses, {amp}", str(error))
            continue
        found = trained(supervised(data, head=PLAIN), data, folder / amp, World(0, 1, device), amp)
        apart = max(abs(one - other) for one, other in zip(found, cpu, strict=True)) / max(cpu)
        good = apart <= most and len(found) == STEPS
        yield checked(f"losses of {STEPS} steps, {dtype}", f"{apart:.1e} apart", "CPU, float32", good, f"{most:g}")


class Interrupted(NoTeacher):
    """Stops before its twelfth step."""

    def forward(self, batch: Batch, clock: Clock) -> Outcome:
        if clock.part > 11.5 / STEPS:
            raise KeyboardInterrupt
        return super().forward(batch, clock)


def resumed(data: Utterances, folder: Path, device: torch.device) -> Row:
    world = World(0, 1, device)
    whole = supervised(data)
    trained(whole, data, folder / "whole", world)
    cut: Any = supervised(data)
    cut.__class__ = Interrupted
    with contextlib.suppress(KeyboardInterrupt):
        trained(cut, data, folder / "cut", world)
    rest = supervised(data)
    trained(rest, data, folder / "cut", world)
    apart = farthest(whole.state_dict(), rest.state_dict())
    return checked(
        "resumed run", f"weights {apart:.1e} apart", "undisturbed", apart <= 1e-3, "0 where kernels are exact"
    )


def farthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name].double().cpu() - other[name].double().cpu()).abs().max()) for name in one)


class Means(Distiller):
    """A net without batch norm, which would see only one process's share."""

    def __init__(self, dim: int, speakers: int) -> None:
        super().__init__(None, None)  # type: ignore[arg-type]
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(dim, speakers)

    def forward(self, batch: Batch, clock: Clock) -> Outcome:
        assert batch.labels is not None
        return Outcome({"ce": F.cross_entropy(self.layer(batch.feats[0].square().mean(1)), batch.labels)})


def one_of_two(rank: int, folder: str, device: str) -> None:
    """One of two processes on the same device. NCCL refuses that, gloo does not."""
    store = f"file://{folder}/rendezvous"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    data = Utterances(Path(folder) / "data")
    method = Means(data.dim, len(data.speakers))
    world = World(rank, 2, torch.device(device))
    trained(method, data, Path(folder) / "two", world)
    if world.first:
        torch.save(method.state_dict(), Path(folder) / "two/weights")
    world.close()


def two_processes(data: Utterances, folder: Path, device: torch.device) -> Iterator[Row]:
    one = Means(data.dim, len(data.speakers))
    trained(one, data, folder / "one", World(0, 1, device))
    torch.multiprocessing.start_processes(one_of_two, (str(folder), str(device)), 2, start_method="spawn")
    both = torch.load(folder / "two/weights", weights_only=True)
    apart = farthest(one.state_dict(), both)
    yield checked("two processes, gloo", f"weights {apart:.1e} apart", "one process", apart <= 1e-4, "1e-4")


def same_vectors(data: Utterances, device: torch.device) -> Iterator[Row]:
    net = supervised(data).exports()["final"].eval()
    rows = [data.crops.rows(entry, 0, 200 + 10 * entry) for entry in range(16)]

    def vectors(place: torch.device, half: torch.dtype | None) -> np.ndarray:
        found = np.stack(vectors_of(NetEncoder(net.to(place), place, half), rows, Cut()))  # type: ignore[arg-type]
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))

    cpu = vectors(torch.device("cpu"), None)
    for half, least in ((None, 0.9999), (hardware_half(device), 0.9995)):
        if half is not None or least > 0.9995:
            cosine = float((vectors(device, half) * cpu).sum(1).min())
            yield checked(
                f"vectors, {dtype_name(half)}", f"cosine {cosine:.6f}", "CPU, float32", cosine >= least, f"{least}"
            )


def speed(options: Options, data: Utterances, model: str, device: torch.device) -> Row:
    """Crops per second from archives, beside the same batch again and again. If the batch is too large, it is halved."""
    size = 8 if options.toy else 256
    path = SMALL if options.toy else MODELS / f"{model}.conf"
    while True:
        try:
            fed, bare = rates(data, path, size, device, options.seconds)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            size //= 2
            if size < 8:
                return Row("gpu", f"{model}: not enough memory for 8 crops")
            continue
        ratio = fed / bare
        starved = "the loader waits for nothing" if ratio >= STARVED else "the GPU waits for the loader"
        dtype = dtype_name(autocast_dtype("auto", device))
        what = f"{model}, batch {size}, {dtype}, {WORKERS} workers: {starved}"
        return Row("gpu", what, f"{fed:.0f} crops/s", f"bare steps {bare:.0f}", f"{ratio:.2f}", f"{STARVED}")


def rates(data: Utterances, path: Path, size: int, device: torch.device, seconds: float) -> tuple[float, float]:
    conf = TrainConf(batch_size=size, lr=1e-4, final_lr=1e-4, amp="auto")
    method = supervised(data, path).to(device)
    step = Stepper(method, make_optimizer(conf, method), conf, device)
    batches = Batches(data, [View()], 200, size, 0)
    workers = WORKERS if device.type == "cuda" else 0
    stream = loader(batches, 0, 10**9, workers, 0, World(0, 1, device))
    fixed = itertools.repeat(batches[0].to(device))
    return measured(stream, step, device, size, seconds), measured(fixed, step, device, size, seconds)


def measured(
    source: Iterator[Batch], step: Callable[..., Outcome], device: torch.device, size: int, seconds: float
) -> float:
    """Crops per second, after five steps that are not counted."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    count, start = 0, 0.0
    for number, batch in enumerate(source):
        if number == 5:
            wait()
            start = time.perf_counter()
        if number > 5 and number % 10 == 0:
            wait()
            if time.perf_counter() - start >= seconds:
                break
        step(batch.to(device), Clock(0, 1), 1e-4)
        count += number >= 5
    return count * size / (time.perf_counter() - start)
