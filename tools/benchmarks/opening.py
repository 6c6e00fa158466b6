"""A data directory of millions of utterances, as training opens it: seconds, and memory that processes can't share."""

import multiprocessing
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from tools.benchmarks.common import Options, Row

DIM = 192  # of a teacher's vectors
SPEEDS, COPIES = ("", "sp0.9-", "sp1.1-"), ("", "-babble", "-reverb")


def opening(options: Options, folder: Path) -> list[Row]:
    """VoxCeleb2 at three speeds with two copies each has 9.8 million utterances."""
    many = options.utterances_opened
    originals = many // (len(SPEEDS) * len(COPIES))
    make_data(folder, originals)
    what = f"open a data directory of {originals * len(SPEEDS) * len(COPIES)} utterances"
    rows = []
    for turn, aim in (("the first time", "under 500 MB"), ("again", "under 10 s, 500 MB")):
        seconds, used = in_new_process(folder, "")
        rows.append(Row("opening", f"{what}, {turn}", f"{seconds:.1f} s, {used:.0f} MB", aim=aim))
    what = f"the same with {originals} vectors of a teacher"
    for turn in ("the first time", "again"):
        seconds, used = in_new_process(folder, str(folder / "xvector.scp"))
        rows.append(Row("opening", f"{what}, {turn}", f"{seconds:.1f} s, {used:.0f} MB"))
    return rows


def make_data(folder: Path, originals: int) -> None:
    """200 utterances of each speaker; all features are the same ones."""
    from speakerkd.files.kaldi import ArkWriter

    with ArkWriter(folder / "one") as write:
        write("x", np.zeros((200, 80), np.float32))
    tables = [open(folder / name, "w") for name in ("feats.scp", "utt2num_frames", "utt2spk", "utt2uniq")]  # noqa: SIM115
    feats, frames, speakers, uniq = tables
    for speed in SPEEDS:
        for number in range(originals):
            speaker = f"id{number // 200:05}"
            original = f"{speaker}-a1b2c3d4e5f-{number % 200:05}"
            for copy in COPIES:
                name = f"{speed}{original}{copy}"
                feats.write(f"{name} {folder}/one.ark:2\n")
                frames.write(f"{name} {300 + number % 900}\n")
                speakers.write(f"{name} {speed}{speaker}\n")
                uniq.write(f"{name} {original}\n")
    for table in tables:
        table.close()
    rng = np.random.default_rng(0)
    with ArkWriter(folder / "xvector") as write:
        for number in range(originals):
            write(f"id{number // 200:05}-a1b2c3d4e5f-{number % 200:05}", rng.standard_normal(DIM, dtype=np.float32))


def in_new_process(folder: Path, vectors: str) -> tuple[float, float]:
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(False)
    process = context.Process(target=_open, args=(str(folder), vectors, sending))
    process.start()
    found = receiving.recv()
    process.join()
    return found


def _open(folder: str, vectors: str, sending: Connection) -> None:
    """Seconds, and the most MB of private memory, with Python and PyTorch: mapped files are shared and don't count."""
    from speakerkd.batches.dataset import Batches, View
    from speakerkd.batches.utterances import Utterances

    most, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    most[0] = max(most[0], int(line.split()[1]) / 1000)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    data = Utterances(folder)
    if vectors:
        data.attach("teacher", vectors)
    Batches(data, [View()], 200, 256, 0).entries_of(0)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    sending.send((seconds, most[0]))
