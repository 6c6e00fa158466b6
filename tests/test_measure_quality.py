"""Figures of quality: cosines by hand, the order of noise levels, seconds of speech; what is missing is said."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import noise, write_wav
from score_data import script

from speakerkd.feats.fbank import FbankConf
from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.tables import read_table, write_data_dir

Run = Callable[..., subprocess.CompletedProcess[str]]
measure = script("measure_quality")
UTT2SPK = {"a-1": "a", "a-2": "a", "a-3": "a", "b-1": "b", "c-1": "c", "c-2": "c"}


def write_vectors(folder: Path, vectors: dict[str, np.ndarray]) -> Path:
    with ArkWriter(folder / "xvector") as write:
        for name, vector in vectors.items():
            write(name, vector.astype(np.float32))
    return folder / "xvector.scp"


def figures(path: Path) -> dict[str, float]:
    return {name: float(text) for name, text in read_table(path).items()}


def test_agreement_is_with_the_speaker_s_other_vectors(tmp_path: Path, rng: np.random.Generator) -> None:
    write_data_dir(tmp_path / "data", dict.fromkeys(UTT2SPK, "x"), UTT2SPK)
    vectors = {name: rng.standard_normal(5) * rng.uniform(1, 9) for name in UTT2SPK}
    vectors["z-1"] = rng.standard_normal(5)  # of another data directory
    scp = write_vectors(tmp_path, vectors)
    measure.main(["--vectors", str(scp), str(tmp_path / "data"), str(tmp_path / "quality")])
    found = figures(tmp_path / "quality")
    unit = {name: vector / np.linalg.norm(vector) for name, vector in vectors.items()}
    centroid = unit["a-1"] + unit["a-3"]
    assert found["a-2"] == pytest.approx(unit["a-2"] @ centroid / np.linalg.norm(centroid), abs=1e-4)
    assert found["c-1"] == found["c-2"] == pytest.approx(unit["c-1"] @ unit["c-2"], abs=1e-4)
    rest = [value for name, value in found.items() if name != "b-1"]
    assert found["b-1"] == pytest.approx(np.mean(rest), abs=1e-4)  # its speaker has no other
    assert found.keys() == UTT2SPK.keys()


def test_a_wrong_vector_agrees_least(tmp_path: Path, rng: np.random.Generator) -> None:
    speakers = np.repeat(np.arange(10), 8)
    matrix = rng.standard_normal((10, 16))[speakers] + 0.3 * rng.standard_normal((80, 16))
    matrix[3] = matrix[77]
    found, alone = measure.agreement(matrix, speakers)
    assert found.argmin() == 3 and alone == 0 and np.delete(found, 3).min() > 0.7


def test_a_cap_makes_the_best_alike(tmp_path: Path, rng: np.random.Generator) -> None:
    write_data_dir(tmp_path / "data", dict.fromkeys(UTT2SPK, "x"), UTT2SPK)
    scp = write_vectors(tmp_path, {name: rng.standard_normal(5) for name in UTT2SPK})
    for name, more in (("plain", []), ("capped", ["--cap", "0.4"])):
        measure.main([*more, "--vectors", str(scp), str(tmp_path / "data"), str(tmp_path / name)])
    plain, capped = figures(tmp_path / "plain"), figures(tmp_path / "capped")
    highest = np.quantile(list(plain.values()), 0.4)
    assert sum(value > highest + 1e-4 for value in plain.values()) >= 2
    assert capped == pytest.approx({name: min(value, highest) for name, value in plain.items()}, abs=1e-4)


def test_utterances_without_a_vector_are_counted(recipe: Path, sh: Run, rng: np.random.Generator) -> None:
    write_data_dir(recipe / "data", dict.fromkeys(UTT2SPK, "x"), UTT2SPK)
    scp = write_vectors(recipe, {name: rng.standard_normal(5) for name in list(UTT2SPK)[1:]})
    done = sh("local/measure_quality.py", "--vectors", scp, "data", "quality")
    assert "1 utterances of data have no vector" in done.stderr and "--missing zero" in done.stderr
    assert "a-1" not in figures(recipe / "quality")


def power(snr: float | None, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A second of syllables with pauses, and noise of this SNR below it: (frames, 20 filters)."""
    frames = round(100 * seconds)
    speech = np.zeros((frames, 20))
    for start in range(0, frames, 40):
        speech[start : start + 25] = rng.chisquare(4, (len(speech[start : start + 25]), 20)) / 4
    level = 0.0 if snr is None else speech.mean() * 10 ** (-snr / 10)
    return np.asarray(speech + 1e-7 + level * rng.chisquare(20, (frames, 20)) / 20)


