"""egs/synth/v1/prepare_data.py: data directories counted by hand, voices measured, faces against their speakers."""

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile

from egs.synth.v1 import face, prepare_data, voice
from speakerkd.files.tables import read_table

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    "num-train-speakers": 3, "num-test-speakers": 2, "utts-per-speaker": 8, "sessions": 2, "seconds": "0.6:1.1",
}  # fmt: skip


def words(**changes: object) -> list[str]:
    options = {**SMALL, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return [f"--{name}={value}" for name, value in options.items()]


def make(folder: Path, **changes: object) -> Path:
    prepare_data.main([*words(**changes), str(folder)])
    return folder


def digests(folder: Path) -> dict[str, str]:
    """Of each file, with the folder's own name taken out of the contents."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            path.read_bytes().replace(str(folder).encode(), b"")
        ).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("synth") / "data", nj=1)


@pytest.fixture(scope="module")
def faces_of() -> Callable[[float], list[face.Face]]:
    """300 faces of speaker 7."""

    def draw(bad_share: float) -> list[face.Face]:
        how = face.Faces(seed=0, dim=64, voice_share=0.5, bad_share=bad_share)
        return [face.draw_face(7, session, number, how) for session in range(1, 11) for number in range(1, 31)]

    return draw


def identity_of(speaker: int, voice_share: float = 0.5) -> np.ndarray:
    return face.speaker_identity(speaker, face.Faces(0, 64, voice_share, 0.0))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


# --- the data directories


@pytest.mark.parametrize(
    ("name", "speakers"), [("train", ["syn0001", "syn0002", "syn0003"]), ("test", ["syn9001", "syn9002"])]
)
def test_tables_agree_and_are_sorted(data: Path, name: str, speakers: list[str]) -> None:
    expected = [f"{spk}-s{session}-{number:02d}" for spk in speakers for session in (1, 2) for number in (1, 2, 3, 4)]
    tables = {
        each: read_table(data / name / each) for each in ("wav.scp", "utt2spk", "utt2dur", "face.scp", "utt2quality")
    }
    for table in tables.values():  # read_table refuses what is not sorted and unique
        assert list(table) == expected
    assert tables["utt2spk"] == {utt: utt.split("-")[0] for utt in expected}
    assert read_table(data / name / "utt2face") == tables["utt2spk"]
    assert read_table(data / name / "spk2utt") == {
        spk: " ".join(utt for utt in expected if utt.startswith(spk)) for spk in speakers
    }
    sexes = read_table(data / name / "spk2gender", 2)
    assert list(sexes) == speakers
    assert set(sexes.values()) <= {"m", "f"}


def test_recordings_are_what_the_tables_say(data: Path) -> None:
    seconds = read_table(data / "train" / "utt2dur")
    for utt, path in read_table(data / "train" / "wav.scp").items():
        info = soundfile.info(path)
        assert Path(path).is_absolute()
        assert (info.samplerate, info.channels, info.format, info.subtype) == (16000, 1, "WAV", "PCM_16")
        assert abs(float(seconds[utt]) - info.frames / 16000) <= 0.0005
        assert 0.6 <= info.duration <= 1.1
        samples = soundfile.read(path)[0]
        assert 0.005 < np.std(samples) < 0.3
        assert np.abs(samples).max() < 0.96


def test_trials_counted_by_hand(data: Path) -> None:
    """2 speakers x 2 sessions x 4 utterances."""
    lines = [line.split() for line in (data / "test" / "trials").read_text().splitlines()]
    kinds = [kind for _, _, kind in lines]
    assert kinds.count("target") == 2 * 4 * 4  # the sessions of a speaker against each other
    assert kinds.count("nontarget") == 8 * 8
    assert len({frozenset(pair) for *pair, _ in lines}) == len(lines)
    assert all(enroll < test for enroll, test, _ in lines)
    assert lines == sorted(lines)
    for enroll, test, kind in lines:
        assert (enroll[:7] == test[:7]) == (kind == "target")
        assert enroll[:10] != test[:10]


def test_models_of_three_counted_by_hand(data: Path) -> None:
    models = read_table(data / "test" / "enroll3_spk2utt")
    assert list(models) == ["syn9001-s1", "syn9001-s2", "syn9002-s1", "syn9002-s2"]
    assert models["syn9002-s1"] == "syn9002-s1-01 syn9002-s1-02 syn9002-s1-03"
    lines = [line.split() for line in (data / "test" / "trials_enroll3").read_text().splitlines()]
    kinds = [kind for _, _, kind in lines]
    assert (kinds.count("target"), kinds.count("nontarget")) == (4 * (8 - 3), 4 * 8)
    assert not [1 for model, test, _ in lines if test in models[model].split()]


def test_the_same_whatever_the_number_of_processes_and_when_run_again(data: Path, tmp_path: Path) -> None:
    again = make(tmp_path / "data", nj=3)
    assert digests(again) == digests(data)
    make(again, nj=2)
    assert digests(again) == digests(data)


def test_another_seed_is_another_world(data: Path, tmp_path: Path) -> None:
    first, second = digests(data), digests(make(tmp_path / "data", seed=1))
    assert first.keys() == second.keys()
    assert not [name for name in first if name.endswith((".wav", ".ark")) and first[name] == second[name]]


def test_more_speakers_and_utterances_keep_the_earlier_ones(data: Path, tmp_path: Path) -> None:
    more = make(tmp_path / "data", num_train_speakers=4, num_test_speakers=3, utts_per_speaker=10)
    before, after = digests(data), digests(more)
    recordings = [name for name in before if name.endswith(".wav")]
    assert len(recordings) == 5 * 8
    assert all(before[name] == after[name] for name in recordings)
    for name in ("train", "test"):
        old, new = (dict(kaldiio.load_ark(str(folder / name / "face.ark"))) for folder in (data, more))
        assert all(np.array_equal(old[utt], new[utt]) for utt in old)


def test_interrupted_and_run_again(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    command = [sys.executable, str(ROOT / "egs/synth/v1/prepare_data.py"), *words(nj=2), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(folder.rglob("*.wav")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: to all processes of the job
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    if process.returncode:  # else it was done before the signal came
        assert process.returncode == 130
        assert not (folder / "test" / "wav.scp").exists()
    assert digests(make(folder)) == digests(data)


def test_a_broken_second_run_leaves_no_tables_that_look_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "data", nj=1)

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(prepare_data, "make_all_speech", full)
        with pytest.raises(OSError, match="no space left"):
            make(folder, seed=1)
    assert not list(folder.rglob("wav.scp"))
    make(folder, seed=1)
    assert len(list(folder.rglob("wav.scp"))) == 2


def test_summary(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "egs/synth/v1/prepare_data.py"), *words(seconds="0.75:0.75"), str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train: 3 speakers, 24 utterances, 0.3 minutes" in done.stderr
    assert "test: 2 speakers, 16 utterances, 0.2 minutes" in done.stderr
    assert "trials: 32 target and 64 nontarget trials" in done.stderr
    assert "trials_enroll3: 20 target and 32 nontarget trials" in done.stderr


@pytest.mark.parametrize(
    ("option", "remedy"),
    [
        ("--num-train-speakers=0", "give 1 to 9000"),
        ("--num-train-speakers=9001", "give 1 to 9000"),
        ("--num-test-speakers=1", "two speakers"),
        ("--utts-per-speaker=5", "at least 3 for each of the --sessions=2"),
        ("--utts-per-speaker=200", "at most 99"),
        ("--sessions=0", "give 1 to 99"),
        ("--seconds=-3:6", "as in 3:6"),
        ("--seconds=6:3", "as in 3:6"),
        ("--seconds=4", "as in 3:6"),
        ("--seconds=nan:nan", "not a number"),
        ("--snr=28:12", "as in 12:28"),
        ("--snr=nan:nan", "not a number"),
        ("--face-dim=0", "give 4 or more"),
        ("--face-voice-share=1.5", "from 0 to 1"),
        ("--bad-face-share=-0.1", "from 0 to 1"),
        ("--bad-face-share=nan", "not a number"),
        ("--seed=-1", "0 or more"),
        ("--nj=0", "1 or more"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(tmp_path: Path, option: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy) as caught:
        prepare_data.main([*words(), option, str(tmp_path / "data")])
    assert option.split("=")[0] in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_a_path_with_a_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="white space"):
        make(tmp_path / "my data")


# --- the voices


def plain_session(**changes: object) -> voice.Session:
    """No channel, no room, hardly any noise."""
    flat, direct = np.zeros(len(voice.FREQUENCIES), np.float32), np.ones(1, np.float32)
    session = voice.Session(channel=flat, room=direct, noise_slope=0.0, snr=60.0, pitch=1.0, tilt=0.0, rate=1.0)
    return dataclasses.replace(session, **changes)  # type: ignore[arg-type]


def say(speaker: voice.Voice, session: voice.Session, seconds: float = 4.0, seed: int = 5) -> np.ndarray:
    return voice.speak(speaker, session, seconds, np.random.default_rng(seed)).astype(np.float64)


def pitches(samples: np.ndarray) -> np.ndarray:
    """Hz in the frames that are clearly periodic, by autocorrelation."""
    found = []
    lags = np.arange(16000 // 450, 16000 // 60)
    for start in range(0, len(samples) - 800, 400):
        frame = samples[start : start + 800] * np.hanning(800)
        correlation = np.fft.irfft(np.abs(np.fft.rfft(frame, 2048)) ** 2)
        window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(800), 2048)) ** 2)
        correlation = correlation / correlation[0] / (window / window[0] + 1e-3)
        best = lags[np.argmax(correlation[lags] > 0.9 * correlation[lags].max())]  # the first of the high ones
        best += np.argmax(correlation[best : best + 20])
        if correlation[best] > 0.85 and np.std(frame) > 0.3 * np.std(samples):
            found.append(16000 / best)
    return np.array(found)


@pytest.mark.parametrize("hertz", [95.0, 130.0, 180.0, 240.0])
def test_pitch_lies_in_the_range_of_the_voice(hertz: float) -> None:
    speaker = dataclasses.replace(voice.voice_of(0, 1), pitch=hertz, breath=0.05)
    measured = pitches(say(speaker, plain_session()))
    assert len(measured) > 30
    octaves = np.log2(measured / hertz)
    assert abs(np.median(octaves)) < 2 * speaker.pitch_span
    assert np.mean(np.abs(octaves) < 3 * speaker.pitch_span) > 0.9
    assert 0.02 < np.std(octaves[np.abs(octaves) < 0.6]) < 2 * speaker.pitch_span  # there is a melody


def centroid(samples: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(samples)) ** 2
    return float((power * np.fft.rfftfreq(len(samples), 1 / 16000)).sum() / power.sum())


@pytest.mark.parametrize("speaker", [1, 2, 3])
def test_a_longer_vocal_tract_lowers_the_formants(speaker: int) -> None:
    made = voice.voice_of(0, speaker)
    heights = [
        centroid(say(dataclasses.replace(made, tract=tract, breath=0.0), plain_session()))
        for tract in (14.0, 16.0, 18.0)
    ]
    assert heights[0] > heights[1] > heights[2]


def test_resonances_stand_where_the_formants_are() -> None:
    formants = np.array([[500.0, 1500.0, 2500.0]])
    response = np.abs(voice._resonance(formants, np.full((1, 3), 60.0)))[0]
    peaks = np.flatnonzero((response[1:-1] > response[:-2]) & (response[1:-1] > response[2:])) + 1
    assert np.allclose(voice.FREQUENCIES[peaks], formants[0], atol=16000 / voice.FFT)
    assert response[0] == pytest.approx(1)


def test_noise_is_as_loud_as_the_session_says() -> None:
    """The same utterance with and without noise: the difference has the power that the ratio gives."""
    speaker = voice.voice_of(0, 1)
    clean, noisy = (say(speaker, plain_session(snr=snr)) for snr in (90.0, 10.0))
    scale = clean @ noisy / (clean @ clean)
    ratio = np.std(scale * clean) / np.std(noisy - scale * clean)
    assert 20 * np.log10(ratio) == pytest.approx(10, abs=0.3)


def test_there_are_pauses_and_speech() -> None:
    samples = say(voice.voice_of(0, 1), plain_session(), seconds=6.0)
    loudness = 20 * np.log10(np.std(samples[: len(samples) // 400 * 400].reshape(-1, 400), axis=1) + 1e-3)
    assert 0.5 < np.mean(loudness > loudness.max() - 30) < 0.98
    assert loudness[0] < loudness.max() - 30  # a pause at either end
    assert loudness[-1] < loudness.max() - 30


def test_voices_differ_and_the_sexes_overlap() -> None:
    people = [voice.person_of(0, number) for number in range(1, 301)]
    voices = [voice.voice_of(0, number) for number in range(1, 301)]
    assert 120 < sum(person.sex == "m" for person in people) < 180
    for name, higher in (("pitch", "f"), ("tract", "m")):
        values = {
            sex: [getattr(v, name) for v, p in zip(voices, people, strict=True) if p.sex == sex] for sex in ("m", "f")
        }
        lower = "m" if higher == "f" else "f"
        assert np.mean(values[higher]) > np.mean(values[lower])
        assert min(values[higher]) < max(values[lower])
    assert len({each.pitch for each in voices}) == 300
    assert all(70 < each.pitch < 340 for each in voices)


def test_sessions_of_a_speaker_differ() -> None:
    one, two = (voice.draw_session((12, 28), voice.generator(0, voice.SESSION, 1, number)) for number in (1, 2))
    assert np.abs(one.channel - two.channel).max() > 1
    assert one.snr != two.snr
    assert all(12 <= each.snr <= 28 for each in (one, two))


# --- the faces


def test_quality_predicts_how_near_a_face_is_to_its_person(faces_of: Callable[[float], list[face.Face]]) -> None:
    faces, person = faces_of(0.0), identity_of(7)
    qualities = np.array([each.quality for each in faces])
    nearness = np.array([cosine(each.vector, person) for each in faces])
    lengths = np.array([np.linalg.norm(each.vector) for each in faces])
    assert qualities.min() >= 0
    assert qualities.max() <= 1
    assert np.corrcoef(qualities, nearness)[0, 1] > 0.8
    assert np.corrcoef(qualities, lengths)[0, 1] > 0.8
    assert nearness[qualities > 0.8].mean() > 0.75


def test_faces_tell_people_apart() -> None:
    how = face.Faces(0, 64, 0.5, 0.0)
    vectors = {speaker: [face.draw_face(speaker, 1, n, how).vector for n in range(1, 11)] for speaker in range(1, 11)}
    same = [cosine(a, b) for each in vectors.values() for i, a in enumerate(each) for b in each[:i]]
    other = [cosine(a, b) for i in vectors for j in vectors if i < j for a in vectors[i] for b in vectors[j]]
    assert np.mean(same) > np.mean(other) + 0.2


def test_bad_faces(faces_of: Callable[[float], list[face.Face]]) -> None:
    good, bad = faces_of(0.0), faces_of(0.3)
    strangers = [new for new in bad if new.is_stranger]
    poor = [new for old, new in zip(good, bad, strict=True) if not new.is_stranger and new.quality != old.quality]
    assert 0.1 < len(strangers) / 300 < 0.2
    assert 0.1 < len(poor) / 300 < 0.2
    assert max(each.quality for each in poor) <= 0.2
    assert np.mean([each.quality for each in strangers]) > 0.5  # the figure does not give a wrong face away
    own = identity_of(7)
    assert np.mean([cosine(each.vector, own) for each in strangers]) < 0.5
    kept = [
        (old, new) for old, new in zip(good, bad, strict=True) if new.quality == old.quality and not new.is_stranger
    ]
    assert all(np.array_equal(old.vector, new.vector) for old, new in kept)
    assert all(each.is_stranger or each.quality <= 0.2 for each in faces_of(1.0))


def test_wrong_faces_are_named(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", bad_face_share=1)
    owners = read_table(folder / "train" / "utt2face", 2)
    speakers = read_table(folder / "train" / "utt2spk", 2)
    wrong = [utt for utt in owners if owners[utt] != speakers[utt]]
    assert 0 < len(wrong) < len(owners)
    assert all(owners[utt] == f"stranger-{utt}" for utt in wrong)
    quality = read_table(folder / "train" / "utt2quality", 2)
    assert all(float(quality[utt]) <= 0.2 for utt in owners if utt not in wrong)


def test_faces_follow_the_body_as_far_as_asked() -> None:
    """People of one sex look more alike than others, unless nothing is shared with the voice."""
    sexes = np.array([voice.person_of(0, number).sex for number in range(1, 101)])
    alike = sexes[:, None] == sexes[None]
    others = ~np.eye(100, dtype=bool)
    gaps = []
    for share in (0.0, 0.5):
        people = np.stack([identity_of(number, share) for number in range(1, 101)])
        cosines = people @ people.T
        gaps.append(cosines[alike & others].mean() - cosines[~alike].mean())
    assert abs(gaps[0]) < 0.03
    assert gaps[1] > 0.1


def test_the_archive_is_kaldis(data: Path) -> None:
    vectors = kaldiio.load_scp(str(data / "test" / "face.scp"))
    assert {(value.shape, str(value.dtype)) for value in vectors.values()} == {((64,), "float32")}
    first = (data / "test" / "face.ark").read_bytes()
    assert first.startswith(b"syn9001-s1-01 \0BFV \4\x40\0\0\0")
