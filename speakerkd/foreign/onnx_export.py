"""A net as ONNX, in fp32 by PyTorch's exporter. onnx_int8.py quantises the file.

The graph takes raw features `feats` (B, T, F) and gives embeddings `embs` (B, D). It subtracts the utterance's mean itself
if the net was trained so. Features whose mean has been subtracted already give the same embeddings. It can also subtract
the mean embedding of the training speakers, as score.py --mean does, so that apps needn't know of it.

The packages onnx and onnxruntime are optional (the extra `export`).
"""

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speakerkd.models.base import SpeakerNet
from speakerkd.models.dvector import DVector
from speakerkd.models.wavlm import WavLM

OPSET = 17
MIN_FRAMES = 48  # half a second; shorter input must be repeated before the graph gets it
Feats = Sequence[np.ndarray]  # each (T, F)


class FromRawFeatures(nn.Module):
    """What the graph computes. mean: a mean embedding (D,) to subtract, or None."""

    mean: Tensor | None

    def __init__(self, net: SpeakerNet, subtract_mean: bool, mean: np.ndarray | None = None) -> None:
        super().__init__()
        self.encoder, self.subtract_mean = net.encoder, subtract_mean
        self.register_buffer("mean", None if mean is None else torch.from_numpy(np.asarray(mean, np.float32)))

    def forward(self, feats: Tensor) -> Tensor:
        if self.subtract_mean:
            feats = feats - feats.mean(1, keepdim=True)
        embedding = self.encoder(feats).embedding
        return embedding if self.mean is None else embedding - self.mean


def need_packages(what: str = "the export") -> Any:
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"onnx and onnxruntime are needed for {what} ({error}); tools/setup.sh --extras export installs them into "
            "tools/venv, pip install onnx onnxruntime into an environment of your own"
        ) from error
    return onnx


def check_exportable(net: SpeakerNet, where: str) -> None:
    if isinstance(net.encoder, DVector):
        raise ValueError(
            f"{where}: the d-vector's LSTM reads windows of 160 frames, whose vectors are averaged outside the network; "
            "one ONNX graph can't do that. Distil it into another model and export that one"
        )
    if isinstance(net.encoder, WavLM):
        raise ValueError(
            f"{where}: WavLM normalises whole waves and is too large for an app; it is not exported. Distil it into a model "
            "that takes Kaldi's fbank and export that one"
        )


def write_onnx(
    net: SpeakerNet, path: Path, subtract_mean: bool, metadata: Mapping[str, str], mean: np.ndarray | None = None
) -> None:
    """Writes the net in fp32. The graph takes any number of utterances, of any length from MIN_FRAMES on."""
    onnx = need_packages()
    graph = FromRawFeatures(copy.deepcopy(net).cpu().float(), subtract_mean, mean).eval()
    example = torch.randn(2, 200, net.feat_dim, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of the tracing; the result is compared with the net
        torch.onnx.export(
            graph, (example,), str(path), dynamo=False, opset_version=OPSET, input_names=["feats"], output_names=["embs"],
            dynamic_axes={"feats": {0: "B", 1: "T"}, "embs": {0: "B"}},
        )  # fmt: skip
    model = onnx.load(str(path))
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, str(path))


@torch.inference_mode()
def least_cosine(
    net: SpeakerNet,
    session: Any,
    batches: Iterator[np.ndarray],
    subtract_mean: bool,
    mean: np.ndarray | None = None,
) -> float:
    """The smallest cosine between an embedding of the graph and that of the net. batches: each (B, T, F)."""
    graph = FromRawFeatures(net, subtract_mean, mean).eval()
    least = 1.0
    for batch in batches:
        wanted = graph(torch.from_numpy(batch)).double().numpy()
        found = session.run(["embs"], {"feats": batch})[0].astype(np.float64)
        least = min(least, float(cosines(wanted, found).min()))
    return least


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(1) / np.maximum(lengths, 1e-12)


def pieces(feats: Feats, lengths: Sequence[int], batch: int) -> Iterator[np.ndarray]:
    """Batches of (batch, T, F) for each length, cut from the joined rows of the utterances, one after the other."""
    joined = np.concatenate(list(feats))
    joined = np.tile(joined, (-(-2 * max(lengths) // len(joined)), 1))
    place = 0
    for length in lengths:
        rows = []
        for _ in range(batch):
            place = place if place + length <= len(joined) else 0
            rows.append(joined[place : place + length])
            place += length
        yield np.ascontiguousarray(np.stack(rows), np.float32)
