"""Wave archives: what make_wave_ark.sh writes, who else reads it, and samples by range from archives and files."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import kaldi_native_io
import kaldiio
import numpy as np
import pytest
import soundfile
from conftest import noise, write_wav

from speakerkd.audio.ranges import WaveRanges
from speakerkd.audio.recordings import mono, read_audio
from speakerkd.audio.waveark import WaveArkWriter, sixteen_bits
from speakerkd.audio.waves import Waves
from speakerkd.files.tables import Segment, read_table, write_data_dir, write_table

Run = Callable[..., subprocess.CompletedProcess[str]]


def seconds(number: int) -> float:
    return 0.5 + number / 7


@pytest.fixture
def data(recipe: Path) -> Path:
    """Six utterances of two speakers."""
    wavs = {f"s{i // 3}-{i}": write_wav(recipe / f"wav/{i}.wav", noise(seconds(i), seed=i)) for i in range(6)}
    write_data_dir(recipe / "data/x", {utt: str(path) for utt, path in wavs.items()}, {utt: utt[:2] for utt in wavs})
    return recipe / "data/x"


def whole(ranges: WaveRanges, index: int) -> np.ndarray:
    return ranges(index, 0, ranges.num_samples(index))


def test_the_archive_holds_the_samples_and_kaldis_readers_read_it(recipe: Path, data: Path, sh: Run) -> None:
    done = sh("local/make_wave_ark.sh", "--nj", 2, data)
    assert "6 in, 6 out, 0 lost" in done.stdout
    sh("utils/validate_data_dir.sh", "--no-feats", data)
    ranges = WaveRanges(data / "waves.scp", 16000)
    counts = read_table(data / "utt2num_samples")
    theirs = kaldiio.load_scp(str(data / "waves.scp"))
    with kaldi_native_io.SequentialWaveReader(f"scp:{data}/waves.scp") as reader:
        native = {key: (value.sample_freq, value.data.numpy().copy()) for key, value in reader}
    for index, utterance in enumerate(ranges.scp):
        exact = soundfile.read(recipe / f"wav/{index}.wav", dtype="int16")[0]
        assert np.array_equal(whole(ranges, index) * 32768, exact)
        assert int(counts[utterance]) == len(exact) == ranges.num_samples(index)
        rate, samples = theirs[utterance]
        assert rate == 16000 and np.array_equal(samples, exact)
        assert native[utterance][0] == 16000 and np.array_equal(native[utterance][1][0], exact)
        # the features of the archive are those of the recording
        assert np.array_equal(mono(read_audio(read_table(data / "waves.scp")[utterance])[0]) * 32768, exact)
    assert read_table(data / "utt2dur")["s1-3"] == f"{seconds(3):.3f}"
    assert (data / "conf/fbank.conf").read_text() == (recipe / "conf/fbank.conf").read_text()


def test_ranges_of_archives_wav_and_flac_are_the_same(recipe: Path, data: Path, sh: Run) -> None:
    sh("local/make_wave_ark.sh", "--nj", 1, data)
    for number, subtype, name in ((0, "PCM_16", "flac"), (1, "PCM_24", "wav"), (2, "FLOAT", "wav")):
        samples = soundfile.read(recipe / f"wav/{number}.wav", dtype="float32")[0]
        write_wav(recipe / f"other/{number}.{name}", samples, 16000, subtype)
    write_table(data / "files.scp", {
        "s0-0": recipe / "other/0.flac", "s0-1": recipe / "other/1.wav", "s0-2": recipe / "other/2.wav",
        **{f"s1-{i}": recipe / f"wav/{i}.wav" for i in (3, 4, 5)},
    })  # fmt: skip
    archive, files = WaveRanges(data / "waves.scp", 16000), WaveRanges(data / "files.scp", 16000)
    rng = np.random.default_rng(0)
    for index in range(6):
        count = archive.num_samples(index)
        assert files.num_samples(index) == count
        for _ in range(20):
            first, last = np.sort(rng.integers(0, count + 1, 2)).tolist()
            assert np.array_equal(archive(index, first, last), files(index, first, last))
        assert np.array_equal(archive(index, count - 1, count), whole(archive, index)[-1:])


def test_many_files_are_read_though_few_stay_open(tmp_path: Path) -> None:
    paths = {f"{i:03}": write_wav(tmp_path / f"{i:03}.wav", np.full(10, i / 512)) for i in range(200)}
    write_table(tmp_path / "files.scp", paths)
    ranges = WaveRanges(tmp_path / "files.scp", 16000)
    for index in [*range(200), *range(0, 200, 7)]:
        assert np.array_equal(ranges(index, 3, 5), np.full(2, index / 512, np.float32))
    assert len(ranges._open) == 64


def test_what_is_done_to_the_waves(recipe: Path, sh: Run) -> None:
    """Segments, another rate, two channels, speed; a sum that is louder than 16 bits hold is scaled, not clipped."""
    write_wav(recipe / "long.wav", noise(3.0))
    write_wav(recipe / "rate.wav", noise(1.0, 44100), 44100)
    write_wav(recipe / "two.wav", np.stack([noise(1.0), -noise(1.0)], 1))
    write_wav(recipe / "loud.wav", 0.9 * np.sign(noise(1.0)))
    wav_scp = {
        "r1": f"cat {recipe}/long.wav |",
        "r2": recipe / "rate.wav",
        "r3": recipe / "two.wav",
        "r4": recipe / "loud.wav",
    }
    segments = {
        "s-1": Segment("r1", 0.5, 1.5), "s-2": Segment("r1", 2.0, -1), "s-3": Segment("r2", 0, -1),
        "s-4": Segment("r3", 0, -1), "s-5": Segment("r1", 0.5, 1.5), "s-6": Segment("r4", 0, -1),
    }  # fmt: skip
    texts = {"s-5": "speed=0.9", "s-6": "noise=white#1:snr=0"}
    data = recipe / "data/x"
    write_data_dir(
        data, {key: str(each) for key, each in wav_scp.items()}, dict.fromkeys(segments, "s"), segments, utt2aug=texts
    )
    sh("local/make_wave_ark.sh", "--nj", 1, data)
    ranges, waves = WaveRanges(data / "waves.scp", 16000), Waves(data, 16000)
    for index, utterance in enumerate(list(segments)[:5]):
        assert np.abs(whole(ranges, index) - waves(utterance)).max() <= 0.5001 / 32768, utterance
    loud, stored = waves("s-6"), whole(ranges, 5)
    assert np.abs(loud).max() > 1 and np.abs(stored).max() == np.float32(32767 / 32768)
    assert np.abs(stored - loud * np.abs(stored).max() / np.abs(loud).max()).max() < 0.51 / 32768
    log = (data / "log/make_wave_ark_x.1.log").read_text()
    assert "1 utterance(s) were louder than 16 bits hold, and were scaled down" in log
    assert "44100 Hz: resampled to 16000 Hz" in log and "2 channels: the first is taken" in log


def test_finished_jobs_are_kept_until_what_they_are_made_from_changes(recipe: Path, data: Path, sh: Run) -> None:
    command = ["local/make_wave_ark.sh", "--nj", 3, data]
    sh(*command)
    arks = {path.name: path.read_bytes() for path in sorted((data / "data").glob("*.ark"))}
    assert list(arks) == [f"raw_wave_x.{job}.ark" for job in (1, 2, 3)]

    def times() -> list[int]:
        return [(data / f"data/{name}").stat().st_mtime_ns for name in arks]

    before = times()
    (data / "data/raw_wave_x.2.made").unlink()  # as after a job that was killed
    (data / "data/raw_wave_x.2.ark").write_bytes(b"half")
    assert "2 of 3 jobs were finished before" in sh(*command).stdout
    after = times()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    assert {path.name: path.read_bytes() for path in sorted((data / "data").glob("*.ark"))} == arks

    write_wav(recipe / "wav/5.wav", noise(seconds(5), seed=99))
    assert "2 of 3 jobs were finished before" in sh(*command).stdout
    assert np.array_equal(
        whole(WaveRanges(data / "waves.scp", 16000), 5), soundfile.read(recipe / "wav/5.wav", dtype="float32")[0]
    )
    write_table(data / "utt2aug", {"s0-0": "speed=1.1"})
    assert "2 of 3 jobs were finished before" in sh(*command).stdout
    sh("local/make_wave_ark.sh", "--nj", 1, data)
    assert [path.name for path in (data / "data").glob("*.ark")] == ["raw_wave_x.1.ark"]


def test_unusable_recordings_are_listed_and_the_rest_goes_on(recipe: Path, data: Path, sh: Run) -> None:
    bad = {
        "s2-0": "/no/such.wav",
        "s2-1": "echo |",
        "s2-2": str(write_wav(recipe / "nan.wav", np.full(99, np.nan), 16000, "FLOAT")),
    }
    write_data_dir(data, (wav_scp := {**read_table(data / "wav.scp"), **bad}), {utt: utt[:2] for utt in wav_scp})
    done = sh("local/make_wave_ark.sh", "--nj", 2, data, fails=True)
    assert "3 of 9 utterances are unusable, more than 5 %" in done.stderr and not (data / "waves.scp").exists()
    sh("local/make_wave_ark.sh", "--nj", 2, "--max-lost", 50, data)
    lost = read_table(data / "lost_waves")
    assert lost["s2-0"].startswith("no such file") and "not audio" in lost["s2-1"] and "NaN" in lost["s2-2"]
    sh("utils/fix_data_dir.sh", data)
    sh("utils/validate_data_dir.sh", "--no-feats", data)
    assert len(read_table(data / "utt2spk")) == len(read_table(data / "waves.scp")) == 6


def test_data_directory_tools_keep_the_waves(recipe: Path, data: Path, sh: Run) -> None:
    sh("local/make_wave_ark.sh", "--nj", 1, data)
    sh("utils/subset_data_dir.sh", "--first", data, 4, "data/four")
    sh("utils/copy_data_dir.sh", "--utt-prefix", "b-", "--spk-prefix", "b-", data, "data/other")
    sh("utils/combine_data.sh", "data/all", "data/four", "data/other")
    assert len(read_table(recipe / "data/all/waves.scp")) == len(read_table(recipe / "data/all/utt2num_samples")) == 10
    sh("utils/validate_data_dir.sh", "--no-feats", "data/all")


def one(folder: Path, source: object) -> WaveRanges:
    write_table(folder / "one.scp", {"a": source})
    return WaveRanges(folder / "one.scp", 16000)


def archived(folder: Path, name: str, subtype: str, channels: int = 1, rate: int = 16000) -> str:
    samples = np.stack([noise(0.1)] * channels, 1)
    path = write_wav(folder / f"{name}.wav", samples, rate, subtype)
    (folder / f"{name}.ark").write_bytes(b"a " + path.read_bytes())
    return f"{folder}/{name}.ark:2"


def test_what_a_range_cant_be_read_of_is_named_with_the_remedy(tmp_path: Path) -> None:
    cut = tmp_path / "cut.ark"
    with WaveArkWriter(str(tmp_path / "good"), 16000) as write:
        write("a", noise(0.1))
    cut.write_bytes((tmp_path / "good.ark").read_bytes()[:1000])
    (tmp_path / "text.wav").write_text("not a wave, but a text that is long enough to be one")
    soundfile.write(tmp_path / "a.ogg", noise(0.1), 16000)
    remedy = "local/make_wave_ark.sh"
    for source, messages in (
        (archived(tmp_path, "int24", "PCM_24"), ["no WAV of 16 bits", "mono with 16 bits", remedy]),
        (archived(tmp_path, "stereo", "PCM_16", 2), ["2 channels", "mono with 16 bits", remedy]),
        (archived(tmp_path, "slow", "PCM_16", rate=8000), ["8000 Hz", "16000 Hz", remedy]),
        (f"{cut}:2", ["truncated: 954 of 3200 bytes"]),
        (f"{cut}:990", ["no WAV of 16 bits", remedy]),
        (f"{cut}:5000", ["no WAV of 16 bits", remedy]),
        ("cat a.wav |", ["pipe", remedy]),
        ("/no/such.wav", ["no file /no/such.wav"]),
        (tmp_path, ["no file"]),
        (tmp_path / "text.wav", ["not audio", remedy]),
        (tmp_path / "a.ogg", ["OGG", remedy]),
        (write_wav(tmp_path / "nan.wav", np.full(99, np.nan), 16000, "FLOAT"), ["NaN"]),
        (write_wav(tmp_path / "slow2.wav", noise(0.1), 8000, "FLOAT"), ["8000 Hz", "16000 Hz", remedy]),
    ):
        with pytest.raises(ValueError) as error:
            one(tmp_path, source)(0, 0, 99)
        for message in ["one.scp:1: 'a'", *messages]:
            assert message in str(error.value), (source, str(error.value))
    with pytest.raises(ValueError, match="samples 1500 to 1601 were asked for, there are 1600"):
        one(tmp_path, f"{tmp_path}/good.ark:2")(0, 1500, 1601)


def test_sixteen_bits() -> None:
    exact = np.arange(-32768, 32768).astype(np.float32) / 32768
    samples, changed = sixteen_bits(exact)
    assert not changed and np.array_equal(samples, np.arange(-32768, 32768))
    samples, changed = sixteen_bits(np.array([0.5, -2.0], np.float32))
    assert changed and samples.tolist() == [8192, -32767]
    with pytest.raises(ValueError, match="NaN"):
        sixteen_bits(np.array([np.nan], np.float32))
