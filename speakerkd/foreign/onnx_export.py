"""A net as ONNX: fp32 by PyTorch's exporter, int8 by ONNX Runtime's static quantisation.

The graph takes raw features `feats` (B, T, F) and gives embeddings `embs` (B, D). It subtracts the utterance's mean itself
if the net was trained so. Features whose mean has been subtracted already give the same embeddings. It can also subtract
the mean embedding of the training speakers, as score.py --mean does, so that apps needn't know of it.

The packages onnx and onnxruntime are optional (the extra `export`).
"""

import copy
import logging
import tempfile
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
from speakerkd.verify.onnxsession import open_session

OPSET = 17
MIN_FRAMES = 48  # half a second; shorter input must be repeated before the graph gets it
ALIKE = 0.99  # if the mean cosine of int8 to fp32 embeddings is lower, some layers stay in fp32
KINDS = ("Conv", "Gemm", "MatMul")  # the operators that are quantised
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


def need_packages() -> Any:
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"onnx and onnxruntime are needed for the export ({error}); tools/setup.sh --extras export installs them into "
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


def write_int8(fp32: Path, path: Path, crops: Feats, check: Feats) -> tuple[float, list[str]]:
    """Static quantisation, per channel, calibrated on crops. Returns the mean cosine to fp32 on `check`, and the layers
    that compute in fp32 because int8 costs accuracy there. The weights of these are stored in int8 as well."""
    need_packages()
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._crops = iter(crops)

        def get_next(self) -> dict[str, np.ndarray] | None:
            crop = next(self._crops, None)
            return None if crop is None else {"feats": np.ascontiguousarray(crop[None], np.float32)}

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        logging.getLogger().setLevel(
            logging.ERROR
        )  # hides its hints about pre-processing, which don't concern our users
        try:
            quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)

            def quantise(out: Path, left_out: Sequence[str]) -> None:
                quantize_static(
                    str(prepared), str(out), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, nodes_to_exclude=list(left_out),
                    op_types_to_quantize=list(KINDS), extra_options={"ActivationSymmetric": False},
                )  # fmt: skip
                store_weights_as_int8(out, left_out)

            found = _search(prepared, path, quantise, check)
            shorten_names(path)
            return found
        finally:
            logging.getLogger().setLevel(logging.INFO)


def _search(prepared: Path, path: Path, quantise: Any, check: Feats) -> tuple[float, list[str]]:
    """Leaves out the layer that helps most, again and again, until the embeddings are similar enough."""
    layers = layers_of(prepared)
    wanted = embeddings_of(prepared, check)

    def likeness(left_out: list[str]) -> float:
        quantise(path, left_out)
        return float(cosines(wanted, embeddings_of(path, check)).mean())

    left_out: list[str] = []
    reached = likeness(left_out)
    while reached < ALIKE and len(left_out) < len(layers) // 2:
        # Usually the first and the last layers cost most accuracy. Trying all layers would take long in a deep net.
        rest = [each for each in layers if each not in left_out]
        tried = rest if len(rest) <= 12 else [*rest[:3], *rest[-3:]]
        gains = {each: likeness([*left_out, each]) for each in tried}
        best = max(gains, key=lambda each: gains[each])
        left_out.append(best)
        reached = likeness(left_out)
    return reached, left_out


def store_weights_as_int8(path: Path, layers: Sequence[str]) -> None:
    """Store the weights of these layers in int8, with a scale per output channel. They still compute in fp32.

    Quantising a layer's inputs costs accuracy where their range is wide. Quantising its weights costs little.
    """
    onnx = need_packages()
    model = onnx.load(str(path))
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    dequantise = []
    for node in graph.node:
        if node.name not in layers or node.input[1] not in weights:
            continue
        tensor = weights[node.input[1]]
        values = onnx.numpy_helper.to_array(tensor)
        transposed = any(each.name == "transB" and each.i for each in node.attribute)
        axis = 0 if node.op_type == "Conv" or transposed else values.ndim - 1
        others = tuple(each for each in range(values.ndim) if each != axis)
        scale = np.maximum(np.abs(values).max(axis=others, keepdims=True) / 127, 1e-30)
        name = tensor.name
        graph.initializer.remove(tensor)
        graph.initializer.extend(
            [
                onnx.numpy_helper.from_array(np.round(values / scale).astype(np.int8), f"{name}_int8"),
                onnx.numpy_helper.from_array(scale.reshape(-1).astype(np.float32), f"{name}_scale"),
            ]
        )
        dequantise.append(
            onnx.helper.make_node(
                "DequantizeLinear", [f"{name}_int8", f"{name}_scale"], [name], f"{name}_dq", axis=axis
            )
        )
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*dequantise, *rest])
    onnx.save(model, str(path))


def shorten_names(path: Path) -> None:
    """Numbers the nodes and inner tensors. Their long names from quantisation are a sixth of a small model's file."""
    onnx = need_packages()
    model = onnx.load(str(path))
    graph = model.graph
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        return  # a graph inside the graph may use the outer names
    kept = {each.name for each in (*graph.input, *graph.output)}
    names: dict[str, str] = {}

    def short(name: str) -> str:
        return name if not name or name in kept else names.setdefault(name, f"t{len(names)}")

    for tensor in graph.initializer:
        tensor.name = short(tensor.name)
        tensor.ClearField("doc_string")
    for place, node in enumerate(graph.node):
        node.name = f"n{place}"
        node.input[:] = map(short, node.input)
        node.output[:] = map(short, node.output)
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    graph.ClearField("value_info")
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def layers_of(path: Path) -> list[str]:
    """Names of the nodes that can be quantised, in the order of the graph."""
    onnx = need_packages()
    model = onnx.load(str(path))
    constants = {each.name for each in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in KINDS and any(each in constants for each in node.input)
    ]


def embeddings_of(path: Path, feats: Feats) -> np.ndarray:
    session = open_session(path, 1)
    return np.concatenate([session.run(["embs"], {"feats": np.ascontiguousarray(each[None])})[0] for each in feats])
