"""Joins short recordings of a speaker: neighbours of the same genre, until they are long enough."""

import zlib
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from speakerkd.audio.recordings import AudioError, read_file
from speakerkd.files.corpus import audio_names
from speakerkd.files.tables import temporary_beside


class Job(NamedTuple):
    speaker: str
    folder: str  # with the recordings
    out: str  # for what is joined
    least: float  # seconds; 0: nothing is joined


class Joined(NamedTuple):
    speaker: str
    recordings: int
    sources: list[tuple[str, str]]  # utterance, path
    seconds: dict[str, float]  # utterance -> its length; empty if nothing was to be joined
    lost: dict[str, str]


def groups(lengths: list[tuple[str, float]], least: float) -> list[list[str]]:
    """Groups neighbours to `least` seconds or more. A shorter rest joins the group before it, if there is one."""
    found: list[list[str]] = []
    rest: list[str] = []
    total = 0.0
    for name, seconds in lengths:
        rest.append(name)
        total += seconds
        if total >= least:
            found.append(rest)
            rest, total = [], 0.0
    if rest and found:
        found[-1] += rest
    elif rest:
        found.append(rest)
    return found


def join_short(job: Job) -> Joined:
    """Joins the recordings. Those that are joined already stay, so an interrupted run goes on."""
    recordings = audio_names(Path(job.folder))
    stems = {name: f"{job.speaker}-{name.rsplit('.', 1)[0]}" for name in recordings}
    if job.least <= 0:
        return Joined(job.speaker, len(recordings), [(stems[n], f"{job.folder}/{n}") for n in recordings], {}, {})
    lengths: dict[str, float] = {}
    lost: dict[str, str] = {}
    for name in recordings:
        try:
            lengths[name] = float(soundfile.info(f"{job.folder}/{name}").duration)
        except RuntimeError as error:
            lost[stems[name]] = f"can't be read ({str(error).splitlines()[-1]})"
    sources, seconds = [], {}
    for _, neighbours in groupby(lengths, lambda name: name.split("-", 1)[0]):  # the recordings of one genre
        for group in groups([(name, lengths[name]) for name in neighbours], job.least):
            utterance, path = stems[group[0]], f"{job.folder}/{group[0]}"
            if len(group) > 1:
                utterance += f"-join{len(group)}"
                parts = [f"{job.folder}/{name}" for name in group]
                digest = zlib.crc32(" ".join(group).encode())  # another group, another file
                path = f"{job.out}/{utterance}-{digest:08x}.flac"
                if not is_newer(path, parts):
                    try:
                        write_joined(parts, Path(path))
                    except AudioError as error:
                        lost.update({stems[name]: f"not joined: {error}" for name in group})
                        continue
            sources.append((utterance, path))
            seconds[utterance] = sum(lengths[name] for name in group)
    return Joined(job.speaker, len(recordings), sources, seconds, lost)


def is_newer(path: str, parts: list[str]) -> bool:
    made = Path(path)
    return made.exists() and all(Path(part).stat().st_mtime <= made.stat().st_mtime for part in parts)


def write_joined(paths: list[str], out: Path) -> None:
    waves, rates = zip(*(read_file(path) for path in paths), strict=True)
    if len(set(rates)) > 1 or len({wave.shape[1] for wave in waves}) > 1:
        raise AudioError(f"the rates or channels of {paths[0]} and its neighbours differ")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(out)
    soundfile.write(temporary, np.concatenate(waves), rates[0], format="FLAC", subtype="PCM_16")
    temporary.replace(out)
