"""An ONNX file in int8, by ONNX Runtime's static quantisation. Layers that lose accuracy compute in fp32."""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speakerkd.foreign.onnx_export import Feats, cosines, need_packages
from speakerkd.verify.onnxsession import open_session

ALIKE = 0.99  # if the mean cosine of int8 to fp32 embeddings is lower, some layers compute in fp32
KINDS = ("Conv", "Gemm", "MatMul")  # the operators that are quantised


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
        logging.getLogger().setLevel(logging.ERROR)  # its hints about pre-processing don't concern our users
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
