"""Stage 1 of egs/voxceleb and egs/cnceleb on small trees like those of the corpora; tests/corpora.sh runs all stages."""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, environment
from corpora import make_cnceleb, make_voxceleb

from egs.cnceleb.v1.joining import groups
from egs.voxceleb.v1 import prepare_data as voxceleb
from egs.voxceleb.v1.prepare_faces import pictures_of
from speakerkd.audio.recordings import read_audio
from speakerkd.conf import build, read_conf, typed_conf
from speakerkd.files.corpus import Cohort, SpeakerRecordings, write_corpus
from speakerkd.files.tables import read_lines, read_table
from speakerkd.kd import METHODS
from speakerkd.losses.margin import MarginConf
from speakerkd.models import read_model
from speakerkd.train.options import TrainConf


def recipe_of(name: str, tmp_path: Path) -> Path:
    """A copy of the recipe, in a folder with links to the rest of the repository."""
    root = tmp_path / "root"
    (root / "egs").mkdir(parents=True)
    for part in ("local", "utils", "tools", "speakerkd", "egs/mini", "egs/voxceleb"):
        if part != f"egs/{name}":
            (root / part).symlink_to(ROOT / part)
    ignored = shutil.ignore_patterns("data", "exp", "__pycache__")
    shutil.copytree(ROOT / "egs" / name, root / "egs" / name, symlinks=True, ignore=ignored)
    return root / "egs" / name / "v1"


def stage1(recipe: Path, *words: object, fails: bool = False) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in ("./run.sh", "--stop_stage", 1, "--nj", 2, *words)]  # the last of an option counts
    done = subprocess.run(command, cwd=recipe, env=environment(), capture_output=True, text=True, timeout=120)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_voxceleb_from_wav(tmp_path: Path) -> None:
    one, two = make_voxceleb(tmp_path / "corpora")
    recipe = recipe_of("voxceleb", tmp_path)
    done = stage1(recipe, "--voxceleb1", one, "--voxceleb2", two)
    train, test = recipe / "data/train", recipe / "data/test"
    # 6 speakers of 2 videos of 2 recordings; their order is Kaldi's, by bytes.
    wavs = read_table(train / "wav.scp")
    assert len(wavs) == 24 and "data/train is valid: 24 utterances of 6 speakers" in done.stdout
    assert wavs["id00012-5r0dWxy17C8-00001"] == f"{two}/dev/wav/id00012/5r0dWxy17C8/00001.wav"
    assert read_table(train / "utt2spk")["id00017--_AbC012345-00002"] == "id00017"
    # Of 6 test speakers, of dev/ and test/, those recordings that lists name: one of each stands in none.
    found = read_table(test / "wav.scp")
    assert len(found) == 18 and "id10272-5r0dWxy17C8-00002" in found
    assert found["id10001-5r0dWxy17C8-00001"].endswith("VoxCeleb1/dev/wav/id10001/5r0dWxy17C8/00001.wav")
    assert not {"id10272--_AbC012345-00002", "id10003--_AbC012345-00002"} & set(found)
    # 9 recordings of 3 speakers: 36 pairs, 3 of each speaker; in the cleaned list the first recording is missing.
    original = lines(test / "trials_O_original")
    assert len(original) == 36 and sum(line.endswith(" target") for line in original) == 9
    assert original[0] == "id10270-5r0dWxy17C8-00001 id10270-5r0dWxy17C8-00002 target"
    assert original[-1] == "id10272-5r0dWxy17C8-00002 id10272--_AbC012345-00001 target"
    assert len(lines(test / "trials_O")) == 28 and lines(test / "trials_O") == original[8:]
    assert len(lines(test / "trials_E")) == 18 * 17 // 2 and len(lines(test / "trials_H")) == 36
    assert not (test / "trials_H_original").exists() and "list_test_hard.txt" in done.stderr
    # For calibration: 6 speakers have 4 pairs of different videos (2 x 2), each with a nontarget one beside it.
    assert len(lines(train / "cohort_utts")) == 24
    pairs = [line.split() for line in lines(train / "trials_calibration")]
    assert Counter(label for _, _, label in pairs) == {"target": 24, "nontarget": 24}
    for a, b, label in pairs:
        assert (a[:7] == b[:7]) == (label == "target") and (label == "nontarget" or a[:19] != b[:19])


