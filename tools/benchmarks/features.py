"""The steps from wav to ark and from ark to crops, and the index of a long scp."""

import multiprocessing
import os
import re
import struct
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from tools.benchmarks.common import Options, Row, compare


def fbank(options: Options, folder: Path) -> list[Row]:
    import kaldi_native_fbank
    import soundfile
    import torch

    from speakerkd.audio.recordings import mono, read_audio
    from speakerkd.feats.fbank import Fbank, FbankConf
    from speakerkd.files.kaldi import ArkWriter

    torch.set_num_threads(1)
    length, rng = 10, np.random.default_rng(0)
    paths = [folder / f"{index:04}.wav" for index in range(options.utterances)]
    for path in paths:
        soundfile.write(path, 0.1 * rng.standard_normal(length * 16000), 16000, subtype="PCM_16")
    extractor = Fbank(FbankConf(num_mel_bins=80, dither=0.0))
    their_options = kaldi_native_fbank.FbankOptions()
    their_options.frame_opts.dither, their_options.mel_opts.num_bins = 0.0, 80

    def native(wave: np.ndarray) -> np.ndarray:
        online = kaldi_native_fbank.OnlineFbank(their_options)
        online.accept_waveform(16000, wave * 32768)
        online.input_finished()
        return np.stack([online.get_frame(frame) for frame in range(online.num_frames_ready)])

    def side(name: str, compute: Callable[[np.ndarray], np.ndarray]) -> Callable[[], None]:
        def work() -> None:
            with ArkWriter(folder / name, compress=True) as write:
                for path in paths:
                    write(path.stem, compute(mono(read_audio(str(path))[0])))

        return work

    ours, theirs, ratio = compare(side("ours", extractor), side("theirs", native), options.seconds)
    rates = [f"{options.utterances * length / each:.0f} x real time" for each in (ours, theirs)]
    return [
        Row(
            "fbank",
            "wav to CM2 ark, 80 bins, one core",
            rates[0],
            f"kaldi-native-fbank {rates[1]}",
            f"{ratio:.1f}",
            "3",
        )
    ]


def load(options: Options, folder: Path) -> list[Row]:
    import kaldiio

    from speakerkd.files.kaldi import ArkWriter, Scp

    rng = np.random.default_rng(0)
    with ArkWriter(folder / "feats", compress=True) as write:
        for index in range(options.utterances):
            write(f"{index:04}", rng.standard_normal((1000, 80)).astype(np.float32))
    scp = Scp(folder / "feats.scp")
    lines = [line.split()[1] for line in (folder / "feats.scp").read_text().splitlines()]
    crops = [(index % len(scp), int(rng.integers(800))) for index in range(400)]

    def ours() -> None:
        for index, start in crops:
            scp.read(index, start, start + 200)

    def theirs() -> None:
        for index, start in crops:
            kaldiio.load_mat(lines[index])[start : start + 200]

    times = compare(ours, theirs, options.seconds)
    rates = [f"{len(crops) / each:.0f} crops/s" for each in times[:2]]
    return [
        Row("load", "2 s of 10 s utterances, CM2, one core", rates[0], f"kaldiio {rates[1]}", f"{times[2]:.1f}", "4"),
        cold(options, folder, rng.integers(65536, size=(1000, 80), dtype=np.uint16)),
    ]


def cold(options: Options, folder: Path, levels: np.ndarray) -> Row:
    """Random crops while no page of the archives is in memory: bytes read from the disk, beside the bytes that they need."""
    from speakerkd.files.kaldi import ArkWriter, Scp

    archives, frames, num_crops = 8, 200, 1000
    packed = b"\0BCM2 " + struct.pack("<ffii", -10, 20, *levels.shape) + levels.tobytes()
    count = max(archives, round(options.cold_gb * 1e9 / len(packed)))
    lines: list[str] = []
    for number in range(archives):
        with ArkWriter(folder / f"cold.{number}", compress=True) as write:
            for index in range(number * count // archives, (number + 1) * count // archives):
                write.put(f"{index:08}", packed)
        lines += (folder / f"cold.{number}.scp").read_text().splitlines(keepends=True)
        with open(folder / f"cold.{number}.ark", "rb") as file:
            os.fsync(file.fileno())  # unwritten pages can't be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    (folder / "cold.scp").write_text("".join(lines))
    scp, rng = Scp(folder / "cold.scp"), np.random.default_rng(1)
    places = list(
        zip(rng.integers(len(scp), size=num_crops), rng.integers(len(levels) - frames, size=num_crops), strict=True)
    )
    before, start = from_disk(), time.perf_counter()
    for index, first in places:
        scp.read(int(index), int(first), int(first) + frames)
    seconds, read = time.perf_counter() - start, from_disk() - before
    needed = num_crops * levels[:frames].nbytes
    what = f"the same out of {options.cold_gb:g} GB, page cache empty"
    if read == 0:
        return Row("load", what, "nothing came from a disk: no figure", aim="1.5 at most")
    return Row(
        "load",
        what,
        f"{read / 1e6:.1f} MB read, {1000 * seconds / num_crops:.2f} ms a crop",
        f"needed {needed / 1e6:.1f} MB",
        f"{read / needed:.2f}",
        "1.5 at most",
    )


def from_disk() -> int:
    """The number of bytes that this process has read from disks so far."""
    return int(re.findall(r"^read_bytes: (\d+)", Path("/proc/self/io").read_text(), re.MULTILINE)[0])


def index(options: Options, folder: Path) -> list[Row]:
    """Runs in a process of its own, which has only Python, numpy and the index."""
    path = folder / "long.scp"
    with open(path, "w", encoding="utf-8") as file:
        for number in range(options.entries):
            speaker, job = number // 200, number * 64 // options.entries + 1
            file.write(
                f"id{speaker:05}-a1b2c3d4e5f-{number % 200:05} "
                f"/data/voxceleb/feats/raw_fbank_train.{job}.ark:{number * 96000}\n"
            )
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(False)
    process = context.Process(target=_index_memory, args=(str(path), sending))
    process.start()
    seconds, before, alone, together = receiving.recv()
    process.join()
    return [
        Row("index", f"open an scp of {options.entries} lines", f"{seconds:.1f} s", aim="under 5 s"),
        Row("index", "memory of the process before, with the index", f"{before:.0f} MB, {alone:.0f} MB"),
        Row("index", "the same and 4 workers that look up keys, in all", f"{together:.0f} MB", aim="under 400 MB"),
    ]


def _memory(pids: list[int]) -> float:
    """The memory of these processes together in MB. Pages that several share are counted once (PSS)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1000


def _index_memory(path: str, sending: Connection) -> None:
    from speakerkd.files.kaldi import Scp

    before = _memory([os.getpid()])
    start = time.perf_counter()
    scp = Scp(path)
    seconds = time.perf_counter() - start
    alone = _memory([os.getpid()])
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(5)

    def work(seed: int) -> None:
        for number in np.random.default_rng(seed).integers(len(scp), size=20000):
            assert scp.find(scp.key(int(number))) == number
        barrier.wait()
        barrier.wait()

    workers = [context.Process(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    barrier.wait()
    together = _memory([os.getpid(), *(worker.pid for worker in workers if worker.pid)])
    barrier.wait()
    for worker in workers:
        worker.join()
    sending.send((seconds, before, alone, together))
