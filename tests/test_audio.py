"""Recordings of every kind, good and bad."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import noise, write_wav

from speakerkd.audio.ranges import WaveRanges
from speakerkd.audio.recordings import AudioError, mono, read_audio, resample


@pytest.mark.parametrize(
    ("subtype", "tolerance"),
    [("PCM_16", 2**-15), ("PCM_24", 2**-23), ("PCM_U8", 2**-7), ("FLOAT", 0), ("PCM_32", 2**-24)],
)
def test_sample_formats(tmp_path: Path, subtype: str, tolerance: float) -> None:
    wave = noise(0.1)
    samples, rate = read_audio(str(write_wav(tmp_path / "a.wav", wave, 8000, subtype)))
    assert rate == 8000 and samples.dtype == np.float32 and samples.shape == (1600, 1)
    assert np.abs(samples[:, 0] - wave).max() <= tolerance


@pytest.mark.parametrize("ending", ["flac", "ogg", "mp3", "wav"])
def test_files_and_pipes(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"with space.{ending}"
    soundfile.write(path, noise(0.5), 16000)
    direct, rate = read_audio(str(path))
    piped, same_rate = read_audio(f"cat '{path}' | cat |")
    assert rate == same_rate == 16000 and len(direct) >= 8000 and np.array_equal(direct, piped)


def test_streamed_wav_has_no_length(tmp_path: Path) -> None:
    """ffmpeg and sox write such headers into a pipe."""
    path = write_wav(tmp_path / "a.wav", noise(0.5))
    raw = bytearray(path.read_bytes())
    at = raw.index(b"data") + 4
    for length in (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0"):
        raw[4:8] = raw[at : at + 4] = length
        path.write_bytes(raw)
        assert len(read_audio(str(path))[0]) == len(read_audio(f"cat {path} |")[0]) == 8000


def test_an_empty_wav_before_other_chunks_is_empty(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", noise(0.5))
    raw = path.read_bytes()
    at = raw.index(b"data") + 4
    more = b"LIST" + (40).to_bytes(4, "little") + bytes(40)
    path.write_bytes(raw[:at] + bytes(4) + more)
    with pytest.raises(AudioError, match="holds no samples"):
        read_audio(str(path))
    (tmp_path / "files.scp").write_text(f"a {path}\n")
    with pytest.raises(ValueError, match="'a': holds no samples"):
        WaveRanges(tmp_path / "files.scp", 16000).num_samples(0)
    path.write_bytes(raw[:at] + bytes(4) + raw[at + 4 :] + more)  # streamed samples: what follows is no chunk
    assert len(read_audio(str(path))[0]) >= 8000


def test_wav_in_an_archive(tmp_path: Path) -> None:
    """wav.scp as Kaldi's wav-copy makes it."""
    first = write_wav(tmp_path / "a.wav", noise(0.1, seed=1)).read_bytes()
    second = write_wav(tmp_path / "b.wav", noise(0.2, seed=2)).read_bytes()
    (tmp_path / "wav.ark").write_bytes(b"a " + first + b"b " + second)
    assert len(read_audio(f"{tmp_path}/wav.ark:2")[0]) == 1600
    assert len(read_audio(f"{tmp_path}/wav.ark:{4 + len(first)}")[0]) == 3200
    with pytest.raises(AudioError, match="there is no WAV at this offset"):
        read_audio(f"{tmp_path}/wav.ark:7")


def test_channels(tmp_path: Path) -> None:
    both = np.stack([noise(0.1, seed=1), noise(0.1, seed=2)], 1)
    samples, _ = read_audio(str(write_wav(tmp_path / "a.wav", both, 16000, "FLOAT")))
    assert np.array_equal(mono(samples), both[:, 0]) and np.array_equal(mono(samples, 1), both[:, 1])
    with pytest.raises(AudioError, match="has 2 channel"):
        mono(samples, 2)


