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


def test_maps_are_made_again_only_when_something_changed(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    align = tmp_path / "local/align.sh"
    align.write_text('#!/bin/bash\nmkdir -p "$2"; echo "$*" >> "$2/matrix.tsv"\n')
    align.chmod(0o755)
    (tmp_path / "a.pt").touch()
    (tmp_path / "x.conf").write_text("--lr=1\n")

    def count(forms: str) -> int:
        done = bash(f"align_once maps a.pt --nj 2 -- --closed-forms '{forms}' --train-config x.conf a b", tmp_path)
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / "maps/matrix.tsv").read_text().splitlines()
        assert lines[-1].startswith("--out maps --nj 2 --closed-forms ")
        return len(lines)

    assert [count("ridge"), count("ridge"), count("ridge cca"), count("ridge cca")] == [1, 1, 2, 2]
    (tmp_path / "x.conf").write_text("--lr=2\n")
    assert [count("ridge cca"), count("ridge cca")] == [3, 3]
    (tmp_path / "conf/kd").mkdir(parents=True)
    # align.sh finds these confs by their names
    for number, name in ((4, "kd/cca"), (5, "train_align"), (5, "kd/other")):
        (tmp_path / f"conf/{name}.conf").write_text("--lr=3\n")
        assert [count("ridge cca"), count("ridge cca")] == [number, number]
    os.utime(tmp_path / "maps/matrix.tsv", (1, 1))  # the model is newer: nothing of the old maps stays
    assert count("ridge cca") == 1
    (tmp_path / "maps/matrix.tsv").unlink()  # a run that was stopped: what it made stays
    (tmp_path / "maps/nessa").touch()
    assert count("ridge cca") == 1 and (tmp_path / "maps/nessa").exists()


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
