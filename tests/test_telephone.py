"""The telephone band: its response by tones, its quantiser by the figures of the mu-law, and as a kind of augmentation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_wav

from speakerkd.audio.augment import Augmenter, Telephone, parse
from speakerkd.audio.telephone import band, compress, expand, telephone
from speakerkd.audio.waves import Waves
from speakerkd.files.tables import read_table, write_data_dir


def tone(hertz: float, rate: int = 16000, level: float = 0.1) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(rate) / rate)).astype(np.float32)


def decibels(wave: np.ndarray, other: np.ndarray) -> float:
    return float(
        10 * np.log10((np.mean(wave.astype(np.float64) ** 2) + 1e-20) / np.mean(other.astype(np.float64) ** 2))
    )


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_the_band_passes_speech_and_nothing_else(rate: int) -> None:
    for hertz in (350, 1000, 3000):
        wave = tone(hertz, rate)
        heard = telephone(wave, rate)
        assert heard.shape == wave.shape and heard.dtype == np.float32
        assert decibels(heard, wave) == pytest.approx(0, abs=0.5)
    for hertz in (100, 180, *((5000, 7000) if rate > 8000 else ())):
        assert decibels(telephone(tone(hertz, rate), rate), tone(hertz, rate)) < -30


def test_half_a_cosine_at_the_edges() -> None:
    wave = np.sin(2 * np.pi * 250 * np.arange(8000) / 8000)  # half way up the rise, where half of the amplitude is left
    assert decibels(band(wave, 8000), wave) == pytest.approx(20 * np.log10(0.5), abs=0.01)


def test_mu_law_by_its_figures() -> None:
    """Some 38 dB over noise of a sine from full scale down to -40 dB, where 8 even bits would have 10 dB."""
    for level in (1.0, 0.1, 0.01):
        wave = tone(440, 8000, level)
        codes = compress(wave)
        assert codes.dtype == np.int8 and np.abs(codes).max() <= 127
        assert decibels(wave, expand(codes) - wave) == pytest.approx(36, abs=4)
    assert np.array_equal(compress(expand(np.arange(-127, 128, dtype=np.int8))), np.arange(-127, 128))
    assert compress(np.array([3.0, -3.0])).tolist() == [127, -127]  # what is too loud is clipped


def test_silence_and_nothing() -> None:
    assert not telephone(np.zeros(1600, np.float32), 16000).any()
    assert len(telephone(np.zeros(0, np.float32), 16000)) == 0


def test_it_is_a_word_of_utt2aug_and_a_kind_of_copies(sh: Callable[..., object], recipe: Path) -> None:
    assert parse("telephone") == [Telephone()] and str(Telephone()) == "telephone"
    wave = tone(1000) + tone(6000)
    assert np.array_equal(Augmenter({}, 16000)(wave, "telephone"), telephone(wave, 16000))
    paths = {f"s{i}-u": str(write_wav(recipe / f"s{i}.wav", wave)) for i in range(3)}
    write_data_dir(recipe / "data/a", paths, {utt: utt[:2] for utt in paths})
    sh("local/augment_data_dir.py", "--kinds", "telephone,noise+telephone", "data/a", "data/b")
    texts = read_table(recipe / "data/b/utt2aug")
    assert texts["s0-u-telephone"] == "telephone"
    assert texts["s0-u-noise+telephone"].startswith("noise=") and texts["s0-u-noise+telephone"].endswith(" telephone")
    heard = Waves(recipe / "data/b", 16000)("s0-u-telephone")
    assert decibels(heard, tone(1000)) == pytest.approx(0, abs=0.5)  # 6 kHz is gone
