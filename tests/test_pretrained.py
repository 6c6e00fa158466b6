"""The model in the box, egs/open/v1/pretrained: its size, its card, and what verify.py says with it."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, environment, write_wav

from speakerkd.feats.frontend import front_end_of
from speakerkd.models import load_net

BOX = ROOT / "egs/open/v1/pretrained"


def test_it_is_small_and_its_card_is_whole() -> None:
    card = json.loads((BOX / "card.json").read_text())
    for precision, most in (("fp32", 2_000_000), ("int8", 600_000)):
        file = BOX / card["files"][precision]["name"]
        assert file.stat().st_size == card["files"][precision]["bytes"] <= most
    assert card["licence"] == "Apache-2.0" and "CC BY 4.0" in card["data"] and "Apache-2.0" in card["taught_by"]
    assert card["commit"] and card["training_commit"] and "/" not in card["commit"]
    assert not any(word.startswith("/") for word in (card["command"] + " " + card["training_command"]).split())
    # An exported folder stands alone, so it has a copy of the example. It must not fall behind.
    assert (BOX / "verify_example.py").read_bytes() == (ROOT / "local/verify_example.py").read_bytes()
    rates = {row["system"]: row["eer"] for row in card["eer"]}
    # RESULTS.md has the same figures
    results = (ROOT / "egs/open/v1/RESULTS.md").read_text()
    assert f"| `model.onnx`, fp32 | {rates['fp32']:.2f} [" in results
    assert f"| `model.int8.onnx` | {rates['int8']:.2f} [" in results


def test_the_weights_for_pytorch_are_those_of_the_graph() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    net = load_net(BOX / "model.pt").eval()
    assert net.head is None and net.info["licence"] == "Apache-2.0" and front_end_of(net.info, "model.pt") is not None
    card = json.loads((BOX / "card.json").read_text())
    assert card["checkpoint"] == {"name": "model.pt", "bytes": (BOX / "model.pt").stat().st_size}
    session = onnxruntime.InferenceSession(str(BOX / "model.onnx"), providers=["CPUExecutionProvider"])
    feats = 3 * torch.randn(3, 210, 80, generator=torch.Generator().manual_seed(0)) + 10
    with torch.inference_mode():
        wanted = net.encoder(feats - feats.mean(1, keepdim=True)).embedding.numpy()
    np.testing.assert_allclose(session.run(["embs"], {"feats": feats.numpy()})[0], wanted, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_verify_takes_it_if_no_model_is_given(precision: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("kaldi_native_fbank")
    rng = np.random.default_rng(0)

    def speech(pitch: float, seconds: float) -> np.ndarray:
        time = np.arange(int(16000 * seconds)) / 16000
        wave = sum(np.sin(2 * np.pi * k * pitch * time * (1 + 0.01 * np.sin(5 * time))) / k for k in range(1, 20))
        return 0.1 * wave * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time)) + 1e-4 * rng.standard_normal(len(time))

    for name, pitch in (("low1", 110.0), ("low2", 111.0), ("high", 260.0)):
        write_wav(tmp_path / f"{name}.wav", speech(pitch, 3.0))

    def score(one: str, other: str) -> float:
        command = [ROOT / "local/verify.py", "--precision", precision, f"{one}.wav", f"{other}.wav"]
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr and done.stdout, done.stderr
        return float(done.stdout.split("score")[1].split()[0].strip(":,"))

    assert score("low1", "low2") > score("low1", "high") + 0.1
