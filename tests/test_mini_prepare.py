"""egs/mini/v1/prepare_data.py on small packages made here: tones of known length, pieces are counted by hand."""

import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "egs" / "mini" / "v1"
SILENCE = 0.5

pytestmark = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb, to make packages")


def tone(
    path: Path, pitch: float, seconds: float = 1.0, rate: int = 22050, channels: int = 1, silence: float = SILENCE
) -> None:
    """`seconds` of a harmonic tone between two silences; with two channels, the first is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time_axis = np.arange(int(seconds * rate)) / rate
    wave = sum(0.2 / k * np.sin(2 * np.pi * k * pitch * time_axis) for k in range(1, 6))
    pause = 1e-4 * np.random.default_rng(int(pitch)).standard_normal(int(silence * rate))
    samples = np.concatenate([pause, wave, pause])[:, None]
    if channels == 2:
        samples = np.concatenate([np.zeros_like(samples), samples], axis=1)
    soundfile.write(path, samples, rate)


def build(package: str, tree: Path, debs: Path) -> Path:
    control = tree / "DEBIAN" / "control"
    control.parent.mkdir(parents=True, exist_ok=True)
    control.write_text(f"Package: {package}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n")
    debs.mkdir(exist_ok=True)
    done = subprocess.run(["dpkg-deb", "--build", str(tree), str(debs)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return debs / f"{package}_1_all.deb"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two packages: 10 tones of 1 s of each of two training speakers, 16 of one test speaker and 8 of another."""
    one, two = tmp_path / "one", tmp_path / "two"
    for k in range(10):
        tone(one / "usr" / "a" / f"{k}.ogg", 100 + k)
        tone(one / "usr" / "b" / f"{k}.wav", 200 + k, rate=44100, channels=2)
    for k in range(16):
        tone(two / "usr" / "c" / f"{k:02d}.ogg", 300 + k)
    for k in range(8):
        tone(two / "usr" / "d" / f"x{k}.wav", 400 + k, rate=8000)
    tone(two / "usr" / "d" / "y.wav", 150)  # another voice
    build("one", one, tmp_path / "debs")
    build("two", two, tmp_path / "debs")
    write_table(tmp_path)
    return tmp_path


def write_table(folder: Path, **files: int) -> None:
    count = {"a": 10, "b": 10, "c": 16, "d": 8, **files}
    rows = [
        ("a", "train", "one", "usr/a/*.ogg"),
        ("b", "train", "one", "usr/b/*"),
        ("c", "test", "two", "usr/c/*.ogg"),
        ("d", "test", "two", "usr/d/* !usr/d/y*"),
    ]
    lines = ["# speaker\tset\tpackage\tglobs\tfiles\tminutes\tnote"]
    lines += ["\t".join([*row, str(count[row[0]]), "0.1", "made up"]) for row in rows]
    (folder / "speakers.tsv").write_text("\n".join(lines) + "\n")


