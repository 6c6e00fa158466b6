"""The training loop: one function for every method. It never asks which method it runs."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from speakerkd.batches.dataset import Batch, Batches
from speakerkd.finite import not_finite
from speakerkd.kd.base import Clock, Distiller
from speakerkd.parallel import World
from speakerkd.schedules import learning_rate
from speakerkd.train.options import LoopSettings, TrainConf
from speakerkd.train.runfolder import RunFolder
from speakerkd.train.step import REMEDY, NotFiniteError, Stepper, make_optimizer
from speakerkd.train.stopping import EXIT_STATUS, leave_signals_to_the_trainer, listening
from speakerkd.train.trainlog import TrainLog, draw_curves

Validate = Callable[[Mapping[str, nn.Module]], float]


def train(
    method: Distiller,
    batches: Batches,
    conf: TrainConf,
    folder: RunFolder,
    world: World,
    settings: LoopSettings,
    validate: Validate | None = None,
) -> float:
    """Trains to the end, from the folder's last.pt on if there is one. The method then has the averaged weights.

    Returns the seconds that it took."""
    run = Run(method, batches, conf, folder, world, settings, validate)
    try:
        run.to_the_end()
    except NotFiniteError as error:
        raise ValueError(f"step {run.step + 1}: {error}. {run.what_is_saved()}") from error
    return run.finish()


class Run:
    """A run in progress: what was built for it, and its current step."""

    def __init__(
        self,
        method: Distiller,
        batches: Batches,
        conf: TrainConf,
        folder: RunFolder,
        world: World,
        settings: LoopSettings,
        validate: Validate | None,
    ) -> None:
        method.to(world.device)
        if synchronised(conf, method, world):
            method = nn.SyncBatchNorm.convert_sync_batchnorm(method)
        self.method, self.batches, self.conf, self.folder = method, batches, conf, folder
        self.world, self.settings, self.validate = world, settings, validate
        net = DistributedDataParallel(method) if world.size > 1 else method
        self.optimizer = make_optimizer(conf, method)
        self.stepper = Stepper(net, self.optimizer, conf, world.device)
        self.total = conf.num_epochs * batches.per_epoch
        state = folder.load("last.pt")
        self.step = self.saved = state["step"] if state else 0
        crops = batches.batch_size * len(batches.views)
        self.log = TrainLog(folder.path / "log.tsv", self.total, self.step, crops, not world.first)
        if state:
            self._restore(state)
            self.log.say(f"going on from step {self.step} of {self.total}")
        self.saved_at = time.monotonic()

    def to_the_end(self) -> None:
        self.method.train()
        with listening() as stop:
            for batch in loader(self.batches, self.step, self.total, self.settings.workers, self.conf.seed, self.world):
                self._one_step(batch)
                late = time.monotonic() - self.saved_at >= 60 * self.settings.save_minutes
                stops, saves = self.world.any(stop.number is not None, late)
                self._after_step(stops or saves)
                if stops:
                    self.log.say(f"stopped; the same command goes on from step {self.step} of {self.total}")
                    self.world.close()
                    raise SystemExit(EXIT_STATUS.get(stop.number, 143))  # type: ignore[call-overload]

    def _one_step(self, batch: Batch) -> None:
        conf = self.conf
        clock = Clock(self.step / self.batches.per_epoch, conf.num_epochs)
        self.rate = learning_rate(conf.schedule, conf.lr, conf.final_lr, conf.warmup, self.step, self.total)
        outcome = self.stepper(self.batches.finish(batch.to(self.world.device)), clock, self.rate)
        self.method.after_step(clock)
        self.step += 1
        self.log.add(outcome.losses, outcome.metrics)

    def _after_step(self, saves: bool) -> None:
        """Log lines, validation, checkpoints. Nothing that isn't finite is written. All processes decide the same."""
        step, per_epoch = self.step, self.batches.per_epoch
        ends = step % per_epoch == 0
        if step % self.settings.log_interval == 0 or ends or saves:
            self._require_finite(ends or saves)
        if step % self.settings.log_interval == 0 or ends:
            self.log.line(step, step / per_epoch, self.conf.num_epochs, self.rate, self.world)
        if ends:
            self._end_epoch(step // per_epoch)
        if saves or ends:
            state = self._snapshot()
            if self.world.first:
                self.folder.save("last.pt", state)
            self.saved, self.saved_at = step, time.monotonic()
        if ends and self.world.first:
            self.log.write()
            self.folder.keep_epochs(epochs_of_result(self.conf, self.log, step // per_epoch))

    def _end_epoch(self, epoch: int) -> None:
        if self.validate and (epoch % self.conf.valid_interval == 0 or epoch == self.conf.num_epochs):
            self.log.valid(self.step, epoch, self.validate(self.method.exports()))
            self.method.train()
        if self.world.first:
            self.folder.save(f"epoch.{epoch}.pt", self.method.state_dict())

    def _require_finite(self, whole_state: bool) -> None:
        """The state must be finite. All processes check this, so that they stop together."""
        problem = ""
        try:
            self.stepper.require_good_gradients()
            self.log.require_finite()
            if whole_state:
                bad = not_finite(
                    {"weights": self.method.state_dict(), "optimizer": self.optimizer.state_dict()["state"]}
                )
                if bad:
                    problem = f"{len(bad)} tensor(s) of the state are not finite, the first is {bad[0]}. {REMEDY}"
        except NotFiniteError as error:
            problem = str(error)
        if self.world.any(bool(problem))[0]:
            self.step -= 1  # the last step that was begun, for the message
            raise NotFiniteError(problem or "another process has found a loss or a gradient that is not finite")

    def what_is_saved(self) -> str:
        """What is saved, as text for the message of a run that had to stop."""
        if self.step == 0:
            return (
                "No weight has changed yet, so the cause is the features, the teacher or --init, not the learning rate"
            )
        if self.saved == 0:
            return f"{self.folder.path} holds no state yet"
        return f"{self.folder.path}/last.pt holds the state after step {self.saved}, which is finite"

    def finish(self) -> float:
        """Gives the method the averaged weights."""
        if self.world.first:
            self.method.load_state_dict(
                self.folder.average(epochs_of_result(self.conf, self.log, self.conf.num_epochs))
            )
            if not draw_curves(self.log.rows, self.folder.path / "log/curves.png"):
                self.log.say("no picture of the curves without matplotlib (pip install matplotlib)")
        self.log.close()
        self.method.eval()
        return self.log.seconds

    def _snapshot(self) -> dict[str, Any]:
        on_gpu = self.world.device.type == "cuda"
        return {
            "step": self.step,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.stepper.state(),
            "log": self.log.state(self.world),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.world.device) if on_gpu else None,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.stepper.restore(state["scaler"])
        self.log.restore(state["log"])
        torch.set_rng_state(state["random"])
        if self.world.device.type == "cuda" and state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"], self.world.device)


def synchronised(conf: TrainConf, method: Distiller, world: World) -> bool:
    """Whether batch norm sees the batch of all GPUs."""
    if conf.sync_batch_norm == "true" and world.size > 1 and world.device.type != "cuda":
        raise ValueError("--sync-batch-norm=true: PyTorch has it for GPUs only; leave it out, or train in one process")
    wanted = method.sync_batch_norm if conf.sync_batch_norm == "auto" else conf.sync_batch_norm == "true"
    if wanted and world.size > 1 and world.device.type != "cuda" and world.first:
        logging.warning("batch norms see the share of one process: PyTorch synchronises them on GPUs only")
    return wanted and world.size > 1 and world.device.type == "cuda"


def epochs_of_result(conf: TrainConf, log: TrainLog, epoch: int) -> list[int]:
    """The epochs whose weights would be in the result if the run ended after this epoch."""
    judged = [row for row in log.rows if "valid_eer_percent" in row]
    if conf.select and judged:
        return [round(min(judged, key=lambda row: row["valid_eer_percent"])["epoch"])]
    return list(range(epoch - conf.average + 1, epoch + 1))


def loader(batches: Batches, start: int, end: int, workers: int, seed: int, world: World) -> Iterator[Batch]:
    """The batches from start to end. Workers are other processes that make them; the batches are the same."""
    made = iter(
        torch.utils.data.DataLoader(
            batches,
            batch_size=None,
            sampler=range(start, end),
            num_workers=workers,
            pin_memory=world.device.type == "cuda",
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=leave_signals_to_the_trainer,
            generator=torch.Generator().manual_seed(seed),  # only the method uses the global generator, which is saved
        )
    )
    try:
        yield from made
    except (ValueError, OSError) as error:
        text = str(error)
        if "DataLoader worker" not in text:
            raise
        last = text.strip().splitlines()[-1].partition(": ")[2]  # without the worker's traceback
        raise ValueError(last or text) from error
    finally:  # after an error too: workers ignore the signal by which Python would end them, and it would wait for ever
        if workers:
            made._shutdown_workers()  # type: ignore[attr-defined]
