"""Front ends: against torchaudio and closed forms, as records, and what extraction does with them."""

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchaudio
from conftest import ROOT, noise, write_wav

from speakerkd.audio.recordings import AudioError
from speakerkd.feats.fbank import FbankConf
from speakerkd.feats.frontend import (
    FRONT_ENDS,
    KaldiConf,
    KaldiFrontEnd,
    Reading,
    front_end_info,
    front_end_of,
    read_front_end,
)
from speakerkd.feats.source import StoredFeatures, departure, feature_source
from speakerkd.feats.spectrogram import slaney_mel
from speakerkd.files.kaldi import ArkWriter, Scp
from speakerkd.files.tables import read_table, write_data_dir, write_table
from speakerkd.losses.margin import MarginConf
from speakerkd.models import load_net, make_net, save_net
from speakerkd.models.extract import Cut, embed, vector_of, windows, write_vectors

Run = Callable[..., subprocess.CompletedProcess[str]]
CONFS = sorted((ROOT / "egs/mini/v1/conf/frontend").glob("*.conf"))


def test_slaney_filters_are_torchaudios() -> None:
    expected = torchaudio.functional.melscale_fbanks(201, 0, 8000, 40, 16000, norm="slaney", mel_scale="slaney")
    torch.testing.assert_close(slaney_mel(400, 16000, 40), expected, rtol=1e-4, atol=1e-7)


def test_full_scale_of_one_is_that_of_torchaudio() -> None:
    """What lies under the floor differs from what Kaldi's scale gives; the rest is moved by 2 ln 32768."""
    wave = np.concatenate([1e-6 * noise(0.3), noise(0.3, seed=1)])
    ours = read_front_end(ROOT / "egs/mini/v1/conf/frontend/3dspeaker.conf")(wave)
    theirs = torchaudio.compliance.kaldi.fbank(torch.from_numpy(wave)[None], num_mel_bins=80, dither=0.0)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-3)
    kaldi = KaldiFrontEnd(KaldiConf(num_mel_bins=80, dither=0.0))(wave)
    loud = slice(35, None)
    np.testing.assert_allclose((kaldi - ours)[loud], 2 * np.log(32768), atol=1e-3)
    assert (kaldi - ours)[:25].max() < 2 * np.log(32768) - 1


def test_wespeakers_front_end_is_torchaudios() -> None:
    wave = noise(0.5)
    ours = read_front_end(ROOT / "egs/mini/v1/conf/frontend/wespeaker.conf")(wave)
    theirs = torchaudio.compliance.kaldi.fbank(
        torch.from_numpy(wave)[None] * 32768, num_mel_bins=80, dither=0.0, window_type="hamming"
    )
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-3)


def test_speechbrain_of_a_tone() -> None:
    """The loudest filter is the one nearest in mel; nothing is more than 80 dB below; a frame a shift, and one more."""
    front_end = read_front_end(ROOT / "egs/mini/v1/conf/frontend/speechbrain.conf")
    wave = np.sin(2 * np.pi * 2000 * np.arange(16000) / 16000).astype(np.float32)
    features = front_end(wave)
    assert features.shape == (101, 80)
    mel = 2595 * np.log10(1 + 2000 / 700)
    assert features[50].argmax() == round(mel / (2595 * np.log10(1 + 8000 / 700)) * 81) - 1
    assert features.max() - features.min() == pytest.approx(80, abs=1e-3)


def test_silence_is_finite() -> None:
    for path in CONFS:
        front_end = read_front_end(path)
        assert np.isfinite(front_end(np.zeros(16000, np.float32))).all(), path
        # No frame, a whole one, a window's; the wave as it is has its samples.
        assert len(front_end(np.zeros(100, np.float32))) in (0, 1, 160, 100), path


@pytest.mark.parametrize("path", CONFS, ids=lambda path: path.stem)
def test_records_are_plain_json(path: Path) -> None:
    front_end = read_front_end(path)
    info = json.loads(json.dumps({"front_end": front_end_info(front_end)}))
    again = front_end_of(info, "final.pt")
    assert again is not None and again.conf == front_end.conf and type(again) is type(front_end)


