"""The log of a training run: lines for people, log.tsv for programs, a picture of the curves."""

import logging
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from speakerkd.files.tables import replacing
from speakerkd.parallel import World
from speakerkd.train.step import REMEDY, NotFiniteError


class TrainLog:
    """Averages losses and metrics over an interval. Its rows are part of the state, so that a resumed run's are the same."""

    def __init__(self, path: Path, total_steps: int, start: int, crops_per_step: int, quiet: bool) -> None:
        self.path, self.total, self.crops = path, total_steps, crops_per_step
        self.rows: list[dict[str, float]] = []
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        self.quiet = quiet
        self._started = self._last = time.monotonic()
        self._first = self._last_step = start
        self._before = 0.0
        self._losses: dict[str, Tensor] = {}
        on_terminal = sys.stderr.isatty() and not quiet
        self._bar = tqdm(total=total_steps, initial=start, unit="step", disable=not on_terminal)

    def state(self, world: World) -> dict[str, object]:
        """The sums since the last line, averaged over the processes. Each process goes on with these."""
        sums = {name: world.mean(value).cpu() for name, value in self.sums.items()}
        return {"rows": self.rows, "sums": sums, "count": self.count, "seconds": self.seconds}

    def restore(self, state: dict) -> None:
        self.rows, self.sums, self.count = state["rows"], state["sums"], state["count"]
        self._before = state["seconds"]

    @property
    def seconds(self) -> float:
        """The seconds of training, over all starts of the run."""
        return self._before + time.monotonic() - self._started

    def add(self, losses: dict[str, Tensor], metrics: dict[str, Tensor]) -> None:
        for name, value in (losses | metrics).items():
            value = value.detach().float()
            self.sums[name] = self.sums[name].to(value.device) + value if name in self.sums else value
        self.count += 1
        self._losses = losses
        self._bar.update()

    def require_finite(self) -> None:
        if self.sums and not bool(torch.isfinite(torch.stack(list(self.sums.values()))).all()):
            parts = ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in self._losses.items())
            raise NotFiniteError(f"a loss or a metric has not been finite since the last line (now {parts}). {REMEDY}")

    def line(self, step: int, epoch: float, num_epochs: int, rate: float, world: World) -> None:
        """Closes the interval: a row of means over its steps and the processes, and a log line."""
        row = {"step": step, "epoch": round(epoch, 4)}
        row |= {name: float(world.mean(value)) / self.count for name, value in self.sums.items()}
        row["lr"] = rate
        self.rows.append(row)
        self.sums, self.count = {}, 0
        now = time.monotonic()
        speed = (step - self._last_step) / max(now - self._last, 1e-9)
        overall = (step - self._first) / max(now - self._started, 1e-9)
        self._last, self._last_step = now, step
        self.say(
            f"epoch {epoch:.2f}/{num_epochs} step {step} "
            + " ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in ("step", "epoch"))
            + f" {speed * self.crops:.0f} crops/s, {duration((self.total - step) / max(overall, 1e-9))} left"
        )

    def valid(self, step: int, epoch: float, eer: float) -> None:
        self.rows.append({"step": step, "epoch": round(epoch, 4), "valid_eer_percent": 100 * eer})
        self.say(f"epoch {epoch:.2f} step {step} EER of the speakers held out {100 * eer:.2f} %")

    def say(self, text: str) -> None:
        if not self.quiet:
            with tqdm.external_write_mode(file=sys.stderr):
                logging.info("%s", text)

    def write(self) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with replacing(self.path) as file:
            file.write("\t".join(names) + "\n")
            for row in self.rows:
                file.write("\t".join(f"{row[name]:.6g}" if name in row else "" for name in names) + "\n")

    def close(self) -> None:
        self._bar.close()


def duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes:.0f} min" if minutes < 100 else f"{hours:.1f} h"


def draw_curves(rows: list[dict[str, float]], path: Path) -> bool:
    """Losses, metrics, held-out EER and learning rate over the epochs, as a PNG; False without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in ("step", "epoch")]
    figure, axes = pyplot.subplots(len(names), 1, figsize=(7, 1.8 * len(names)), sharex=True, squeeze=False)
    for axis, name in zip(axes[:, 0], names, strict=True):
        points = [(row["epoch"], row[name]) for row in rows if name in row]
        axis.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else "")
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("epoch")
    figure.tight_layout()
    with replacing(path, "wb") as file:
        figure.savefig(file, format="png", dpi=100)
    pyplot.close(figure)
    return True
