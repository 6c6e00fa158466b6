"""A net of ours in ONNX Runtime: exported at the start of a job, compared with PyTorch, then pieces (T, F) -> vectors.

On a CPU in float32 ONNX Runtime is faster than PyTorch for most nets (tools/README.md has the figures), also with one
utterance at a time, so the pieces of a batch need not be padded. The vectors are the same up to rounding.
"""

import copy
import importlib.util
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from speakerkd.foreign.onnx_export import MIN_FRAMES, check_exportable, cosines, need_packages, write_onnx
from speakerkd.foreign.onnxencoder import OnnxEncoder
from speakerkd.models.base import SpeakerNet
from speakerkd.models.extract import Encode, NetEncoder
from speakerkd.models.folding import fold_into_next

ENGINES = ("auto", "torch", "onnx")
WORTH = 500  # utterances of a job from which on `auto` takes ONNX Runtime: the export takes up to 5 seconds
GATE = 0.99999  # lowest allowed cosine between a vector of ONNX Runtime and of PyTorch
TRIED = 4  # utterances on which the two are compared
CPU = torch.device("cpu")


class OnnxNetEncoder:
    mixes = False
    frames = 800  # of a batch: larger maps leave the cache

    def __init__(self, net: SpeakerNet, plain: Encode, threads: int = 1) -> None:
        """plain: the same net in PyTorch, for pieces that are too short for the graph."""
        self._plain = plain
        folded = copy.deepcopy(net).cpu().float().eval()
        assert isinstance(folded.encoder, torch.nn.Module)
        fold_into_next(folded.encoder)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.onnx"
            write_onnx(folded, path, False, {})
            self._graph = OnnxEncoder(path, net.feat_dim, threads=threads)

    def __call__(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        return self._plain(pieces) if len(pieces[0]) < MIN_FRAMES else self._graph(pieces)


def choose_engine(engine: str, net: SpeakerNet, where: str, on_cpu: bool, amp: str, utterances: int) -> str:
    """torch or onnx. `auto` takes ONNX Runtime if it can be used and the job is long enough; `onnx` else is an error."""
    if engine not in ENGINES:
        raise ValueError(f"--engine={engine} is not one of: {' '.join(ENGINES)}")
    if engine == "torch":
        return engine
    if engine == "auto":
        has = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
        if not has or not on_cpu or amp != "none" or utterances < WORTH:
            return "torch"
        try:
            check_exportable(net, where)
        except ValueError:
            return "torch"
        return "onnx"
    if not on_cpu:
        raise ValueError("--engine=onnx computes on the CPU; on a GPU take --engine=torch")
    if amp != "none":
        raise ValueError(f"--engine=onnx computes in float32; with --amp={amp} take --engine=torch")
    need_packages("--engine=onnx")
    check_exportable(net, where)
    return engine


def onnx_or_torch(
    net: SpeakerNet, required: bool, samples: Callable[[], Sequence[np.ndarray]], threads: int = 1
) -> Encode:
    """ONNX Runtime if its vectors are those of PyTorch. Otherwise it is an error if `required`, or PyTorch is used.

    samples: some utterances as the net takes them, (T, F) each.
    """
    plain = NetEncoder(net, CPU)
    try:
        encode = OnnxNetEncoder(net, plain, threads)
        least = least_cosine(plain, encode, samples(), net.feat_dim)
        if not least >= GATE:
            raise ValueError(f"a vector of ONNX Runtime has a cosine of {least:.6f} to that of PyTorch")
    except Exception as error:  # the exporter's and onnxruntime's errors have no common class
        reason = str(error).partition("\n")[0]
        if required:
            raise ValueError(f"--engine=onnx can't be used for this model: {reason}; take --engine=torch") from error
        logging.warning("engine: PyTorch, because ONNX Runtime can't be used for this model: %s", reason)
        return plain
    logging.info("engine: ONNX Runtime in float32; its vectors' cosine to PyTorch's is %.7f or more", least)
    return encode


def least_cosine(plain: Encode, encode: Encode, samples: Sequence[np.ndarray], dim: int) -> float:
    """The smallest cosine between vectors of the two, of a batch and of utterances alone."""
    given = [each for each in samples if len(each) >= MIN_FRAMES][:TRIED]
    if not given:  # such as a job whose utterances are all short
        given = list(np.random.default_rng(0).standard_normal((TRIED, 2 * MIN_FRAMES, dim), np.float32))
    shortest = min(map(len, given))
    least = 1.0
    for batch in ([each[:shortest] for each in given], *([each] for each in given)):
        least = min(least, float(cosines(plain(batch), encode(batch)).min()))
    return least
