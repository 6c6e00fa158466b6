"""The training loop: one function for every method. It never asks which method it runs."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from speakerkd.batches.dataset import Batch, Batches
from speakerkd.conf import opt
from speakerkd.kd.base import Clock, Distiller, Outcome
from speakerkd.parallel import World
from speakerkd.schedules import DECAYS, learning_rate, require_part
from speakerkd.train.runfolder import RunFolder
from speakerkd.train.trainlog import TrainLog, draw_curves


@dataclass(frozen=True)
class TrainConf:
    num_epochs: int = opt(20, "each goes once through the training utterances")
    batch_size: int = opt(64, "utterances of a step, over all processes")
    num_frames: int = opt(200, "frames of a crop")
    mask_frames: int = opt(0, "SpecAugment: up to this many frames of a crop are hidden")
    mask_bins: int = opt(0, "SpecAugment: up to this many filters of a crop are hidden")
    optimizer: str = opt("sgd", "sgd or adamw")
    lr: float = opt(0.1, "peak learning rate")
    final_lr: float = opt(5e-5, "learning rate at the end")
    schedule: str = opt("exponential", "how the learning rate falls: exponential or cosine")
    warmup: float = opt(0.05, "part of the run in which the learning rate rises from 0: 6/150 for 6 of 150 epochs")
    momentum: float = opt(0.9, "SGD momentum")
    nesterov: bool = opt(True, "SGD momentum is Nesterov's")
    weight_decay: float = opt(1e-4, "weight decay")
    weight_decay_on: str = opt("matrices", "what is decayed: matrices (and filters), or all (biases and norms too)")
    clip: float = opt(0.0, "largest norm of the gradient; 0: it is not clipped")
    clip_each: bool = opt(False, "--clip holds for each parameter's gradient by itself, not for the whole gradient")
    average: int = opt(1, "the result is the average of the weights after this many last epochs")
    select: bool = opt(False, "the result is the weights after the epoch of the lowest EER of the speakers held out")
    amp: str = opt("auto", "autocast: auto (bf16 on GPUs), fast (also on CPUs made for it), bf16 (everywhere) or none")
    seed: int = opt(0, "random seed of weights, order and crops")
    valid_speakers: int = opt(0, "speakers held out, with their copies at other speeds, whose trials' EER is logged")
    valid_interval: int = opt(1, "epochs between these EERs")

    def __post_init__(self) -> None:
        for name, allowed in (
            ("optimizer", ("sgd", "adamw")),
            ("schedule", DECAYS),
            ("weight_decay_on", ("matrices", "all")),
            ("amp", ("auto", "fast", "bf16", "none")),
        ):
            if getattr(self, name) not in allowed:
                option = name.replace("_", "-")
                raise ValueError(f"--{option}={getattr(self, name)} is none of {' '.join(allowed)}")
        require_part("--warmup", self.warmup)
        if min(self.num_epochs, self.num_frames, self.average, self.valid_interval) < 1 or self.batch_size < 2:
            raise ValueError(
                "--num-epochs, --num-frames, --average and --valid-interval must be 1 or more, --batch-size 2 or more"
            )
        if self.select and (self.average > 1 or self.valid_speakers < 2 or self.valid_interval > self.num_epochs):
            raise ValueError("--select=true needs --valid-speakers and one epoch of theirs, and goes with --average=1")
        if self.lr <= 0 or self.final_lr <= 0 or self.average > self.num_epochs or self.seed < 0:
            raise ValueError(
                "--lr and --final-lr must be positive, --average at most --num-epochs, --seed not negative"
            )


@dataclass(frozen=True)
class LoopSettings:
    """How the run goes about it; changes nothing in the result."""

    log_interval: int = 50  # steps between lines
    save_minutes: float = 10.0  # last.pt is also written at the end of each epoch
    workers: int = 0  # processes that make batches; 0: this one


def make_optimizer(conf: TrainConf, method: Distiller) -> torch.optim.Optimizer:
    unregularised = method.unregularised_parameters()
    others = {id(each) for each in unregularised}
    trained = [each for each in method.parameters() if each.requires_grad and id(each) not in others]
    on_vectors = conf.weight_decay if conf.weight_decay_on == "all" else 0.0
    groups: list[dict[str, Any]] = [
        {"params": [each for each in trained if each.ndim > 1], "weight_decay": conf.weight_decay, "clip": True},
        {"params": [each for each in trained if each.ndim <= 1], "weight_decay": on_vectors, "clip": True},
        {"params": unregularised, "weight_decay": 0.0, "clip": False},
    ]
    if conf.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=conf.lr)
    return torch.optim.SGD(groups, lr=conf.lr, momentum=conf.momentum, nesterov=conf.nesterov and conf.momentum > 0)


def train(
    method: Distiller,
    batches: Batches,
    conf: TrainConf,
    folder: RunFolder,
    world: World,
    settings: LoopSettings,
    validate: Callable[[Mapping[str, nn.Module]], float] | None = None,
) -> float:
    """From wherever the folder's last.pt stands to the end; then the method holds the averaged weights. Returns seconds."""
    method.to(world.device)
    if world.size > 1 and world.device.type == "cuda":  # there is no synchronised batch norm for CPUs
        method = nn.SyncBatchNorm.convert_sync_batchnorm(method)
    net: nn.Module = DistributedDataParallel(method) if world.size > 1 else method
    optimizer = make_optimizer(conf, method)
    total = conf.num_epochs * batches.per_epoch
    state = folder.load("last.pt")
    step = state["step"] if state else 0
    log = TrainLog(folder.path / "log.tsv", total, step, batches.batch_size * len(batches.views), not world.first)
    if state:
        restore(state, method, optimizer, log, world)
        log.say(f"going on from step {step} of {total}")
    saved = time.monotonic()
    method.train()
    for batch in loader(batches, step, total, settings.workers, world):
        clock = Clock(step / batches.per_epoch, conf.num_epochs)
        rate = learning_rate(conf.schedule, conf.lr, conf.final_lr, conf.warmup, step, total)
        outcome = one_step(net, batch.to(world.device), clock, optimizer, rate, conf)
        method.after_step(clock)
        step += 1
        log.add(outcome.losses, outcome.metrics)
        epoch = step / batches.per_epoch
        ends = step % batches.per_epoch == 0
        lines = step % settings.log_interval == 0 or ends
        saves = ends or time.monotonic() - saved >= 60 * settings.save_minutes
        if world.device.type == "cpu" or lines or saves:  # looking at the loss makes a GPU wait
            log.check(step)
        if lines:
            log.line(step, epoch, conf.num_epochs, rate, world)
        if ends:
            if validate and (round(epoch) % conf.valid_interval == 0 or step == total):
                log.valid(step, epoch, validate(method.exports()))
                method.train()
            if world.first:
                folder.save(f"epoch.{round(epoch)}.pt", method.state_dict())
        if saves and world.first:
            folder.save("last.pt", snapshot(step, method, optimizer, log, world))
            saved = time.monotonic()
        if ends and world.first:
            log.write()
            folder.keep_epochs(of_result(conf, log, round(epoch)))
    if world.first:
        method.load_state_dict(folder.average(of_result(conf, log, conf.num_epochs)))
        if not draw_curves(log.rows, folder.path / "log/curves.png"):
            log.say("no picture of the curves without matplotlib (tools/setup.sh --extras plot)")
    log.close()
    method.eval()
    return log.seconds


