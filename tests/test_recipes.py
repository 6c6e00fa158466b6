"""Whole recipes as a user runs them, on few made-up speakers; and what every recipe must have."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, environment

from speakerkd.conf import build, read_conf
from speakerkd.losses.margin import MarginConf
from speakerkd.train.options import TrainConf

RECIPES = sorted(path.parent for path in ROOT.glob("egs/*/v*/run.sh"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.parent.name)
def test_help_is_instant_and_options_are_checked(recipe: Path) -> None:
    """Nothing is installed or loaded for it."""
    bare = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run([recipe / "run.sh", "--help"], env=bare, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and "--stage" in done.stdout and "./run.sh" in done.stdout
    done = subprocess.run([recipe / "run.sh", "--stages", "1"], env=bare, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "no option '--stages'" in done.stderr and "--stop_stage" in done.stderr
    relative = [recipe.relative_to(ROOT) / "run.sh", "--help"]
    done = subprocess.run(relative, cwd=ROOT, env=bare, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and "--stop_stage" in done.stdout, done.stderr
    for stray in ("-stage", "stage=9", "extra"):
        done = subprocess.run([recipe / "run.sh", stray, "9"], env=bare, capture_output=True, text=True, timeout=20)
        assert done.returncode == 1 and f"unexpected argument '{stray}'" in done.stderr


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.parent.name)
def test_recipes_have_what_they_need(recipe: Path) -> None:
    for name in (
        "cmd.sh",
        "path.sh",
        "README.md",
        "prepare_data.py",
        "conf/fbank.conf",
        "conf/head.conf",
        "conf/train.conf",
    ):
        assert (recipe / name).is_file(), name
    for name in ("local", "utils"):
        assert (recipe / name).is_symlink() and (recipe / name).resolve() == ROOT / name
    assert os.access(recipe / "prepare_data.py", os.X_OK)


def test_as_many_steps_whatever_the_number_of_speakers(tmp_path: Path) -> None:
    """compare_speakers.sh: epochs fit the size of the set; margin and warm-up are parts of the run."""
    found = []
    for count in (150, 1500):
        (tmp_path / f"train_{count}").mkdir()
        (tmp_path / f"train_{count}/utt2spk").write_text("u s\n" * count)
        words = f". ./speakers.sh; data={tmp_path}; settings {tmp_path}/{count} {count} 6000"
        subprocess.run(["bash", "-euc", words], cwd=ROOT / "egs/synth/v1", check=True)
        conf = build(TrainConf, read_conf(tmp_path / f"{count}/train.conf"), "train.conf")
        head = build(MarginConf, read_conf(tmp_path / f"{count}/head.conf"), "head.conf")
        assert conf.num_epochs * count == 6000 and conf.average == 1 and conf.schedule == "cosine"
        found.append((conf.warmup, head.margin_start, head.margin_end))
    assert found[0] == found[1] == (0.05, 0.15, 0.4)


def test_synth_from_nothing_to_a_table(tmp_path: Path) -> None:
    """Stages 1 to 6 in a copy of the repository, then one stage again."""
    clone = tmp_path / "clone"
    ignored = shutil.ignore_patterns("data", "exp", "download", "venv", ".git", "__pycache__", "*_cache", "tests")
    shutil.copytree(ROOT, clone, symlinks=True, ignore=ignored)
    recipe = clone / "egs/synth/v1"
    (recipe / "conf/train.conf").write_text(
        "--num-epochs=3\n--batch-size=16\n--optimizer=adamw\n--lr=2e-3\n--final-lr=1e-3\n"
    )
    (recipe / "prepare_small").write_text(
        "#!/bin/sh\nexec ./prepare_data.py --num-train-speakers 6 --num-test-speakers 6 --utts-per-speaker 9 "
        "--sessions 3 --seconds 2:3 data\n"
    )
    command = (recipe / "run.sh").read_text()
    marker = './prepare_data.py --num-train-speakers "$speakers" --nj "$nj" data'
    assert marker in command
    (recipe / "run.sh").write_text(command.replace(marker, "sh ./prepare_small"))
    words = ["./run.sh", "--teacher", "xvector_tiny", "--student", "xvector_tiny"]
    done = subprocess.run(words, cwd=recipe, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for part in ("stage 1: data", "stage 6: scores", "data/train_all is valid", "| xvector_tiny_none_s0 |"):
        assert part in done.stdout, part
    scores = (recipe / "exp/xvector_tiny_none_s0/scores/trials.cosine").read_text().splitlines()
    assert len(scores) == len((recipe / "data/test/trials").read_text().splitlines())
    assert all(len(line.split()) == 3 for line in scores)

    before = (recipe / "data/train/feats.scp").read_text()
    words = ["./run.sh", "--stage", "6", "--teacher", "xvector_tiny", "--student", "xvector_tiny"]
    again = subprocess.run(words, cwd=recipe, env=environment(), capture_output=True, text=True, timeout=600)
    assert again.returncode == 0 and "stage 5" not in again.stdout
    assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    assert (recipe / "data/train/feats.scp").read_text() == before

    # Other methods, on the features that are there: with stage 3's teacher, with faces, with none.
    for kd_type, teacher, line in (
        ("enskd", "xvector_tiny", "stage 3: the teacher, xvector_tiny"),
        ("vgsr", "faces", "the teacher is data/train/face.scp"),
        ("sdpn", "xvector_tiny", "kd_type=sdpn needs no teacher"),
    ):
        words = ["./run.sh", "--stage", "3", "--teacher", teacher, "--student", "xvector_tiny", "--kd_type", kd_type]
        done = subprocess.run(words, cwd=recipe, env=environment(), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        name = f"xvector_tiny_{kd_type}_s0" if kd_type == "sdpn" else f"xvector_tiny_{kd_type}_{teacher}_s0"
        assert line in done.stdout and f"| {name} " in done.stdout
    assert "xvector_tiny_enskd_xvector_tiny_s0" in (recipe / "exp/report.html").read_text()
    log = (recipe / "exp/xvector_tiny_vgsr_faces_s0/log/train.1.log").read_text()
    assert "utterances have no teacher" in log and "the method leaves them out" in log

    # The student leaves the bench: --stage 8 alone is that stage, and what it writes compares two recordings.
    words = ["./run.sh", "--stage", "8", "--student", "xvector_tiny"]
    done = subprocess.run(words, cwd=recipe, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "stage 8" in done.stdout and "stage 6" not in done.stdout
    waves = [line.split()[1] for line in (recipe / "data/test/wav.scp").read_text().splitlines()[:2]]
    words = ["local/verify.py", "--model", "exp/xvector_tiny_none_s0/export", *waves]
    done = subprocess.run(words, cwd=recipe, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "decision" in done.stdout, done.stderr


def test_bench_runs_small() -> None:
    words = [
        "tools/bench.py",
        "--seconds",
        "0.05",
        "--utterances",
        "4",
        "--entries",
        "1000",
        "--trials",
        "500",
        "--cohort",
        "40",
        "--scale",
        "0.001",
    ]
    # All but stage7, which starts dozens of processes whatever the size.
    sections = ["fbank", "load", "index", "train", "distill", "sdpn", "score", "asnorm", "stage1", "stage6"]
    words += sections
    # As from a user's shell: the environment is the script's affair.
    bare = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=ROOT, env=bare, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    table = [line.split()[0] for line in done.stdout.splitlines()]
    several = {"load": 2, "index": 3, "distill": 4, "score": 2, "stage1": 3, "stage6": 5}
    assert table == ["section"] + [name for name in sections for _ in range(several.get(name, 1))]
    done = subprocess.run(["tools/bench.py", "fbanks"], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert "no section 'fbanks' (there are: fbank load crops index" in done.stderr


def test_check_env_speaks() -> None:
    done = subprocess.run(["tools/check_env.py"], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0 and "The recipes can run." in done.stdout and "ok      torch" in done.stdout
    # A bare interpreter has none of it, and is told what to do.
    done = subprocess.run(
        ["/usr/bin/env", "python3", "-I", "-S", ROOT / "tools/check_env.py"], capture_output=True, text=True
    )
    assert done.returncode == 1 and "MISSING torch" in done.stdout and "tools/setup.sh" in done.stdout
