"""What the tests share: the root of the repository, a wave, a runner of scripts."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

# Started in the background, pytest ignores these, and so would all that it starts: nothing could be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).resolve().parent.parent


def environment() -> dict[str, str]:
    """As path.sh sets it: this Python first, the package on its path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "LC_ALL": "C"}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A folder like egs/x/v1: local, utils and conf are there."""
    folder = tmp_path / "recipe"
    folder.mkdir()
    for name in ("local", "utils"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "conf").symlink_to(ROOT / "egs/mini/v1/conf")
    return folder


def replace_scripts(recipe: Path, texts: Mapping[str, str]) -> None:
    """Puts other scripts in the place of some of local/, for tests of those that call them."""
    scripts = (recipe / "local").resolve()
    (recipe / "local").unlink()
    (recipe / "local").mkdir()
    for path in scripts.iterdir():
        if path.name not in texts:
            (recipe / "local" / path.name).symlink_to(path)
    for name, text in texts.items():
        (recipe / "local" / name).write_text(text if text.startswith("#!") else f"#!/usr/bin/env bash\nset -eu\n{text}")
        (recipe / "local" / name).chmod(0o755)


def calls(recipe: Path) -> list[list[str]]:
    """The words of each line that the replaced scripts wrote to `calls` since the last time."""
    found = [line.split() for line in (recipe / "calls").read_text().splitlines()]
    (recipe / "calls").write_text("")
    return found


@pytest.fixture
def sh(recipe: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command line of words in the recipe folder; `fails` is what must then hold of its exit status."""

    def runner(*words: object, fails: bool = False) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(word) for word in words], cwd=recipe, env=environment(), capture_output=True, text=True, timeout=300
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return runner


@pytest.fixture
def data(recipe: Path) -> Path:
    """data/train of the recipe folder: few speakers of coloured noise, and confs that train in a second."""
    from toy import make_toy

    return make_toy(recipe)


def write_wav(path: Path, samples: np.ndarray, rate: int = 16000, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def noise(seconds: float, rate: int = 16000, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)
