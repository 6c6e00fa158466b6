"""Checks the recordings, leaves out those that can't be used, and joins words to pieces."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from corpora import Speaker  # type: ignore[import-not-found]

from speakerkd.audio.pieces import Job, digest_of, make_pieces
from speakerkd.audio.recordings import AudioError, read_file
from speakerkd.processes import in_processes

SILENT = 500 / 32768  # a recording with a lower peak has no audible speech
FULL_SCALE = 32700 / 32768
CLIPPED = 0.02  # share of samples at full scale


class Seen(NamedTuple):
    """One speaker's recordings after the check of each."""

    seconds: dict[str, float]  # path -> length of a recording that can be used
    digests: dict[str, str]  # the same -> digest of its samples
    lost: dict[str, str]  # path -> "kind: words"


@dataclass
class Speech:
    """One speaker's part of the data directories."""

    speaker: Speaker
    paths: dict[str, str] = field(default_factory=dict)  # utterance -> wav.scp
    seconds: dict[str, float] = field(default_factory=dict)
    clips: int = 0  # recordings in these utterances
    lost: dict[str, str] = field(default_factory=dict)  # path -> "kind: words"


class Look(NamedTuple):
    root: str
    files: Sequence[str]
    least: float  # seconds


def fault(samples: np.ndarray, rate: int, least: float) -> str:
    """The reason why the recording can't be used; '': there is none."""
    size = np.abs(samples)
    if len(samples) < least * rate:
        return f"short: {len(samples) / rate:.2f} s"
    if size.max() < SILENT:
        return f"silent: its peak is {20 * np.log10(size.max() + 1e-9):.0f} dB"
    clipped = float(np.mean(size.max(axis=1) >= FULL_SCALE))
    return f"clipped: {100 * clipped:.0f} % of its samples" if clipped > CLIPPED else ""


def look(task: Look) -> Seen:
    seen = Seen({}, {}, {})
    for name in task.files:
        try:
            samples, rate = read_file(str(Path(task.root) / name))
        except AudioError as error:
            seen.lost[name] = f"unreadable: {error}"
            continue
        if reason := fault(samples, rate, task.least):
            seen.lost[name] = reason
            continue
        seen.seconds[name], seen.digests[name] = len(samples) / rate, digest_of(samples)
    return seen


def drop_copies(speakers: Sequence[Speaker], seen: Sequence[Seen]) -> None:
    """Leaves out copies: a recording counts once. If two speakers have it, the voice is not known, and neither keeps it."""
    owners: dict[str, list[tuple[int, str]]] = {}
    for number, each in enumerate(seen):
        for name, digest in each.digests.items():
            owners.setdefault(digest, []).append((number, name))
    for same in owners.values():
        several = len({number for number, _ in same}) > 1
        for number, name in same if several else same[1:]:
            other = next(each for each in same if each != (number, name) and (not several or each[0] != number))
            whose = f" of {speakers[other[0]].name}" if several else ""
            seen[number].lost[name] = f"copy: has the samples of {other[1]}{whose}"
            del seen[number].seconds[name]


def stamp(root: Path, names: Iterable[str]) -> str:
    """A text that changes when one of the files is replaced."""
    digest = hashlib.sha256()
    for name in names:
        info = (root / name).stat()
        digest.update(f"{name} {info.st_size} {info.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


class Joining(NamedTuple):
    job: Job
    stamp: str


def join_words(task: Joining) -> tuple[dict[str, float], dict[str, str]]:
    """(piece -> seconds, lost recordings)."""
    torch.set_num_threads(1)  # the processes run side by side, and results do not depend on their number
    made = make_pieces(task.job, task.stamp)
    return made.durations, made.lost


def all_speech(
    speakers: Sequence[Speaker], pieces: Path, nj: int, least: float, piece_seconds: float, most: int, seed: int
) -> list[Speech]:
    """Read everything once, and write the pieces of those who said single words into `pieces`/<speaker>/."""
    seen = in_processes(look, [Look(str(each.root), list(each.files), least) for each in speakers], nj)
    drop_copies(speakers, seen)
    found = [Speech(each, lost=dict(view.lost)) for each, view in zip(speakers, seen, strict=True)]
    tasks, joined = [], []
    for speech, view in zip(found, seen, strict=True):
        speaker = speech.speaker
        if not speaker.words:
            speech.paths = {speaker.files[name]: str(speaker.root / name) for name in view.seconds}
            speech.seconds = {speaker.files[name]: seconds for name, seconds in view.seconds.items()}
            speech.clips = len(speech.paths)
        elif view.seconds:
            names = sorted(view.seconds)
            folder = f"{pieces}/{speaker.name}"
            job = Job(speaker.name, folder, str(speaker.root), names, piece_seconds, most, seed)
            tasks.append(Joining(job, stamp(speaker.root, names)))
            joined.append(speech)
    for speech, task, (seconds, lost) in zip(joined, tasks, in_processes(join_words, tasks, nj), strict=True):
        speech.lost.update(lost)
        speech.seconds = seconds
        speech.paths = {utterance: f"{task.job.folder}/{utterance}.flac" for utterance in seconds}
        speech.clips = len(task.job.files) - len(lost)
    return found
