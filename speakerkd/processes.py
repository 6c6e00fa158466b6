"""Distributes work over processes. Results come in order; if a process dies, there is an error."""

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

SIGNALS = {signal.SIGINT, signal.SIGTERM}


def in_processes(work: Callable[[Item], Result], items: Iterable[Item], number: int) -> list[Result]:
    """[work(item) for item in items], by `number` processes. A signal ends them all at once."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(number, initializer=_leave_interrupts_to_the_parent)
    try:
        with _signals_wait():  # a signal between the start of a process and its place in the list would leave it behind
            # Not pool.map: on an error it cancels what is left, and then the pool's thread may print a traceback of its own.
            found = [pool.submit(work, item) for item in items]
        return [each.result() for each in found]
    except (KeyboardInterrupt, SystemExit):
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()  # or leaving would wait for what they are at
        raise
    except BrokenProcessPool as error:
        raise ValueError(
            f"a process died. The memory may be too small for --nj={number}; try a smaller --nj"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _signals_wait() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
