"""Makes longer pieces of a speaker's short recordings: cuts pauses, joins neighbours, chooses some, writes FLAC files."""

import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from speakerkd.audio.recordings import AudioError, read_file, resample

VERSION = 1  # a new number makes all pieces again
RATE = 16000
FRAME = RATE // 100


class Job(NamedTuple):
    """One speaker's recordings, and the pieces that are wanted of them."""

    speaker: str
    folder: str  # for the pieces; it is created
    root: str  # folder of the recordings
    files: list[str]  # paths below root
    seconds: float  # shortest length of a piece
    most: int  # largest number of pieces
    seed: int  # random seed for the choice of pieces


class SpeakerPieces(NamedTuple):
    """The result of a Job."""

    speaker: str
    durations: dict[str, float]  # piece -> seconds
    lost: dict[str, str]  # recording -> reason, as "kind: words"
    digests: dict[str, str]  # recording -> digest of its samples


def trim(wave: np.ndarray) -> np.ndarray:
    """Cuts everything that is more than 0.1 s away from speech, at the ends and inside. Without speech nothing is left.

    Speech is 50 ms or more of frames above a threshold: 6 dB over the floor, but 25 to 40 dB under the peak. So a noisy
    recording is cut a little. A recording that was already cut tightly, whose floor is speech, is not cut at all.
    """
    frames = wave[: len(wave) // FRAME * FRAME].reshape(-1, FRAME)
    if len(frames) < 5:
        return wave[:0]
    level = 10 * np.log10(np.var(frames.astype(np.float64), axis=1) + 1e-12)
    peak, floor = np.percentile(level, [95, 5])
    if peak < -80:
        return wave[:0]
    loud = level > np.clip(floor + 6, peak - 40, peak - 25)
    runs = np.convolve(loud, np.ones(5), "valid") == 5
    near = np.convolve(runs, np.ones(5 + 2 * 10)) > 0  # the run itself, and 10 frames on each side
    keep = np.repeat(near[10 : 10 + len(frames)], FRAME)
    return wave[: len(keep)][keep]


def digest_of(samples: np.ndarray) -> str:
    return hashlib.sha256(samples.tobytes()).hexdigest()[:32]


def join(job: Job) -> tuple[list[list[str]], dict[str, np.ndarray], SpeakerPieces]:
    """(the recordings of each piece, recording -> speech, what is lost so far).

    A piece joins recordings that are neighbours by name: one session, similar words. If a piece mixed all sessions, two
    pieces of a speaker could match by recording conditions instead of voice. Channels are averaged: one may be silent.
    """
    speech: dict[str, np.ndarray] = {}
    result = SpeakerPieces(job.speaker, {}, {}, {})
    groups: list[list[str]] = [[]]
    samples = 0
    for name in job.files:
        try:
            recording, rate = read_file(str(Path(job.root) / name))
        except AudioError as error:
            result.lost[name] = f"unreadable: {error}"
            continue
        digest = digest_of(recording)
        if digest in result.digests.values():
            result.lost[name] = "copy: has the samples of " + next(n for n, d in result.digests.items() if d == digest)
            continue
        result.digests[name] = digest
        wave = trim(resample(recording.mean(axis=1), rate, RATE))
        if len(wave) < RATE // 10:
            result.lost[name] = "short: less than 0.1 s of speech"
            continue
        speech[name] = wave
        groups[-1].append(name)
        samples += len(wave)
        if samples >= job.seconds * RATE:
            groups.append([])
            samples = 0
    rest = groups.pop()
    if groups:
        groups[-1] += rest
    result.lost.update(
        {name: f"short: the speaker has less than {job.seconds:g} s of speech" for name in rest if not groups}
    )
    return groups, speech, result


def make_pieces(job: Job, stamp: str = "") -> SpeakerPieces:
    """Write a speaker's pieces, all or none. Pieces that an earlier run made from the same recordings stay.

    stamp: a text that changes with the recordings, if the name of their folder does not.
    """
    folder = Path(job.folder)
    made = folder / "made.json"
    inputs = job._replace(folder="", root=Path(job.root).name)  # egs/mini: that name holds the package's checksum
    key = hashlib.sha256(f"{VERSION} {inputs}{stamp}".encode()).hexdigest()
    if made.is_file():
        saved = json.loads(made.read_text(encoding="utf-8"))
        if saved.pop("key") == key and all((folder / f"{utt}.flac").is_file() for utt in saved["durations"]):
            return SpeakerPieces(**saved)
    groups, speech, result = join(job)
    chosen = sorted(random.Random(f"{job.seed} {job.speaker}").sample(range(len(groups)), min(job.most, len(groups))))
    for number in set(range(len(groups))) - set(chosen):
        result.lost.update(dict.fromkeys(groups[number], f"over: is in none of the {job.most} pieces drawn"))
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for number, group in enumerate((groups[each] for each in chosen), 1):
        utt = f"{job.speaker}-{number:04d}"
        wave = np.concatenate([speech[name] for name in group])
        # Speakers differ by 50 dB, and the faintest would have few of the 16 bits. So a piece gets -26 dB, less if it clips.
        wave *= min(10 ** (-26 / 20) / np.sqrt(np.mean(wave**2)), 0.99 / np.abs(wave).max())
        soundfile.write(temporary / f"{utt}.flac", np.round(wave * 32767).astype(np.int16), RATE)
        result.durations[utt] = len(wave) / RATE
    (temporary / made.name).write_text(json.dumps({"key": key, **result._asdict()}, indent=1), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)
    return result
