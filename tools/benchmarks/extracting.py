"""Vectors of utterances: by an unchanged net, one after the other, and by a net prepared once, in batches.

ONNX Runtime is a further side if the packages onnx and onnxruntime are there.
"""

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from speakerkd.files.kaldi import ArkWriter, Scp
from speakerkd.foreign.onnxnet import OnnxNetEncoder
from speakerkd.models import SpeakerNet, make_net
from speakerkd.models.extract import Cut, Encode, NetEncoder, embed, vectors_of
from speakerkd.models.precision import hardware_half
from tools.benchmarks.common import ROOT, Options, Row, watched

CPU = torch.device("cpu")
NETS = {
    "x-vector of 0.33 M": ("mini", "xvector", 200, "3"),
    "x-vector of 0.33 M, 6 s": ("mini", "xvector", 600, ""),
    "ResNet of 0.24 M": ("mini", "resnet_tiny", 200, "3"),
    "ECAPA of 0.48 M": ("open", "ecapa_small", 200, "3"),
    "CAM++ of 7.2 M": ("voxceleb", "campplus", 200, "1.8"),
    "CAM++ of 7.2 M, 6 s": ("voxceleb", "campplus", 600, "1.8"),
    "CAM++ of 7.2 M, 1 to 5 s": ("voxceleb", "campplus", 0, "1.8"),
}


def extract(options: Options, folder: Path) -> list[Row]:
    torch.set_num_threads(1)
    rows: list[Row] = []
    for what, (recipe, model, frames, aim) in NETS.items():
        torch.manual_seed(0)
        net = make_net(ROOT / f"egs/{recipe}/v1/conf/model/{model}.conf", 80).eval()
        print(f"bench.py: {what} ...", file=sys.stderr)
        rows += side_by_side(options, what, net, frames, folder / f"{model}{frames}", aim)
    return rows


def features(prefix: Path, lengths: list[int], rng: np.random.Generator) -> Scp:
    with ArkWriter(prefix, compress=True) as write:
        for index, length in enumerate(lengths):
            write(f"{index:04}", rng.standard_normal((length, 80)).astype(np.float32))
    return Scp(f"{prefix}.scp")


def side_by_side(options: Options, what: str, net: SpeakerNet, frames: int, folder: Path, aim: str) -> list[Row]:
    """Measure the way from the archive to vectors on one thread: float32, ONNX Runtime, bf16 if the CPU has it."""
    rng = np.random.default_rng(0)
    lengths = [frames or int(rng.integers(100, 500)) for _ in range(affordable(options, net))]
    scp, seconds = features(folder / "feats", lengths, rng), sum(lengths) / 100
    plain = NetEncoder(net, CPU)
    encoders: dict[str, Encode] = {"float32": plain}
    if all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))):
        encoders["ONNX Runtime"] = OnnxNetEncoder(net, plain)
    half = hardware_half(CPU)
    if half is not None:
        encoders[str(half).removeprefix("torch.")] = NetEncoder(net, CPU, half)

    def before() -> list[np.ndarray]:
        return [embed(net, scp.read(index), CPU) for index in range(len(scp))]

    def by(encode: Encode) -> Callable[[], list[np.ndarray]]:
        return lambda: vectors_of(encode, [scp.read(index) for index in range(len(scp))], Cut())

    sides = {name: by(encode) for name, encode in encoders.items()}
    wanted = before()
    cosines = {name: min(map(cosine, side(), wanted)) for name, side in sides.items()}
    took = in_turns([before, *sides.values()], options.seconds)
    rows = []
    for name, times in zip(sides, took[1:], strict=True):
        ratio = statistics.median(old / new for old, new in zip(took[0], times, strict=True))
        figures = [f"{seconds / statistics.median(each):.0f} x real time" for each in (times, took[0])]
        found = f"{ratio:.1f}; cosine {cosines[name]:.6f}"
        rows.append(Row("extract", f"{what}, {name}", figures[0], f"one by one {figures[1]}", found, aim))
    return rows


def affordable(options: Options, net: SpeakerNet) -> int:
    """Utterances of 3 s that go one by one through the net in half of --seconds: at least 8, --utterances at most."""
    feats = np.zeros((300, 80), np.float32)
    embed(net, feats, CPU)
    start = time.process_time()
    embed(net, feats, CPU)
    return max(8, min(options.utterances, round(options.seconds / 2 / (time.process_time() - start))))


def in_turns(sides: Sequence[Callable[[], object]], seconds: float) -> list[list[float]]:
    """Seconds of processor time of each side in each turn: three turns, and more until `seconds` have passed for each side.

    Other work on the machine takes turns with this one thread, which the clock would count.
    """
    took: list[list[float]] = [[] for _ in sides]
    until = time.perf_counter() + seconds * len(sides)
    while len(took[0]) < 3 or time.perf_counter() < until:
        for side, times in zip(sides, took, strict=True):
            start = time.process_time()
            side()
            times.append(time.process_time() - start)
    return took


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def augment(options: Options, folder: Path) -> list[Row]:
    """Stage 1's plan of copies for all of VoxCeleb2-dev: two kinds in three speeds, and the two new speeds themselves."""
    count = round(1_092_009 * options.scale)
    source = folder / "train"
    source.mkdir()
    names = [f"id{number // 180:05}-a1b2c3d4e5f-{number % 180:05}" for number in range(count)]
    (source / "wav.scp").write_text(
        "".join(f"{name} /data/vox2/dev/aac/{name.replace('-', '/')}.wav\n" for name in names)
    )
    (source / "utt2spk").write_text("".join(f"{name} {name[:7]}\n" for name in names))
    (source / "utt2dur").write_text("".join(f"{name} 7.840\n" for name in names))
    words = [
        ROOT / "local/augment_data_dir.py",
        "--speeds",
        "0.9,1.1",
        "--kinds",
        "reverb,noise",
        source,
        folder / "aug",
    ]
    took = watched(words, ROOT)
    with open(folder / "aug/utt2aug") as file:
        copies = sum(1 for _ in file)
    return [Row("augment", f"plan of {copies} copies of {count} utterances", took, aim="under 2000 MB")]