def bad_files(folder: Path) -> dict[str, tuple[str, str]]:
    write_wav(folder / "good.wav", noise(1))
    raw = (folder / "good.wav").read_bytes()
    (folder / "truncated.wav").write_bytes(raw[:9000])
    chunk = b"LIST" + (6000).to_bytes(4, "little") + bytes(6000)
    (folder / "long.wav").write_bytes(raw[:12] + chunk + raw[12:9000])
    (folder / "text.wav").write_text("I am not a recording")
    (folder / "zero.wav").write_bytes(b"")
    os.mkfifo(folder / "fifo")
    write_wav(folder / "empty.wav", np.zeros(0))
    write_wav(folder / "nan.wav", np.array([0, np.nan, 1]), 16000, "FLOAT")
    write_wav(folder / "inf.wav", np.array([0, np.inf, -np.inf]), 16000, "FLOAT")
    soundfile.write(folder / "good.flac", noise(1), 16000)
    (folder / "truncated.flac").write_bytes((folder / "good.flac").read_bytes()[:9000])
    return {
        "missing": (f"{folder}/no.wav", f"no such file: {folder}/no.wav"),
        "truncated wav": (f"{folder}/truncated.wav", r"truncated: 8956 of 32000 bytes"),
        "truncated in a pipe": (f"cat {folder}/truncated.wav |", r"truncated: 8956 of 32000 bytes"),
        "truncated after a long chunk": (f"{folder}/long.wav", r"truncated: 8956 of 32000 bytes"),
        "truncated flac": (f"{folder}/truncated.flac", "truncated|is not audio"),
        "text": (f"{folder}/text.wav", "is not audio that libsndfile reads"),
        "zero bytes": (f"{folder}/zero.wav", "is not audio"),
        "fifo": (f"{folder}/fifo", f"is not a regular file: {folder}/fifo"),
        "device": ("/dev/zero", "is not a regular file: /dev/zero"),
        "no samples": (f"{folder}/empty.wav", "holds no samples"),
        "nan": (f"{folder}/nan.wav", "NaN or infinite"),
        "inf": (f"{folder}/inf.wav", "NaN or infinite"),
        "folder": (str(folder), "is a folder"),
        "pipe fails": ("echo oh dear >&2; exit 3 |", r"the pipe failed with status 3 \(oh dear\)"),
        "pipe fails early": (f"cat {folder}/no.wav | cat |", "the pipe failed with status 1"),
        "pipe is silent": ("true |", "the pipe gave nothing"),
    }


def test_bad_recordings_say_why(tmp_path: Path) -> None:
    for name, (source, message) in bad_files(tmp_path).items():
        with pytest.raises(AudioError, match=message):
            read_audio(source)
            pytest.fail(f"{name} was read")


