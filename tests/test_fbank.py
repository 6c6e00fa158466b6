"""Filterbanks: against Kaldi's own values, kaldi-native-fbank's and torchaudio's."""

import inspect
import itertools
from dataclasses import replace

import kaldi_native_fbank
import kaldiio
import numpy as np
import pytest
import torch
import torchaudio.compliance.kaldi
from conftest import ROOT, noise

from speakerkd.audio.recordings import mono, read_audio
from speakerkd.conf import build, read_conf
from speakerkd.feats.fbank import Fbank, FbankConf
from speakerkd.feats.vad import VadConf

GOLDEN = ROOT / "tests/data/kaldi-golden"
PLAIN = FbankConf(dither=0.0)


def golden_commands() -> dict[str, FbankConf]:
    """archive -> options, out of the very command lines that Kaldi was run with."""
    found = {}
    for line in (GOLDEN / "COMMANDS").read_text().splitlines():
        words = line.split()
        if words and words[0] == "compute-fbank-feats":
            options = [word[2:].partition("=") for word in words if word.startswith("--")]
            pairs = {name.replace("-", "_"): value for name, _, value in options}
            found[words[-1].removeprefix("ark:")] = build(FbankConf, pairs, "COMMANDS")
    return found


@pytest.mark.parametrize(("archive", "conf"), golden_commands().items())
def test_equals_kaldi(archive: str, conf: FbankConf) -> None:
    """Bins 18 nepers below the frame's loudest hold nothing but single-precision rounding; the rest agrees closely."""
    fbank = Fbank(conf)
    for key, theirs in kaldiio.load_ark(str(GOLDEN / archive)):
        samples, rate = read_audio(str(GOLDEN / f"{key}.wav"))
        assert rate == fbank.rate
        ours = fbank(mono(samples))
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() < 5e-4
        loud = theirs > theirs.max(1, keepdims=True) - 10
        assert np.abs(ours - theirs)[loud].max() < 1e-4


def by_kaldi_native(conf: FbankConf, wave: np.ndarray) -> np.ndarray:
    options = kaldi_native_fbank.FbankOptions()
    frame, mel = options.frame_opts, options.mel_opts
    frame.samp_freq, frame.dither, frame.window_type = conf.sample_frequency, 0.0, conf.window_type
    frame.snip_edges, frame.remove_dc_offset = conf.snip_edges, conf.remove_dc_offset
    frame.frame_length_ms, frame.frame_shift_ms = conf.frame_length, conf.frame_shift
    frame.preemph_coeff = conf.preemphasis_coefficient
    mel.num_bins, mel.low_freq, mel.high_freq = conf.num_mel_bins, conf.low_freq, conf.high_freq
    options.use_energy, options.raw_energy, options.use_power = conf.use_energy, conf.raw_energy, conf.use_power
    options.use_log_fbank, options.energy_floor, options.htk_compat = (
        conf.use_log_fbank,
        conf.energy_floor,
        conf.htk_compat,
    )
    online = kaldi_native_fbank.OnlineFbank(options)
    online.accept_waveform(conf.sample_frequency, (wave * 32768).tolist())
    online.input_finished()
    return np.array([online.get_frame(index) for index in range(online.num_frames_ready)])


def speechlike(num_samples: int, rate: int) -> np.ndarray:
    time = np.arange(num_samples) / rate
    return (
        0.3 * np.sin(2 * np.pi * 180 * time) ** 9 + 0.03 * noise(1 + num_samples / rate, rate)[:num_samples]
    ).astype(np.float32)


GRID = [
    replace(PLAIN, window_type=window, snip_edges=snip, sample_frequency=rate, low_freq=low, high_freq=high, num_mel_bins=40)
    for window, snip, rate, (low, high) in itertools.product(
        ["povey", "hamming", "hanning", "rectangular", "blackman"], [True, False], [8000.0, 16000.0],
        [(20.0, 0.0), (100.0, -300.0)],
    )
] + [
    replace(PLAIN, **change)  # type: ignore[arg-type]
    for change in [
        {"num_mel_bins": 80, "low_freq": 20.0, "high_freq": 7600.0},
        {"use_energy": True}, {"use_energy": True, "raw_energy": False}, {"use_energy": True, "energy_floor": 1e9},
        {"use_power": False}, {"use_log_fbank": False}, {"remove_dc_offset": False}, {"preemphasis_coefficient": 0.0},
        {"frame_length": 32.0, "frame_shift": 12.5}, {"use_energy": True, "htk_compat": True},
    ]
]  # fmt: skip


