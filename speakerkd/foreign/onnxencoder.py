"""A speaker encoder in ONNX: pieces (T, F) -> vectors (B, D), for any order, rank and number type of its input."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speakerkd.verify.onnxsession import open_session

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
LENGTHS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}  # types of an input for the number of frames


class OnnxEncoder:
    mixes = False  # one batch has pieces of one length
    frames = 1600  # of a batch

    def __init__(self, path: str | Path, dim: int, output: str = "", threads: int = 1) -> None:
        """dim: features per frame; output: the name of the output that is the vector, if there are several."""
        self.path = path
        self._session = open_session(path, threads)
        inputs = self._session.get_inputs()
        feats = [each for each in inputs if each.type in TYPES]
        others = [each for each in inputs if each.type not in TYPES]
        if len(feats) != 1 or any(each.type not in LENGTHS for each in others):
            raise ValueError(
                f"{path}: takes {described(inputs)}; it may have only one input of features, and one for their number"
            )
        self._input, self._lengths = feats[0], others
        self._find_axes(list(self._input.shape), dim)
        self._output = self._choose(output)

    def _find_axes(self, shape: list[int | str | None], dim: int) -> None:
        """Finds the axis of time. A size that the model does not fix is a name or None."""
        what = f"{self.path}: takes {described([self._input])}"
        sizes = [size if isinstance(size, int) and size > 0 else None for size in shape]
        if len(sizes) == 4 and sizes[1] in (1, None):
            sizes.pop(1)  # the one channel of a picture
        if len(sizes) == 2 and dim in sizes:  # if neither is the number of features, the model may take waves
            sizes.insert(0, 1)
        if len(sizes) != 3 or sizes[0] not in (1, None):
            raise ValueError(
                f"{what}, not features (batch of 1 or any number, frames, {dim}); is it an encoder over fbank?"
            )
        self.batch, self.transposed = sizes[0], sizes[2] != dim and sizes[1] == dim
        self.fixed, features = (sizes[2], sizes[1]) if self.transposed else (sizes[1], sizes[2])
        if features not in (dim, None):
            raise ValueError(
                f"{what}, the front end makes {dim} features per frame; --front-end must be the model's own"
            )

    def _choose(self, output: str) -> str:
        outputs = self._session.get_outputs()
        names = [each.name for each in outputs]
        if (output and output not in names) or (not output and len(names) > 1):
            raise ValueError(f"{self.path}: --output='{output}' is not one of its outputs: {described(outputs)}")
        return output or names[0]

    def check_frames(self, window_frames: int) -> None:
        """A model with a fixed number of frames can take only windows."""
        if self.fixed is not None and self.fixed != window_frames:
            raise ValueError(
                f"{self.path}: takes exactly {self.fixed} frames ({described([self._input])}), the front end gives "
                f"{f'windows of {window_frames}' if window_frames else 'whole utterances'}; put a line --window-frames="
                f"{self.fixed} into its conf (and a --window-shift), or export the model with a dynamic time axis"
            )

    def __call__(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        """(T, F) each -> (B, D); as many at a time as the model takes."""
        feats = np.stack(pieces)
        parts = [feats] if self.batch is None else [feats[i : i + 1] for i in range(len(feats))]
        return np.concatenate([self._run(part) for part in parts])

    def _run(self, feats: np.ndarray) -> np.ndarray:
        given = feats.swapaxes(1, 2) if self.transposed else feats
        rank = len(self._input.shape)
        given = given[0] if rank == 2 else given[:, None] if rank == 4 else given
        fed = {self._input.name: np.ascontiguousarray(given, TYPES[self._input.type])}
        fed |= {each.name: np.full(len(feats), feats.shape[1], LENGTHS[each.type]) for each in self._lengths}
        try:
            (found,) = self._session.run([self._output], fed)
        except Exception as error:  # onnxruntime's errors have no common class that it exports
            reason = str(error).splitlines()[0]
            raise ValueError(f"{self.path}: fails on features of shape {given.shape}: {reason}") from error
        vectors = np.asarray(found, np.float32)
        if vectors.size // len(feats) != max(vectors.shape[1:] or vectors.shape, default=0):
            raise ValueError(
                f"{self.path}: its output '{self._output}' is of shape {vectors.shape}, not a vector an utterance; "
                "--output chooses another"
            )
        return vectors.reshape(len(feats), -1)


def described(values: Any) -> str:
    """The values as text: 'feats tensor(float) (batch, 200, 80), ...'."""
    return ", ".join(f"{v.name} {v.type} ({', '.join(str(size) for size in v.shape)})" for v in values)
