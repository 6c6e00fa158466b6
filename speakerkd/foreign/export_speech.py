"""The speech that an export is measured on. A recording that can't be read is left out, with a warning."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch

from speakerkd.audio.recordings import AudioError
from speakerkd.feats.frontend import FrontEnd, Reading
from speakerkd.feats.source import feature_source, utterance_list_of
from speakerkd.foreign.onnx_export import MIN_FRAMES
from speakerkd.models import SpeakerNet
from speakerkd.models.extract import embed


def features(source: Callable[[str], np.ndarray], name: str) -> np.ndarray | None:
    try:
        return np.ascontiguousarray(source(name), np.float32)
    except AudioError as error:
        logging.warning("%s is left out: %s", name, error)
        return None


def some_features(folder: str, front_end: FrontEnd, model: str, seed: int, count: int = 60) -> list[np.ndarray]:
    """Raw features of some utterances."""
    source, remark = feature_source(front_end, folder, utterance_list_of(folder), model)
    if remark:
        logging.info("%s", remark)
    names = list(source)
    chosen = np.random.default_rng(seed).permutation(len(names))[:count]
    read = (features(source, names[index]) for index in sorted(chosen.tolist()))
    found = [each for each in read if each is not None]
    if not found:
        raise ValueError(f"{folder}: none of {len(chosen)} utterances can be read, for example {names[chosen[0]]}")
    return found


def embeddings_of(
    net: SpeakerNet,
    reading: Reading,
    sessions: Mapping[str, Any],
    source: Callable[[str], np.ndarray],
    names: Iterable[str],
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Who could be read, and their embeddings (N, D) by PyTorch and by each graph."""
    heard: list[str] = []
    vectors: dict[str, list[np.ndarray]] = {system: [] for system in ("PyTorch", *sessions)}
    for name in names:
        feats = features(source, name)
        if feats is None:
            continue
        heard.append(name)
        vectors["PyTorch"].append(embed(net, feats, torch.device("cpu"), 0, reading))
        if len(feats) < MIN_FRAMES:
            feats = np.tile(feats, (-(-MIN_FRAMES // len(feats)), 1))[:MIN_FRAMES]
        for system, session in sessions.items():
            vectors[system].append(session.run(["embs"], {"feats": feats[None]})[0][0])
    return heard, {system: np.array(rows) for system, rows in vectors.items()}
