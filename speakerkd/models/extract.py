"""Utterances -> vectors, several at a time; and an archive with the vectors of many utterances."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from speakerkd.audio.recordings import AudioError
from speakerkd.feats.frontend import Reading
from speakerkd.feats.source import FeatureSource
from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.tables import write_table
from speakerkd.models.base import SpeakerNet
from speakerkd.models.frozen import SHORTEST, Frozen
from speakerkd.progress import Progress

WAITING = 50_000  # frames that are read before they are sorted by length: 16 MB of 80 features
BATCH = {"cpu": 1600, "cuda": 20_000}  # frames of a batch: on a CPU, larger maps leave its cache; on a GPU not measured
ALIKE = 0.8  # shortest piece of a batch, relative to the longest
Forward = Callable[[np.ndarray], np.ndarray]  # (B, T, F) -> (B, D)


class Encode(Protocol):
    """Something that makes vectors of pieces (T, F)."""

    mixes: bool  # whether the pieces of a batch may differ in length
    frames: int  # of a batch

    def __call__(self, pieces: Sequence[np.ndarray]) -> np.ndarray: ...  # (B, D)


class NetEncoder:
    def __init__(self, net: SpeakerNet, device: torch.device, half: torch.dtype | None = None) -> None:
        self._net, self._device = Frozen(net, device, half, stages=False), device
        self.mixes, self.frames = self._net.mixes, BATCH.get(device.type, BATCH["cpu"])

    @torch.inference_mode()
    def __call__(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        lengths = [len(piece) for piece in pieces]
        feats = np.zeros((len(pieces), max(lengths), pieces[0].shape[1]), np.float32)
        for row, piece in zip(feats, pieces, strict=True):
            row[: len(piece)] = piece
        return self._net(torch.from_numpy(feats).to(self._device), lengths).embedding.float().cpu().numpy()


@dataclass(frozen=True)
class Cut:
    """How an utterance is read: whole, or in pieces."""

    max_frames: int = 0  # longer ones are read in equal chunks, whose vectors are averaged; 0: never
    chunk_frames: int = 0  # >0: a vector, with its own name, for each chunk of so many frames; 0: one per utterance
    reading: Reading = Reading()  # noqa: RUF009 (frozen)


@torch.inference_mode()
def embed(
    net: SpeakerNet, features: np.ndarray, device: torch.device, max_frames: int = 0, reading: Reading | None = None
) -> np.ndarray:
    """(T, F) raw features -> (D,), with the net unchanged and piece by piece. Faster ways must give the same."""

    def forward(batch: np.ndarray) -> np.ndarray:
        return net(torch.from_numpy(batch).to(device)).embedding.float().cpu().numpy()

    return vector_of(features, forward, max_frames, reading or Reading())


def vector_of(features: np.ndarray, forward: Forward, max_frames: int, reading: Reading) -> np.ndarray:
    pieces = pieces_of(features, max_frames, reading)
    return merged(np.concatenate([forward(piece[None]) for piece in pieces]), reading)


def pieces_of(features: np.ndarray, max_frames: int, reading: Reading) -> list[np.ndarray]:
    """The pieces of an utterance's raw features (T, F) that the net takes."""
    if reading.mean == "utterance":
        features = features - features.mean(0)
    if reading.window_frames:
        return list(windows(features, reading.window_frames, reading.window_shift or reading.window_frames))
    longest = max_frames * reading.rows_per_frame
    return np.array_split(features, -(-len(features) // longest) if longest else 1)


def merged(vectors: np.ndarray, reading: Reading) -> np.ndarray:
    """The vector of an utterance: the mean of its pieces' vectors. The mean of windows is scaled to length 1."""
    mean: np.ndarray = vectors.mean(0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12) if reading.window_frames else mean


def windows(features: np.ndarray, frames: int, shift: int) -> np.ndarray:
    """(T, F) -> (B, frames, F). The last window ends with the utterance. An utterance too short for a window is repeated."""
    if len(features) < frames:
        features = np.tile(features, (-(-frames // len(features)), 1))[:frames]
    starts = list(range(0, len(features) - frames + 1, shift))
    if starts[-1] + frames < len(features):
        starts.append(len(features) - frames)
    return np.stack([features[start : start + frames] for start in starts])


def chunks(utterance: str, features: np.ndarray, frames: int) -> Iterator[tuple[str, np.ndarray]]:
    """Pieces of `frames` frames, named like Kaldi's uniform subsegments. The rest after the last piece is left out.

    An utterance that is too short is one piece. The names have the frames that a piece should have. So they are the same
    for models whose front ends differ by a frame or two.
    """
    for start in range(0, max(len(features) // frames, 1) * frames, frames):
        yield f"{utterance}-{start:08d}-{start + frames:08d}", features[start : start + frames]


def vectors_of(encode: Encode, utterances: Sequence[np.ndarray], cut: Cut) -> list[np.ndarray]:
    """(T, F) raw features each -> (D,) each."""
    split = [pieces_of(features, cut.max_frames, cut.reading) for features in utterances]
    pieces = [piece for each in split for piece in each]
    rows: dict[int, np.ndarray] = {}
    for batch in batches([len(piece) for piece in pieces], encode):
        rows |= zip(batch, encode([pieces[index] for index in batch]), strict=True)
    ends = np.cumsum([len(each) for each in split])
    return [
        merged(np.stack([rows[index] for index in range(end - len(each), end)]), cut.reading)
        for end, each in zip(ends.tolist(), split, strict=True)
    ]


def batches(lengths: Sequence[int], encode: Encode) -> Iterator[list[int]]:
    """Indices of pieces of similar length; or of equal length if the encoder needs that."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if batch:
            shortest, longest = lengths[batch[0]], lengths[index]
            alike = encode.mixes and shortest >= max(SHORTEST, ALIKE * longest)
            if not (alike or shortest == longest) or (len(batch) + 1) * longest > encode.frames:
                yield batch
                batch = []
        batch.append(index)
    if batch:
        yield batch


def write_vectors(
    prefix: str | Path,
    source: FeatureSource,
    encode: Encode,
    cut: Cut,
    lost_utts: str | Path,
    max_lost: float = 100.0,
    check: Callable[[np.ndarray, str], None] = lambda features, utterance: None,
) -> str:
    """<prefix>.ark and .scp with the vector of each utterance or chunk; logs what was done.

    lost_utts: a table (utterance, reason) of the utterances without a vector. More than max_lost percent of them is an
    error. `check` raises a ValueError for features that the encoder can't take.
    """
    lost: dict[str, str] = {}
    utterances = list(source)
    progress, pieces = Progress(len(utterances)), 0
    waiting: list[tuple[str, np.ndarray]] = []
    frames, room = 0, max(WAITING, 4 * encode.frames)

    def flush() -> None:
        nonlocal pieces, frames
        named = [list(chunks(*each, cut.chunk_frames)) if cut.chunk_frames else [each] for each in waiting]
        vectors = iter(vectors_of(encode, [part for each in named for _, part in each], cut))
        for (utterance, features), parts in zip(waiting, named, strict=True):
            found = [(key, next(vectors)) for key, _ in parts]
            if all(np.isfinite(each).all() for _, each in found):
                for key, each in found:
                    write(key, np.asarray(each, np.float32))
                pieces += len(found)
            else:
                lost[utterance] = "the model gives a vector that is not finite"
            progress.add(len(features) / 100)
        waiting.clear()
        frames = 0

    with ArkWriter(prefix) as write:
        for utterance in utterances:
            try:
                features = source(utterance)
            except AudioError as error:
                lost[utterance] = str(error)
                progress.add(0.0)
                continue
            check(features, utterance)
            waiting.append((utterance, features))
            frames += len(features)
            if frames >= room:
                flush()
        flush()
        write_table(lost_utts, lost)
        if len(lost) * 100 > max_lost * len(utterances):
            utterance, reason = next(iter(lost.items()))
            raise ValueError(
                f"{len(lost)} of {len(utterances)} utterances have no vector, more than {max_lost:g} %: see {lost_utts}, "
                f"for example: {utterance} {reason}"
            )
    source.log_warnings()
    count = len(utterances) - len(lost)
    out = f"{pieces} chunks of {count}" if cut.chunk_frames else f"{count}"
    return f"{len(utterances)} in, {out} out, {len(lost)} lost, {progress.speed()}"
