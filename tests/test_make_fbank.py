"""Stage 2 as a user runs it: wav.scp to feats.scp and vad.scp, with recordings good and bad."""

import fcntl
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import kaldi_native_io
import numpy as np
import pytest
from conftest import environment, noise, write_wav
from test_audio import bad_files

from speakerkd.audio.recordings import mono, read_audio
from speakerkd.conf import build, read_conf
from speakerkd.feats.fbank import Fbank, FbankConf
from speakerkd.files.kaldi import Scp
from speakerkd.files.tables import Segment, read_table, write_data_dir, write_table

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def data(recipe: Path) -> Path:
    """Six utterances of two speakers."""
    wavs = {f"s{i // 3}-{i}": write_wav(recipe / f"wav/{i}.wav", noise(0.5 + i / 7, seed=i)) for i in range(6)}
    write_data_dir(recipe / "data/x", {utt: str(path) for utt, path in wavs.items()}, {utt: utt[:2] for utt in wavs})
    return recipe / "data/x"


def arks(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.ark"))}


def test_features_are_those_of_each_wave_and_the_directory_is_valid(recipe: Path, data: Path, sh: Run) -> None:
    done = sh("local/make_fbank.sh", "--nj", 2, data)
    assert "6 in, 6 out, 0 lost" in done.stdout
    sh("utils/validate_data_dir.sh", data)
    scp = Scp(data / "feats.scp")
    fbank = Fbank(build(FbankConf, read_conf(recipe / "conf/fbank.conf"), "conf"))
    frames = read_table(data / "utt2num_frames")
    for index, utterance in enumerate(scp):
        exact = fbank(mono(read_audio(str(recipe / f"wav/{index}.wav"))[0]))
        assert np.abs(scp.read(index) - exact).max() <= np.ptp(exact) / 65535
        assert int(frames[utterance]) == len(exact)
    assert (data / "frame_shift").read_text() == "0.01\n"
    assert read_table(data / "utt2dur")["s1-3"] == f"{0.5 + 3 / 7:.3f}"
    assert (data / "conf/fbank.conf").read_text() == (recipe / "conf/fbank.conf").read_text()

    sh("local/compute_vad.sh", "--nj", 2, data)
    with kaldi_native_io.SequentialFloatVectorReader(f"scp:{data}/vad.scp") as reader:
        assert {key: len(value) for key, value in reader} == {key: int(count) for key, count in frames.items()}
    sh("utils/validate_data_dir.sh", data)


def test_number_of_jobs_changes_nothing(data: Path, sh: Run) -> None:
    rows = []
    for jobs in (5, 1, 99):
        sh("local/make_fbank.sh", "--nj", jobs, data)
        scp = Scp(data / "feats.scp")
        rows.append([(key, scp.read(i).tobytes()) for i, key in enumerate(scp)])
    assert rows[0] == rows[1] == rows[2] and len(rows[0]) == 6
    sh("local/make_fbank.sh", "--nj", 2, data)
    assert list(arks(data / "data")) == ["raw_fbank_x.1.ark", "raw_fbank_x.2.ark"]


def test_segments_pipes_and_other_rates(recipe: Path, sh: Run) -> None:
    long = noise(3.0)
    write_wav(recipe / "long.wav", long)
    write_wav(recipe / "rate.wav", noise(1.0, 44100), 44100)
    write_wav(recipe / "two.wav", np.stack([long, -long], 1))
    wav_scp = {"r1": f"cat {recipe}/long.wav |", "r2": str(recipe / "rate.wav"), "r3": str(recipe / "two.wav")}
    segments = {
        "s-1": Segment("r1", 0.5, 1.5), "s-2": Segment("r1", 2.0, -1), "s-3": Segment("r1", 2.9, 3.2),
        "s-4": Segment("r2", 0, -1), "s-5": Segment("r3", 0, 1),
    }  # fmt: skip
    data = recipe / "data/x"
    write_data_dir(data, wav_scp, dict.fromkeys(segments, "s"), segments)
    sh("local/make_fbank.sh", "--nj", 1, data)
    durations = {utt: float(value) for utt, value in read_table(data / "utt2dur").items()}
    assert durations == pytest.approx({"s-1": 1, "s-2": 1, "s-3": 0.1, "s-4": 1, "s-5": 1})
    fbank = Fbank(build(FbankConf, read_conf(recipe / "conf/fbank.conf"), "conf"))
    exact = fbank(mono(read_audio(str(recipe / "long.wav"))[0])[8000:24000])
    assert np.abs(Scp(data / "feats.scp").read(0) - exact).max() < 1e-3
    log = (data / "log/make_fbank_x.1.log").read_text()
    assert "1 recording(s) have 2 channels: the first is taken" in log
    assert "1 recording(s) have 44100 Hz: resampled to 16000 Hz" in log
    sh("utils/validate_data_dir.sh", data)


def test_a_pipe_that_failed_is_tried_again(recipe: Path, sh: Run) -> None:
    """Its line is the same when it works again, so the part that lacks it must not be kept. Short recordings stay lost."""
    write_wav(recipe / "a.wav", noise(1.0))
    write_wav(recipe / "short.wav", noise(0.005))
    data = recipe / "data/x"
    wav_scp = {"s-a": str(recipe / "a.wav"), "s-b": f"cat {recipe}/b.wav |", "s-c": f"cat {recipe}/short.wav |"}
    write_data_dir(data, wav_scp, dict.fromkeys(wav_scp, "s"))
    make = ("local/make_fbank.sh", "--nj", 1, "--max-lost", 90, data)
    sh(*make)
    assert set(read_table(data / "lost_utts")) == {"s-b", "s-c"}
    log = data / "log/make_fbank_x.1.log"
    assert "1 utterance(s) could not be read, such as s-b; the same command will try this part again" in log.read_text()
    write_wav(recipe / "b.wav", noise(1.0))
    write_data_dir(data, wav_scp, dict.fromkeys(wav_scp, "s"))
    sh(*make)
    assert list(Scp(data / "feats.scp")) == ["s-a", "s-b"] and set(read_table(data / "lost_utts")) == {"s-c"}
    sh(*make)
    assert "is kept" in log.read_text()


def test_unusable_recordings_are_listed_and_the_rest_goes_on(recipe: Path, data: Path, sh: Run) -> None:
    bad = bad_files(recipe / "bad")
    bad["three samples"] = (
        str(write_wav(recipe / "bad/three.wav", noise(3 / 16000))),
        r"is shorter than a frame \(3 samples\)",
    )
    wav_scp = {
        **read_table(data / "wav.scp"),
        **{f"t-{name.replace(' ', '_')}": source for name, (source, _) in bad.items()},
    }
    write_data_dir(data, wav_scp, {utt: utt.split("-")[0] for utt in wav_scp})
    done = sh("local/make_fbank.sh", "--nj", 2, data, fails=True)
    assert f"{len(bad)} of {len(wav_scp)} utterances are unusable, more than 5 %: see {data}/lost_utts" in done.stderr
    assert not (data / "feats.scp").exists()

    done = sh("local/make_fbank.sh", "--nj", 2, "--max-lost", 90, data)
    assert f"{len(wav_scp)} in, 6 out, {len(bad)} lost" in done.stdout and "utils/fix_data_dir.sh" in done.stderr
    lost = read_table(data / "lost_utts")
    for name, (_, message) in bad.items():
        assert re.search(message, lost[f"t-{name.replace(' ', '_')}"]), name
    sh("utils/fix_data_dir.sh", data)
    sh("utils/validate_data_dir.sh", data)
    assert list(read_table(data / "utt2spk")) == [f"s{i // 3}-{i}" for i in range(6)]


def test_up_to_five_percent_may_be_lost(recipe: Path, sh: Run) -> None:
    good = write_wav(recipe / "a.wav", noise(0.1))
    for bad, fails in [(1, False), (2, True)]:
        wav_scp = {f"s-{i:02}": str(good) if i >= bad else "/no/such.wav" for i in range(20)}
        write_data_dir(recipe / "data/x", wav_scp, dict.fromkeys(wav_scp, "s"))
        sh("local/make_fbank.sh", "--nj", 1, "data/x", fails=fails)


def test_interrupted_and_run_again_gives_the_same_arks(recipe: Path, sh: Run) -> None:
    path = write_wav(recipe / "a.wav", noise(20.0))
    wav_scp = {f"s-{i:03}": str(path) for i in range(150)}
    data = recipe / "data/x"
    write_data_dir(data, wav_scp, dict.fromkeys(wav_scp, "s"))
    (recipe / "dither.conf").write_text("--num-mel-bins=24\n--dither=1\n")
    command = ["local/make_fbank.sh", "--nj", "1", "--fbank-config", "dither.conf", str(data)]
    process = subprocess.Popen(
        command, cwd=recipe, env=environment(), start_new_session=True, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 100_000 for path in data.glob("data/.raw_fbank_x.1.ark.*.tmp")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    subprocess.run(["pkill", "-KILL", "-f", str(data)], check=True)  # the script and its job, whatever their group
    process.wait()
    assert not (data / "feats.scp").exists() and not arks(data / "data")
    sh(*command)
    interrupted = arks(data / "data")
    sh(*command)
    assert arks(data / "data") == interrupted and len(interrupted) == 1
    assert not [path for path in data.rglob(".*") if "tmp" in path.name]


@pytest.mark.parametrize(
    ("mishap", "message"),
    [
        ("crlf", r"wav.scp:1: the line ends in CR LF"),
        ("unsorted", r"wav.scp:2: .* not sorted"),
        ("duplicate", r"occurs twice"),
        ("no data dir", "no such data directory; run stage 1"),
        ("empty wav.scp", "wav.scp is missing or empty; run stage 1"),
        ("no conf", "conf/none.conf: no such file"),
        ("typo in conf", r"no option --num-mel-bin .*--num-mel-bins"),
        ("nj", "option --nj takes a whole number, not 'two'"),
        ("no job", "--nj '0' is not a positive number"),
        ("max lost", "option --max-lost takes a whole number, not '2.5'"),
        ("space", "has a character that bash may act on"),
        ("python", "lacks the packages; run '. ./path.sh'"),
        ("option", r"no option '--fbank-conf'.*--fbank_config"),
        ("read-only", "can't write into"),
    ],
)
def test_bad_input_names_the_place(recipe: Path, data: Path, sh: Run, mishap: str, message: str) -> None:
    words: list[object] = ["local/make_fbank.sh", "--nj", 1, data]
    wav_scp = data / "wav.scp"
    lines = wav_scp.read_text().splitlines(keepends=True)
    if mishap == "crlf":
        wav_scp.write_bytes(wav_scp.read_bytes().replace(b"\n", b"\r\n"))
    elif mishap == "unsorted":
        wav_scp.write_text("".join(reversed(lines)))
    elif mishap == "duplicate":
        wav_scp.write_text("".join([lines[0], *lines]))
    elif mishap == "no data dir":
        words[-1] = recipe / "data/none"
    elif mishap == "empty wav.scp":
        wav_scp.write_text("")
    elif mishap == "no conf":
        words[1:1] = ["--fbank-config", "conf/none.conf"]
    elif mishap == "typo in conf":
        (recipe / "typo.conf").write_text("--num-mel-bin=80\n")
        words[1:1] = ["--fbank-config", "typo.conf"]
    elif mishap == "nj":
        words[2] = "two"
    elif mishap == "no job":
        words[2] = "0"
    elif mishap == "option":
        words[1:1] = ["--fbank-conf", "x"]
    elif mishap == "max lost":
        words[1:1] = ["--max-lost", "2.5"]
    elif mishap == "space":
        words.append(recipe / "my logs")
    elif mishap == "python":
        (recipe / "python3").write_text("#!/bin/sh\nexit 1\n")
        (recipe / "python3").chmod(0o755)
        words[:0] = ["env", f"PATH={recipe}:/usr/bin:/bin"]
    else:
        words.append("/proc/no")
    done = sh(*words, fails=True)
    assert re.search(message, done.stderr + done.stdout), done.stderr


def test_a_last_line_without_an_end_counts(data: Path, sh: Run) -> None:
    (data / "wav.scp").write_text((data / "wav.scp").read_text().rstrip("\n"))
    assert "6 in, 6 out, 0 lost" in sh("local/make_fbank.sh", "--nj", 2, data).stdout


def test_two_at_once_and_others_arks(recipe: Path, data: Path, sh: Run) -> None:
    """The second is refused; the arks of a set whose name begins alike stay, in a shared folder too."""
    shared = recipe / "fbank"
    other = recipe / "data/x.clean"
    write_data_dir(other, read_table(data / "wav.scp"), read_table(data / "utt2spk"))
    sh("local/make_fbank.sh", "--nj", 4, other, other / "log", shared)
    sh("local/make_fbank.sh", "--nj", 2, data, data / "log", shared)
    shapes = [Scp(folder / "feats.scp").read(5).shape for folder in (data, other)]
    assert shapes[0] == shapes[1] == (119, 80)
    with open(data / ".features.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for script in ("make_fbank", "compute_vad"):
            done = sh(f"local/{script}.sh", data, fails=True)
            assert "another job makes features in" in done.stderr
    assert Scp(data / "feats.scp").read(5).shape == (119, 80)


def test_frame_shift_however_it_is_written(recipe: Path, data: Path, sh: Run) -> None:
    (recipe / "slow.conf").write_text("--frame_shift = 20  # ms\n--num-mel-bins=24\n")
    sh("local/make_fbank.sh", "--nj", 1, "--fbank-config", "slow.conf", data)
    assert (data / "frame_shift").read_text() == "0.02\n"


def test_damaged_archive_is_named_with_line_and_remedy(recipe: Path, data: Path, sh: Run) -> None:
    """By a VAD that reads the energy from the features."""
    (recipe / "energy.conf").write_text("--use-energy=true\n--dither=0\n")
    sh("local/make_fbank.sh", "--nj", 1, "--fbank-config", "energy.conf", data)
    ark = data / "data/raw_fbank_x.1.ark"
    whole = ark.read_bytes()
    ark.write_bytes(whole[: len(whole) // 2])
    done = sh("local/compute_vad.sh", "--nj", 1, data, fails=True)
    assert re.search(r":[3-6]: 's[01]-[2-5]': .*raw_fbank_x.1.ark.* truncated\? make it again", done.stderr)
    ark.unlink()
    done = sh("local/compute_vad.sh", "--nj", 1, data, fails=True)
    assert re.search(r"raw_fbank_x.1.ark:\d+: there is no such file", done.stderr)


def test_typo_in_utt2aug_is_named(data: Path, sh: Run) -> None:
    write_table(data / "utt2aug", {"s0-1": "noise=white#1:snt=3"})
    done = sh("local/make_fbank.sh", "--nj", 1, data, fails=True)
    assert "utt2aug: s0-1: " in done.stderr


def test_stage_1_again_removes_features_of_the_data_before(data: Path, sh: Run) -> None:
    sh("local/make_fbank.sh", "--nj", 1, data)
    sh("local/compute_vad.sh", "--nj", 1, data)
    write_data_dir(data, read_table(data / "wav.scp"), read_table(data / "utt2spk"))
    for name in ("feats.scp", "vad.scp", "utt2num_frames", "frame_shift", "conf/fbank.conf"):
        assert not (data / name).exists(), name
    copies = data.parent / "aug"
    for seed in (0, 7):
        sh("local/augment_data_dir.py", "--kinds", "noise", "--seed", seed, data, copies)
        assert not (copies / "feats.scp").exists()
        sh("local/make_fbank.sh", "--nj", 1, copies)


def test_stage_2_goes_on_where_it_stopped(recipe: Path, data: Path, sh: Run) -> None:
    """One of three jobs is killed: the others' arks are kept, byte for byte and in time. What changes is made anew."""
    command = ["local/make_fbank.sh", "--nj", "3", data]
    sh(*command)
    whole, folder = arks(data / "data"), data / "data"
    (folder / "raw_fbank_x.2.made").unlink()
    (folder / "raw_fbank_x.2.ark").write_bytes(b"cut short")
    times = {job: (folder / f"raw_fbank_x.{job}.ark").stat().st_mtime_ns for job in (1, 2, 3)}

    def remade(*words: object) -> list[int]:
        """The jobs whose arks were made anew."""
        said = sh(*(words or command)).stdout
        now = {job: (folder / f"raw_fbank_x.{job}.ark").stat().st_mtime_ns for job in (1, 2, 3)}
        anew = [job for job in times if now[job] != times[job]]
        times.update(now)
        assert len(anew) == 3 or f"{3 - len(anew)} of 3 jobs were finished before" in said
        assert "6 in, 6 out, 0 lost" in said and list(read_table(data / "utt2dur")) == list(Scp(data / "feats.scp"))
        return anew

    assert remade() == [2] and arks(folder) == whole
    assert remade() == []
    (folder / "raw_fbank_x.3.ark").write_bytes(whole["raw_fbank_x.3.ark"][:-9])  # damaged afterwards
    assert remade() == [3] and arks(folder) == whole
    write_table(data / "utt2aug", {"s0-1": "noise=white#1:snr=3"})
    assert remade() == [1]
    write_wav(recipe / "wav/5.wav", noise(1.3, seed=9))  # another recording under the same name
    assert remade() == [3]
    (recipe / "wide.conf").write_text("--num-mel-bins=24\n--dither=0\n")
    assert remade(*command[:-1], "--fbank-config", "wide.conf", data) == [1, 2, 3]
    assert remade(*command[:-1], "--fbank-config", "wide.conf", "--compress", "false", data) == [1, 2, 3]
    said = sh("local/make_fbank.sh", "--nj", 2, "--fbank-config", "wide.conf", data).stdout
    assert "finished before" not in said, "other lists of utterances"
    assert not list(folder.glob("*.3.*"))
