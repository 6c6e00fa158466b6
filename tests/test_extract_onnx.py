"""Extraction with ONNX Runtime: the vectors of PyTorch, or an error, or PyTorch itself."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_extract import COMMAND, DIM, data  # noqa: F401 (data is a fixture)
from test_frozen import CONFS, trained

import speakerkd.foreign.onnxnet as onnxnet
from speakerkd.files.kaldi import Scp
from speakerkd.foreign.onnxnet import OnnxNetEncoder, choose_engine, onnx_or_torch
from speakerkd.models import SpeakerNet, load_net
from speakerkd.models.extract import Cut, NetEncoder, batches, embed, vectors_of

Run = Callable[..., subprocess.CompletedProcess[str]]
CPU = torch.device("cpu")
HERE = all(map(importlib.util.find_spec, ("onnx", "onnxruntime")))
needs_packages = pytest.mark.skipif(
    not HERE, reason="onnx or onnxruntime is not installed (tools/setup.sh --extras export)"
)
# the exporter that needs no further package says that it is the old one
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
# for CAM++: one to five of its segments of 200 frames, and some ends inside of one
LENGTHS = [12, 12, 30, 47, 48, 100, 100, 100, 199, 200, 201, 260, 399, 433, 1000]


def utterances(lengths: list[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(3, 1, (length, DIM)).astype(np.float32) for length in lengths]


def none() -> list[np.ndarray]:
    return []


@needs_packages
@pytest.mark.parametrize("name", [name for name in CONFS if name != "dvector"])
def test_vectors_are_those_of_the_net(name: str, tmp_path: Path) -> None:
    net, given = trained(name, tmp_path), utterances(LENGTHS if "xvector" not in name else LENGTHS[2:])
    encode = onnx_or_torch(net, True, none)
    assert isinstance(encode, OnnxNetEncoder)
    found = vectors_of(encode, given, Cut(max_frames=450))
    for feats, vector in zip(given, found, strict=True):
        expected = embed(net, feats, CPU, 450)
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max()))
    sizes = [len(batch) for batch in batches([len(each) for each in given], encode)]
    assert max(sizes) == 3, "equal lengths share a batch"


@needs_packages
def test_a_job_says_the_engine_and_keeps_what_it_made(
    recipe: Path,
    data: Path,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.chdir(recipe)
    spec = importlib.util.spec_from_file_location("extract_xvectors", "local/extract_xvectors.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "extract_xvectors", script)  # for its dataclass
    spec.loader.exec_module(script)

    def said(*options: str) -> str:
        caplog.clear()
        script.main([*options, "final.pt", "data/x", "data/x/feats.scp", "x"])
        return caplog.text

    kept = "x.ark is kept"
    first = said("--engine", "onnx")
    assert re.search(
        r"engine: ONNX Runtime in float32; its vectors' cosine to PyTorch's is (0\.999999|1\.0)\d+ or", first
    )
    assert "24 in, 24 out, 0 lost" in first
    net, scp, vectors = load_net("final.pt"), Scp("data/x/feats.scp"), Scp("x.scp")
    for index in range(len(scp)):
        np.testing.assert_allclose(vectors.read(index), embed(net, scp.read(index), CPU), rtol=1e-4, atol=1e-5)
    whole = Path("x.ark").read_bytes()
    assert kept in said("--engine", "onnx") and kept in said(), "by default, vectors of both engines are kept"
    assert kept not in said("--engine", "torch") and Path("x.ark").read_bytes() != whole
    assert kept in said("--engine", "torch") and kept in said()
    assert kept not in said("--engine", "onnx") and Path("x.ark").read_bytes() == whole, "the same bytes each time"
    monkeypatch.setattr(onnxnet, "WORTH", 24)
    Path("x.made").unlink()
    assert "engine: ONNX Runtime in float32" in said() and Path("x.ark").read_bytes() == whole
    monkeypatch.setattr(onnxnet, "WORTH", 25)
    Path("x.made").unlink()
    assert "engine" not in said() and Path("x.ark").read_bytes() != whole


@needs_packages
def test_the_script_hands_the_engine_to_its_jobs(recipe: Path, data: Path, sh: Run) -> None:  # noqa: F811
    done = sh(COMMAND[0], "--engine", "onnx", "--nj", 1, *COMMAND[3:])
    assert "local/extract_xvectors.sh: engine: ONNX Runtime in float32" in done.stdout
    assert "24 in, 24 vectors out, 0 lost" in done.stdout


def test_what_onnx_runtime_cannot_do_is_said_at_once(recipe: Path, data: Path, sh: Run) -> None:  # noqa: F811
    def said(*options: str) -> str:
        return sh(COMMAND[0], *options, *COMMAND[1:], fails=True).stderr

    assert "--engine 'tflite' is not one of: auto torch onnx" in said("--engine", "tflite")
    remedy = "take --engine torch"
    assert f"onnx computes on the CPU; with --gpus {remedy}" in said("--engine", "onnx", "--gpus", "1")
    assert f"onnx computes in float32; with --amp bf16 {remedy}" in said("--engine", "onnx", "--amp", "bf16")
    assert not (recipe / "out").exists()


@needs_packages
def test_auto_takes_it_for_long_jobs_on_a_cpu_in_float32(tmp_path: Path) -> None:
    net = trained("resnet", tmp_path)

    def chosen(net: SpeakerNet = net, on_cpu: bool = True, amp: str = "none", utterances: int = onnxnet.WORTH) -> str:
        return choose_engine("auto", net, "final.pt", on_cpu, amp, utterances)

    assert chosen() == "onnx"
    assert chosen(utterances=onnxnet.WORTH - 1) == chosen(on_cpu=False) == chosen(amp="auto") == "torch"
    assert chosen(trained("dvector", tmp_path)) == "torch"
    assert choose_engine("onnx", net, "final.pt", True, "none", 1) == "onnx"
    assert choose_engine("torch", net, "final.pt", True, "none", 10**6) == "torch"
    with pytest.raises(ValueError, match=r"final\.pt: the d-vector's LSTM reads windows"):
        choose_engine("onnx", trained("dvector", tmp_path), "final.pt", True, "none", 1)
    for on_cpu, amp, words in ((False, "none", "computes on the CPU"), (True, "fast", "with --amp=fast take")):
        with pytest.raises(ValueError, match=words):
            choose_engine("onnx", net, "final.pt", on_cpu, amp, 1)
    with pytest.raises(ValueError, match="--engine=tf is not one of: auto torch onnx"):
        choose_engine("tf", net, "final.pt", True, "none", 1)


def test_without_the_packages_auto_is_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = trained("resnet", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_engine("auto", net, "final.pt", True, "none", 10**6) == "torch"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"onnx and onnxruntime are needed for --engine=onnx.*--extras export"):
        choose_engine("onnx", net, "final.pt", True, "none", 1)


@needs_packages
def test_another_vector_is_an_error_or_pytorch_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    net, wrong, write = trained("xvector", tmp_path), trained("xvector", tmp_path), onnxnet.write_onnx
    with torch.no_grad():
        for weight in wrong.parameters():
            weight += 0.01 * weight.std() * torch.randn_like(weight)
    monkeypatch.setattr(onnxnet, "write_onnx", lambda net, *others: write(wrong, *others))
    given = utterances([200, 300])
    with pytest.raises(
        ValueError, match=r"--engine=onnx can't be used for this model: a vector.* cosine of 0\.99.*torch"
    ):
        onnx_or_torch(net, True, lambda: given)
    assert isinstance(onnx_or_torch(net, False, lambda: given), NetEncoder)
    assert "engine: PyTorch, because ONNX Runtime can't be used for this model: a vector" in caplog.text

    def fails(*others: object) -> None:
        raise RuntimeError("no such operator\nand a long trace")

    monkeypatch.setattr(onnxnet, "write_onnx", fails)
    with pytest.raises(ValueError, match="can't be used for this model: no such operator; take"):
        onnx_or_torch(net, True, lambda: given)
    assert isinstance(onnx_or_torch(net, False, lambda: given), NetEncoder)
