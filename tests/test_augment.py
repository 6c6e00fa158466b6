"""Augmentation: what a line of utt2aug does to a wave, and what is planned for a data directory."""

import hashlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import ROOT, noise, write_wav
from hypothesis import given
from hypothesis import strategies as st

from speakerkd.audio import rooms
from speakerkd.audio.augment import Augmenter, Cache, Noise, Reverb, Speed, parse
from speakerkd.audio.recordings import AudioError
from speakerkd.files.tables import Segment, read_table, write_data_dir, write_table

RATE = 16000
Run = Callable[..., subprocess.CompletedProcess[str]]


def planner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("augment_data_dir", ROOT / "local/augment_data_dir.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plan(*words: object) -> None:
    planner().main([str(word) for word in words])


def floats(path: Path, wave: np.ndarray, rate: int = RATE) -> str:
    return str(write_wav(path, wave, rate, "FLOAT"))


def decibels(signal: np.ndarray, disturbance: np.ndarray) -> float:
    return 10 * np.log10(np.mean(signal.astype(float) ** 2) / np.mean(disturbance.astype(float) ** 2))


# The grammar


@pytest.mark.parametrize(
    ("text", "operations"),
    [
        ("speed=0.9", [Speed(0.9)]),
        (
            "speed=1.1 reverb=rirs-smallroom-Room001-00032 noise=musan-noise-free-sound-0042@1.25:snr=10",
            [
                Speed(1.1),
                Reverb("rirs-smallroom-Room001-00032"),
                Noise("musan-noise-free-sound-0042", 10.0, 1.25),
            ],
        ),
        ("noise=a@1.5-4:snr=-2.5:at=0.75", [Noise("a", -2.5, 1.5, 4.0, 0.75)]),
        (
            "noise=pink#17:snr=0:at=0  reverb=room#3:rt60=0.4",
            [Noise("pink#17", 0.0, at=0.0), Reverb("room#3:rt60=0.4")],
        ),
        ("noise=you@home.org:rec@3@2:snr=5", [Noise("you@home.org:rec@3", 5.0, 2.0)]),
    ],
)
def test_parse(text: str, operations: list[object]) -> None:
    assert parse(text) == operations


thousandths = st.integers(0, 10**7).map(lambda number: number / 1000)
identifiers = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1).filter(
    lambda text: text.split() == [text] and ":snr=" not in text
)
noises = st.builds(
    lambda source, snr, start, length, at: Noise(
        source, snr, start, None if length == 0 else round(start + length, 3), at
    ),
    identifiers,
    st.integers(-300, 300).map(lambda number: number / 10),
    thousandths,
    st.sampled_from([0, 1, 250]),
    st.none() | thousandths,
).filter(lambda each: each.start > 0 or each.end is not None or "@" not in each.source)
operations = st.builds(Speed, st.integers(50, 200).map(lambda number: number / 100)) | st.builds(Reverb, identifiers)


@given(st.lists(operations | noises, min_size=1))
def test_what_is_written_is_read(listed: list[object]) -> None:
    assert parse(" ".join(map(str, listed))) == listed


@pytest.mark.parametrize(
    "word",
    ["", "spede=0.9", "speed=0.912", "speed=3", "speed=", "speed=0,9", "reverb", "reverb=", "noise=a",
     "noise=a:snr=loud", "noise=a:snr=10:", "noise=a:snr=10:at=", "noise=a:snr=10:on=3", "noise=a@4-3:snr=1",
     "noise=a@-1:snr=1x", "noise=:snr=1", "noise=a:snr=nan", "noise=a:snr=10:at=-1", "noise=a:snr=1e1", "clean"],
)  # fmt: skip
def test_a_typo_is_an_error_that_shows_it(word: str) -> None:
    with pytest.raises(ValueError, match="utt2aug") as error:
        parse(f"noise=b:snr=3 {word}" if word else "")
    assert not isinstance(error.value, AudioError)  # the whole run stops, not only this utterance
    assert f"'{word}'" in str(error.value) or not word


# Noise


