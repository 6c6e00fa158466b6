"""Progress lines in a job's log, for people and scripts: number done, total, speed, time left."""

import logging
import time


class Progress:
    """Call `add` for what has been done. At most one line is logged per `every` seconds."""

    def __init__(self, total: int, every: float = 10.0) -> None:
        self.total, self.every = total, every
        self.done, self.seconds = 0, 0.0
        self.started = self.last = time.monotonic()

    def add(self, seconds: float, count: int = 1) -> None:
        """`count` more utterances, `seconds` of speech."""
        self.done += count
        self.seconds += seconds
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            left = (now - self.started) * (self.total - self.done) / max(self.done, 1)
            logging.info("%d of %d, %s, %.0f s left", self.done, self.total, self.speed(), left)

    def speed(self) -> str:
        return f"{self.seconds / max(time.monotonic() - self.started, 1e-9):.0f} times real time"
