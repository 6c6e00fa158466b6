"""Export to ONNX: the graphs against PyTorch, the card, the thresholds, int8, and sherpa-onnx on the result."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT, environment, write_wav

from speakerkd.audio.recordings import resample as resample_by_torchaudio
from speakerkd.feats.frontend import KaldiConf, KaldiFrontEnd, front_end_info
from speakerkd.files.backend import read_vector, write_text_vector
from speakerkd.files.tables import write_data_dir
from speakerkd.foreign import onnx_export, onnx_int8
from speakerkd.models import MODELS, SpeakerNet, load_net, save_net
from speakerkd.models.campplus import SEGMENT
from speakerkd.score.metrics import eer, roc
from speakerkd.verify.card import Condition, choose_condition, conditions_of
from speakerkd.verify.encoder import Encoder, Features, unit
from speakerkd.verify.onnxsession import open_session
from speakerkd.verify.resample import resample

Run = Callable[..., subprocess.CompletedProcess[str]]
SMALL = {
    "xvector": {"channels": 16, "stats_channels": 24, "embedding_dim": 12},
    "resnet": {"blocks": (1, 1, 1, 1), "base_channels": 4, "embedding_dim": 12},
    "ecapa": {"channels": 16, "joined_channels": 24, "scale": 4, "embedding_dim": 12},
    "campplus": {"front_channels": 4, "channels": 8, "growth": 4, "layers": (2, 2, 2), "embedding_dim": 12},
}
MINI = ROOT / "egs/mini/v1/exp/xvector_tiny_none_s0"
FBANK = KaldiConf(num_mel_bins=80, high_freq=7600.0, dither=0.0)


def make_net(name: str, front_end: KaldiConf = FBANK, seed: int = 0) -> SpeakerNet:
    """Random weights, and statistics of batch norm that are not those of a fresh net."""
    torch.manual_seed(seed)
    net = SpeakerNet(MODELS[name](MODELS[name].Conf(**SMALL.get(name, {})), front_end.num_mel_bins))
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    net.info = {"front_end": front_end_info(KaldiFrontEnd(front_end))}
    return net.eval()


def voice(speaker: int, seed: int, seconds: float, rate: int = 16000) -> np.ndarray:
    """A buzz with the speaker's own resonances, with pauses."""
    rng, own = np.random.default_rng([speaker, seed]), np.random.default_rng(speaker)
    time = np.arange(round(seconds * rate)) / rate
    pitch = own.uniform(90, 250) * (1 + 0.05 * np.sin(2 * np.pi * rng.uniform(1, 3) * time + rng.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    weights = own.uniform(0.05, 1, 20)
    wave = sum(weight * np.sin((number + 1) * phase) for number, weight in enumerate(weights))
    envelope = np.repeat(rng.random(-(-len(time) // 4000)) > 0.3, 4000)[: len(time)]
    return (0.05 * wave * envelope + 0.0005 * rng.standard_normal(len(time))).astype(np.float32)


def centre(net: SpeakerNet) -> None:
    """Move the mean embedding of some voices to zero, so that cosines tell them apart."""
    front_end = KaldiFrontEnd(FBANK)
    layers = net.encoder.embedding  # type: ignore[attr-defined]
    with torch.no_grad():
        feats = [torch.from_numpy(front_end(voice(speaker, 0, 3))[None]) for speaker in range(5)]
        layers.linear2.bias -= torch.cat([net(each - each.mean(1)).embedding for each in feats]).mean(0)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe folder with data/test (waves, features, trials), exp/x/final.pt and exp/x/export."""
    recipe = tmp_path_factory.mktemp("export")
    for name in ("local", "utils"):
        (recipe / name).symlink_to(ROOT / name)
    (recipe / "conf").symlink_to(ROOT / "egs/mini/v1/conf")
    names = [f"s{speaker}-{number}" for speaker in range(5) for number in range(8)]
    waves = {
        name: str(write_wav(recipe / f"wav/{name}.wav", voice(int(name[1]), int(name[3:]), 4.5))) for name in names
    }
    write_data_dir(recipe / "data/test", waves, {name: name[:2] for name in names})
    pairs = [(a, b) for index, a in enumerate(names) for b in names[index + 1 :]]
    (recipe / "data/test/trials").write_text(
        "".join(f"{a} {b} {'target' if a[:2] == b[:2] else 'nontarget'}\n" for a, b in pairs)
    )
    run_in(recipe, "local/make_fbank.sh", "--nj", "1", "data/test")
    (recipe / "exp/x").mkdir(parents=True)
    net = make_net("xvector")
    centre(net)
    save_net(recipe / "exp/x/final.pt", net)
    done = run_in(recipe, *EXPORT, "exp/x", "exp/x/export")
    (recipe / "said").write_text(done.stdout + done.stderr)
    return recipe


CPU = Path("/proc/cpuinfo")
INT8_UNITS = not CPU.exists() or "vnni" in CPU.read_text() or "asimddp" in CPU.read_text()
EXPORT = (
    "local/export_onnx.py", "--train-dir", "data/test", "--num-bootstrap", "50", "--data", "buzzes", "--licence", "CC0",
    "--taught-by", "nobody",
)  # fmt: skip


def run_in(recipe: Path, *words: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(words, cwd=recipe, env=environment(), capture_output=True, text=True, timeout=300)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("name", SMALL)
def test_graphs_give_the_embeddings_of_pytorch(name: str, tmp_path: Path) -> None:
    """Any length and batch; raw features and features without their mean give the same embeddings."""
    net, path = make_net(name), tmp_path / "model.onnx"
    onnx_export.write_onnx(net, path, True, {"framework": "wespeaker"})
    session = open_session(path, 1)
    assert session.get_modelmeta().custom_metadata_map["framework"] == "wespeaker"
    rng = np.random.default_rng(0)
    # CAM++ averages over segments: lengths (after halving) just below, at and above their multiples.
    for batch, frames in ((1, 48), (8, 77), (2, 2 * SEGMENT - 2), (2, 2 * SEGMENT), (1, 2 * SEGMENT + 1), (1, 2000)):
        feats = (3 * rng.standard_normal((batch, frames, 80)) + 5).astype(np.float32)
        without = feats - feats.mean(1, keepdims=True)
        with torch.inference_mode():
            wanted = net(torch.from_numpy(without)).embedding.numpy()
        for given in (feats, without):
            found = session.run(["embs"], {"feats": given})[0]
            assert found == pytest.approx(wanted, abs=1e-4 * float(np.abs(wanted).max())), (batch, frames)


@pytest.mark.parametrize("name", SMALL)
def test_weights_in_int8_compute_in_fp32(name: str, tmp_path: Path) -> None:
    """All layers: a smaller file, and embeddings that are almost the same."""
    path = tmp_path / "model.onnx"
    onnx_export.write_onnx(make_net(name), path, True, {})
    feats = [np.random.default_rng(0).standard_normal((90, 80)).astype(np.float32)]
    before, size = onnx_int8.embeddings_of(path, feats), path.stat().st_size
    layers = onnx_int8.layers_of(path)
    weights = sum(
        np.prod(tensor.dims)
        for tensor in onnx_export.need_packages().load(str(path)).graph.initializer
        if len(tensor.dims) > 1
    )
    onnx_int8.store_weights_as_int8(path, layers)
    assert path.stat().st_size < size - weights  # 3 bytes less for each weight; scales and nodes take some of it
    assert float(onnx_export.cosines(before, onnx_int8.embeddings_of(path, feats)).min()) > 0.995
    assert (before != onnx_int8.embeddings_of(path, feats)).any()


@pytest.mark.parametrize("name", SMALL)
def test_short_names_change_the_size_alone(name: str, tmp_path: Path) -> None:
    long, short = tmp_path / "long.onnx", tmp_path / "short.onnx"
    onnx_export.write_onnx(make_net(name), long, True, {"framework": "wespeaker"})
    shutil.copy(long, short)
    onnx_int8.shorten_names(short)
    assert short.stat().st_size < long.stat().st_size - 1000
    feats = np.random.default_rng(0).standard_normal((2, 90, 80)).astype(np.float32)
    one, other = (open_session(path, 1) for path in (long, short))
    assert (one.run(["embs"], {"feats": feats})[0] == other.run(["embs"], {"feats": feats})[0]).all()
    assert one.get_modelmeta().custom_metadata_map == other.get_modelmeta().custom_metadata_map


def test_a_graph_without_mean_subtraction(tmp_path: Path) -> None:
    net = make_net("xvector")
    onnx_export.write_onnx(net, tmp_path / "model.onnx", False, {})
    feats = (np.random.default_rng(0).standard_normal((1, 100, 80)) + 5).astype(np.float32)
    with torch.inference_mode():
        wanted = net(torch.from_numpy(feats)).embedding.numpy()
    assert open_session(tmp_path / "model.onnx", 1).run(None, {"feats": feats})[0] == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_a_graph_that_subtracts_the_mean_embedding(name: str, tmp_path: Path) -> None:
    net, path = make_net(name), tmp_path / "model.onnx"
    rng = np.random.default_rng(0)
    feats = (3 * rng.standard_normal((3, 200, 80)) + 5).astype(np.float32)
    with torch.inference_mode():
        embeddings = net(torch.from_numpy(feats - feats.mean(1, keepdims=True))).embedding.numpy()
    mean = embeddings.mean(0)  # what is left is far smaller, so that errors show
    onnx_export.write_onnx(net, path, True, {}, mean)
    session = open_session(path, 1)
    found = session.run(["embs"], {"feats": feats})[0]
    assert onnx_export.cosines(embeddings - mean, found) == pytest.approx(1, abs=1e-4)
    assert onnx_export.cosines(embeddings, found).max() < 0.999  # it is not the graph without the mean
    assert onnx_export.least_cosine(net, session, iter([feats]), True, mean) > 0.9999
    assert onnx_export.least_cosine(net, session, iter([feats]), True) < 0.999


def test_what_a_folder_holds(exported: Path) -> None:
    out = exported / "exp/x/export"
    assert sorted(path.name for path in out.iterdir()) == [
        "card.json", "card.md", "model.int8.onnx", "model.onnx", "model.pt", "verify_example.py",
    ]  # fmt: skip
    card = json.loads((out / "card.json").read_text())
    assert (card["taught_by"], card["data"], card["licence"]) == ("nobody", "buzzes", "CC0")
    assert card["files"]["int8"]["bytes"] < card["files"]["fp32"]["bytes"]
    encoder = make_net("xvector").encoder
    assert isinstance(encoder, torch.nn.Module)
    assert card["parameters"] == sum(each.numel() for each in encoder.parameters())
    assert {each["system"] for each in card["eer"]} == {"PyTorch", "fp32", "int8"}
    rates = {each["system"]: each["eer"] for each in card["eer"]}
    assert rates["fp32"] == pytest.approx(rates["PyTorch"], abs=0.2)  # a trial or two of 780
    assert {(each.label, each.noise) for each in conditions_of(card)} == {
        (label, noise) for label in ("1 s", "2 s", "4 s", "whole recordings") for noise in ("clean", "10 dB")
    }
    net, whole = load_net(out / "model.pt"), load_net(exported / "exp/x/final.pt")
    assert net.head is None and net.speakers == () and net.info == {**whole.info, "licence": "CC0"}
    feats = torch.randn(2, 100, net.feat_dim)
    with torch.inference_mode():
        assert torch.equal(net.eval().encoder(feats).embedding, whole.eval().encoder(feats).embedding)
    assert card["checkpoint"] == {"name": "model.pt", "bytes": (out / "model.pt").stat().st_size}
    text = (out / "card.md").read_text()
    assert "| for PyTorch | `model.pt`, " in text
    assert "real-time factor" in text and "CC0" in text and "whole recordings" in text


def test_another_export_into_the_folder(exported: Path, tmp_path: Path) -> None:
    """Nothing of the earlier model stays, and one damaged recording is left out; the teacher is the one that taught."""
    recipe = tmp_path / "recipe"
    shutil.copytree(exported, recipe, symlinks=True)
    for path in ("wav.scp", "feats.scp"):
        (recipe / "data/test" / path).write_text(
            (recipe / "data/test" / path).read_text().replace(str(exported), str(recipe))
        )
    (recipe / "data/test/feats.scp").unlink()  # so the recordings are read
    (recipe / "wav/s0-0.wav").write_bytes(b"no sound")
    command = ["train.py", "--teacher", "exp/t/final.pt", "--vectors", "face=data/face.scp"]
    files = {"exp/t/final.pt": "a", "data/face.scp": "b"}
    (recipe / "exp/x/conf.json").write_text(json.dumps({"options": {"files": files}, "run": {"command": command}}))
    done = run_in(recipe, *EXPORT[:-2], "--int8", "false", "exp/x", "exp/x/export")
    out = recipe / "exp/x/export"
    assert {path.name for path in out.glob("*.onnx")} == {"model.onnx"} and "int8" not in done.stdout
    assert "s0-0 is left out: " in done.stderr
    card = json.loads((out / "card.json").read_text())
    assert card["taught_by"] == "exp/t/final.pt" and {each["system"] for each in card["eer"]} == {"PyTorch", "fp32"}
    for number in range(4):
        (recipe / f"wav/s1-{number}.wav").write_bytes(b"no sound")
    done = run_in(recipe, *EXPORT, "exp/x", "exp/x/export", fails=True)
    assert "data/test: 5 of 40 recordings of the trials can't be read" in done.stderr


def test_int8_is_like_fp32_or_keeps_layers(exported: Path) -> None:
    card = json.loads((exported / "exp/x/export/card.json").read_text())
    assert card["int8_cosine"] >= onnx_int8.ALIKE or card["int8_kept_in_fp32"]
    one, other = (Encoder(exported / "exp/x/export", precision) for precision in ("fp32", "int8"))
    wave = voice(0, 0, 3)
    cosine = float(one(wave) @ other(wave))
    if INT8_UNITS:  # on a CPU with AVX2 alone the cosine of this toy net was 0.78, with three layers kept in fp32
        assert cosine > 0.9
    assert cosine > 0.5 and one.digest != other.digest
    onnx = onnx_export.need_packages()
    names = [each.name for each in onnx.load(str(exported / "exp/x/export/model.int8.onnx")).graph.initializer]
    assert max(map(len, names)) <= 5  # int8 has shorten_names' names


def test_nothing_is_written_where_the_graph_is_wrong(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sys.path.insert(0, str(ROOT))
    from local import export_onnx

    monkeypatch.chdir(exported)
    monkeypatch.setattr(onnx_export, "least_cosine", lambda *_: 0.9999)
    with pytest.raises(ValueError, match="not PyTorch's"):
        export_onnx.main([*EXPORT[1:], "exp/x", str(tmp_path / "out")])
    assert list(tmp_path.iterdir()) == []


def test_the_mean_embedding_is_part_of_the_model(exported: Path) -> None:
    """The score is that of score.py --mean. The model without the mean gives another one."""
    run_in(exported, "local/extract_xvectors.sh", "--nj", "1", "exp/x/final.pt", "data/test", "exp/x/xvectors_test")
    mean = read_vector(exported / "exp/x/xvectors_test/mean.vec") + 0.1  # centre() left a mean of nearly zero
    write_text_vector(exported / "other.vec", mean)
    net = make_net("xvector")
    centre(net)
    with torch.no_grad():
        net.encoder.embedding.linear2.bias += 0.1  # type: ignore[attr-defined]
    (exported / "exp/y").mkdir()
    save_net(exported / "exp/y/final.pt", net)
    done = run_in(exported, *EXPORT, "--mean", "other.vec", "exp/y", "exp/y/export")
    assert "PyTorch and ONNX: least cosine" in done.stderr
    out = exported / "exp/y/export"
    card = json.loads((out / "card.json").read_text())
    assert card["mean"] == "other.vec" and "is subtracted already (`other.vec`)" in (out / "card.md").read_text()
    rates = {each["system"]: each["eer"] for each in card["eer"]}
    assert rates["fp32"] == pytest.approx(rates["PyTorch"], abs=0.2)
    vectors = "exp/x/xvectors_test/xvector.scp"
    scoring = ("local/score.py", "--plots", "false", "--mean", "exp/x/xvectors_test/mean.vec")
    run_in(exported, *scoring, "data/test/trials", vectors, vectors, "scores")
    scores = dict(line.rsplit(" ", 1) for line in (exported / "scores/trials.cosine").read_text().splitlines())
    encoder = Encoder(out)
    for one, other in (("s0-0", "s0-1"), ("s0-0", "s3-1"), ("s2-2", "s4-4")):
        waves = [soundfile.read(exported / f"wav/{name}.wav", dtype="float32")[0] for name in (one, other)]
        score = float(encoder(waves[0]) @ encoder(waves[1]))
        assert score == pytest.approx(float(scores[f"{one} {other}"]), abs=5e-3)  # features there are compressed
    sherpa_onnx = pytest.importorskip("sherpa_onnx")
    extractor = sherpa_onnx.SpeakerEmbeddingExtractor(
        sherpa_onnx.SpeakerEmbeddingExtractorConfig(model=str(out / "model.onnx"))
    )
    stream = extractor.create_stream()
    stream.accept_waveform(16000, waves[0])
    stream.input_finished()
    assert float(unit(np.array(extractor.compute(stream))) @ encoder(waves[0])) > 0.99


def test_means_that_are_not_the_models(exported: Path, tmp_path: Path) -> None:
    for mean, said in ((np.ones(5), "5 dimensions"), (np.full(12, 1e3), "is not this model's mean")):
        write_text_vector(tmp_path / "mean.vec", mean)
        done = run_in(
            exported, *EXPORT, "--mean", str(tmp_path / "mean.vec"), "exp/x", str(tmp_path / "out"), fails=True
        )
        assert said in done.stderr and not (tmp_path / "out").exists()


def test_systems_that_cannot_be_exported(exported: Path, tmp_path: Path) -> None:
    said = run_in(exported, *EXPORT, str(tmp_path), str(tmp_path / "out"), fails=True).stderr
    assert "final.pt: no such file" in said
    torch.manual_seed(0)
    net = SpeakerNet(MODELS["dvector"](MODELS["dvector"].Conf(hidden=8, layers=1, embedding_dim=4), 40))
    net.info = {"front_end": {"type": "resemblyzer"}}
    save_net(tmp_path / "final.pt", net)
    assert "LSTM" in run_in(exported, *EXPORT, str(tmp_path), str(tmp_path / "out"), fails=True).stderr
    wavlm = MODELS["wavlm"].Conf(
        layers=1,
        size=16,
        heads=1,
        hidden=16,
        buckets=8,
        max_distance=8,
        position_kernel=4,
        position_groups=1,
        channels=8,
    )
    with pytest.raises(ValueError, match=r"WavLM .* is not exported\. Distil it"):
        onnx_export.check_exportable(SpeakerNet(MODELS["wavlm"](wavlm, 1)), "final.pt")
    net = make_net("xvector")
    net.info = {}
    save_net(tmp_path / "final.pt", net)
    said = run_in(exported, *EXPORT, str(tmp_path), str(tmp_path / "out"), fails=True).stderr
    assert "does not say which features" in said


def test_the_search_leaves_out_what_costs_most(tmp_path: Path) -> None:
    """A stand-in for quantisation: layer 'b' turns the embedding round, 'a' changes it a little."""
    vectors = {(): [0.0, 1.0], ("b",): [1.0, 0.02], ("a",): [0.05, 1.0], ("b", "a"): [1.0, 0.0]}
    state: dict[str, tuple[str, ...]] = {}
    calls: list[tuple[str, ...]] = []

    def quantise(out: Path, left_out: list[str]) -> None:
        state["left"] = tuple(left_out)
        calls.append(tuple(left_out))

    def embeddings(path: Path, _: object) -> np.ndarray:
        return np.array([[1.0, 0.0] if path.name == "prepared" else vectors[state["left"]]])

    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(onnx_int8, "embeddings_of", embeddings)
        context.setattr(onnx_int8, "layers_of", lambda _: ["a", "b"])
        reached, left = onnx_int8._search(tmp_path / "prepared", tmp_path / "out", quantise, [])
    assert left == ["b"] and reached > onnx_int8.ALIKE and calls[-1] == ("b",)


@pytest.mark.parametrize(
    ("rate", "new"), [(8000, 16000), (44100, 16000), (48000, 16000), (16000, 8000), (22050, 16000)]
)
def test_resampling_is_that_of_torchaudio(rate: int, new: int, rng: np.random.Generator) -> None:
    for length in (1, 17, 20011):
        wave = rng.standard_normal(length).astype(np.float32)
        assert resample(wave, rate, new) == pytest.approx(resample_by_torchaudio(wave, rate, new), abs=2e-4)


@pytest.mark.parametrize("changes", [{}, {"snip_edges": False}, {"window_type": "hamming", "waveform_scale": 1.0}])
def test_features_without_torch_are_those_of_training(changes: dict[str, object]) -> None:
    conf = KaldiConf(**{**FBANK.__dict__, **changes})  # type: ignore[arg-type]
    front_end = KaldiFrontEnd(conf)
    wave = voice(1, 1, 1.5)
    wanted, found = front_end(wave), Features(front_end_info(front_end))(wave)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 0.02


def both_sides(folder: Path, waves: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Vectors of length 1 by sherpa-onnx, and ours."""
    sherpa_onnx = pytest.importorskip("sherpa_onnx")
    config = sherpa_onnx.SpeakerEmbeddingExtractorConfig(model=str(folder / "model.onnx"))
    extractor, encoder = sherpa_onnx.SpeakerEmbeddingExtractor(config), Encoder(folder)
    assert extractor.dim == encoder.dim
    theirs: dict[str, np.ndarray] = {}
    for name, wave in waves.items():
        stream = extractor.create_stream()
        stream.accept_waveform(16000, wave)
        stream.input_finished()
        theirs[name] = unit(np.array(extractor.compute(stream)))
    return theirs, {name: encoder(wave) for name, wave in waves.items()}


def eer_percent(vectors: dict[str, np.ndarray], trials: Path) -> float:
    lines = [line.split() for line in trials.read_text().splitlines()]
    scores = np.array([vectors[one] @ vectors[other] for one, other, _ in lines])
    return 100 * eer(roc(scores, np.array([kind == "target" for _, _, kind in lines])))[0]


def test_sherpa_onnx_runs_it_unchanged(exported: Path) -> None:
    """Its framing is --snip-edges=false: a model that was trained so gets the same vectors, others nearly so."""
    folder = exported / "exp/x/export"
    net = make_net("xvector", KaldiConf(**{**FBANK.__dict__, "snip_edges": False}))
    centre(net)
    save_net(exported / "edges.pt", net)
    options = ("--int8", "false", "--trials", "", "--test-dir", "data/none", "--train-dir", "data/test")
    run_in(exported, EXPORT[0], *options, "edges.pt", "edges")
    waves = {str(number): voice(number % 5, number, 2 + number / 10) for number in range(50)}
    for name, least in ((folder, 0.995), (exported / "edges", 0.99999)):
        theirs, ours = both_sides(name, waves)
        assert min(float(theirs[each] @ ours[each]) for each in waves) >= least, name
    recordings = {path.stem: soundfile.read(path, dtype="float32")[0] for path in (exported / "wav").glob("s?-?.wav")}
    theirs, ours = both_sides(exported / "edges", recordings)
    rates = [eer_percent(each, exported / "data/test/trials") for each in (theirs, ours)]
    assert rates[0] == pytest.approx(rates[1], abs=0.2) and 1 < rates[1] < 45, rates  # there are errors to differ in


@pytest.mark.skipif(not (MINI / "export/model.onnx").is_file(), reason="egs/mini has not been run to stage 8")
def test_sherpa_onnx_on_the_recordings_of_egs_mini() -> None:
    """Real speech, a model that was trained with Kaldi's own framing: 50 test utterances, and the EER of all of them."""
    data = MINI.parents[1] / "data/test"
    paths = dict(line.split() for line in (data / "wav.scp").read_text().splitlines())
    waves = {name: soundfile.read(path, dtype="float32")[0] for name, path in paths.items()}
    theirs, ours = both_sides(MINI / "export", waves)
    chosen = list(waves)[:: len(waves) // 50][:50]
    assert min(float(theirs[each] @ ours[each]) for each in chosen) >= 0.995
    rates = [eer_percent(each, data / "trials") for each in (theirs, ours)]
    assert rates[0] == pytest.approx(rates[1], abs=0.2), rates


def test_conditions_and_thresholds_by_hand() -> None:
    accepts = ((0.1, 0.2), (0.01, 0.4), (0.001, 0.8))
    one = Condition(1.0, "1 s", "clean", 10.0, -5.0, 9.0, accepts, 5, 10, 100)
    other = Condition(3.0, "4 s", "clean", 10.0, -5.0, 3.0, accepts, 5, 10, 100)
    noisy = Condition(3.0, "4 s", "10 dB", 10.0, -5.0, 5.0, accepts, 5, 10, 100)
    every = [one, other, noisy]
    assert choose_condition(every, 0.7, True) is one and choose_condition(every, 2.0, True) is one
    assert choose_condition(every, 2.9, True) is other and choose_condition(every, 9, False) is noisy
    assert one.ratio(0.7) == pytest.approx(2.0)
    assert one.threshold_of_prior(0.5) == pytest.approx(0.5)
    assert one.threshold_of_prior(0.01) == pytest.approx((np.log(99) + 5) / 10)
    assert one.threshold_of_false_accepts(0.01) == pytest.approx(0.4)
    assert one.threshold_of_false_accepts(10**-1.5) == pytest.approx(0.3)
    with pytest.raises(ValueError, match=r"0\.001 to 0\.1"):
        one.threshold_of_false_accepts(0.0005)
    with pytest.raises(ValueError, match="exported without thresholds"):
        choose_condition([], 1, True)
