"""Set-up without 5 GB: a stand-in for Python makes an environment of stubs, so that failing and killing can be tried."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT

# Called as the interpreter and, copied by `-m venv`, as the environment's own.
STUB = """#!/usr/bin/env bash
echo "$*" >> "$STUB_LOG"
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip "*) ${STUB_PIP:-true} ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    root = tmp_path / "clone"
    for name in (
        "tools/setup.sh",
        "tools/env.sh",
        "utils/parse_options.sh",
        "requirements.txt",
        "requirements-extras.txt",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    stub = tmp_path / "bin/python3"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)
    return root


def start(clone: Path, *words: str, pip: str = "true") -> subprocess.Popen[str]:
    environment = {**os.environ, "STUB_LOG": str(clone / "log"), "STUB_PIP": pip}
    command = [str(clone / "tools/setup.sh"), "--python", str(clone.parent / "bin/python3"), *words]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    error = process.communicate(timeout=30)[1]
    return process.returncode, error


def pip_calls(clone: Path) -> list[str]:
    log = (clone / "log").read_text().splitlines()
    return [line for line in log if line.startswith("-m pip")]


def test_installs_once_and_adds_extras(clone: Path) -> None:
    assert finish(start(clone))[0] == 0
    assert finish(start(clone)) == (0, "")
    assert len(pip_calls(clone)) == 1 and pip_calls(clone)[0].endswith(f"-e {clone}")
    assert finish(start(clone, "--extras", "plot dev"))[0] == 0
    assert pip_calls(clone)[1].endswith(f"-e {clone}[dev,plot]")
    assert finish(start(clone, "--extras", "dev"))[0] == finish(start(clone))[0] == 0
    assert len(pip_calls(clone)) == 2
    with open(clone / "requirements.txt", "a", encoding="utf-8") as file:
        file.write("six==1.16.0\n")
    assert finish(start(clone))[0] == 0
    assert pip_calls(clone)[2].endswith("[dev,plot]")


def test_failed_set_up_leaves_nothing_and_says_how_to_go_on(clone: Path) -> None:
    code, error = finish(start(clone, pip="false"))
    again = "tools/setup.sh: set-up failed; the reason is above. When it is mended, run: tools/setup.sh\n"
    assert code == 1 and error.endswith(again) and not (clone / "tools/venv").exists()
    assert finish(start(clone))[0] == 0
    # An extra that can't be had does not cost the environment that works.
    code, error = finish(start(clone, "--extras", "onnx  face", pip="false"))
    assert error.endswith(' run: tools/setup.sh --extras "face onnx"\n')
    assert code == 1 and (clone / "tools/venv/bin/python").exists()
    assert finish(start(clone)) == (0, "")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_set_up_can_be_run_again(clone: Path, how: signal.Signals) -> None:
    process = start(clone, pip="sleep 30")
    deadline = time.monotonic() + 20
    while not ((clone / "log").exists() and pip_calls(clone)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, how)
    process.wait(timeout=10)
    assert not (clone / "tools/venv/.speakerkd-setup").exists()
    (clone / "tools/venv/bin").mkdir(parents=True, exist_ok=True)
    (clone / "tools/venv/bin/half-made").touch()
    assert finish(start(clone))[0] == 0
    assert not (clone / "tools/venv/bin/half-made").exists() and (clone / "tools/venv/.speakerkd-setup").exists()


def test_two_at_a_time_install_once(clone: Path) -> None:
    first = start(clone, pip="sleep 1")
    time.sleep(0.3)
    second = start(clone)
    assert finish(first)[0] == 0
    code, error = finish(second)
    assert code == 0 and "waiting for another set-up" in error and len(pip_calls(clone)) == 1