@pytest.mark.parametrize("conf", GRID)
def test_equals_kaldi_native_fbank(conf: FbankConf) -> None:
    fbank = Fbank(conf)
    lengths = [fbank.length, fbank.length + 1, 4 * fbank.length + 37, fbank.rate // 2]
    if not conf.snip_edges:
        lengths += [3, fbank.shift // 2, fbank.shift, fbank.length - 1]
    for length in lengths:
        wave = speechlike(length, fbank.rate)
        ours = fbank(wave)
        if not conf.snip_edges and length < fbank.length // 2:  # it reflects once only
            assert len(ours) == (length + fbank.shift // 2) // fbank.shift
            continue
        theirs = by_kaldi_native(conf, wave)
        assert ours.shape == theirs.shape, length
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-3 if conf.use_log_fbank else 1)


def test_equals_torchaudio() -> None:
    wave = speechlike(16000, 16000)
    for conf in (replace(PLAIN, num_mel_bins=80), replace(PLAIN, window_type="hamming", snip_edges=False)):
        options = {
            "num_mel_bins": conf.num_mel_bins,
            "window_type": conf.window_type,
            "snip_edges": conf.snip_edges,
            "dither": 0.0,
        }
        theirs = torchaudio.compliance.kaldi.fbank(torch.from_numpy(wave)[None] * 32768, **options).numpy()
        np.testing.assert_allclose(Fbank(conf)(wave), theirs, atol=1e-3)


def test_reflection_beyond_one_length() -> None:
    """7 samples make one frame of 400: the wave and its mirror image, again and again."""
    fbank = Fbank(replace(PLAIN, snip_edges=False, frame_shift=0.5))
    wave = noise(7 / 16000)
    mirrored = np.concatenate([wave, wave[::-1]])
    count = fbank.num_frames(7)
    frames = fbank._frames(torch.from_numpy(wave), count).numpy()
    for frame in range(count):
        first = frame * fbank.shift + fbank.shift // 2 - fbank.length // 2
        assert np.array_equal(frames[frame], mirrored[(first + np.arange(fbank.length)) % 14])


def test_no_frames() -> None:
    for samples in (0, 3, 399):
        assert Fbank(PLAIN)(np.zeros(samples, np.float32)).shape == (0, 23)
    assert Fbank(PLAIN)(np.zeros(400, np.float32)).shape == (1, 23)


def test_silence_gives_the_floor() -> None:
    assert np.allclose(Fbank(PLAIN)(np.zeros(1000, np.float32)), np.log(np.finfo(np.float32).eps))


def test_dither_is_seeded_and_of_the_size_said() -> None:
    fbank = Fbank(replace(FbankConf(), use_energy=True, remove_dc_offset=False))
    silence = np.zeros(16000, np.float32)
    assert np.array_equal(fbank(silence, 5), fbank(silence, 5)) and not np.array_equal(
        fbank(silence, 5), fbank(silence, 6)
    )
    assert abs(fbank(silence)[:, 0].mean() - np.log(400)) < 0.1  # the energy of 400 samples of variance 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window_type": "hann"}, "--window-type=hann is not one of: povey hanning hamming"),
        ({"high_freq": 9000.0}, "don't fit 0 to 8000"),
        ({"low_freq": -1.0}, "don't fit"),
        ({"num_mel_bins": 300}, "300 is too many here"),
        ({"num_mel_bins": 2}, "at least 3 are needed"),
        ({"frame_shift": 0.0}, "can't be made"),
        ({"frame_length": 24.9375, "round_to_power_of_two": False}, "needs an even frame; it has 399"),
    ],
)
def test_options_that_make_no_sense(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fbank(replace(PLAIN, **change))


def test_recipes_conf_files_hold_options_of_kaldi() -> None:
    """What torchaudio's function (whose arguments are Kaldi's options) takes, compute-fbank-feats takes."""
    torchaudios = set(inspect.signature(torchaudio.compliance.kaldi.fbank).parameters)
    for path in ROOT.glob("egs/*/v1/conf/fbank.conf"):
        assert set(read_conf(path)) <= torchaudios
        Fbank(build(FbankConf, read_conf(path), str(path)))
    for path in ROOT.glob("egs/*/v1/conf/vad.conf"):
        build(VadConf, read_conf(path), str(path))
