"""A run that is told to stop (SIGTERM of a job runner, Ctrl-C) finishes its step, saves its state and ends."""

import contextlib
import logging
import signal
from collections.abc import Iterator
from types import FrameType

EXIT_STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130}


class StopSignal:
    """`number` is the number of the signal that came; None: none came."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:  # a second signal ends the run at once
            raise SystemExit(EXIT_STATUS[signal.Signals(number)])
        self.number = number
        logging.info("%s: the state is saved after this step", signal.Signals(number).name)


@contextlib.contextmanager
def listening() -> Iterator[StopSignal]:
    """While this is active, a signal only sets a mark. Signals that the shell made the process ignore stay ignored."""
    stop = StopSignal()
    before = {number: signal.getsignal(number) for number in EXIT_STATUS}
    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, stop)
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_signals_to_the_trainer(worker: int) -> None:
    """For the processes that make batches: a signal to the whole group must not end them before the step is finished."""
    for number in EXIT_STATUS:
        signal.signal(number, signal.SIG_IGN)
