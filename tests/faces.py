"""Made-up pictures and face networks, for local/extract_faces.py."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

LACKING = [name for name in ("onnx", "onnxruntime", "PIL") if find_spec(name) is None]
SIZE = 4


def save_model(path: Path, shape: list[Any], size: int = SIZE, pool: int = 1) -> None:
    """A network whose vector is its input, flattened, of which squares of `pool` pixels are averaged first; `shape` is what
    it says that it takes."""
    from onnx import TensorProto, helper, save

    side = size // pool
    nodes = [
        helper.make_node("AveragePool", ["image"], ["small"], kernel_shape=[pool, pool], strides=[pool, pool]),
        helper.make_node("Flatten", ["small" if pool > 1 else "image"], ["vector"]),
    ]
    graph = helper.make_graph(
        nodes if pool > 1 else nodes[1:],
        "pixels",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [shape[0], 3 * side * side])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))


def save_rows(path: Path, count: int) -> None:
    """A network that makes rows of `count` numbers of whatever it gets, or fails."""
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        [helper.make_node("Reshape", ["image", "shape"], ["vector"])],
        "rows",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", count])],
        [helper.make_tensor("shape", TensorProto.INT64, [2], [-1, count])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))


def picture(seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, (size, size, 3), dtype=np.uint8)


def save_picture(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
