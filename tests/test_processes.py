"""Work in processes: the order, and what happens when one of them dies."""

import os
import signal

import pytest

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
