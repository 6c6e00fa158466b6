"""The folder of a training run: who works in it, with which options it was begun, and how far it got.

conf.json     the resolved options, and the command, commit and versions of the last start
last.pt       all that is needed to go on: weights, optimiser, random states, the next step, the lines of log.tsv
epoch.N.pt    the weights after the last epochs, for their average
log.tsv       a line per interval: step, epoch, losses, metrics, learning rate
final.pt      (and whatever else the method exports) written last: it says that the run is complete
"""

import fcntl
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from speakerkd.conf import text_of
from speakerkd.files.tables import replacing


class RunFolder:
    """Made by the first process of a run; the others only need the path."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._record: dict[str, Any] = {}

    def open(self, options: Mapping[str, Any]) -> None:
        """Claim the folder for a run with these options; refuses a folder of another run, or one in use."""
        try:
            (self.path / "log").mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "w")  # noqa: SIM115  # held until the process ends, however it ends
        except OSError as error:
            raise OSError(f"{self.path}: can't write here ({error.strerror})") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{self.path}: another run is at work in this folder; wait for it or choose another one"
            ) from error
        saved = self.path / "conf.json"
        if saved.exists() and any(self.path.glob("*.pt")):  # a run that was refused at its start left nothing to lose
            self._compare(json.loads(saved.read_text(encoding="utf-8"))["options"], options)
        self._record = {"options": options, "run": circumstances()}
        self._write_record()

    def note(self, **told: Any) -> None:
        """Add to what conf.json tells of the run."""
        self._record["run"].update(told)
        self._write_record()

    def _write_record(self) -> None:
        with replacing(self.path / "conf.json") as file:
            json.dump(self._record, file, indent=1, sort_keys=True)

    def _compare(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        old, new = flat(before), flat(json.loads(json.dumps(now)))
        changed = [
            f"  {name}: {old.get(name, '(none)')} -> {new.get(name, '(none)')}"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
        if changed:
            raise ValueError(
                f"{self.path} holds a run with other options:\n"
                + "\n".join(changed)
                + "\nChoose another folder, remove this one, or go on with the options it was begun with."
            )

    @property
    def complete(self) -> bool:
        # test.pt is written after enroll.pt
        return any(not path.name.startswith(("last.", "epoch.", "enroll.")) for path in self.path.glob("*.pt"))

    def save(self, name: str, state: Any) -> None:
        with replacing(self.path / name, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())

    def load(self, name: str) -> Any:
        """None where there is no such file yet."""
        path = self.path / name
        return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None

    def keep_epochs(self, epochs: Iterable[int]) -> None:
        """Remove the weights of the epochs that the average will not need."""
        wanted = {f"epoch.{number}.pt" for number in epochs}
        for path in self.path.glob("epoch.*.pt"):
            if path.name not in wanted:
                path.unlink()

    def average(self, epochs: Iterable[int]) -> dict[str, torch.Tensor]:
        """The mean of the weights after these epochs; counters are those of the last."""
        states = [self.load(f"epoch.{number}.pt") for number in epochs]
        return {
            name: torch.stack([state[name] for state in states]).mean(0) if last.is_floating_point() else last
            for name, last in states[-1].items()
        }


def flat(value: Any, name: str = "") -> dict[str, str]:
    """Options within options -> part.name: its text."""
    if isinstance(value, dict):
        return {
            key: text for part in value for key, text in flat(value[part], f"{name}.{part}" if name else part).items()
        }
    return {name: text_of(tuple(value) if isinstance(value, list) else value)}


def circumstances() -> dict[str, Any]:
    """The command, the commit and the versions: not compared, only told."""
    root = Path(__file__).resolve().parent.parent
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown (no git here)"
    return {
        "command": " ".join(sys.argv),
        "commit": commit,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
