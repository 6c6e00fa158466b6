"""Vectors of utterances: by an unchanged net, one after the other, and by a net prepared once, in batches."""

from pathlib import Path

import numpy as np
import torch

from speakerkd.files.kaldi import ArkWriter, Scp
from speakerkd.models import SpeakerNet, make_net
from speakerkd.models.extract import Cut, NetEncoder, embed, vectors_of
from speakerkd.models.precision import hardware_half
from tools.benchmarks.common import ROOT, Options, Row, compare, watched

CPU = torch.device("cpu")
NETS = {
    "x-vector of 0.33 M": ("mini", "xvector", 200, "3"),
    "ResNet of 0.24 M": ("mini", "resnet_tiny", 200, ""),
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
        rng = np.random.default_rng(0)
        lengths = [frames or int(rng.integers(100, 500)) for _ in range(options.utterances)]
        scp = features(folder / model / str(frames), lengths, rng)
        for half in (None, hardware_half(CPU)):
            if half is not None or not rows or not rows[-1].what.startswith(f"{what}, float32"):
                rows.append(side_by_side(options, what, net, scp, sum(lengths) / 100, half, aim))
    return rows


def features(prefix: Path, lengths: list[int], rng: np.random.Generator) -> Scp:
    with ArkWriter(prefix, compress=True) as write:
        for index, length in enumerate(lengths):
            write(f"{index:04}", rng.standard_normal((length, 80)).astype(np.float32))
    return Scp(f"{prefix}.scp")


def side_by_side(
    options: Options, what: str, net: SpeakerNet, scp: Scp, seconds: float, half: torch.dtype | None, aim: str
) -> Row:
    """Compares both ways from the archive to vectors, on one thread."""
    encode = NetEncoder(net, CPU, half)

    def ours() -> list[np.ndarray]:
        return vectors_of(encode, [scp.read(index) for index in range(len(scp))], Cut())

    def theirs() -> list[np.ndarray]:
        return [embed(net, scp.read(index), CPU) for index in range(len(scp))]

    pairs = zip(ours(), theirs(), strict=True)
    cosine = min(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in pairs)
    mine, other, ratio = compare(ours, theirs, options.seconds)
    rates = [f"{seconds / each:.0f} x real time" for each in (mine, other)]
    name = "float32" if half is None else str(half).removeprefix("torch.")
    return Row(
        "extract", f"{what}, {name}", rates[0], f"one by one {rates[1]}", f"{ratio:.1f}; cosine {cosine:.6f}", aim
    )


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
