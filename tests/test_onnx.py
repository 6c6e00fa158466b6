"""Vectors by an encoder in ONNX: those of torch for the same net, whatever its input looks like."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import noise, write_wav
from torch import nn

from speakerkd.feats.frontend import read_front_end
from speakerkd.files.kaldi import Scp
from speakerkd.files.tables import write_data_dir
from speakerkd.models.extract import vector_of

Run = Callable[..., subprocess.CompletedProcess[str]]
needs_runtime = pytest.mark.skipif(
    not importlib.util.find_spec("onnxruntime"), reason="onnxruntime is not installed (tools/setup.sh --extras onnx)"
)
needs_both = pytest.mark.skipif(
    not (importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx")),
    reason="onnxruntime or onnx, with which the test makes its models, is not installed",
)
DIM = 24
# the exporter that needs no further package says that it is the old one
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Tiny(nn.Module):
    """Convolution, mean and a frame-level output besides; log(mean) is NaN where `nan` says so."""

    def __init__(self, layout: str = "btf", nan: bool = False) -> None:
        super().__init__()
        self.conv, self.linear, self.layout, self.nan = nn.Conv1d(DIM, 8, 3, padding=1), nn.Linear(8, 5), layout, nan

    def forward(self, feats: torch.Tensor, *lengths: torch.Tensor) -> Any:
        if self.layout == "bcft":
            feats = feats.squeeze(1)
        if self.layout == "tf":
            feats = feats.unsqueeze(0)
        if self.layout in ("btf", "tf", "lengths", "two"):
            feats = feats.transpose(1, 2)
        frames = self.conv(feats).relu()
        pooled = frames.sum(-1) / lengths[0].unsqueeze(1) if lengths else frames.mean(-1)
        vector = self.linear(pooled)
        if self.nan:
            vector = vector.min().log() + vector
        return (frames, vector) if self.layout == "two" else vector


SHAPES = {"btf": (1, 50, DIM), "two": (1, 50, DIM), "lengths": (1, 50, DIM), "bft": (1, DIM, 50), "bcft": (1, 1, DIM, 50),
          "tf": (50, DIM)}  # fmt: skip


def export(path: Path, layout: str = "btf", fixed: bool = False, nan: bool = False) -> Tiny:
    torch.manual_seed(0)
    net = Tiny(layout, nan).eval()
    axis = SHAPES[layout].index(50)
    axes = {} if fixed else {"feats": {axis: "frames", **({0: "batch"} if axis == 1 else {})}}
    inputs: tuple[torch.Tensor, ...] = (torch.zeros(SHAPES[layout]),)
    names = ["feats"]
    if layout == "lengths":
        inputs, names = (*inputs, torch.tensor([50])), ["feats", "n"]
        axes["n"] = {0: "batch"}
    outputs = ["frames", "vector"] if layout == "two" else ["vector"]
    torch.onnx.export(
        net, inputs, path, input_names=names, output_names=outputs, dynamic_axes=axes, dynamo=False, opset_version=13
    )
    return net


@pytest.fixture
def data(recipe: Path) -> Path:
    waves = {f"{name}-{i}": noise(0.4 + 0.3 * i, seed=i) for i, name in enumerate("aab")}
    sources = {name: str(write_wav(recipe / f"{name}.wav", wave)) for name, wave in waves.items()}
    write_data_dir(recipe / "data/x", sources, {name: name[0] for name in waves})
    (recipe / "f.conf").write_text(f"--type=kaldi\n--num-mel-bins={DIM}\n--dither=0\n")
    return recipe / "data/x"


def extract(sh: Run, *options: object, fails: bool = False) -> str:
    words = ("--front-end", "f.conf", *options, "m.onnx", "data/x", "out")
    return sh("local/extract_vectors_onnx.py", *words, fails=fails).stderr


def expected(recipe: Path, net: Tiny, utterance: str) -> np.ndarray:
    front_end = read_front_end(recipe / "f.conf")

    def forward(feats: np.ndarray) -> np.ndarray:
        given = torch.from_numpy(feats)
        with torch.no_grad():
            return net.linear(net.conv(given.transpose(1, 2)).relu().mean(-1)).numpy()

    wave = soundfile.read(recipe / f"{utterance}.wav", dtype="float32")[0]
    return vector_of(front_end(wave), forward, 6000, front_end.conf)


@needs_both
@pytest.mark.parametrize("layout", SHAPES)
def test_vectors_are_those_of_torch(layout: str, recipe: Path, data: Path, sh: Run) -> None:
    net = export(recipe / "m.onnx", layout)
    said = extract(sh, "--output", "vector")
    assert "3 in, 3 out, 0 lost" in said and "computed from wav.scp" in said
    vectors = Scp(recipe / "out/xvector.scp")
    assert list(vectors) == ["a-0", "a-1", "b-2"]
    for index, name in enumerate(vectors):
        np.testing.assert_allclose(vectors.read(index), expected(recipe, net, name), atol=1e-5)
    assert list(Scp(recipe / "out/spk_xvector.scp")) == ["a", "b"]
    assert (recipe / "out/num_utts.ark").read_text() == "a 2\nb 1\n" and (recipe / "out/mean.vec").exists()
    assert (recipe / "out/lost_utts").read_text() == ""


@needs_both
def test_several_outputs_need_a_choice(recipe: Path, data: Path, sh: Run) -> None:
    export(recipe / "m.onnx", "two")
    assert "--output='' is not one of its outputs: frames tensor(float)" in extract(sh, fails=True)
    assert "its output 'frames' is of shape (1, 8, " in extract(sh, "--output", "frames", fails=True)


@needs_both
def test_a_fixed_number_of_frames_needs_windows(recipe: Path, data: Path, sh: Run) -> None:
    net = export(recipe / "m.onnx", fixed=True)
    assert "takes exactly 50 frames (feats tensor(float) (1, 50, 24)), the front end gives whole" in extract(
        sh, fails=True
    )
    with open(recipe / "f.conf", "a") as file:
        file.write("--window-frames=50\n--window-shift=20\n")
    extract(sh)
    vectors = Scp(recipe / "out/xvector.scp")
    for index, name in enumerate(vectors):
        np.testing.assert_allclose(vectors.read(index), expected(recipe, net, name), atol=1e-5)


@needs_both
def test_nan_is_lost(recipe: Path, data: Path, sh: Run) -> None:
    export(recipe / "m.onnx", nan=True)
    said = extract(sh, fails=True)
    assert "3 of 3 utterances have no vector, more than 5 %" in said and "a vector that is not finite" in said
    assert not (recipe / "out/xvector.scp").exists()


@needs_both
def test_another_width_is_an_error(recipe: Path, data: Path, sh: Run) -> None:
    export(recipe / "m.onnx")
    (recipe / "f.conf").write_text("--type=kaldi\n--num-mel-bins=40\n")
    assert "(batch, frames, 24), the front end makes 40 features per frame" in extract(sh, fails=True)


@needs_runtime
def test_what_is_no_model_is_an_error(recipe: Path, data: Path, sh: Run) -> None:
    assert "m.onnx: no such file" in extract(sh, fails=True)
    (recipe / "m.onnx").write_text("nothing")
    assert "m.onnx: onnxruntime can't load it" in extract(sh, fails=True)


def test_without_onnxruntime_the_remedy_is_said(recipe: Path) -> None:
    (recipe / "shadow/onnxruntime").mkdir(parents=True)
    (recipe / "shadow/onnxruntime/__init__.py").write_text("raise ImportError('not here')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(recipe / 'shadow')!r}); "
        "from speakerkd.verify.onnxsession import open_session; "
        "open_session('m.onnx', 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "onnxruntime is needed and can't be imported (not here); tools/setup.sh --extras onnx" in done.stderr