def test_what_train_py_records() -> None:
    info = {"fbank": {"num_mel_bins": "80", "high_freq": "7600"}, "cmn": "utterance"}
    front_end = front_end_of(info, "final.pt")
    assert front_end is not None and front_end.conf == KaldiConf(num_mel_bins=80, high_freq=7600.0)
    assert front_end_of({"fbank": {}, "cmn": "utterance"}, "final.pt") is None and front_end_of({}, "final.pt") is None
    with pytest.raises(ValueError, match=r"final\.pt: has a front end 'wavlm'"):
        front_end_of({"front_end": {"type": "wavlm"}}, "final.pt")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--num-mel-bins=80\n", "--type=name is missing"),
        ("--type=kaldi\n--mean=speaker\n", "--mean=speaker is not one of: utterance none"),
        ("--type=kaldi\n--top-db=3\n", "no option --top-db"),
        ("--type=speechbrain\n--high-freq=9000\n", "don't fit a rate of 16000"),
        ("--type=resemblyzer\n--window-shift=0\n", "must be 1 or more"),
    ],
)
def test_wrong_confs_are_errors(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.conf").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_front_end(tmp_path / "x.conf")


@pytest.mark.parametrize(
    ("here", "words"),
    [
        ("--num-mel-bins=80\n--dither=1\n--min-duration=0.5\n--channel=1\n", ""),
        ("--num-mel-bins=80\n--high-freq=8000  # half the rate\n", ""),
        ("--num-mel-bins=80\n--energy-floor=1\n", ""),
        ("--num-mel-bins=80\n--high-freq=7600\n", "--high-freq=7600.0 for 8000.0"),
        ("--num-mel-bins=40\n--window-type=hamming\n", "--window-type=hamming for povey, --num-mel-bins=40 for 80"),
    ],
)
def test_departures(here: str, words: str, tmp_path: Path) -> None:
    front_end = KaldiFrontEnd(KaldiConf(num_mel_bins=80, dither=0.0))
    assert departure(front_end, tmp_path) == "", "nothing is known of features without a conf/fbank.conf"
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/fbank.conf").write_text(here)
    assert departure(front_end, tmp_path) == words
    assert departure(FRONT_ENDS["speechbrain"](FRONT_ENDS["speechbrain"].Conf()), tmp_path)


def test_windows() -> None:
    features = np.arange(11, dtype=np.float32)[:, None]
    assert windows(features, 4, 3)[:, 0, 0].tolist() == [0, 3, 6, 7], "the last one ends with the utterance"
    assert windows(features[:10], 4, 3)[:, 0, 0].tolist() == [0, 3, 6]
    assert windows(features[:3], 4, 3)[0, :, 0].tolist() == [0, 1, 2, 0]
    firsts = vector_of(features, lambda batch: batch[:, 0] + np.array([1, 0]), 2, Reading("none", 4, 3))
    np.testing.assert_allclose(firsts, np.array([5, 4]) / np.sqrt(41), rtol=1e-6)


@pytest.fixture
def folder(recipe: Path) -> Path:
    """data/x: recordings of two rates, one of them in segments, one through a pipe, one with noise; no features."""
    one, two = write_wav(recipe / "one.wav", noise(1.2)), write_wav(recipe / "two.wav", noise(0.8, 8000, 1), 8000)
    three = write_wav(recipe / "three.wav", np.stack([noise(0.5, seed=2), noise(0.5, seed=3)], 1))
    sources = {"r1": str(one), "r2": f"cat {two} |", "r3": str(three)}
    write_data_dir(recipe / "data/x", sources, {"a-1": "a", "a-2": "a", "b-1": "b", "b-2": "b"})
    lines = {"a-1": "r1 0.1 0.6", "a-2": "r1 0.6 1.2", "b-1": "r2 0.0 0.7", "b-2": "r3 0.0 0.5"}
    write_table(recipe / "data/x/segments", lines)
    write_table(recipe / "data/x/utt2aug", {"a-2": "noise=pink#3:snr=5"})
    return recipe / "data/x"


def features_with(conf: str, folder: Path, sh: Run) -> Scp:
    (folder / "own.conf").write_text(conf)
    sh("local/make_fbank.sh", "--nj", 2, "--compress", "false", "--fbank-config", folder / "own.conf", folder)
    return Scp(folder / "feats.scp")


def save(path: Path, info: dict[str, Any], feat_dim: int) -> None:
    (path.parent / "tiny.conf").write_text("--type=xvector\n--channels=8\n--stats-channels=12\n--embedding-dim=6\n")
    torch.manual_seed(0)
    save_net(path, make_net(path.parent / "tiny.conf", feat_dim, ("a", "b"), MarginConf()), info)


def extract(recipe: Path, sh: Run, info: dict[str, Any], feat_dim: int, *options: object) -> tuple[str, Scp]:
    save(recipe / "final.pt", info, feat_dim)
    done = sh("local/extract_xvectors.sh", *options, "final.pt", "data/x", "out")
    return done.stdout, Scp(recipe / "out/xvector.scp")


def test_extraction_takes_the_models_own_features(recipe: Path, folder: Path, sh: Run) -> None:
    """Computed of segments, pipes, other rates, noise added, they are those that make_fbank.sh makes with its options."""
    front_end = KaldiFrontEnd(KaldiConf(num_mel_bins=30, window_type="hamming", dither=0.0))
    said, vectors = extract(recipe, sh, {"front_end": front_end_info(front_end)}, 30, "--nj", 3, "--max-frames", 25)
    assert "data/x has no feats.scp: they are computed from wav.scp" in said and "4 in, 4 vectors out, 0 lost" in said
    assert list(Scp(recipe / "out/spk_xvector.scp")) == ["a", "b"]
    computed = [vectors.read(index) for index in range(4)]
    features = features_with("--num-mel-bins=30\n--window-type=hamming\n--dither=0\n", folder, sh)
    said, again = extract(recipe, sh, {"front_end": front_end_info(front_end)}, 30, "--nj", 2, "--max-frames", 25)
    assert "computed" not in said
    assert list(vectors) == list(again) == ["a-1", "a-2", "b-1", "b-2"]
    net = load_net(recipe / "final.pt")
    for index in range(4):
        expected = embed(net, features.read(index), torch.device("cpu"), 25)
        np.testing.assert_allclose(computed[index], expected, atol=1e-5)
        np.testing.assert_allclose(again.read(index), expected, atol=1e-6)


@pytest.mark.parametrize("size", [20, 60])
def test_a_vector_for_each_piece_of_an_utterance(recipe: Path, folder: Path, sh: Run, size: int) -> None:
    """Each piece is an utterance of its own, minus its own mean; what is too short for one is one."""
    features = features_with("--num-mel-bins=30\n--dither=0\n", folder, sh)
    lengths = {key: len(features.read(index)) for index, key in enumerate(features)}
    assert sorted(lengths.values()) == [48, 48, 58, 68]
    front_end = KaldiFrontEnd(KaldiConf(num_mel_bins=30, dither=0.0))
    _, vectors = extract(recipe, sh, {"front_end": front_end_info(front_end)}, 30, "--nj", 2, "--chunk-frames", size)
    starts = {key: range(0, max(length // size, 1) * size, size) for key, length in lengths.items()}
    names = {f"{key}-{start:08d}-{start + size:08d}": (key, start) for key in starts for start in starts[key]}
    assert list(vectors) == list(names) and len(names) == (9 if size == 20 else 4)
    net = load_net(recipe / "final.pt")
    for index, (key, start) in enumerate(names.values()):
        piece = features.read(features.find(key), start, start + size)
        np.testing.assert_allclose(vectors.read(index), embed(net, piece, torch.device("cpu")), atol=1e-5)
    speakers = read_table(folder / "utt2spk")
    assert read_table(recipe / "out/utt2spk") == {name: speakers[key] for name, (key, _) in names.items()}
    assert list(read_table(recipe / "out/spk2utt")) == list(Scp(recipe / "out/spk_xvector.scp")) == ["a", "b"]


def test_features_that_are_not_the_models_own(recipe: Path, folder: Path, sh: Run) -> None:
    stored = features_with("--num-mel-bins=40\n--dither=0\n", folder, sh)
    front_end = KaldiFrontEnd(KaldiConf(num_mel_bins=30, dither=0.0))
    source, said = feature_source(front_end, folder, folder / "feats.scp", "final.pt")
    assert f"the features in {folder} are not those of final.pt (--num-mel-bins=40 for 30): they are computed" in said
    assert list(source) == list(stored)
    same = KaldiFrontEnd(KaldiConf(num_mel_bins=40, dither=0.0))
    for either in (same, None):
        source, said = feature_source(either, folder, folder / "feats.scp", "final.pt")
        assert said == "" and np.array_equal(source("b-1"), stored.read(2))
    (folder / "wav.scp").unlink()
    with pytest.raises(
        ValueError, match=r"for 30\), and it has no wav.scp to compute them from: take a directory that has"
    ):
        feature_source(front_end, folder, folder / "feats.scp", "final.pt")
    (folder / "feats.scp").unlink()
    with pytest.raises(
        ValueError, match=r"feats.scp is missing, and final.pt does not say how it is made; run stage 2"
    ):
        feature_source(None, folder, folder / "segments", "final.pt")


def test_what_is_lost_is_said(recipe: Path, folder: Path, sh: Run) -> None:
    write_table(folder / "segments", {**read_table(folder / "segments"), "b-2": "r3 0.3 0.31"})
    save(recipe / "final.pt", {"front_end": front_end_info(KaldiFrontEnd(KaldiConf(num_mel_bins=30)))}, 30)
    done = sh("local/extract_xvectors.sh", "--nj", 2, "final.pt", "data/x", "out", fails=True)
    assert (
        "1 of 4 utterances have no vector, more than 5 %" in done.stderr
        and "b-2 is shorter than a frame" in done.stderr
    )
    assert not (recipe / "out/xvector.scp").exists()


def test_vectors_that_are_not_finite_are_lost(folder: Path, tmp_path: Path) -> None:
    source, _ = feature_source(KaldiFrontEnd(KaldiConf(num_mel_bins=30)), folder, folder / "segments", "final.pt")

    class Encode:
        mixes, frames = False, 1000

        def __call__(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
            return np.array([[np.nan if len(piece) == 68 else 1.0] for piece in pieces])

    with pytest.raises(ValueError, match=r"1 of 4 .* more than 24 %: .*: b-1 the model gives a vector that is not"):
        write_vectors(tmp_path / "v", source, Encode(), Cut(), tmp_path / "lost", 24)
    assert not (tmp_path / "v.scp").exists()
    assert "4 in, 3 out, 1 lost" in write_vectors(tmp_path / "v", source, Encode(), Cut(), tmp_path / "lost", 25)
    assert list(Scp(tmp_path / "v.scp")) == ["a-1", "a-2", "b-2"] and list(read_table(tmp_path / "lost")) == ["b-1"]


def test_kaldi_conf_has_kaldis_defaults() -> None:
    assert all(getattr(KaldiConf(), name) == value for name, value in vars(FbankConf()).items())


def test_an_utterance_that_has_no_features_does_not_get_those_of_another(tmp_path: Path) -> None:
    with ArkWriter(tmp_path / "feats") as write:
        for key in ("a", "b"):
            write(key, np.ones((3, 2), np.float32))
    source = StoredFeatures(tmp_path / "feats.scp")
    assert source("a").shape == (3, 2)
    with pytest.raises(AudioError, match=r"has no line in .*feats.scp"):
        source("c")