def test_snr_ranks_and_is_near_in_steady_noise(rng: np.random.Generator) -> None:
    found = {snr: np.mean([measure.snr(power(snr, 3, rng)) for _ in range(20)]) for snr in (0, 10, 20, 30)}
    assert all(-1 < value - snr < 4 for snr, value in found.items()), (
        found
    )  # the quietest tenth is below the noise's mean
    assert measure.snr(power(None, 3, rng)) == measure.HIGHEST
    assert measure.snr(np.full((50, 20), 0.3)) == measure.LOWEST
    assert np.isfinite(measure.snr(np.zeros((1, 20))))


def test_length_counts_what_is_loud(rng: np.random.Generator) -> None:
    assert measure.seconds_of_speech(power(None, 2, rng), 0.01) == pytest.approx(2 * 25 / 40)
    assert measure.seconds_of_speech(power(5, 2, rng), 0.01) == pytest.approx(2)


@pytest.mark.parametrize("form", [FbankConf(num_mel_bins=4), FbankConf(num_mel_bins=4, use_log_fbank=False)])
@pytest.mark.parametrize("energy", ["", "first", "last"])
def test_features_of_every_form_give_powers(tmp_path: Path, form: FbankConf, energy: str) -> None:
    rows = np.random.default_rng(0).uniform(0.5, 2, (7, 4)).astype(np.float32)
    stored = np.log(rows) if form.use_log_fbank else rows
    if energy:
        column = np.full((7, 1), 9, np.float32)
        stored = np.hstack([column, stored] if energy == "first" else [stored, column])
    conf = FbankConf(
        num_mel_bins=4, use_log_fbank=form.use_log_fbank, use_energy=bool(energy), htk_compat=energy == "last"
    )
    with ArkWriter(tmp_path / "feats") as write:
        write("a", stored)
    ((name, found),) = measure.powers(tmp_path / "feats.scp", conf)
    assert name == "a"
    np.testing.assert_allclose(found, rows, rtol=1e-5)
    with pytest.raises(ValueError, match="'a' has the shape"):
        list(measure.powers(tmp_path / "feats.scp", FbankConf(num_mel_bins=7)))


def test_noisy_recordings_have_the_lower_figure(recipe: Path, sh: Run) -> None:
    """From the recordings to the table, by make_fbank.sh's features."""
    syllables = np.sin(2 * np.pi * 3 * np.arange(32000) / 16000) > 0
    waves = {
        "a-1": noise(2) * (syllables + 1e-4),
        "a-2": noise(2) * syllables + 0.1 * noise(2, seed=1),
        "a-3": noise(2),
    }
    wav_scp = {name: str(write_wav(recipe / f"{name}.wav", wave)) for name, wave in waves.items()}
    write_data_dir(recipe / "data", wav_scp, dict.fromkeys(wav_scp, "a"))
    assert (
        "conf/fbank.conf is missing"
        in sh("local/measure_quality.py", "--figure", "snr", "data", "q", fails=True).stderr
    )
    sh("local/make_fbank.sh", "--nj", 1, "data")
    sh("local/measure_quality.py", "--figure", "snr", "data", "q")
    found = figures(recipe / "q")
    assert found["a-1"] > found["a-2"] + 10 > found["a-3"] + 20
    sh("local/measure_quality.py", "--figure", "length", "data", "q")
    found = figures(recipe / "q")
    assert found["a-1"] == pytest.approx(1, abs=0.15) and found["a-3"] > 1.9


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    for words, message in (
        (["--figure", "norm"], "--figure=norm is not one of: agreement snr length"),
        ([], "agreement needs --vectors"),
        (["--figure", "snr", "--vectors", "x.scp"], "snr and length take none"),
        (["--figure", "snr", "--cap", "0"], "--cap=0.0 is above 0 and at most 1"),
    ):
        with pytest.raises(ValueError, match=message):
            measure.main([*words, str(tmp_path), str(tmp_path / "q")])
