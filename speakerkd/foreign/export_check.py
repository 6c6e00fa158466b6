"""Checks of an export before anything is written: does the graph compute what the net does, and is the mean its own?"""

import logging
from pathlib import Path

import numpy as np
import torch

from speakerkd.feats.frontend import Reading
from speakerkd.files.backend import read_vector
from speakerkd.foreign import onnx_export
from speakerkd.models import SpeakerNet
from speakerkd.models.extract import embed
from speakerkd.verify.onnxsession import open_session

GATE = 0.99999
GATE_PIECES = 200


def gate(
    net: SpeakerNet, fp32: Path, feats: list[np.ndarray], subtract: bool, seed: int, mean: np.ndarray | None
) -> None:
    """An export whose embeddings are not PyTorch's is an error."""
    shortest, longest = onnx_export.MIN_FRAMES, 2000
    lengths = np.random.default_rng(seed).integers(shortest, longest, GATE_PIECES // 2).tolist()
    lengths[:2] = [shortest, longest]
    session = open_session(fp32, 1)
    for size, each in ((1, lengths), (8, lengths[: GATE_PIECES // 16])):
        least = onnx_export.least_cosine(net, session, onnx_export.pieces(feats, each, size), subtract, mean)
        logging.info("PyTorch and ONNX: least cosine %.7f, %d pieces by %d", least, size * len(each), size)
        if not least >= GATE:
            raise ValueError(f"the ONNX model's embeddings are not PyTorch's (cosine {least:.6f}); nothing is written")


def mean_embedding(file: str, net: SpeakerNet, feats: list[np.ndarray], reading: Reading) -> np.ndarray:
    """Reads mean.vec. If it belongs to another model, the training utterances `feats` show it, and this is an error."""
    mean = read_vector(file).astype(np.float32)
    if len(mean) != net.dim:
        raise ValueError(f"--mean={file} has {len(mean)} dimensions, the model's embeddings have {net.dim}")
    found = np.mean([embed(net, np.asarray(each, np.float32), torch.device("cpu"), 0, reading) for each in feats], 0)
    # Another model's mean adds an offset instead of removing one. 1.2 allows for these utterances being a sample.
    before, after = float(np.linalg.norm(found)), float(np.linalg.norm(found - mean))
    if after > 1.2 * before:
        raise ValueError(
            f"--mean={file} is not this model's mean: the mean of {len(feats)} training embeddings has a norm of "
            f"{before:.3g}, and of {after:.3g} without it; run stage 5 again, or give the mean.vec of this system"
        )
    return mean