def test_voxceleb_lost_recordings_are_told(tmp_path: Path) -> None:
    one, two = make_voxceleb(tmp_path / "corpora", speakers=4)
    recipe = recipe_of("voxceleb", tmp_path)
    (one / "test/wav/id10271/5r0dWxy17C8/00001.wav").unlink()
    stage1(recipe, "--voxceleb1", one, "--voxceleb2", two)
    test = recipe / "data/test"
    assert lines(test / "lost_utts")[0].startswith("id10271-5r0dWxy17C8-00001 no recording in ")
    assert len(lines(test / "trials_O_original")) == 55  # 11 of 66 had it
    shutil.rmtree(one / "dev/wav/id10002")
    done = stage1(recipe, "--voxceleb1", one, "--voxceleb2", two, fails=True)
    assert "4 of 24 are lost, more than 5 %" in done.stderr
    done = stage1(recipe, "--voxceleb1", tmp_path / "nowhere", fails=True)
    assert "none of veri_test2.txt" in done.stderr and "--lists" in done.stderr


def test_voxceleb_train_and_test_must_not_share_speakers(tmp_path: Path) -> None:
    one, _ = make_voxceleb(tmp_path / "corpora", speakers=2)
    with pytest.raises(ValueError, match="id10001, id10002: in the training and in the test set"):
        voxceleb.main([str(one), str(one / "dev"), str(tmp_path / "data")])


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="m4a needs ffmpeg, which is not on the PATH")
def test_voxceleb_from_m4a(tmp_path: Path) -> None:
    """Heard through the pipe of wav.scp, a recording is what went into the m4a, nearly."""
    wave = np.sin(np.arange(16000) * 2 * np.pi * 440 / 16000).astype(np.float32) * 0.3
    one, two = make_voxceleb(tmp_path / "a folder", lambda *_: wave, ".m4a", speakers=1)
    recipe = recipe_of("voxceleb", tmp_path)
    stage1(recipe, "--voxceleb1", one, "--voxceleb2", two)
    source = read_table(recipe / "data/train/wav.scp")["id00012--_AbC012345-00002"]
    assert source.startswith("ffmpeg ") and source.endswith("|") and f"'{two}/dev/aac/id00012/" in source
    samples, rate = read_audio(source)
    assert rate == 16000 and samples.shape[1] == 1 and abs(len(samples) - 16000) <= 2048
    spectrum = np.abs(np.fft.rfft(samples[4000:12000, 0]))
    assert spectrum.argmax() == 220 and 0.25 < samples[4000:12000].max() < 0.35  # 2 Hz a bin


