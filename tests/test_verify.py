"""local/verify.py as a user runs it: recordings of many kinds, profiles, operating points, and no PyTorch."""

import json
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from conftest import ROOT, environment, write_wav
from test_export import exported, run_in, voice

from speakerkd.verify import __main__ as program
from speakerkd.verify.card import Condition
from speakerkd.verify.profiles import Profile, write_profile
from speakerkd.verify.recording import Recording
from speakerkd.verify.resample import resample

__all__ = ["exported"]
VERIFY = ("local/verify.py", "--model", "exp/x/export")


def score_of(done: subprocess.CompletedProcess[str]) -> float:
    return float(done.stdout.split()[1])


def test_two_recordings(exported: Path) -> None:
    same = run_in(exported, *VERIFY, "wav/s0-0.wav", "wav/s0-1.wav")
    other = run_in(exported, *VERIFY, "wav/s0-0.wav", "wav/s3-1.wav")
    assert score_of(same) > score_of(other)
    for word in ("score", "LLR", "decision", "threshold", "measured on 5 other speakers"):
        assert word in same.stdout
    itself = run_in(exported, *VERIFY, "--far", "0.05", "wav/s0-0.wav", "wav/s0-0.wav")
    assert score_of(itself) == pytest.approx(1, abs=1e-3)
    assert "same speaker, at a false-acceptance rate of 5 %" in itself.stdout


def test_rates_channels_and_formats_give_nearly_the_same_vector(exported: Path, tmp_path: Path) -> None:
    wave = voice(2, 0, 4)
    write_wav(tmp_path / "a.wav", wave)
    write_wav(tmp_path / "stereo.wav", np.stack([wave, wave], 1))
    soundfile.write(tmp_path / "a.flac", wave, 16000)
    soundfile.write(tmp_path / "a.ogg", wave, 16000)
    write_wav(tmp_path / "48k.wav", resample(wave, 16000, 48000), 48000)
    # Vorbis changes the faint noise between the partials, which a net of random weights hears well: only that it is read.
    for name, least in (("stereo.wav", 0.999), ("a.flac", 0.999), ("a.ogg", -1), ("48k.wav", 0.95)):
        done = run_in(exported, *VERIFY, str(tmp_path / "a.wav"), str(tmp_path / name))
        assert score_of(done) >= least, name


def test_recordings_that_are_refused_or_warned_of(exported: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "short.wav", 0.1 * np.sin(np.arange(4800) / 5).astype(np.float32))
    write_wav(tmp_path / "silent.wav", np.zeros(32000, np.float32))
    (tmp_path / "text.wav").write_text("no audio at all, whatever the name says")
    (tmp_path / "empty.wav").write_bytes(b"")
    write_wav(tmp_path / "offset.wav", np.full(32000, 0.5, np.float32))
    for name, said in (
        ("short.wav", "0.5 s are needed"),
        ("silent.wav", "is silent"),
        ("offset.wav", "is silent"),  # a constant is no sound
        ("text.wav", "ffmpeg"),
        ("empty.wav", ""),
        ("missing.wav", "no such file"),
    ):
        done = run_in(exported, *VERIFY, "wav/s0-0.wav", str(tmp_path / name), fails=True)
        assert name in done.stderr and said in done.stderr, done.stderr
    write_wav(tmp_path / "clipped.wav", np.clip(60 * voice(0, 0, 3), -1, 1))
    write_wav(tmp_path / "noise.wav", 0.1 * np.random.default_rng(0).standard_normal(32000).astype(np.float32))
    write_wav(tmp_path / "8k.wav", resample(voice(0, 0, 3), 16000, 8000), 8000)
    command = "echo hacked >&2; touch pwned |"  # a name is never a command
    shutil.copy(exported / "wav/s0-0.wav", exported / command)
    assert score_of(run_in(exported, *VERIFY, command, "wav/s0-0.wav")) > 0.999 and not (exported / "pwned").exists()
    for name, said in (("clipped.wav", "clipped"), ("noise.wav", "level hardly changes"), ("8k.wav", "has 8000 Hz")):
        stderr = run_in(exported, *VERIFY, "wav/s0-0.wav", str(tmp_path / name)).stderr
        assert said in stderr and "s0-0" not in stderr


def test_options_that_are_refused(exported: Path) -> None:
    pair = ("wav/s0-0.wav", "wav/s0-1.wav")
    assert "were measured" in run_in(exported, *VERIFY, "--far", "1e-7", *pair, fails=True).stderr
    assert "between 0 and 1" in run_in(exported, *VERIFY, "--prior", "1", *pair, fails=True).stderr
    assert "not one of: auto" in run_in(exported, *VERIFY, "--condition", "loud", *pair, fails=True).stderr
    assert "2 recording(s)" in run_in(exported, *VERIFY, pair[0], fails=True).stderr
    assert "fp32 int8" in run_in(exported, *VERIFY, "--precision", "fp16", *pair, fails=True).stderr


