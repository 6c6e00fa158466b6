"""egs/open/v1/run.sh from stage 1 to the table, on small trees of two corpora, with a teacher that is imported."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, environment

from speakerkd.files.kaldi import Scp
from speakerkd.files.tables import read_table, read_utt2spk

TRAIN = """--num-epochs=1
--batch-size=16
--num-frames=150
--optimizer=adamw
--lr=1e-3
--final-lr=1e-4
"""


def speech(path: Path, seed: int, seconds: float) -> None:
    """Coloured noise of a person in syllables: the spectrum says who it is."""
    who, rng = np.random.default_rng(seed // 100), np.random.default_rng(seed)
    samples = np.convolve(rng.standard_normal(int(16000 * seconds)), who.standard_normal(16), "same")
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * np.arange(len(samples)) / 16000)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * samples * syllables / np.abs(samples).std(), 16000)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the recipe with one short epoch; speech beside it."""
    root = tmp_path_factory.mktemp("clone")
    for name in ("local", "utils", "tools", "speakerkd", "egs/mini"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(ROOT / name)
    shutil.copytree(
        ROOT / "egs/open", root / "egs/open", symlinks=True, ignore=shutil.ignore_patterns("data", "exp", "download")
    )
    folder = root / "egs/open/v1"
    (folder / "conf/train.conf").write_text(TRAIN)
    for part, first, count in (("train", 1, 28), ("test", 501, 3)):
        lines: dict[str, list[str]] = {"wav.scp": [], "utt2spk": []}
        for number in range(first, first + count):
            for sentence in range(8):
                utterance = f"{number:05d}{sentence:04d}"
                speech(root / f"ocean/WAVE/{number}/{utterance}.WAV", 100 * number + sentence, 2.0)
                lines["wav.scp"].append(f"{utterance} WAVE/{number}/{utterance}.WAV")
                lines["utt2spk"].append(f"{utterance} {number:04d}")
        for name, rows in lines.items():
            (root / "ocean" / part).mkdir(exist_ok=True)
            (root / "ocean" / part / name).write_text("\n".join(rows) + "\n")
    for number in range(20):
        for clip in range(9):
            word = ("bed", "cat", "dog")[clip % 3]
            speech(root / f"commands/{word}/{number:08x}_nohash_{clip}.wav", 90000 + 100 * number + clip, 1.0)
    return folder


def run(folder: Path, *words: str) -> str:
    command = ["./run.sh", "--speech_commands", "../../../commands", "--speechocean", "../../../ocean", *words]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_from_stage_1_to_the_table(recipe: Path) -> None:
    plain = ("--kd_type", "none", "--teacher", "", "--student", "xvector")
    run(recipe, *plain, "--stop_stage", "4", "--kinds", "noise,telephone")
    pieces, copies = read_utt2spk(recipe / "data/train_pieces/utt2spk"), read_table(recipe / "data/train_aug/utt2aug")
    assert len(pieces) == len(copies) and "telephone" in copies.values()
    # A public model, as far as run.sh can tell: a folder of exp with a final.pt.
    (recipe / "exp/public").mkdir()
    shutil.copy(recipe / "exp/xvector_none_s0/final.pt", recipe / "exp/public/final.pt")
    table = run(recipe, "--stage", "3", "--teacher", "public", "--student", "xvector")
    taught = set(Scp(recipe / "exp/public/xvectors_train_all/xvector.scp"))
    assert taught == set(read_utt2spk(recipe / "data/train_all/utt2spk")) == set(pieces) | set(copies)
    for trials in ("trials_ocean", "trials_commands", "trials_ocean_enroll3"):
        for system in ("public", "xvector_cosine_public"):
            assert f"| {trials} " in table and f"| {system} " in table
    for part in ("scores", "scores_dev"):
        assert (recipe / "exp/xvector_cosine_public_s0" / part / "trials_ocean.asnorm").exists()

    run(recipe, "--stage", "4", "--teacher", "public", "--student", "xvector", "--leave_out", "ocean")
    assert {name.split("-")[0] for name in read_utt2spk(recipe / "data/train_no_ocean/utt2spk").values()} == {
        "commands"
    }
    assert {name.split("-")[0] for name in read_utt2spk(recipe / "data/cohort_no_ocean/utt2spk").values()} == {
        "commands"
    }
    assert (recipe / "exp/xvector_cosine_public_no_ocean_s0/scores/trials_ocean.cosine").exists()


def test_a_corpus_that_is_missing_is_said_to_be(recipe: Path) -> None:
    done = subprocess.run(
        ["./run.sh", "--kd_type", "none", "--teacher", "", "--speechocean", "/nowhere", "--stop_stage", "1"],
        cwd=recipe, env=environment(), capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 1 and "/nowhere: no such folder" in done.stderr
