"""egs/open/v1/run.sh from stage 1 to the table, on small trees of two corpora, with a teacher that is imported."""

import hashlib
import json
import re
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
    # Words of 6 training speakers, 2 dev and 2 test speakers; egs/mini's pieces of 3 and 2 speakers.
    wanted = {"train": 6, "dev": 2, "test": 2}
    number = 0
    while any(wanted.values()):
        number += 1
        place = int.from_bytes(hashlib.sha256(f"open commands-{number:08x}".encode()).digest()[:7], "big") / 2**56
        part = "test" if place < 0.16 else "dev" if place < 0.21 else "train"
        if wanted[part]:
            wanted[part] -= 1
            for clip in range(12):
                word = ("bed", "cat", "dog")[clip % 3]
                speech(root / f"commands/{word}/{number:08x}_nohash_{clip}.wav", 100 * number + clip, 1.0)
    for part, speakers in (("train", ("a", "b", "c")), ("test", ("d", "e"))):
        (root / "mini" / part).mkdir(parents=True)
        utterances = [f"{speaker}-{number}" for speaker in speakers for number in range(8)]
        for utterance in utterances:
            speech(root / f"mini/{utterance}.wav", 10**6 + 100 * ord(utterance[0]) + int(utterance[2:]), 2.0)
        (root / "mini" / part / "wav.scp").write_text("".join(f"{utt} {root}/mini/{utt}.wav\n" for utt in utterances))
        (root / "mini" / part / "utt2spk").write_text("".join(f"{utt} {utt[0]}\n" for utt in utterances))
    return folder


def run(folder: Path, *words: str) -> str:
    command = ["./run.sh", "--speech_commands", "../../../commands", "--mini", "../../../mini", *words]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def prepared(recipe: Path) -> Path:
    """Stages 1 to 4, without a teacher."""
    plain = ("--kd_type", "none", "--teacher", "", "--student", "xvector")
    run(recipe, *plain, "--stop_stage", "4", "--kinds", "noise,telephone", "--speeds", "0.8,1.25")
    return recipe


def test_pieces_at_other_speeds_are_as_long_and_of_other_speakers(prepared: Path) -> None:
    """The teacher and the student hear 150 frames at each speed; a piece at 1.25 takes 1.875 s of the recording."""
    pieces, owners = (
        read_table(prepared / "data/train_pieces/segments"),
        read_utt2spk(prepared / "data/train_pieces/utt2spk"),
    )
    speeds = read_table(prepared / "data/train_pieces/utt2aug")
    assert set(speeds.values()) == {"speed=0.8", "speed=1.25"}
    assert {utt.split("-")[0] for utt in speeds} == {"sp0.8", "sp1.25"} == {owners[utt].split("-")[0] for utt in speeds}
    assert set(speeds) == {utt for utt in pieces if utt.startswith("sp")}
    for utt, text in pieces.items():
        start, end = map(float, text.split()[1:])
        assert end - start == pytest.approx(1.5 * float(speeds.get(utt, "speed=1").partition("=")[2]), abs=0.0015)
    frames = read_table(prepared / "data/train_all/utt2num_frames")
    assert len(frames) > len(pieces) and set(frames.values()) == {"150"}


def test_the_teacher_hears_every_piece_and_the_table_has_all_trials(prepared: Path) -> None:
    pieces, copies = (
        read_utt2spk(prepared / "data/train_pieces/utt2spk"),
        read_table(prepared / "data/train_aug/utt2aug"),
    )
    assert len(copies) == len(pieces) and any("telephone" in text.split() for text in copies.values())
    # A public model, as far as run.sh can tell: a folder of exp with a final.pt.
    (prepared / "exp/public").mkdir()
    shutil.copy(prepared / "exp/xvector_none_s0/final.pt", prepared / "exp/public/final.pt")
    # --leave_out trains without the corpus, and its mean and cohort are without it too.
    table = run(prepared, "--stage", "3", "--teacher", "public", "--student", "xvector", "--leave_out", "mini")
    taught = set(Scp(prepared / "exp/public/xvectors_train_originals/xvector.scp"))
    assert taught == set(read_utt2spk(prepared / "data/train_all/utt2spk")) == set(pieces) | set(copies)
    for folder in ("train_no_mini", "cohort_no_mini"):
        speakers = set(read_utt2spk(prepared / "data" / folder / "utt2spk").values())
        corpora = {speaker.split("-")[-2] for speaker in speakers}
        assert corpora == {"commands"} and (
            folder == "cohort_no_mini" or any(name.startswith("sp0.8-") for name in speakers)
        )
    # Whether a corpus was met is known of what was trained here.
    for trials, met in (("trials_mini", "no"), ("trials_commands", "yes"), ("trials_mini_enroll3", "no")):
        for system, known in (("public", "-"), ("xvector_cosine_public_utterance_no_mini_s0", met)):
            assert re.search(rf"^\| {system} +\| {trials} .*\| +{known} \|$", table, re.MULTILINE), table
    for part in ("scores", "scores_dev"):
        assert (prepared / "exp/xvector_cosine_public_utterance_no_mini_s0" / part / "trials_commands.asnorm").exists()


def test_the_card_says_what_the_student_learnt_from(prepared: Path) -> None:
    pytest.importorskip("onnxruntime")
    run(prepared, "--stage", "8", "--teacher", "public", "--student", "xvector", "--leave_out", "mini")
    export = prepared / "exp/xvector_cosine_public_utterance_no_mini_s0/export"
    card = json.loads((export / "card.json").read_text())
    assert card["data"] == "Speech Commands v0.02 (CC BY 4.0)" and "public" in card["taught_by"]
    assert {row["trials"] for row in card["eer"]} == {"data/test/trials_commands"}
    assert card["mean"] == "xvectors_cohort_no_mini/mean.vec" or card["mean"].endswith("cohort_no_mini/mean.vec")


def test_a_corpus_that_is_missing_is_said_to_be(recipe: Path) -> None:
    done = subprocess.run(
        ["./run.sh", "--kd_type", "none", "--teacher", "", "--speechocean", "/nowhere", "--stop_stage", "1"],
        cwd=recipe, env=environment(), capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 1 and "/nowhere: no such folder" in done.stderr