def command(folder: Path, *options: str, data: str = "data", debs: bool = True) -> list[str]:
    source = ["--debs", str(folder / "debs")] if debs else []
    script = [sys.executable, str(RECIPE / "prepare_data.py"), "--speakers", str(folder / "speakers.tsv")]
    return [*script, *source, *options, str(folder / data)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def prepare(folder: Path, *options: str, path: str | None = None, **more: object) -> subprocess.CompletedProcess[str]:
    env = environment() if path is None else {**environment(), "PATH": path}
    words = command(folder, *options, **more)  # type: ignore[arg-type]
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def ok(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stderr
    return done.stderr


def fails(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


class Refuses:
    """The error of a run that ends before any piece is made; in this process, for speed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        monkeypatch.syspath_prepend(str(RECIPE))
        monkeypatch.chdir(folder)
        for name in ("prepare_data", "debs"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        self.main = importlib.import_module("prepare_data").main

    def __call__(self, *options: str, path: str | None = None, data: str = "data", debs: bool = True) -> str:
        with self.monkeypatch.context() as patch, pytest.raises(ValueError) as caught:
            if path is not None:
                patch.setenv("PATH", path)
            self.main(command(self.folder, *options, data=data, debs=debs)[2:])
        return str(caught.value)


@pytest.fixture
def refuses(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Refuses]:
    yield Refuses(corpus, monkeypatch)
    for name in ("prepare_data", "debs"):  # names that another recipe may have too
        sys.modules.pop(name, None)


def rows(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def contents(data: Path) -> dict[str, bytes]:
    """Everything but what holds the absolute path of the data."""
    paths = sorted(path for path in data.rglob("*") if path.is_file() and path.name not in ("wav.scp", "prepared.json"))
    return {path.relative_to(data).as_posix(): path.read_bytes() for path in paths}


def test_pieces_and_trials_by_hand(corpus: Path) -> None:
    text = ok(prepare(corpus))
    data = corpus / "data"
    # A tone of 1 s keeps 0.1 s on each side: four are 4.8 s, one piece. Ten make two, and the odd two join the last.
    count = {spk: len(utts) for part in ("train", "test") for spk, *utts in rows(data / part / "spk2utt")}
    assert count == {"a": 2, "b": 2, "c": 4, "d": 2}
    durations = {utt: float(seconds) for utt, seconds in rows(data / "train" / "utt2dur")}
    assert durations == pytest.approx({"a-0001": 4.8, "a-0002": 7.2, "b-0001": 4.8, "b-0002": 7.2}, abs=0.2)
    for utt, path in rows(data / "train" / "wav.scp") + rows(data / "test" / "wav.scp"):
        info = soundfile.info(path)
        assert Path(path).is_absolute() and utt in path
        assert (info.samplerate, info.channels, info.format, info.subtype) == (16000, 1, "FLAC", "PCM_16")
        wave, _ = soundfile.read(path)
        assert 20 * np.log10(np.std(wave)) == pytest.approx(-26, abs=0.1)
    # 6 test pieces: 15 pairs, of which 4*3/2 + 2*1/2 = 7 are of one speaker.
    trials = rows(data / "test" / "trials")
    assert len(trials) == 15 and len({frozenset(trial[:2]) for trial in trials}) == 15
    assert all(a < b and kind == ("target" if a[0] == b[0] else "nontarget") for a, b, kind in trials)
    assert sum(kind == "target" for *_, kind in trials) == 7
    # Speaker c has one model of 3 pieces, d has too few. It meets the piece of c that is left and the two of d.
    ((model, *own),) = rows(data / "test" / "enroll3_spk2utt")
    assert model == "c-e0" and len(set(own)) == 3
    (left,) = {f"c-000{k}" for k in range(1, 5)} - set(own)
    expected = [["c-e0", left, "target"], ["c-e0", "d-0001", "nontarget"], ["c-e0", "d-0002", "nontarget"]]
    assert rows(data / "test" / "trials_enroll3") == expected
    assert (data / "lost_utts").read_text() == ""
    assert "recordings: 44, of which 44 in pieces; left out: none" in text


def test_neighbours_are_joined_in_order(corpus: Path) -> None:
    ok(prepare(corpus))
    for number in (1, 2):  # pitch tells which recording it is: 300 to 307 Hz in the first two pieces
        wave, rate = soundfile.read(corpus / "data" / "flac" / "c" / f"c-000{number}.flac")
        quarter = len(wave) // 4
        for part in range(4):
            middle = wave[part * quarter + quarter // 2 :][: rate // 2]
            peak = np.argmax(np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 16 * rate))) / 16
            assert peak == pytest.approx(300 + 4 * (number - 1) + part, abs=0.5)


def test_limits_and_determinism(corpus: Path) -> None:
    text = ok(prepare(corpus, "--max-test-pieces", "2", "--nj", "1"))
    assert "over: 8" in text  # two pieces of c, four recordings each
    assert all("over: is in none of the 2 pieces" in " ".join(row) for row in rows(corpus / "data" / "lost_utts"))
    ok(prepare(corpus, "--max-test-pieces", "2", "--nj", "3", "--download", "elsewhere", data="again"))
    assert contents(corpus / "data") == contents(corpus / "again")
    ok(prepare(corpus, "--max-test-pieces", "2", "--seed", "5", data="other"))
    assert contents(corpus / "data") != contents(corpus / "other")


def test_run_again(corpus: Path) -> None:
    first = ok(prepare(corpus))
    stamps = {path: path.stat().st_mtime_ns for path in (corpus / "data").rglob("*") if path.is_file()}
    shutil.rmtree(corpus / "debs")  # nothing is read again
    again = ok(prepare(corpus))
    assert "is in place" in again and first.splitlines()[-4:] == again.splitlines()[-4:]
    assert stamps == {path: path.stat().st_mtime_ns for path in (corpus / "data").rglob("*") if path.is_file()}


def test_interrupted(corpus: Path) -> None:
    ok(prepare(corpus, data="whole"))
    process = subprocess.Popen(command(corpus, "--nj", "1"), cwd=corpus, env=environment(), stderr=subprocess.DEVNULL)
    wait_for(lambda: (corpus / "data" / "flac" / "a").is_dir())
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)  # a worker may finish what it was at
    assert not (corpus / "data" / "prepared.json").exists()
    half = corpus / "data" / "flac" / ".b.tmp"  # as a kill while FLAC files are written leaves it
    half.mkdir(exist_ok=True)
    (half / "b-0009.flac").write_bytes(b"fLaC")
    shutil.rmtree(corpus / "data" / "flac" / "b", ignore_errors=True)
    stamp = (corpus / "data" / "flac" / "a" / "a-0001.flac").stat().st_mtime_ns
    ok(prepare(corpus))
    assert contents(corpus / "data") == contents(corpus / "whole")
    assert (corpus / "data" / "flac" / "a" / "a-0001.flac").stat().st_mtime_ns == stamp
    (corpus / "data" / "flac" / "c" / "c-0003.flac").unlink()  # a lost file is made again
    ok(prepare(corpus))
    assert contents(corpus / "data") == contents(corpus / "whole")


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_copies_count_once(corpus: Path) -> None:
    one, two = corpus / "one", corpus / "two"
    shutil.copy(one / "usr" / "a" / "3.ogg", one / "usr" / "a" / "copy.ogg")  # of the same speaker
    (one / "usr" / "a" / "link.ogg").symlink_to("4.ogg")
    shutil.copy(one / "usr" / "a" / "5.ogg", two / "usr" / "c" / "99.ogg")  # of another: nobody's
    samples, rate = soundfile.read(two / "usr" / "d" / "x2.wav", dtype="int16")
    soundfile.write(two / "usr" / "d" / "x9.flac", samples, rate)  # other bytes, same samples
    for package, tree in (("one", one), ("two", two)):
        build(package, tree, corpus / "debs")
    text = ok(prepare(corpus))
    assert "a: expected 10 files, found 12" in text and "d: expected 8 files, found 9" in text
    lost = dict(line.split(" ", 1) for line in (corpus / "data" / "lost_utts").read_text().splitlines())
    assert lost == {
        "one:usr/a/copy.ogg": "a copy: same file as usr/a/3.ogg",
        "one:usr/a/link.ogg": "a copy: same file as usr/a/4.ogg",
        "one:usr/a/5.ogg": "a copy: same file as usr/c/99.ogg of c",
        "two:usr/c/99.ogg": "c copy: same file as usr/a/5.ogg of a",
        "two:usr/d/x9.flac": "d copy: has the samples of usr/d/x2.wav",
    }
    assert "recordings: 48, of which 43 in pieces; left out: copy: 5" in text


def test_same_samples_of_two_speakers(corpus: Path) -> None:
    samples, rate = soundfile.read(corpus / "two" / "usr" / "d" / "x2.wav", dtype="int16")
    soundfile.write(corpus / "two" / "usr" / "c" / "99.flac", samples, rate)
    build("two", corpus / "two", corpus / "debs")
    table = (corpus / "speakers.tsv").read_text().replace("usr/c/*.ogg\t16", "usr/c/*\t17")
    (corpus / "speakers.tsv").write_text(table)
    message = fails(prepare(corpus))
    assert "usr/d/x2.wav of d has the samples of usr/c/99.flac of c" in message and "remedy" in message


def test_recordings_that_can_not_be_used(corpus: Path) -> None:
    folder = corpus / "two" / "usr" / "c"
    (folder / "noise.ogg").write_bytes(b"OggS, but not really")
    soundfile.write(folder / "silent.ogg", np.zeros(22050), 22050)
    build("two", corpus / "two", corpus / "debs")
    text = ok(prepare(corpus))
    lost = dict(line.split(" ", 1) for line in (corpus / "data" / "lost_utts").read_text().splitlines())
    assert lost["two:usr/c/noise.ogg"].startswith("c unreadable: ")
    assert lost["two:usr/c/silent.ogg"] == "c short: less than 0.1 s of speech"
    assert "left out: short: 1, unreadable: 1" in text
    for path in folder.glob("0[0-4].ogg"):
        path.write_bytes(b"damaged" + path.name.encode())
    build("two", corpus / "two", corpus / "debs")
    assert "6 recordings of 40 can't be read: usr/c/00.ogg" in fails(prepare(corpus, data="new"))


def test_files_that_are_missing(corpus: Path, refuses: Refuses) -> None:
    (corpus / "two" / "usr" / "d" / "x7.wav").unlink()
    build("two", corpus / "two", corpus / "debs")
    assert "d: expected 8 files, found 7" in ok(prepare(corpus))
    shutil.rmtree(corpus / "two" / "usr" / "d")
    build("two", corpus / "two", corpus / "debs")
    message = refuses(data="new")
    assert "d: package two" in message and "has no file usr/d/*" in message and "--speakers" in message


def test_a_damaged_package(corpus: Path, refuses: Refuses) -> None:
    deb = corpus / "debs" / "two_1_all.deb"
    whole = deb.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (whole[: len(whole) // 2], b"", bytes(flipped)):
        deb.write_bytes(damaged)
        message = refuses()
        assert "two_1_all.deb: this package is damaged" in message and "remedy" in message
        assert not (corpus / "data").exists()
    deb.unlink()
    message = refuses()
    assert "lacks two; remedy: " in message and "apt-get download two" in message
    assert "no such folder" in refuses("--debs", "nowhere")
    deb.write_bytes(whole)
    (corpus / "debs" / "two_2_all.deb").write_bytes(whole)
    assert "holds two 2 times" in refuses()


def fake_apt(folder: Path, fail: bool = False) -> str:
    """A PATH on which apt-get knows no package before `update` with lists of its own; it logs its calls."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    script = f"""#!/bin/sh
echo "$@" >> {folder}/apt.log
for last; do :; done
case "$*" in
  *Dir::State::Lists*update) {"echo 'E: no network' >&2; exit 100" if fail else "exit 0"} ;;
  *Dir::State::Lists*download*) cp {folder}/debs/"$last"_1_all.deb . ;;
  *) echo "E: Unable to locate package $last" >&2; exit 100 ;;