def test_profiles(exported: Path, tmp_path: Path) -> None:
    people = ("--profiles", str(tmp_path / "people"))
    for speaker in (0, 3):
        files = ",".join(f"wav/s{speaker}-{number}.wav" for number in range(3))
        assert "3 recording(s)" in run_in(exported, *VERIFY, *people, "--enroll", f"p{speaker}={files}").stdout
    ranked = run_in(exported, *VERIFY, *people, "--identify", "wav/s3-5.wav").stdout.splitlines()
    assert ranked[0].startswith("p3 ") and ranked[1].startswith("p0 ")
    claimed = run_in(exported, *VERIFY, *people, "--claim", "p3", "wav/s3-5.wav")
    stranger = run_in(exported, *VERIFY, *people, "--claim", "p1", "wav/s3-5.wav", fails=True)
    assert "has no profile of p1 (it has: p0, p3)" in stranger.stderr
    assert score_of(claimed) == pytest.approx(float(ranked[0].split()[2]), abs=1e-3)
    # names of any script, in whatever form a system writes its accents
    for written in ("\u0939\u093f\u0928\u094d\u0926\u0940", "Jose\u0301"):
        made = run_in(exported, *VERIFY, *people, "--enroll", f"{written}=wav/s1-0.wav").stdout
        assert unicodedata.normalize("NFC", written) in made
        (tmp_path / f"people/{unicodedata.normalize('NFC', written)}.json").unlink()
    assert "names no recording" in run_in(exported, *VERIFY, *people, "--enroll", "anna=,", fails=True).stderr
    for name in ("../p3", ".p3", "a/b", "\u0301a", ""):
        assert run_in(exported, *VERIFY, *people, "--enroll", f"{name}=wav/s0-0.wav", fails=True).stderr
    other = run_in(exported, *VERIFY, *people, "--precision", "int8", "--claim", "p3", "wav/s3-5.wav", fails=True)
    assert "another model" in other.stderr
    (tmp_path / "people/p3.json").write_text("{")
    assert "damaged" in run_in(exported, *VERIFY, *people, "--claim", "p3", "wav/s3-5.wav", fails=True).stderr
    none = run_in(exported, *VERIFY, "--profiles", str(tmp_path / "nobody"), "--identify", "wav/s3-5.wav", fails=True)
    assert "holds no profiles" in none.stderr


def test_each_profile_has_its_own_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A profile of little speech may be accepted with a lower score than one of much speech that is not."""

    class Judge:
        def __init__(self, *_: object) -> None:
            pass

        def condition(self, speech: float, snr: float) -> Condition:
            offset = 1.0 if speech < 1 else -5.0
            return Condition(speech, "1 s", "clean", 10.0, offset, 5.0, (), 5, 10, 10)

        def threshold(self, condition: Condition) -> tuple[float, str]:
            return condition.threshold_of_prior(0.5), "prior"

    vector = np.array([1, 0], np.float32)
    rows = {"lena": (np.array([0.4, 0.9165], np.float32), 10.0), "kim": (np.array([0.3, 0.9539], np.float32), 0.7)}
    for name, (row, speech) in rows.items():
        write_profile(tmp_path, Profile(name, "m", row[None], speech))

    class Always:
        digest, dim, rate = "m", 2, 16000

        def __call__(self, _: np.ndarray) -> np.ndarray:
            return vector

    monkeypatch.setattr(program, "Judge", Judge)
    monkeypatch.setattr(program, "read_recording", lambda *_: Recording("x", vector, 10.0, 30.0))
    program.identify(Always(), SimpleNamespace(profiles=str(tmp_path), identify="x.wav", top=5))  # type: ignore[arg-type]
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("kim ") and first.endswith("same speaker") and second.endswith("different speaker")


def test_folders_that_are_no_export(exported: Path, tmp_path: Path) -> None:
    pair = ("wav/s0-0.wav", "wav/s0-1.wav")

    def said(folder: Path) -> str:
        return run_in(exported, "local/verify.py", "--model", str(folder), *pair, fails=True).stderr

    assert "is not a folder" in said(tmp_path / "none")
    assert "has no card.json" in said(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(exported / "exp/x/export", copy)
    shutil.copy(copy / "model.int8.onnx", copy / "model.onnx")  # not the file of the card
    assert "not the file that card.json describes" in said(copy)
    card = json.loads((copy / "card.json").read_text())
    (copy / "card.json").write_text(json.dumps({**card, "front_end": {"type": "speechbrain"}}))
    shutil.copy(exported / "exp/x/export/model.onnx", copy / "model.onnx")
    assert "can't be computed without PyTorch" in said(copy)
    (copy / "card.json").write_text(json.dumps({**card, "format": "something else"}))
    assert "not the card of an exported model" in said(copy)
    (copy / "card.json").write_text("{")
    assert "is damaged" in said(copy)


def test_a_model_must_be_named_if_none_is_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(program, "PRETRAINED", tmp_path / "none")
    with pytest.raises(ValueError, match="--model is needed"):
        program.main(["a.wav", "b.wav"])


def test_it_needs_no_torch(exported: Path) -> None:
    """Torch is made impossible to import; another rate makes it resample as well."""
    write_wav(exported / "8k.wav", voice(0, 9, 3, 8000), 8000)
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['torchaudio'] = None\n"
        "from speakerkd.verify.__main__ import main\n"
        "main(['--model', 'exp/x/export', '8k.wav', 'wav/s0-1.wav'])\n"
    )
    done = run_in(exported, sys.executable, "-c", code)
    assert "decision" in done.stdout


def test_the_program_in_the_folder_gives_the_same_score(exported: Path) -> None:
    pair = ("wav/s1-0.wav", "wav/s1-1.wav")
    ours = score_of(run_in(exported, *VERIFY, *pair))
    theirs = run_in(exported, sys.executable, "exp/x/export/verify_example.py", *pair).stdout
    assert float(theirs.split()[1].rstrip(",")) == pytest.approx(ours, abs=2e-3)
    lines = (ROOT / "local/verify_example.py").read_text().splitlines()
    assert len(lines) <= 50


def test_python_m(exported: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "speakerkd.verify", "--model", "exp/x/export", "wav/s0-0.wav", "wav/s0-1.wav"],
        cwd=exported, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "decision" in done.stdout, done.stderr
