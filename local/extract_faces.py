#!/usr/bin/env python3
"""Face images -> a vector and a quality figure for each utterance, by any face-recognition network in ONNX.

Usage: local/extract_faces.py [options] <model.onnx> <faces.scp> <data-dir> <out-dir>
  local/extract_faces.py --face-config conf/face.conf arcface.onnx data/train/faces.scp data/train data/train

<faces.scp> has lines `id image [image ...]`. An id may have several lines. It is an utterance of <data-dir>/utt2spk or a
speaker. An utterance without images of its own has those of its speaker. The images must show faces that are already cut
out and upright, as for the training of the network. Nothing is detected or aligned here. Several images of an utterance
become one vector: the mean of their unit vectors times the mean of their lengths, both weighted by quality. So images
that disagree give a shorter vector. The quality of an image is the length of the network's raw vector, or the figure of
--quality (lines `image figure`). --missing says what to do with an utterance without a readable image: drop leaves it
out, speaker takes the images of its speaker's other utterances.

It writes into <out-dir>:
  face.ark face.scp   a vector for each utterance     utt2quality     its quality: the mean over its images
  lost_faces          images that can't be used: id, image, reason
  missing_faces       utterances without images of their own or of their speaker: utterance, what was done
Needs pillow and onnxruntime: tools/setup.sh --extras face
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple

import numpy as np
from tqdm import tqdm

from speakerkd.conf import build, first_few, opt, parse_args, read_conf, run
from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.tables import read_lines, read_utt2spk, replacing, spk2utt, write_table
from speakerkd.foreign.face import FaceConf, FaceNet, ImageError, need_packages, pool, read_image

MISSING = ("drop", "speaker")


@dataclass
class Options:
    face_config: str = opt("", "conf file of what the network takes: size, colours, layout, mean, scale")
    missing: str = opt(
        "drop", "utterances without images: drop (leave them out) or speaker (mean of the speaker's images)"
    )
    quality: str = opt("", "file of quality figures of the images, instead of the length of their vectors")
    max_lost: float = opt(5.0, "largest percentage of unusable images that is not an error")
    batch_size: int = opt(32, "images per batch")
    device: str = opt("cpu", "device: cpu or cuda")
    threads: int = opt(1, "CPU threads; 0: as onnxruntime chooses")


class Face(NamedTuple):
    vector: np.ndarray
    quality: float


def read_faces(path: str) -> dict[str, list[str]]:
    """id -> its images, each once."""
    images: dict[str, dict[str, None]] = {}
    for number, line in read_lines(path):
        key, *paths = line.split()
        if not paths:
            raise ValueError(f"{path}:{number}: '{key}' has no image")
        images.setdefault(key, {}).update(dict.fromkeys(paths))
    if not images:
        raise ValueError(f"{path}: is empty; lines are 'id image [image ...]'")
    return {key: list(paths) for key, paths in images.items()}


def read_qualities(path: str, images: Iterable[str]) -> dict[str, float]:
    qualities: dict[str, float] = {}
    for number, line in read_lines(path):
        image, *words = line.split()
        try:
            (value,) = (float(word) for word in words)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: '{line}' is not an image and a figure") from error
        if not 0 <= value < float("inf") or image in qualities:
            raise ValueError(f"{path}:{number}: '{line}': the figure must be 0 or more, and each image may occur once")
        qualities[image] = value
    absent = [image for image in images if image not in qualities]
    if absent:
        raise ValueError(f"{path}: no figure for {len(absent)} image(s), such as {absent[0]}")
    return qualities


def relevant(faces: dict[str, list[str]], utt2spk: dict[str, str], where: str) -> dict[str, list[str]]:
    """The ids that this data directory has."""
    known = {*utt2spk, *utt2spk.values()}
    others = [key for key in faces if key not in known]
    if len(others) == len(faces):
        raise ValueError(f"{where}: none of its ids is an utterance or a speaker here; the first is '{others[0]}'")
    if others:
        logging.warning(
            "%s: %d ids belong to no utterance here and are not used: %s", where, len(others), first_few(others)
        )
    return {key: paths for key, paths in faces.items() if key in known}


def readable(images: Iterable[str], conf: FaceConf, lost: dict[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    for image in tqdm(list(images), unit="image", disable=None):
        try:
            yield image, read_image(image, conf)
        except ImageError as error:
            lost[image] = str(error)


def embed(
    net: FaceNet, images: list[str], batch_size: int, lost: dict[str, str], file: IO[bytes]
) -> dict[str, np.ndarray]:
    """image -> its raw vector. The vectors are kept in the file, since millions need too much memory. Adds to `lost`."""
    vectors: dict[str, np.ndarray] = {}
    room = np.asarray(np.memmap(file, np.float32, "w+", shape=(len(images), net.dim)))

    def flush(batch: list[tuple[str, np.ndarray]]) -> None:
        for (image, _), vector in zip(batch, net(np.stack([pixels for _, pixels in batch])), strict=True):
            if np.isfinite(vector).all() and vector.any():
                vectors[image] = room[len(vectors)]
                vectors[image][:] = vector
            else:
                lost[image] = "its vector is zero or not finite"

    batch: list[tuple[str, np.ndarray]] = []
    for each in readable(images, net.conf, lost):
        batch.append(each)
        if len(batch) == batch_size:
            flush(batch)
            batch = []
    if batch:
        flush(batch)
    return vectors


def assign(
    utt2spk: dict[str, str], images: dict[str, list[str]], usable: dict[str, Face], fill: bool
) -> tuple[dict[str, list[Face]], Counter[str], dict[str, str]]:
    """Utterance -> its faces; how many have them from where; what was done with those that have none."""
    of_speaker = {
        speaker: list(dict.fromkeys(image for utt in utts for image in images.get(utt, [])))
        for speaker, utts in spk2utt(utt2spk).items()
    }
    chosen: dict[str, list[Face]] = {}
    counts: Counter[str] = Counter()
    missing: dict[str, str] = {}
    for utt in sorted(utt2spk):
        sources = {"own": images.get(utt, []), "speaker": images.get(utt2spk[utt], [])}
        if fill:
            sources["filled"] = of_speaker[utt2spk[utt]]
        found = {name: [usable[image] for image in paths if image in usable] for name, paths in sources.items()}
        kind = next((name for name, listed in found.items() if listed), "dropped")
        counts[kind] += 1
        if kind != "dropped":
            chosen[utt] = found[kind]
        if kind in ("filled", "dropped"):
            missing[utt] = "dropped" if kind == "dropped" else "has the images of its speaker's other utterances"
    return chosen, counts, missing


def main(argv: list[str]) -> None:
    options, (model, faces_scp, data_dir, out_dir) = parse_args(Options, argv, __doc__, 4)
    if options.missing not in MISSING or options.batch_size < 1 or options.max_lost < 0 or options.threads < 0:
        raise ValueError(
            "--missing must be drop or speaker, --batch-size 1 or more, --max-lost and --threads not negative"
        )
    need_packages()
    conf = FaceConf()
    if options.face_config:
        conf = build(FaceConf, read_conf(options.face_config), options.face_config)
    net = FaceNet(model, conf, options.device, options.threads)
    utt2spk = read_utt2spk(Path(data_dir) / "utt2spk")
    images = relevant(read_faces(faces_scp), utt2spk, faces_scp)
    everything = list(dict.fromkeys(image for paths in images.values() for image in paths))
    qualities = read_qualities(options.quality, everything) if options.quality else {}
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    (out / "face.scp").unlink(missing_ok=True)  # so that an earlier run's file never stands beside this run's lists
    lost: dict[str, str] = {}
    with TemporaryFile(dir=out) as file:  # it exists as long as it is mapped
        vectors = embed(net, everything, options.batch_size, lost, file)
    with replacing(out / "lost_faces") as file:
        file.writelines(
            f"{key} {path} {lost[path]}\n" for key, paths in images.items() for path in paths if path in lost
        )
    if 100 * len(lost) > options.max_lost * len(everything):
        first = next(iter(lost.items()))
        raise ValueError(
            f"{len(lost)} of {len(everything)} images are unusable, more than --max-lost {options.max_lost:g} %: see "
            f"{out}/lost_faces, for example {first[0]} {first[1]}"
        )
    usable = {
        image: Face(vector, qualities.get(image, float(np.linalg.norm(vector)))) for image, vector in vectors.items()
    }
    chosen, counts, missing = assign(utt2spk, images, usable, options.missing == "speaker")
    write_table(out / "missing_faces", missing)
    if not chosen:
        raise ValueError(f"{faces_scp}: no utterance of {data_dir} would have a face")
    quality_of: dict[str, str] = {}
    with ArkWriter(out / "face") as write:
        for utt, listed in chosen.items():
            vector, quality = pool(*zip(*listed, strict=True))
            write(utt, vector)
            quality_of[utt] = f"{quality:.6g}"
        write_table(out / "utt2quality", quality_of)  # face.scp comes last, when the archive is closed
    logging.info(
        "%d images in, %d lost; %d utterances: %d with their own, %d with their speaker's, %d filled from the speaker's "
        "other utterances, %d dropped; vectors of %d in %s/face.scp",
        len(everything), len(lost), len(utt2spk), *(counts[kind] for kind in ("own", "speaker", "filled", "dropped")),
        net.dim, out,
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
