"""tests/gpu.sh: its program runs, on a CPU at toy size; without a GPU it says so."""

import re
import subprocess

import pytest
import torch
from conftest import ROOT, environment


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "tests/gpu.sh", *words], env=environment(), capture_output=True, text=True, timeout=400, cwd=ROOT
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so() -> None:
    done = run()
    assert done.returncode == 0 and "PyTorch sees no GPU here; nothing was tried" in done.stdout


def test_every_check_runs_and_passes_on_a_cpu() -> None:
    done = run("--device", "cpu", "--toy", "true", "--seconds", "0.2")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for what in ("losses of 20 steps, float32", "losses of 20 steps, bf16", "losses of 20 steps, fp16", "resumed run",
                 "two processes, gloo", "vectors, float32"):  # fmt: skip
        (line,) = [line for line in lines if line.startswith(f"gpu      {what}")]
        assert "  ok  " in line, line
    (line,) = [line for line in lines if "xvector, batch 8" in line]
    assert re.search(r"[0-9]+ crops/s +bare steps [0-9]+", line), line