def of_result(conf: TrainConf, log: TrainLog, epoch: int) -> list[int]:
    """The epochs whose weights would make the result if the run ended after this one."""
    judged = [row for row in log.rows if "valid_eer" in row]
    if conf.select and judged:
        return [round(min(judged, key=lambda row: row["valid_eer"])["epoch"])]
    return list(range(epoch - conf.average + 1, epoch + 1))


def one_step(
    net: nn.Module,
    batch: Batch,
    clock: Clock,
    optimizer: torch.optim.Optimizer,
    rate: float,
    conf: TrainConf,
) -> Outcome:
    for group in optimizer.param_groups:
        group["lr"] = rate
    device = batch.feats[0].device.type if batch.feats else "cpu"
    halves = in_bf16(conf.amp, device)
    autocast: AbstractContextManager = torch.autocast(device, torch.bfloat16) if halves else nullcontext()
    with autocast:
        outcome: Outcome = net(batch, clock)
        loss = torch.stack(list(outcome.losses.values())).sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if conf.clip > 0:
        clipped = [each for group in optimizer.param_groups if group["clip"] for each in group["params"]]
        clip_gradient(clipped, conf.clip, conf.clip_each)
    optimizer.step()
    return outcome


def clip_gradient(parameters: list[nn.Parameter], most: float, each: bool) -> None:
    """To norms of at most this: of all together, or of each parameter's gradient by itself."""
    if not each:
        nn.utils.clip_grad_norm_(parameters, most)
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    factors = [(most / (norm + 1e-6)).clamp(max=1) for norm in torch._foreach_norm(gradients)]
    torch._foreach_mul_(gradients, factors)


def in_bf16(amp: str, device: str) -> bool:
    """Whether --amp means half precision on this kind of device."""
    if amp == "fast" and device == "cpu":
        units = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # names that torch may change
        found: list[Callable[[], bool]] = [getattr(torch.cpu, name, bool) for name in units]
        return any(each() for each in found)  # other CPUs take longer in bf16 than in single precision
    return amp == "bf16" or (amp != "none" and device == "cuda")


def loader(batches: Batches, start: int, end: int, workers: int, world: World) -> Iterator[Batch]:
    """Batches start to end; made in other processes where there are workers, which changes nothing in them."""
    return iter(
        torch.utils.data.DataLoader(
            batches,
            batch_size=None,
            sampler=range(start, end),
            num_workers=workers,
            pin_memory=world.device.type == "cuda",
            multiprocessing_context="fork" if workers else None,
        )
    )


def snapshot(
    step: int, method: Distiller, optimizer: torch.optim.Optimizer, log: TrainLog, world: World
) -> dict[str, Any]:
    return {
        "step": step,
        "method": method.state_dict(),
        "optimizer": optimizer.state_dict(),
        "log": log.state(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state(world.device) if world.device.type == "cuda" else None,
    }


def restore(
    state: dict[str, Any], method: Distiller, optimizer: torch.optim.Optimizer, log: TrainLog, world: World
) -> None:
    method.load_state_dict(state["method"])
    optimizer.load_state_dict(state["optimizer"])
    log.restore(state["log"])
    torch.set_rng_state(state["random"])
    if world.device.type == "cuda" and state["random_cuda"] is not None:
        torch.cuda.set_rng_state(state["random_cuda"], world.device)
