#!/usr/bin/env python3
"""Makes faces.scp for local/extract_faces.py: the pictures that show the speaker of each utterance.

Usage: ./prepare_faces.py <faces folder> <data-dir>
 e.g.: ./prepare_faces.py /corpora/VoxCeleb2/faces data/train
then  local/extract_faces.py --face-config conf/face.conf arcface.onnx data/train/faces.scp data/train data/train

Pictures are .jpg or .png files in <faces folder>:
  idXXXXX/<video>/00001/, or idXXXXX/<video>/00001.jpg    pictures of one utterance
  other files in idXXXXX/<video>/ or its folders          pictures for all utterances of the video
  idXXXXX/                                                pictures of the speaker
The pictures of an utterance are preferred to those of its video, and these to the speaker's.
It writes <data-dir>/faces.scp. An utterance without a picture has no line.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from speakerkd.conf import parse_args, run
from speakerkd.files.corpus import names
from speakerkd.files.tables import read_lines, replacing

PICTURES = (".jpg", ".jpeg", ".png")


@dataclass
class Options:
    pass


def pictures(folder: Path) -> list[str]:
    return [f"{folder}/{name}" for name in names(folder, False) if name.lower().endswith(PICTURES)]


def pictures_of(folder: Path, utterances: list[str]) -> Iterator[tuple[str, list[str]]]:
    """(utterance, its pictures) of one speaker."""
    videos = set(names(folder, True)) if folder.is_dir() else set()
    of_speaker = pictures(folder) if folder.is_dir() else []
    for video, group in groupby(utterances, lambda utterance: utterance[len(folder.name) + 1 :].rsplit("-", 1)[0]):
        own: dict[str, list[str]] = {}
        here = list(group)
        shared = of_speaker
        if video in videos:
            inner = folder / video
            parts = {name: pictures(inner / name) for name in names(inner, True)}
            whole = pictures(inner)
            numbers = {utterance.rsplit("-", 1)[1] for utterance in here}
            own = {path.rsplit("/", 1)[1].rsplit(".", 1)[0]: [path] for path in whole}
            own = {number: own.get(number, []) + parts.get(number, []) for number in numbers & {*own, *parts}}
            others = [path for name, some in parts.items() if name not in numbers for path in some]
            taken = {path for some in own.values() for path in some}
            shared = [path for path in whole if path not in taken] + others or of_speaker
        for utterance in here:
            found = own.get(utterance.rsplit("-", 1)[1]) or shared
            if found:
                yield utterance, found


def main(argv: list[str]) -> None:
    _, (faces, folder) = parse_args(Options, argv, __doc__, 2)
    root, data = Path(faces).absolute(), Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; the README says how to make it from the videos")
    total = found = 0
    with replacing(data / "faces.scp") as file:
        for _, line in read_lines(data / "spk2utt"):
            speaker, *utterances = line.split()
            total += len(utterances)
            for utterance, some in pictures_of(root / speaker, utterances):
                if any(" " in path for path in some):
                    raise ValueError(f"{some[0]}: a path with a space can't stand in faces.scp; rename the folder")
                file.write(f"{utterance} {' '.join(some)}\n")
                found += 1
        if not found:
            raise ValueError(f"{root}: no picture of a speaker of {data}; folders idXXXXX/<video>/ are expected")
    logging.info("%s/faces.scp: %d of %d utterances have pictures", data, found, total)


if __name__ == "__main__":
    run(main)
