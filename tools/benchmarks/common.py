"""What the sections share: options, a row of the table, a comparison in turns."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from speakerkd.conf import opt


@dataclass
class Options:
    seconds: float = opt(2.0, "time for each side of a comparison, about")
    utterances: int = opt(40, "fbank, load, train, distill, sdpn: utterances of 10 s")
    entries: int = opt(1_100_000, "index: lines of the scp")
    trials: int = opt(580_000, "score, asnorm: number of trials, over 5000 utterances at most")
    cohort: int = opt(6000, "asnorm: speakers of the cohort")


@dataclass(frozen=True)
class Row:
    section: str
    what: str
    figure: str
    beside: str = ""
    ratio: str = ""
    aim: str = ""


def compare(ours: Callable[[], object], theirs: Callable[[], object], seconds: float) -> tuple[float, float, float]:
    """Median seconds of either side and the median ratio theirs / ours, from turns."""
    ours(), theirs()
    pairs: list[tuple[float, float]] = []
    until = time.perf_counter() + 2 * seconds
    while len(pairs) < 3 or time.perf_counter() < until:
        times = []
        for side in (ours, theirs):
            start = time.perf_counter()
            side()
            times.append(time.perf_counter() - start)
        pairs.append((times[0], times[1]))
    columns = [statistics.median(column) for column in zip(*pairs, strict=True)]
    return columns[0], columns[1], statistics.median(b / a for a, b in pairs)
