"""Distributes work over processes. Results come in order; if a process dies, there is an error."""

import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(work: Callable[[Item], Result], items: Iterable[Item], number: int) -> list[Result]:
    """[work(item) for item in items], by `number` processes."""
    try:
        with ProcessPoolExecutor(number, initializer=_leave_interrupts_to_the_parent) as pool:
            return list(pool.map(work, items))
    except BrokenProcessPool as error:
        raise ValueError(
            f"a process died. The memory may be too small for --nj={number}; try a smaller --nj"
        ) from error


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
