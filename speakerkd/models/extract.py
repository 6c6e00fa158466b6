"""One utterance -> one vector, and the vectors of many into an archive."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from speakerkd.audio.recordings import AudioError
from speakerkd.feats.frontend import Reading
from speakerkd.feats.source import Source
from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.tables import write_table
from speakerkd.models.base import SpeakerNet

WINDOWS = 64  # of an utterance, in one batch
Forward = Callable[[np.ndarray], np.ndarray]  # (B, T, F) -> (B, D)


@torch.inference_mode()
def embed(
    net: SpeakerNet, features: np.ndarray, device: torch.device, max_frames: int = 0, reading: Reading | None = None
) -> np.ndarray:
    """(T, F) raw features -> (D,), read as the net was trained (None: whole, minus the mean)."""

    def forward(batch: np.ndarray) -> np.ndarray:
        return net(torch.from_numpy(batch).to(device)).embedding.float().cpu().numpy()

    return vector_of(features, forward, max_frames, reading or Reading())


def vector_of(features: np.ndarray, forward: Forward, max_frames: int, reading: Reading) -> np.ndarray:
    """(T, F) -> (D,). Past max_frames: the mean of the vectors of equal chunks, weighted alike."""
    if reading.mean == "utterance":
        features = features - features.mean(0)
    if reading.window_frames:
        cut = windows(features, reading.window_frames, reading.window_shift or reading.window_frames)
        mean = np.concatenate([forward(cut[i : i + WINDOWS]) for i in range(0, len(cut), WINDOWS)]).mean(0)
        return mean / max(float(np.linalg.norm(mean)), 1e-12)
    count = -(-len(features) // max_frames) if max_frames else 1
    return np.stack([forward(chunk[None])[0] for chunk in np.array_split(features, count)]).mean(0)


def windows(features: np.ndarray, frames: int, shift: int) -> np.ndarray:
    """(T, F) -> (B, frames, F): the last one ends with the utterance; one too short for a window is repeated."""
    if len(features) < frames:
        features = np.tile(features, (-(-frames // len(features)), 1))[:frames]
    starts = list(range(0, len(features) - frames + 1, shift))
    if starts[-1] + frames < len(features):
        starts.append(len(features) - frames)
    return np.stack([features[start : start + frames] for start in starts])


def chunks(utterance: str, features: np.ndarray, frames: int) -> Iterator[tuple[str, np.ndarray]]:
    """Pieces of `frames` each, named as Kaldi's uniform subsegments are; the rest after the last is left out.

    An utterance that is too short is a piece itself. The names tell the frames that a piece should have, so that they are
    the same for models whose front ends differ by a frame or two.
    """
    for start in range(0, max(len(features) // frames, 1) * frames, frames):
        yield f"{utterance}-{start:08d}-{start + frames:08d}", features[start : start + frames]


def write_vectors(
    prefix: str | Path,
    source: Source,
    vector: Callable[[np.ndarray, str], np.ndarray],
    lost_utts: str | Path,
    max_lost: float = 100.0,
    chunk_frames: int = 0,
) -> str:
    """<prefix>.ark and .scp of vector(features, utterance), or of each chunk's; says what was done.

    lost_utts: a table (utterance, reason) of those without one. More than max_lost percent of them is an error.
    """
    lost: dict[str, str] = {}
    began, frames, count, pieces = time.monotonic(), 0, 0, 0
    with ArkWriter(prefix) as write:
        for utterance in source:
            try:
                features = source(utterance)
            except AudioError as error:
                lost[utterance] = str(error)
                continue
            parts = chunks(utterance, features, chunk_frames) if chunk_frames else [(utterance, features)]
            found = [(key, vector(part, utterance)) for key, part in parts]
            if not all(np.isfinite(each).all() for _, each in found):
                lost[utterance] = "the model gives it a vector that is not finite"
                continue
            for key, each in found:
                write(key, np.asarray(each, np.float32))
            frames += len(features)
            count += 1
            pieces += len(found)
        write_table(lost_utts, lost)
        if len(lost) * 100 > max_lost * (count + len(lost)):
            utterance, reason = next(iter(lost.items()))
            raise ValueError(
                f"{len(lost)} of {count + len(lost)} utterances have no vector, more than {max_lost:g} %: see {lost_utts}, "
                f"for example: {utterance} {reason}"
            )
    source.say()
    speed = frames / 100 / max(time.monotonic() - began, 1e-9)
    out = f"{pieces} chunks of {count}" if chunk_frames else f"{count}"
    return f"{count + len(lost)} in, {out} out, {len(lost)} lost, {speed:.0f} times real time"