@pytest.mark.parametrize(("seconds", "snr"), [(1.0, 10.0), (7.0, 0.0), (3.0, -5.0), (40.0, 20.0)])
def test_background_noise_has_the_snr_over_the_utterance(tmp_path: Path, seconds: float, snr: float) -> None:
    speech, other = (
        noise(3, seed=1),
        noise(seconds, seed=2) * np.linspace(0.1, 1, round(seconds * RATE), dtype=np.float32),
    )
    before = speech.copy()
    augmenter = Augmenter({"n": floats(tmp_path / "n.wav", other)}, RATE)
    heard = augmenter(speech, f"noise=n@0.25:snr={snr:g}")
    assert heard.dtype == np.float32 and len(heard) == len(speech)
    assert np.array_equal(speech, before)
    assert decibels(speech, heard - speech) == pytest.approx(snr, abs=0.01)
    # It is the stretch from 0.25 s on, again and again.
    expected = np.resize(other[RATE // 4 :], len(speech))
    assert np.corrcoef(heard - speech, expected)[0, 1] > 0.99999


def test_foreground_noise_has_the_snr_by_its_own_power_and_stays_in_its_place(tmp_path: Path) -> None:
    speech, other = noise(3, seed=1), 0.3 * noise(1, seed=2)
    augmenter = Augmenter({"n": floats(tmp_path / "n.wav", other)}, RATE)
    added = augmenter(speech, "noise=n:snr=5:at=1.5") - speech
    assert not added[: 3 * RATE // 2].any() and not added[5 * RATE // 2 :].any()
    assert decibels(speech, added[3 * RATE // 2 : 5 * RATE // 2]) == pytest.approx(5, abs=0.01)
    # What the end of the utterance cuts off counts as well: Kaldi measures the noise, not what is heard of it.
    cut = augmenter(speech, "noise=n:snr=5:at=2.5") - speech
    assert np.allclose(cut[5 * RATE // 2 :], added[3 * RATE // 2 : 2 * RATE], atol=1e-6)
    assert np.array_equal(augmenter(speech, "noise=n:snr=5:at=3"), speech)


def test_a_stretch_is_repeated_without_what_follows_it(tmp_path: Path) -> None:
    other = np.concatenate([np.zeros(RATE), np.full(RATE // 2, 0.5), np.zeros(RATE)]).astype(np.float32)
    augmenter = Augmenter({"n": floats(tmp_path / "n.wav", other)}, RATE)
    speech = noise(2)
    added = augmenter(speech, "noise=n@1-1.5:snr=10") - speech
    assert np.allclose(added, added[0], atol=1e-6) and added[0] > 0


def test_noises_in_a_row_have_their_snr_against_the_speech_alone(tmp_path: Path) -> None:
    sources = {name: floats(tmp_path / f"{name}.wav", noise(3, seed=seed)) for seed, name in enumerate("abc")}
    augmenter = Augmenter(sources, RATE)
    speech = noise(3, seed=9)
    texts = ["noise=a:snr=-10", "noise=b:snr=0:at=1", "noise=c:snr=3"]
    apart = sum(augmenter(speech, text) - speech for text in texts)
    assert np.allclose(augmenter(speech, " ".join(texts)) - speech, apart, atol=1e-5)


def test_a_long_file_is_read_in_part_and_gives_the_same(tmp_path: Path) -> None:
    other = noise(40, seed=3)
    path = floats(tmp_path / "long.wav", other)
    speech = noise(2)
    partly, wholly = Augmenter({"n": path}, RATE), Augmenter({"n": f"cat {path} |"}, RATE)
    for text in ("noise=n@31.5:snr=7", "noise=n@39.25:snr=7", "noise=n@30-30.5:snr=7", "noise=n@5-7:snr=7:at=0.5"):
        assert np.array_equal(partly(speech, text), wholly(speech, text))
    assert "n" not in partly._cache and "n" in wholly._cache


def test_noise_of_another_rate_is_resampled_and_of_several_channels_the_first_is_taken(tmp_path: Path) -> None:
    time = np.arange(2 * 48000) / 48000
    both = np.stack([np.sin(2 * np.pi * 1000 * time), np.sin(2 * np.pi * 3000 * time)], 1)
    augmenter = Augmenter({"n": str(write_wav(tmp_path / "n.wav", 0.5 * both, 48000))}, RATE)
    speech = 1e-3 * noise(1)
    spectrum = np.abs(np.fft.rfft(augmenter(speech, "noise=n:snr=-40") - speech))
    assert spectrum.argmax() == 1000
    assert spectrum[2990:3010].max() < 1e-3 * spectrum.max()


def test_silence_has_no_snr_and_nothing_is_added(tmp_path: Path) -> None:
    silence, speech = np.zeros(RATE, np.float32), noise(1)
    augmenter = Augmenter(
        {"n": floats(tmp_path / "n.wav", noise(2)), "silence": floats(tmp_path / "s.wav", silence)}, RATE
    )
    assert not augmenter(silence, "noise=n:snr=10 reverb=room#1:rt60=0.3 noise=n:snr=0:at=0.5").any()
    assert np.array_equal(augmenter(speech, "noise=silence:snr=10"), speech)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    sources = {"gone": str(tmp_path / "gone.wav"), "dead": floats(tmp_path / "d.wav", np.zeros(9)), "pipe": "false |"}
    augmenter = Augmenter({**sources, "short": floats(tmp_path / "s.wav", noise(1))}, RATE)
    for text, said in (
        ("noise=gone:snr=1", "gone of aug.scp: no such file"),
        ("reverb=gone", "gone of aug.scp: no such file"),
        ("noise=pipe:snr=1", "pipe of aug.scp: the pipe failed"),
        ("noise=pinc#3:snr=1", "'pinc#3' has no line in aug.scp"),
        ("reverb=room#3", "'room#3' has no line in aug.scp"),
        ("reverb=dead", "dead: this room response is silence"),
        ("noise=short@1.5:snr=1", "short: ends before 1.5 s"),
    ):
        with pytest.raises(AudioError, match=said):
            augmenter(noise(1), text)


def test_cache_keeps_what_was_used_last() -> None:
    cache = Cache(250)
    for name in ("a", "b", "a", "c"):  # of 100 bytes each
        cache(name, lambda: np.zeros(100, np.uint8))
    assert [name in cache for name in "abc"] == [True, False, True]
    assert len(cache("huge", lambda: np.zeros(999, np.uint8))) == 999 and "huge" not in cache


# Rooms


def test_an_identity_room_leaves_the_wave(tmp_path: Path) -> None:
    speech = noise(2)
    for delay in (0, 1, 700):  # the way of the direct sound is taken back
        response = np.zeros(1000)
        response[delay] = -0.25 if delay == 1 else 0.25
        heard = Augmenter({"r": floats(tmp_path / f"{delay}.wav", response)}, RATE)(speech, "reverb=r")
        assert heard.dtype == np.float32
        assert np.allclose(heard, np.sign(response[delay]) * speech, atol=1e-6)


@pytest.mark.parametrize(("samples", "taps"), [(100, 3), (20000, 2), (3, 5000), (200001, 9000)])
def test_reverberation_is_the_convolution_at_the_input_power(rng: np.random.Generator, samples: int, taps: int) -> None:
    wave = rng.standard_normal(samples).astype(np.float32)
    response = (0.3 * rng.standard_normal(taps) / np.arange(1, taps + 1)).astype(np.float32)
    peak = taps // 3
    response[peak] = 2
    exact = np.convolve(wave.astype(float), response.astype(float))
    assert np.allclose(rooms.convolve(wave, response), exact, atol=2e-5 * np.abs(exact).max())
    exact = exact[peak : peak + samples]
    exact *= np.sqrt(np.sum(wave.astype(float) ** 2) / np.sum(exact**2))
    assert np.allclose(rooms.reverberate(wave, response), exact, atol=2e-5 * np.abs(exact).max())


def reverberation_time(response: np.ndarray, rate: int) -> float:
    """Schroeder: the decay of the energy that is still to come, from -5 to -25 dB."""
    after = response[np.abs(response).argmax() :].astype(float)
    left = 10 * np.log10(np.cumsum(after[::-1] ** 2)[::-1] / np.sum(after**2) + 1e-12)
    where = np.flatnonzero((left < -5) & (left > -25))
    return float(-60 / np.polyfit(where / rate, left[where], 1)[0])


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("rt60", [0.2, 0.4, 0.8])
def test_a_simulated_room_has_the_reverberation_time_asked_for(rt60: float, rate: int) -> None:
    times = []
    for seed in range(12):
        response = rooms.response(f"room#{seed}:rt60={rt60}", rate)
        assert response is not None and np.abs(response).argmax() < 0.03 * rate  # the direct sound is the strongest
        times.append(reverberation_time(response, rate))
    assert np.max(np.abs(np.array(times) / rt60 - 1)) < 0.2
    assert np.median(times) == pytest.approx(rt60, rel=0.05)


def test_images_of_a_talker_are_where_mirrors_put_them() -> None:
    size, talker, microphone = np.array([3.0, 4.0, 2.5]), np.array([1.0, 1.0, 1.0]), np.array([2.0, 3.0, 1.5])
    distance, order = rooms.images(size, talker, microphone, 6.0)
    found = sorted(zip(order.tolist(), distance.round(9).tolist(), strict=True))
    assert [d for n, d in found if n == 0] == [round(float(np.linalg.norm(talker - microphone)), 9)]
    walls = [talker.copy() for _ in range(6)]
    for axis in range(3):
        walls[axis][axis] *= -1
        walls[3 + axis][axis] = 2 * size[axis] - talker[axis]
    mirrored = sorted(round(float(np.linalg.norm(image - microphone)), 9) for image in walls)
    assert [d for n, d in found if n == 1] == [d for d in mirrored if d <= 6]


# Generated noise, speed


@pytest.mark.parametrize("kind", rooms.NOISES)
def test_generated_noise_is_the_same_each_time_and_another_for_another_seed(kind: str) -> None:
    first, again, other = (rooms.noise(f"{kind}#{seed}", RATE) for seed in (5, 5, 6))
    assert first is not None and again is not None and other is not None
    assert len(first) == 10 * RATE and np.array_equal(first, again)
    assert np.mean(first**2) == pytest.approx(1, rel=1e-3)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.5
    speech = noise(1)
    assert decibels(speech, Augmenter({}, RATE)(speech, f"noise={kind}#5@9.5:snr=4") - speech) == pytest.approx(
        4, abs=0.01
    )


@pytest.mark.parametrize(("kind", "slope"), [("white", 0.0), ("pink", -3.01), ("brown", -6.02)])
def test_coloured_noise_falls_by_so_many_decibels_an_octave(kind: str, slope: float) -> None:
    made = rooms.noise(f"{kind}#1", RATE)
    assert made is not None
    density = np.abs(np.fft.rfft(made.astype(float))) ** 2
    octaves = [10 * np.log10(density[10 * low : 20 * low].mean()) for low in (100, 200, 400, 800, 1600)]
    assert np.diff(octaves).mean() == pytest.approx(slope, abs=0.2)


@pytest.mark.parametrize("factor", [0.9, 1.1, 1.25])
@pytest.mark.parametrize("rate", [16000, 11025])
def test_speed_changes_frequency_and_length(factor: float, rate: int) -> None:
    time = np.arange(2 * rate) / rate
    heard = Augmenter({}, rate)(np.sin(2 * np.pi * 500 * time).astype(np.float32), f"speed={factor}")
    assert abs(len(heard) - len(time) / factor) <= 1
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert spectrum.argmax() * rate / len(heard) == pytest.approx(500 * factor, abs=0.5)


# The plan


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve utterances of four speakers."""
    names = [f"s{i // 3}-u{i}" for i in range(12)]
    wavs = {utt: str(write_wav(tmp_path / f"wav/{utt}.wav", noise(1 + i / 4, seed=i))) for i, utt in enumerate(names)}
    lengths = {utt: f"{1 + i / 4:.3f}" for i, utt in enumerate(names)}
    folder = tmp_path / "train"
    write_data_dir(
        folder, wavs, {utt: utt[:2] for utt in names}, utt2dur=lengths, spk2gender={f"s{i}": "f" for i in range(4)}
    )
    return folder


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """Small folders like MUSAN and RIRS_NOISES."""
    for path in (
        "noise/free-sound/noise-free-sound-0000",
        "noise/sound bible/noise-bible-1",
        "music/fma/music-fma-0001",
    ):
        write_wav(tmp_path / f"musan/{path}.wav", noise(1.5))
    for number in range(8):
        write_wav(tmp_path / f"musan/speech/librivox/speech-librivox-{number}.wav", noise(4, seed=number))
    (tmp_path / "musan/noise/free-sound/ANNOTATIONS").write_text("noise-free-sound-0000.wav\n")
    for size in ("small", "medium"):
        for room in ("Room001/Room001-00001", "Room002/Room002-00001"):
            write_wav(tmp_path / f"RIRS_NOISES/simulated_rirs/{size}room/{room}.wav", rooms.shoebox(1, 0.2, RATE))
    real = tmp_path / "RIRS_NOISES/real_rirs_isotropic_noises"
    write_wav(real / "RVB2014_type1_rir_far_angla.wav", np.zeros((800, 8)) + 0.1)
    write_wav(real / "RVB2014_type1_noise_far_1.wav", np.zeros((800, 8)) + 0.1)
    return tmp_path


def tables(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def test_kinds_and_speeds(data: Path, tmp_path: Path, sh: Run) -> None:
    out = tmp_path / "aug"
    done = sh("local/augment_data_dir.py", "--kinds", "reverb,noise,noise,reverb+babble", "--speeds", "0.9", data, out)
    for said in ("generated, for there is no --musan", "simulated rooms, for there is no --rirs", "4 speakers of",
                 "noise: 48 copies", "reverb+babble: 24 copies", "12 utterances in, 108 copies"):  # fmt: skip
        assert said in done.stderr
    texts = read_table(out / "utt2aug")
    assert [type(each) for each in parse(texts["sp0.9-s1-u4-reverb+babble"])][:3] == [Speed, Reverb, Noise]
    assert texts["sp0.9-s1-u4"] == "speed=0.9"
    assert texts["s1-u4-noise"] != texts["s1-u4-noise2"]
    uniq, speakers = read_table(out / "utt2uniq"), read_table(out / "utt2spk")
    assert uniq["s1-u4-noise2"] == "s1-u4" and speakers["s1-u4-noise2"] == "s1"
    assert uniq["sp0.9-s1-u4"] == uniq["sp0.9-s1-u4-noise"] == "sp0.9-s1-u4"
    assert speakers["sp0.9-s1-u4-noise"] == "sp0.9-s1"
    assert {speakers[utt].split("-")[0] for utt in speakers if not utt.startswith("sp")} == {"s0", "s1", "s2", "s3"}
    lengths, wavs = read_table(out / "utt2dur"), read_table(out / "wav.scp")
    assert lengths["s1-u4-noise"] == "2.000" and lengths["sp0.9-s1-u4-noise"] == "2.222"
    assert wavs["sp0.9-s1-u4-noise"] == read_table(data / "wav.scp")["s1-u4"]
    assert read_table(out / "spk2gender")["sp0.9-s1"] == "f"
    assert not set(texts) & set(read_table(data / "wav.scp"))
    sh("utils/validate_data_dir.sh", "--no-feats", out)
    sh("utils/combine_data.sh", tmp_path / "all", data, out)
    augmenter = Augmenter(read_table(out / "aug.scp"), RATE)
    for text in texts.values():
        assert np.isfinite(augmenter(noise(1), text)).all()


def test_the_same_command_gives_the_same_bytes_whatever_else_is_there(data: Path, tmp_path: Path) -> None:
    options = ("--kinds", "reverb,noise,music", "--speeds", "1.1")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        plan(*options, "--seed", seed, data, tmp_path / name)
    assert tables(tmp_path / "a") == tables(tmp_path / "b")
    assert read_table(tmp_path / "a/utt2aug") != read_table(tmp_path / "c/utt2aug")
    part = {utt: wav for utt, wav in read_table(data / "wav.scp").items() if utt in ("s1-u4", "s3-u9")}
    write_data_dir(tmp_path / "part", part, {utt: utt[:2] for utt in part}, utt2dur=dict.fromkeys(part, "2.000"))
    plan(*options, tmp_path / "part", tmp_path / "part_aug")
    whole, few = read_table(tmp_path / "a/utt2aug"), read_table(tmp_path / "part_aug/utt2aug")
    assert few["s1-u4-music"] == whole["s1-u4-music"]
    assert few["sp1.1-s1-u4-noise"] == whole["sp1.1-s1-u4-noise"]
    assert few["s3-u9-reverb"] == whole["s3-u9-reverb"]


def test_num_utts_draws_copies_but_keeps_all_speeds(data: Path, tmp_path: Path) -> None:
    plan("--speeds", "0.9", "--num-utts", 20, data, tmp_path / "some")
    plan("--speeds", "0.9", data, tmp_path / "all")
    some, everything = read_table(tmp_path / "some/utt2aug"), read_table(tmp_path / "all/utt2aug")
    assert len(some) == 12 + 20 and some.items() <= everything.items()
    assert len({utt.rsplit("-", 1)[1] for utt in some if not utt[-1].isdigit()}) == 4


def test_speeds_first_and_noise_later_is_the_same(data: Path, tmp_path: Path, sh: Run) -> None:
    plan("--speeds", "0.9", "--kinds", "babble,noise", data, tmp_path / "once")
    plan("--speeds", "0.9", "--kinds=", data, tmp_path / "sp")
    sh("utils/combine_data.sh", tmp_path / "three", data, tmp_path / "sp")
    plan("--kinds", "babble,noise", tmp_path / "three", tmp_path / "twice")
    once, twice = read_table(tmp_path / "once/utt2aug"), read_table(tmp_path / "twice/utt2aug")
    assert twice["sp0.9-s1-u4-babble"].startswith("speed=0.9 noise=")
    for utt, text in twice.items():
        assert text == once[utt] or utt.startswith("sp")  # utt2dur of speed copies is rounded
        assert parse(text)[-1].source == parse(once[utt])[-1].source  # type: ignore[union-attr]
    uniq = read_table(tmp_path / "twice/utt2uniq")
    assert uniq.items() <= read_table(tmp_path / "once/utt2uniq").items()


def test_babble_is_never_of_the_same_speaker(data: Path, tmp_path: Path) -> None:
    plan("--kinds", "babble,babble,babble,babble", "--speeds", "0.9", data, tmp_path / "aug")
    counts = set()
    for utt, text in read_table(tmp_path / "aug/utt2aug").items():
        talkers = [each.source[:2] for each in parse(text) if isinstance(each, Noise)]
        counts.add(len(talkers))
        assert utt.removeprefix("sp0.9-")[:2] not in talkers
        assert len(set(talkers)) == min(3, len(talkers))  # three others are there
    assert counts == {0, 3, 4, 5, 6, 7}
    assert read_table(tmp_path / "aug/aug.scp").items() <= read_table(data / "wav.scp").items()


def test_segments_stay_and_babble_keeps_within_them(data: Path, tmp_path: Path) -> None:
    wavs = {"r0": str(write_wav(tmp_path / "r0.wav", noise(30))), "r1": str(write_wav(tmp_path / "r1.wav", noise(9)))}
    segments = {f"s{i % 3}-{i}": Segment("r0", 2.0 * i, 2.0 * i + 1.9) for i in range(14)}
    segments["s3-99"] = Segment("r1", 4.5, -1)
    folder = tmp_path / "cut"
    write_data_dir(folder, wavs, {utt: utt[:2] for utt in segments}, segments)
    plan("--speeds", "0.9", "--kinds", "babble", folder, tmp_path / "aug")
    table = read_table(tmp_path / "aug/segments", 4)
    assert table["sp0.9-s1-4"] == table["s1-4-babble"] == "r0 8.000 9.900"
    assert read_table(tmp_path / "aug/wav.scp") == wavs
    for utt, text in read_table(tmp_path / "aug/utt2aug").items():
        for each in (each for each in parse(text) if isinstance(each, Noise)):
            assert each.end is not None
            (owner,) = [
                name
                for name, cut in segments.items()
                if cut.recording == each.source
                and cut.start <= each.start < each.end <= (cut.end if cut.end > 0 else 9)
            ]
            assert owner[:2] != utt.removeprefix("sp0.9-")[:2]


def test_without_speakers_babble_is_of_other_utterances(data: Path, tmp_path: Path) -> None:
    for name in ("utt2spk", "spk2utt", "spk2gender", "utt2dur"):
        (data / name).unlink()
    plan("--kinds", "babble", "--speeds", "1.1", data, tmp_path / "aug")
    for utt, text in read_table(tmp_path / "aug/utt2aug").items():
        sources = [each.source for each in parse(text) if isinstance(each, Noise)]
        assert utt.removeprefix("sp1.1-").removesuffix("-babble") not in sources
    assert sorted(tables(tmp_path / "aug")) == ["aug.scp", "utt2aug", "utt2uniq", "wav.scp"]


def test_musan_and_rirs(data: Path, corpora: Path, tmp_path: Path) -> None:
    plan("--musan", corpora / "musan", "--rirs", corpora / "RIRS_NOISES", data, tmp_path / "aug")
    sources, texts = read_table(tmp_path / "aug/aug.scp"), read_table(tmp_path / "aug/utt2aug")
    assert sources["musan-noise-free-sound-0000"].endswith("/musan/noise/free-sound/noise-free-sound-0000.wav")
    assert {"musan-sound_bible-noise-bible-1", "musan-music-fma-0001"} <= set(sources)
    assert {name for name in sources if name.startswith("rirs")} == {
        f"rirs-{size}room-Room00{room}-00001" for size in ("small", "medium") for room in (1, 2)
    }
    wavs = read_table(data / "wav.scp")
    augmenter = Augmenter(sources, RATE)
    for utt, text in texts.items():
        original, kind = utt.rsplit("-", 1)
        noises = [each for each in parse(text) if isinstance(each, Noise)]
        assert np.isfinite(augmenter(noise(1), text)).all() and original in wavs
        # Kaldi's recipe: in the foreground with a second between them, music and babble behind it all
        assert [each.at is None for each in noises] == [kind != "noise"] * len(noises)
        if kind == "noise":
            assert noises[0].at == 0 and {each.snr for each in noises} <= {15, 10, 5, 0}
            starts = [each.at or 0.0 for each in noises]
            assert all(gap == pytest.approx(2.5) for gap in np.diff(starts))  # 1.5 s of noise and one without
            assert starts[-1] < 1 + int(original.split("u")[1]) / 4
        elif kind == "babble":
            assert 3 <= len({each.source for each in noises}) == len(noises) <= 7


def test_real_rooms(data: Path, corpora: Path, tmp_path: Path) -> None:
    plan("--rirs", corpora / "RIRS_NOISES", "--rooms", "real", "--kinds", "reverb", data, tmp_path / "aug")
    (name,) = read_table(tmp_path / "aug/aug.scp")  # the noise in that folder is no room
    assert name == "rirs-real_rirs_isotropic_noises-RVB2014_type1_rir_far_angla"


def test_files_of_one_name_get_ids_of_their_own(data: Path, tmp_path: Path) -> None:
    for path in ("a/x", "a/x/x", "b/x"):
        write_wav(tmp_path / f"musan/noise/{path}.wav", noise(0.3))
    plan("--musan", tmp_path / "musan", "--kinds", "noise,noise", data, tmp_path / "aug")
    sources = read_table(tmp_path / "aug/aug.scp")
    assert len(sources) == 3 == len(set(sources.values()))


def test_tables_of_an_earlier_run_are_removed(data: Path, tmp_path: Path) -> None:
    plan("--kinds", "babble", data, tmp_path / "aug")
    (data / "spk2gender").unlink()
    plan("--kinds", "noise", data, tmp_path / "aug")
    assert not (tmp_path / "aug/spk2gender").exists() and not (tmp_path / "aug/aug.scp").exists()


def test_an_unreadable_recording_gets_no_copies(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data / "utt2dur").unlink()
    Path(read_table(data / "wav.scp")["s0-u2"]).write_bytes(b"no audio")
    plan("--kinds", "noise,babble", data, tmp_path / "aug")
    assert len(read_table(tmp_path / "aug/utt2aug")) == 22 and "s0-u2" not in (tmp_path / "aug/aug.scp").read_text()
    assert "1 utterance(s) can't be read" in caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--kinds", "reverb,nose"), "'nose' is not one of: reverb noise music babble"),
        (("--kinds", "reverb+"), "'' is not one of: "),
        (("--kinds", ""), "there would be no copies"),
        (("--speeds", "1.0"), "1 must lie between 0.5 and 2"),
        (("--speeds", "0.9,0.9"), "given twice"),
        (("--speeds", "0.915"), "two decimals at most"),
        (("--noise-snrs", "15:loud"), "--noise-snrs=15:loud: not a number"),
        (("--noise-snrs", "nan"), "--noise-snrs=nan: not a number"),
        (("--music-snrs", ""), "nothing to draw from"),
        (("--babble-speakers", "0"), "--babble-speakers"),
        (("--rooms", "tiny"), "'tiny' is not one of: smallroom mediumroom largeroom real"),
        (("--musan", "nowhere"), "--musan is a folder with noise/, music/ and speech/"),
        (("--rirs", "nowhere"), "nowhere/simulated_rirs/smallroom: there is no .wav"),
    ],
)
def test_options_that_cannot_be(data: Path, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError) as error:
        plan(*options, data, tmp_path / "aug")
    assert said in str(error.value)
    assert not (tmp_path / "aug").exists()


def test_directories_that_cannot_be(data: Path, tmp_path: Path, sh: Run) -> None:
    def fails(said: str, source: Path = data, dest: Path = tmp_path / "aug", kinds: str = "babble") -> None:
        with pytest.raises(ValueError) as error:
            plan("--kinds", kinds, source, dest)
        assert said in str(error.value)

    fails("name another destination", dest=data / ".")
    fails("no such data directory", source=tmp_path / "nothing")
    write_table(data / "utt2aug", {"s0-u1": "nois=x:snr=3"})
    fails("utt2aug: s0-u1: utt2aug: 'nois=x:snr=3'")
    (data / "utt2aug").unlink()
    utts = {utt: wav for utt, wav in read_table(data / "wav.scp").items() if utt.startswith("s0")}
    write_data_dir(tmp_path / "lonely", utts, dict.fromkeys(utts, "s0"))
    fails("babble needs two speakers or more; give --musan", source=tmp_path / "lonely")
    utts["s0-u0-noise"] = utts["s0-u0"]
    write_data_dir(tmp_path / "taken", utts, dict.fromkeys(utts, "s0"))
    fails("has s0-u0-noise already", source=tmp_path / "taken", kinds="noise")
    (data / "utt2spk").write_text("s0-u0 s0\n")
    fails("utt2spk: no line for s0-u1", kinds="reverb")
    done = sh("local/augment_data_dir.py", tmp_path / "nothing", tmp_path / "aug", fails=True)
    assert done.stderr.startswith("augment_data_dir.py: error:") and not (tmp_path / "aug").exists()


def test_copies_come_in_the_order_of_their_names_and_are_as_many_as_wanted() -> None:
    """Names that interleave: a-b-noise stands before a-noise, though a stands before a-b."""
    from speakerkd.audio.copies import choose, in_order, list_variants

    utterances = sorted(["a", "a-b", "a-", "a-noise0", "b", "b-0"])
    variants = list_variants(("noise", "reverb", "noise"), (0.9, 1.1))
    assert [variant.suffix for variant in variants if not variant.prefix] == ["-noise", "-reverb", "-noise2"]
    names = [copy.name for copy in in_order(utterances, variants, choose(utterances, variants, 0, 0))]
    assert names == sorted(variant.name(utt) for utt in utterances for variant in variants)
    assert names.index("a-b-noise") < names.index("a-noise")
    drawn = [name for name in names if name not in {variants[i].name(utt) for i in (0, 1) for utt in utterances}]
    for count in (1, 7, len(drawn), 999):
        kept = [copy.name for copy in in_order(utterances, variants, choose(utterances, variants, count, 3))]
        assert len(kept) == min(count, len(drawn)) + 2 * len(utterances)
        hashes = sorted(drawn, key=lambda name: hashlib.sha256(f"3 {name}".encode()).digest())
        assert set(kept) - set(hashes[:count]) == set(names) - set(drawn)


@pytest.mark.parametrize(
    "text", ["noise=white#1:snr=-4000", "noise=white#1:snr=4000", f"noise=white#1@{'9' * 400}:snr=5"]
)
def test_numbers_out_of_all_bounds_in_utt2aug(text: str) -> None:
    """Not an OverflowError of the arithmetic that comes later."""
    with pytest.raises(ValueError, match="an SNR lies between -200 and 200 dB, a time is at most 1000000 s"):
        parse(text)
