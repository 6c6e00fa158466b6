"""local/lib.sh: one run at a time, and what is still up to date."""

import fcntl
import os
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT


def bash(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = ["bash", "-euc", f". {ROOT}/local/lib.sh; {script}", "x.sh"]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60)


def test_a_second_run_fails_or_waits(tmp_path: Path) -> None:
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = bash('hold_lock lock "at work"; touch ran', tmp_path)
        assert done.returncode == 1 and done.stderr == "x.sh: at work\n" and not (tmp_path / "ran").exists()
        script = f'. {ROOT}/local/lib.sh; hold_lock lock "waiting" wait; echo mine'
        with subprocess.Popen(
            ["bash", "-euc", script, "x.sh"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        ) as waits:
            assert waits.stdout is not None
            assert waits.stdout.readline() == "x.sh: waiting\n"
            time.sleep(0.3)
            assert waits.poll() is None
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert waits.stdout.readline() == "mine\n"
    done = bash('(hold_lock lock "at work"); hold_lock lock "at work"; echo free', tmp_path)
    assert done.stdout == "free\n"  # a subshell holds it until it ends


@pytest.mark.parametrize(
    ("ages", "fresh"),
    [
        ({"made": 0, "a": 10, "b": 20}, True),
        ({"made": 15, "a": 10, "b": 20}, False),
        ({"made": 5, "a": 10}, True),
        ({"a": 10}, False),
    ],
)
def test_what_is_older_than_its_source_is_not_current(tmp_path: Path, ages: dict[str, int], fresh: bool) -> None:
    for name, age in ages.items():
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    assert (bash("current made a b", tmp_path).returncode == 0) == fresh
    (tmp_path / "made").write_text("")
    assert bash("current made", tmp_path).returncode == 1