def test_pictures_are_part_of_the_set_up_and_can_be_missed(clone: Path, tmp_path: Path) -> None:
    """Without an extra; an environment of one's own may lack matplotlib, but not what the recipes need."""
    assert finish(start(clone))[0] == 0
    (call,) = pip_calls(clone)
    pinned = [line.split("==")[0] for line in (clone / "requirements.txt").read_text().splitlines() if "==" in line]
    assert f"-r {clone}/requirements.txt" in call and "matplotlib" in pinned
    absent = tmp_path / "absent"
    absent.mkdir()
    for name, code, message in (
        ("matplotlib", 0, "matplotlib is not there: no pictures of curves and scores; remedy: pip install matplotlib"),
        ("kaldiio", 1, "MISSING kaldiio"),
    ):
        (absent / f"{name}.py").write_text(f"raise ImportError('no {name}')\n")
        done = subprocess.run(
            ["python3", ROOT / "tools/check_env.py"],
            env={**os.environ, "PYTHONPATH": str(absent)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == code and message in done.stdout, done


def test_unusable_words(clone: Path) -> None:
    code, error = finish(start(clone, "--extras", "devel"))
    assert code == 1 and "no extra 'devel' (there are: plot face onnx app export dev)" in error
    code, error = finish(start(clone, "--python", "/no/such/python"))
    assert code == 1 and "'/no/such/python' is not a Python 3.10 to 3.12" in error


def test_active_environment_with_the_packages_is_used(clone: Path) -> None:
    """And one without them gives way to tools/venv."""
    shutil.copy(ROOT / "tools/check_env.py", clone / "tools/check_env.py")
    script = f"set -euo pipefail; extras='dev plot'; . {clone}/tools/env.sh; command -v python3; echo $PYTHONPATH"
    path = f"{ROOT / 'tools/venv/bin'}:/usr/bin:/bin"
    if not (ROOT / "tools/venv/bin/python3").exists():
        pytest.skip("the tests run in another environment than tools/venv")
    done = subprocess.run(["bash", "-c", script], env={"PATH": path}, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(ROOT / "tools/venv/bin/python3"), str(clone)]

    (clone / "tools/setup.sh").write_text('#!/bin/sh\necho "setup $*" >&2; mkdir -p $(dirname $0)/venv/bin\n')
    empty = clone.parent / "empty"
    subprocess.run(["python3", "-m", "venv", "--without-pip", empty], check=True)
    path = f"{empty}/bin:/usr/bin:/bin"
    done = subprocess.run(["bash", "-c", f"{script}; echo $PATH"], env={"PATH": path}, capture_output=True, text=True)
    assert "setup --extras dev plot" in done.stderr and done.stdout.splitlines()[-1].startswith(
        f"{clone}/tools/venv/bin:"
    )


HELPED = ("tools/bench.py", "tests/run.sh", "tools/lint.sh", "local/launch.sh", "utils/slurm_jobs.sh", "tests/slurm.sh")


@pytest.mark.parametrize("script", HELPED)
@pytest.mark.parametrize("link", [False, True], ids=["by its path", "through a link"])
def test_help_installs_nothing_and_works_from_anywhere(tmp_path: Path, script: str, link: bool) -> None:
    """With a Python that has no packages, in a folder outside the repository."""
    root = tmp_path / "clone"
    for folder in ("tools", "utils", "local", "tests", "speakerkd"):
        ignored = shutil.ignore_patterns("venv", "data", "__pycache__")
        shutil.copytree(ROOT / folder, root / folder, ignore=ignored, symlinks=True)
    setup = root / "tools/setup.sh"
    setup.write_text('#!/bin/sh\necho "set-up was started" >&2; exit 1\n')
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    empty = tmp_path / "empty"
    subprocess.run(["python3", "-m", "venv", "--without-pip", empty], check=True)
    folder = root / script.split("/")[0]
    if link:  # as a recipe has local and utils
        (elsewhere / "here").symlink_to(folder)
        folder = Path("here")
    command = [str(folder / script.split("/")[1]), "--help"]
    if not link:
        command[0] = os.path.relpath(command[0], elsewhere)
    done = subprocess.run(
        command, cwd=elsewhere, env={"PATH": f"{empty}/bin:/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    header = [line for line in (ROOT / script).read_text().splitlines()[1:] if line.startswith(('"""', "# "))]
    assert done.stdout.splitlines()[0] == header[0].lstrip('#" ')
    assert "\nUsage: " in done.stdout