def test_voxceleb_m4a_without_ffmpeg_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = make_voxceleb(tmp_path / "corpora", speakers=1)
    for file in two.rglob("*.wav"):
        file.rename(file.with_suffix(".m4a"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"names m4a files, and ffmpeg, which reads them, is not on the PATH"):
        voxceleb.main([str(one), str(two), str(tmp_path / "data")])


def test_voxceleb_faces(tmp_path: Path) -> None:
    one, two = make_voxceleb(tmp_path / "corpora", speakers=1)
    data = tmp_path / "data"
    voxceleb.main([str(one), str(two), str(data)])
    faces = tmp_path / "faces"
    for name in (
        "id00012/5r0dWxy17C8/00001/001.jpg",  # of the utterance
        "id00012/5r0dWxy17C8/00001/002.png",
        "id00012/5r0dWxy17C8/00002.jpg",  # of the other one
        "id00012/-_AbC012345/0000375.jpg",  # of the video
        "id00012/-_AbC012345/notes.txt",
        "id00013/portrait.jpg",  # of the speaker
        "id00013/5r0dWxy17C8/1.6/0000010.jpg",  # of the video, in a folder that is no utterance
    ):
        (faces / name).parent.mkdir(parents=True, exist_ok=True)
        (faces / name).touch()
    command = [ROOT / "egs/voxceleb/v1/prepare_faces.py", faces, data / "train"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0 and "8 of 8 utterances have pictures" in done.stderr, done.stderr
    found = {key: text.replace(f"{faces}/", "") for key, text in read_table(data / "train/faces.scp").items()}
    a, b = "id00012/5r0dWxy17C8", "id00012/-_AbC012345"
    assert found["id00012-5r0dWxy17C8-00001"] == f"{a}/00001/001.jpg {a}/00001/002.png"
    assert found["id00012-5r0dWxy17C8-00002"] == f"{a}/00002.jpg"
    assert found["id00012--_AbC012345-00001"] == found["id00012--_AbC012345-00002"] == f"{b}/0000375.jpg"
    assert found["id00013-5r0dWxy17C8-00002"] == "id00013/5r0dWxy17C8/1.6/0000010.jpg"
    assert found["id00013--_AbC012345-00001"] == "id00013/portrait.jpg"
    # A number that only another video has is a picture of the whole video. A file and a folder of one number go together.
    for name in ("id1/vA/00003.jpg", "id1/vB/00001.jpg", "id1/vB/00001/x.jpg", "id1/vB/other.jpg"):
        (faces / name).parent.mkdir(parents=True, exist_ok=True)
        (faces / name).touch()
    found = dict(pictures_of(faces / "id1", ["id1-vA-00001", "id1-vA-00002", "id1-vB-00001", "id1-vB-00003"]))
    short = {name: [path.removeprefix(f"{faces}/id1/") for path in some] for name, some in found.items()}
    assert short == {
        "id1-vA-00001": ["vA/00003.jpg"],
        "id1-vA-00002": ["vA/00003.jpg"],
        "id1-vB-00001": ["vB/00001.jpg", "vB/00001/x.jpg"],
        "id1-vB-00003": ["vB/other.jpg"],
    }


def test_cnceleb(tmp_path: Path) -> None:
    one, two = make_cnceleb(tmp_path / "corpora")
    recipe = recipe_of("cnceleb", tmp_path)
    done = stage1(recipe, "--cnceleb1", one, "--cnceleb2", two, "--join_seconds", 0.4)
    train, test = recipe / "data/train", recipe / "data/test"
    # Of each genre 0.5 | 0.2 + 0.2 | 0.2 + 0.1 s: the last two are too short and join those before.
    wavs = read_table(train / "wav.scp")
    assert len(wavs) == 6 * 2 * 2 and "data/train is valid: 24 utterances of 6 speakers" in done.stdout
    assert wavs["id00001-singing-01-001"] == f"{one}/data/id00001/singing-01-001.flac"
    joined = "id10002-interview-01-002-join4"
    samples, rate = soundfile.read(wavs[joined])
    parts = [soundfile.read(two / f"data/id10002/interview-01-{n:03}.flac")[0] for n in (2, 3, 4, 5)]
    assert rate == 16000 and np.array_equal(samples, np.concatenate(parts))
    assert read_table(train / "utt2dur")[joined] == "0.700" and read_table(train / "utt2spk")[joined] == "id10002"
    assert "60 recordings of 6 speakers are 24 utterances" in done.stderr
    # 3 enrolments, the 2 recordings of each, 5 tests of each
    found = read_table(test / "wav.scp")
    assert len(found) == 3 + 6 + 15
    assert found["id00801-interview-01-002"] == f"{one}/data/id00801/interview-01-002.flac"
    assert found["id00801-singing-01-002"] == f"{one}/eval/test/id00801-singing-01-002.flac"
    models = read_table(test / "enroll_spk2utt")
    assert models["id00800-enroll"] == "id00800-interview-01-001 id00800-interview-01-002" and len(models) == 3
    trials = lines(test / "trials_avg")
    assert lines(test / "trials_concat") == trials and len(trials) == 45
    assert trials[5] == "id00800-enroll id00801-singing-01-001 nontarget"
    assert sum(line.endswith(" target") for line in trials) == 15
    # Again, nothing is joined anew.
    before = Path(wavs[joined]).stat().st_mtime_ns
    stage1(recipe, "--cnceleb1", one, "--cnceleb2", two, "--join_seconds", 0.4)
    assert Path(wavs[joined]).stat().st_mtime_ns == before
    # CN-Celeb1 alone, nothing joined, a broken recording and no list of speakers
    (one / "dev/dev.lst").unlink()
    stage1(recipe, "--cnceleb1", one, "--cnceleb2", "", "--join_seconds", 0)
    assert len(lines(train / "wav.scp")) == 30 and not (train / "utt2dur").exists()
    broken = one / "data/id00000/singing-01-005.flac"
    broken.write_bytes(b"none")
    done = stage1(recipe, "--cnceleb1", one, "--cnceleb2", "", "--join_seconds", 0.4)
    assert [line.split()[0] for line in lines(train / "lost_utts")] == ["id00000-singing-01-005"]
    joined, before = "id00000-singing-01-002-join3", read_table(train / "wav.scp")
    assert joined in before
    # other recordings under the same name are another file
    shutil.copy(one / "data/id00000/singing-01-004.flac", broken)
    shutil.copy(broken, broken.with_name("singing-01-003.flac"))
    broken.with_name("singing-01-004.flac").unlink()
    stage1(recipe, "--cnceleb1", one, "--cnceleb2", "", "--join_seconds", 0.4)
    after = read_table(train / "wav.scp")
    parts = [soundfile.read(one / f"data/id00000/singing-01-{n:03}.flac")[0] for n in (2, 3, 5)]
    assert joined in after and after[joined] != before[joined]
    assert np.array_equal(soundfile.read(after[joined])[0], np.concatenate(parts))


def test_groups_of_neighbours() -> None:
    def joined(least: float, *seconds: float) -> list[str]:
        return ["".join(each) for each in groups(list(zip("abcdefg", seconds, strict=False)), least)]

    assert joined(5, 6, 7, 8) == ["a", "b", "c"]
    assert joined(5, 2, 2, 2, 6, 1) == ["abc", "de"]
    assert joined(5, 1, 1) == ["ab"]  # all there is
    assert joined(5, 4, 9, 4) == ["abc"]


def test_order_is_checked_while_writing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"b-1 of b comes after c-1"):
        write_corpus(tmp_path / "x", [SpeakerRecordings("c", [("c-1", "x")]), SpeakerRecordings("b", [("b-1", "x")])])
    with pytest.raises(ValueError, match=r"a-1 of a comes after a-1"):
        write_corpus(tmp_path / "x", [SpeakerRecordings("a", [("a-1", "x"), ("a-1", "y")])])
    assert not list((tmp_path / "x").iterdir())


def test_cohort_takes_turns_of_the_sessions(tmp_path: Path) -> None:
    speakers = [SpeakerRecordings(s, [(f"{s}-{v}-{n}", "x") for v in "vwx" for n in range(9)]) for s in ("a", "b")]
    cohort = Cohort(6, lambda utterance: utterance[:3])
    write_corpus(tmp_path / "x", cohort.passing(speakers))
    for some in cohort.chosen.values():
        assert sorted(Counter(each[:3] for each in some).values()) == [2, 2, 2]
        assert len({each[:3] for each in some[:3]}) == 3
    cohort.write(tmp_path / "x")
    assert len(list(read_lines(tmp_path / "x/cohort_utts"))) == 12


@pytest.mark.parametrize("name", ["voxceleb", "cnceleb"])
def test_stage_7_tries_every_list(name: str, tmp_path: Path) -> None:
    """local/align.sh is another script here, which notes how it is called; tests/corpora.sh runs the real one."""
    recipe = recipe_of(name, tmp_path)
    local = recipe.parents[2] / "local"
    local.unlink()
    local.mkdir()
    for file in (ROOT / "local").iterdir():
        if file.name != "align.sh":
            (local / file.name).symlink_to(file)
    (local / "align.sh").write_text(
        """#!/usr/bin/env bash
echo "$@" >> calls
mkdir -p exp/old_new_nessa && echo "${!#}" | tee exp/old_new_nessa/matrix.tsv > exp/old_new_nessa/matrix.md
"""
    )
    (local / "align.sh").chmod(0o755)
    lists = {"voxceleb": ("O", "E_original"), "cnceleb": ("avg", "concat")}[name]
    (recipe / "data/test").mkdir(parents=True)
    for each in lists:
        (recipe / "data/test" / f"trials_{each}").touch()
    words = ("--stage", 7, "--stop_stage", 7)
    for system in ("old", "new"):
        (recipe / "exp" / system).mkdir(parents=True)
    done = stage1(recipe, *words, "--enroll_system", "old", fails=True)
    assert "stage 7 needs --enroll_system and --test_system" in done.stderr
    stage1(recipe, *words, "--enroll_system", "old", "--test_system", "new")
    calls = {line.rsplit("_", 1)[1]: line for line in lines(recipe / "calls")}
    assert len(calls) == 2
    for line in calls.values():
        assert "exp/old exp/new data/cohort data/test data/test/trials_" in line and "--out exp/old_new_nessa " in line
        assert ("--enroll-spk2utt data/test/enroll_spk2utt" in line) == line.endswith("trials_avg")
    for each in lists:
        assert lines(recipe / f"exp/old_new_nessa/matrix_{each}.md") == [f"data/test/trials_{each}"]
    assert not (recipe / "exp/old_new_nessa/matrix.md").exists()


@pytest.mark.parametrize("name", ["voxceleb", "cnceleb"])
def test_conf_files_are_read_and_say_what_was_published(name: str) -> None:
    conf = ROOT / "egs" / name / "v1/conf"
    assert not [path for path in conf.rglob("*") if path.is_symlink() and not path.exists()]
    for path in conf.glob("kd/*.conf"):
        typed_conf(path, METHODS)
    for path in conf.glob("model/*.conf"):
        read_model(path)
    heads = {path.name: build(MarginConf, read_conf(path), str(path)) for path in conf.glob("head*.conf")}
    assert heads["head_large.conf"].margin == 0.5 and heads["head.conf"].margin == 0.2
    trains = {path.name: build(TrainConf, read_conf(path), str(path)) for path in conf.glob("train*.conf")}
    for file, published in (("train.conf", 0.1), ("train_enskd.conf", 0.1), ("train_enskd_xvector.conf", 0.1),
                            ("train_lm.conf", 1e-4)):  # fmt: skip
        if file in trains:  # for 64 utterances, and multiplied up
            assert trains[file].lr == pytest.approx(published * trains[file].batch_size / 64)
    for file in ("train.conf", "train_enskd.conf", "train_enskd_xvector.conf"):
        assert file not in trains or trains[file].final_lr == pytest.approx(trains[file].lr * 5e-5 / 0.1)
    assert trains["train_sdpn.conf"].lr == pytest.approx(0.4 * 96 * 4 / 256)


@pytest.mark.parametrize("name", ["voxceleb", "cnceleb"])
def test_readme_names_what_is_there(name: str) -> None:
    """Options of run.sh, and conf files, in the commands of the README."""
    recipe = ROOT / "egs" / name / "v1"
    text = (recipe / "README.md").read_text()
    scripts = (recipe / "run.sh").read_text() + (ROOT / "local/options.sh").read_text()
    declared = set(re.findall(r"^([a-z0-9_]+)=", scripts, re.MULTILINE))
    commands = [line for line in text.splitlines() if line.startswith("./run.sh")]
    assert len(commands) > 5
    for command in commands:
        assert set(re.findall(r"--([a-z0-9_]+)", command.split("#")[0])) - {"help"} <= declared, command
        for option, folder in (("student", "model"), ("kd_type", "kd")):
            for value in re.findall(rf"--{option} (\S+)", command):
                assert (recipe / "conf" / folder / f"{value}.conf").is_file(), command
        for path in re.findall(r"--train_config (\S+)", command):
            assert (recipe / path).is_file(), command
