"""The folder of a training run: its lock, the options of the run, and its state.

conf.json     the resolved options, and the command, commit and versions of the last start
last.pt       all that is needed to go on: weights, optimiser, random states, the next step, the lines of log.tsv
epoch.N.pt    the weights after the last epochs, for their average
log.tsv       a line per interval: step, epoch, losses, metrics, learning rate
final.pt      the result. It is written last, so it marks the run as complete. Methods without a net have other names:
              enroll.pt and test.pt
"""

import fcntl
import json
import logging
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
from speakerkd.finite import not_finite
from speakerkd.torchfile import UnreadableError, read_torch_file

NEWER = {"missing"}  # options that older records don't have; it isn't known what they were


def plain_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """The flat options, with files.x for files../x: older records have paths as they were given."""
    return {
        f"files.{os.path.normpath(name[6:])}" if name.startswith("files.") else name: value
        for name, value in options.items()
    }


class RunFolder:
    """The first process of a run makes the folder; the others only need the path."""

    def __init__(self, path: str | Path, results: Iterable[str] = ("final",)) -> None:
        """results: the names (without .pt) of the files that the method exports."""
        self.path = Path(path)
        self.results = [f"{name}.pt" for name in results]
        self._record: dict[str, Any] = {}

    def open(self, options: Mapping[str, Any]) -> None:
        """Claims the folder for a run with these options. A folder of another run, or one in use, is refused."""
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
        except OSError as error:  # Lustre without -o flock, some network file systems
            logging.warning(
                "%s: this file system has no locks (%s): do not start a second run in this folder",
                self.path,
                error.strerror,
            )
        if (self.path / "conf.json").exists() and any(
            self.path.glob("*.pt")
        ):  # without weights nothing of two runs can be mixed
            self._compare(self._read_record()["options"], options)
        if self.complete and (self.path / "conf.json").exists():  # what was recorded is of the run that made the result
            self._record = self._read_record()
            return
        self._record = {"options": options, "run": circumstances()}
        self._write_record()

    def close(self) -> None:
        """Releases the folder. The end of the process does the same."""
        self._lock.close()

    def note(self, **facts: Any) -> None:
        """Adds to the facts about the run in conf.json."""
        self._record["run"].update(facts)
        self._write_record()

    def _write_record(self) -> None:
        with replacing(self.path / "conf.json") as file:
            json.dump(self._record, file, indent=1, sort_keys=True)

    def _read_record(self) -> dict[str, Any]:
        path = self.path / "conf.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # neither text nor json
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("options"), dict):
            raise ValueError(
                f"{path}: damaged. Remove it, and training goes on from last.pt; whether the options are still those that "
                "the run was begun with is then not checked"
            )
        return record

    def _compare(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        old, new = (plain_paths(flat(each)) for each in (before, json.loads(json.dumps(now))))
        for name in NEWER - old.keys():
            new.pop(name, None)
        changed = [
            f"  {name}: {old.get(name, '(none)')} -> {new.get(name, '(none)')}"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
        if changed:
            raise ValueError(
                f"{self.path} holds a run with other options:\n"
                + "\n".join(changed)
                + "\nChoose another folder, remove this one, or continue with the options of its first start."
            )

    @property
    def complete(self) -> bool:
        return all((self.path / name).exists() for name in self.results)

    def save(self, name: str, state: Any) -> None:
        with replacing(self.path / name, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())

    def load(self, name: str) -> Any:
        """None: there is no such file yet."""
        path = self.path / name
        if not path.exists():
            return None
        try:
            return read_torch_file(path)
        except UnreadableError as error:
            which = "it" if name == "last.pt" else "it and last.pt"
            raise ValueError(f"{path}: damaged. Remove {which}; training then starts from the beginning") from error

    def keep_epochs(self, epochs: Iterable[int]) -> None:
        """Removes the weights of epochs that the average does not need."""
        wanted = {f"epoch.{number}.pt" for number in epochs}
        for path in self.path.glob("epoch.*.pt"):
            if path.name not in wanted:
                path.unlink()

    def average(self, epochs: Iterable[int]) -> dict[str, torch.Tensor]:
        """The mean of the weights after these epochs. Counters are taken from the last epoch."""
        states = []
        for number in epochs:
            state = self.load(f"epoch.{number}.pt")
            if state is None:
                raise ValueError(
                    f"{self.path}/epoch.{number}.pt is missing, but the result needs it. Remove {self.path}/last.pt; "
                    "training then starts from the beginning"
                )
            states.append(state)
        mean = {
            name: torch.stack([state[name] for state in states]).mean(0) if last.is_floating_point() else last
            for name, last in states[-1].items()
        }
        if bad := not_finite(mean):
            raise ValueError(
                f"{self.path}: the average of the last {len(states)} epochs is not finite ({bad[0]}). Train again in "
                "another folder with a lower --lr"
            )
        return mean


def flat(value: Any, name: str = "") -> dict[str, str]:
    """Flattens nested options: part.name -> text."""
    if isinstance(value, dict):
        return {
            key: text for part in value for key, text in flat(value[part], f"{name}.{part}" if name else part).items()
        }
    return {name: text_of(tuple(value) if isinstance(value, list) else value)}


def circumstances() -> dict[str, Any]:
    """The command, the commit and the versions: recorded, but not compared."""
    root = Path(__file__).resolve().parent.parent
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown (no git here)"
    return {
        "command": list(sys.argv),
        "commit": commit,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