esac
"""
    (tools / "apt-get").write_text(script)
    (tools / "apt-get").chmod(0o755)
    return f"{tools}:{os.environ['PATH']}"


def test_fetching(corpus: Path) -> None:
    path = fake_apt(corpus)
    ok(prepare(corpus, debs=False, path=path))
    ok(prepare(corpus, data="from_folder"))
    assert contents(corpus / "data") == contents(corpus / "from_folder")
    calls = (corpus / "apt.log").read_text().splitlines()
    assert [call.split()[-1] for call in calls] == ["one", "update", "one", "two"]  # the lists are fetched once
    assert not [*(corpus / "download").glob(".fetch*")]
    # A part of a package, as an interrupted copy leaves it, is fetched again; the whole one is not.
    deb = corpus / "download" / "two_1_all.deb"
    whole = deb.read_bytes()
    deb.write_bytes(whole[:5000])
    text = ok(prepare(corpus, debs=False, path=path, data="again"))
    assert "two_1_all.deb: this package is damaged" in text and "fetching it again" in text
    assert deb.read_bytes() == whole
    assert [call.split()[-1] for call in (corpus / "apt.log").read_text().splitlines()[4:]] == ["two"]


def test_fetching_fails(corpus: Path, refuses: Refuses) -> None:
    message = refuses(debs=False, path=fake_apt(corpus, fail=True))
    assert "one can't be fetched: apt-get says: E: no network; remedy" in message and "--debs" in message
    assert "apt-get download one two" in message
    (corpus / "empty").mkdir()
    message = refuses(debs=False, path=str(corpus / "empty"))
    assert "no apt-get here" in message and "apt-get download one two" in message and "--debs" in message


@pytest.mark.skipif(not shutil.which("ar") or not shutil.which("tar"), reason="needs ar and tar")
def test_without_dpkg(corpus: Path, refuses: Refuses) -> None:
    ok(prepare(corpus, data="with"))
    tools = corpus / "few_tools"
    tools.mkdir()
    for name in ("ar", "tar", "xz", "gzip", "zstd"):
        if where := shutil.which(name):
            (tools / name).symlink_to(where)
    ok(prepare(corpus, "--download", "elsewhere", path=str(tools)))
    assert contents(corpus / "data") == contents(corpus / "with")
    (tools / "ar").unlink()
    message = refuses("--download", "third", path=str(tools), data="third")
    assert "takes dpkg-deb, or ar and tar; remedy" in message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a\ttrain\tone\tusr/a/*\t10", "speaker a is there twice"),
        ("e\tdev\tone\tusr/a/*\t10", "must be speaker, train|test"),
        ("e\ttrain\tone\tusr/a/*\tmany", "must be speaker, train|test"),
        ("e f\ttrain\tone\tusr/a/*\t10", "can't be an id"),
    ],
)
def test_a_wrong_table(corpus: Path, refuses: Refuses, line: str, words: str) -> None:
    with (corpus / "speakers.tsv").open("a") as file:
        file.write(line + "\n")
    message = refuses()
    assert words in message and "speakers.tsv" in message


def test_errors_are_one_line(corpus: Path) -> None:
    assert fails(prepare(corpus, "--debs", "nowhere")).startswith("prepare_data.py: error: nowhere: no such folder")
    assert "no option --pieces" in fails(prepare(corpus, "--pieces", "3"))


def test_the_table_of_the_recipe() -> None:
    table = [line.split("\t") for line in (RECIPE / "speakers.tsv").read_text().splitlines()[1:]]
    assert len(table) == len({row[0] for row in table}) == 50 and table == sorted(table)
    assert sum(row[1] == "train" for row in table) == 34 and sum(row[1] == "test" for row in table) == 16
    assert len({row[2] for row in table}) == 8
