"""The parts that all sections share: options, a row of the table, a comparison in turns."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from speakerkd.conf import opt

ROOT = Path(__file__).resolve().parents[2]
# Runs a command and prints the time and memory that it took. This is a small process of its own: until a new process becomes
# another program, it counts the memory of the process that started it.
WATCH = """
import resource, subprocess, sys, time
start = time.perf_counter()
status = subprocess.call(sys.argv[1:], stdout=sys.stderr)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000)
sys.exit(status)
"""


@dataclass
class Options:
    seconds: float = opt(2.0, "approximate time in seconds for each side of a comparison")
    utterances: int = opt(40, "fbank, load, train, distill, sdpn, extract: number of utterances")
    device: str = opt("cuda", "gpu: cuda, or cpu to test the program")
    toy: bool = opt(False, "gpu: true: a small model and small batches, to test the program")
    cold_gb: float = opt(2.0, "load: size in GB of the archives that are read from disk, without the page cache")
    entries: int = opt(1_100_000, "index: number of lines of the scp")
    utterances_opened: int = opt(9_828_081, "opening: number of utterances of the data directory")
    trials: int = opt(580_000, "score, asnorm: number of trials, over at most 5000 utterances")
    cohort: int = opt(6000, "asnorm: number of speakers in the cohort")
    scale: float = opt(1.0, "augment, stage1, stage6, stage7: length of the lists, relative to VoxCeleb's")


@dataclass(frozen=True)
class Row:
    section: str
    what: str
    figure: str = ""
    beside: str = ""
    ratio: str = ""
    aim: str = ""


def compare(ours: Callable[[], object], theirs: Callable[[], object], seconds: float) -> tuple[float, float, float]:
    """The median seconds of both sides, and the median ratio theirs / ours; the sides take turns."""
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


def watched(words: Sequence[object], folder: Path) -> str:
    """Runs a command in this folder. Returns seconds by the clock, seconds of processor time, MB of its largest process."""
    command = [sys.executable, "-S", "-c", WATCH, *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{' '.join(map(str, words))}: {done.stderr.strip()[-1000:]}")
    clock, processor, memory = (float(word) for word in done.stdout.split())
    return f"{clock:.1f} s, {processor:.1f} s of a core, {memory:.0f} MB"