@pytest.mark.parametrize(("rate", "new_rate"), [(44100, 16000), (8000, 16000), (22050, 16000), (16000, 8000)])
def test_resampling_keeps_a_tone(rate: int, new_rate: int) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)
    result = resample(tone, rate, new_rate)
    expected = np.sin(2 * np.pi * 1000 * np.arange(new_rate) / new_rate)
    assert abs(len(result) - new_rate) <= 1
    middle = slice(new_rate // 10, -new_rate // 10)
    assert np.abs(result[:new_rate][middle] - expected[middle]).max() < 2e-3


def test_resampling_removes_what_would_alias() -> None:
    tone = np.sin(2 * np.pi * 10000 * np.arange(44100) / 44100).astype(np.float32)
    assert np.abs(resample(tone, 44100, 16000)[1000:-1000]).max() < 2e-3


def test_a_pipe_does_not_eat_our_stdin(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", noise(0.1))
    script = (
        f"from speakerkd.audio.recordings import read_audio; read_audio('cat - >/dev/null; cat {path} |'); "
        "print(input())"
    )
    done = subprocess.run([sys.executable, "-c", script], input="still here\n", capture_output=True, text=True)
    assert done.stdout == "still here\n", done.stderr


@pytest.mark.parametrize("rate", [44099, 15999, 7993])
def test_odd_rates_are_resampled_too(rate: int) -> None:
    """Without a filter of gigabytes."""
    tone = np.sin(2 * np.pi * 500 * np.arange(2 * rate) / rate).astype(np.float32)
    result = resample(tone, rate, 16000)[1000:-1000]
    assert abs(len(result) + 2000 - 32000) <= 3
    crossings = np.flatnonzero((result[1:] >= 0) != (result[:-1] >= 0))
    assert abs((len(crossings) - 1) * 8000 / np.ptp(crossings) - 500) < 0.2 and 0.99 < np.abs(result).max() < 1.01


CONTAINERS = [
    ("aiff", "AIFF", "PCM_16"),
    ("aifc", "AIFF", "FLOAT"),
    ("au", "AU", "PCM_16"),
    ("nist", "NIST", "PCM_16"),
    ("w64", "W64", "PCM_24"),
    ("rf64", "RF64", "PCM_16"),
    ("caf", "CAF", "PCM_16"),
    ("wav", "WAVEX", "FLOAT"),
]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("name", "kind", "subtype"), CONTAINERS)
def test_truncated_files_of_each_container(tmp_path: Path, name: str, kind: str, subtype: str, channels: int) -> None:
    """libsndfile reads what is there and says nothing. By file and by pipe, wherever the cut is."""
    wave = np.stack([noise(0.5, seed=seed) for seed in range(channels)], 1)
    soundfile.write(tmp_path / f"a.{name}", wave, 16000, subtype=subtype, format=kind)
    raw = (tmp_path / f"a.{name}").read_bytes()
    assert np.abs(read_audio(f"{tmp_path}/a.{name}")[0] - wave).max() < 1e-4
    assert len(read_audio(f"cat {tmp_path}/a.{name} |")[0]) == 8000
    frame = len(raw) // 8000
    for kept in (len(raw) - frame, len(raw) - 2000, len(raw) // 2, 2000):
        (tmp_path / f"b.{name}").write_bytes(raw[:kept])
        for source in (f"{tmp_path}/b.{name}", f"cat {tmp_path}/b.{name} |"):
            with pytest.raises(AudioError, match=r"is truncated: \d+ of \d+ bytes of samples|is not audio"):
                read_audio(source)


@pytest.mark.parametrize(("name", "kind", "subtype"), CONTAINERS)
def test_any_cut_is_noticed_or_harmless(tmp_path: Path, name: str, kind: str, subtype: str) -> None:
    """Cut at any of 200 places: an error, or all the samples (what was lost stood behind them)."""
    soundfile.write(tmp_path / f"a.{name}", noise(0.1), 16000, subtype=subtype, format=kind)
    raw = (tmp_path / f"a.{name}").read_bytes()
    for kept in range(0, len(raw), len(raw) // 200):
        (tmp_path / f"b.{name}").write_bytes(raw[:kept])
        with contextlib.suppress(AudioError):
            assert len(read_audio(f"{tmp_path}/b.{name}")[0]) == 1600


def test_a_streamed_au_has_no_length(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.au", noise(0.5), 16000, subtype="PCM_16")
    raw = bytearray((tmp_path / "a.au").read_bytes())
    raw[8:12] = b"\xff" * 4
    (tmp_path / "a.au").write_bytes(raw)
    assert len(read_audio(f"{tmp_path}/a.au")[0]) == 8000


def test_a_damaged_header_that_promises_a_terabyte(tmp_path: Path) -> None:
    """One lost utterance: not the end of the job, and not a silent cut."""
    soundfile.write(tmp_path / "a.mp3", noise(1), 16000)
    raw = bytearray((tmp_path / "a.mp3").read_bytes())
    place = max(raw.find(b"Info"), raw.find(b"Xing"))
    assert place > 0 and raw[place + 7] & 1  # the number of frames stands next
    raw[place + 8 : place + 12] = b"\xff" * 4
    (tmp_path / "a.mp3").write_bytes(raw)
    with soundfile.SoundFile(tmp_path / "a.mp3") as file:
        assert file.frames * 4 > 1e12
    with pytest.raises(AudioError, match=r"is truncated: \d+ of \d{12,} samples"):
        read_audio(f"{tmp_path}/a.mp3")


def test_a_long_recording_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = np.stack([noise(0.5), noise(0.5, seed=1)], 1)
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    for block in (16000, 16001, 15999, 1000, 7):
        monkeypatch.setattr("speakerkd.audio.recordings.BLOCK", block)
        assert np.array_equal(read_audio(f"{tmp_path}/a.wav")[0], wave)
