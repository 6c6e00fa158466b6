"""Work in processes: the order, and what happens when one of them dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from speakerkd.processes import in_processes


def double(number: int) -> int:
    return 2 * number


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_results_come_in_order() -> None:
    assert in_processes(double, range(50), 3) == [2 * number for number in range(50)]


def test_a_process_that_is_killed_is_an_error_and_not_a_wait() -> None:
    with pytest.raises(ValueError, match=r"a process died\. The memory may be too small for --nj=2"):
        in_processes(die_at_three, range(10), 2)


SCRIPT = """
import time
from speakerkd.conf import run
from speakerkd.processes import in_processes

def work(number):
    time.sleep(20)

def main(argv):
    print("begins", flush=True)
    in_processes(work, range(8), 2)

if __name__ == "__main__":
    run(main)
"""


@pytest.mark.parametrize("wait", [0.0, 0.005, 0.01, 0.015, 0.02, 0.3])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_processes_at_once_and_without_a_traceback(
    tmp_path: Path, number: signal.Signals, wait: float
) -> None:
    """Also while they are being started: one that was missed kept the script waiting for ever."""
    script = tmp_path / "work.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "begins\n"
    time.sleep(wait)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    error = process.communicate(timeout=15)[1]
    assert process.returncode == 128 + number and not error
    with pytest.raises(ProcessLookupError):  # none of the group is left
        os.killpg(process.pid, 0)
