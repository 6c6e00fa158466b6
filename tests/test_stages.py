"""What the functions of local/stages.sh print and call in the stages of a run.sh."""

import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, environment, replace_scripts

RUN = """#!/usr/bin/env bash
# A recipe.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. local/options.sh
teacher=resnet_tiny
student=xvector_tiny
. utils/parse_options.sh
. local/stages.sh
train() { echo "train $*"; }   # nothing is trained
if runs 3 "the teacher"; then train_teacher; fi
if runs 4 "the student"; then train_student; fi
if runs 6 "scores"; then
  score test data/test/trials --cohort SYSTEM/xvectors_train/xvector.scp
  score dev data/dev/trials_x --mean SYSTEM/mean.vec --spk2utt data/SYSTEM
fi
if runs 7 "maps" && pair; then maps train data/test/trials --out exp/m; fi
"""
STUB = '#!/bin/sh\necho "$(basename "$0")" "$@"\n'


@pytest.fixture
def run_sh(recipe: Path) -> Path:
    """A recipe in which score.py and align.sh only say how they were called."""
    replace_scripts(recipe, {"score.py": STUB, "align.sh": STUB})
    for name, text in {
        "run.sh": RUN,
        "path.sh": f"PYTHONPATH={ROOT}\n",
        "cmd.sh": "train_cmd=utils/run_jobs.sh cuda_cmd=utils/run_jobs.sh\n",
    }.items():
        (recipe / name).write_text(text)
        (recipe / name).chmod(0o755)
    for system in ("resnet_tiny_s0", "xvector_tiny_kld_resnet_tiny_s0"):
        (recipe / "exp" / system).mkdir(parents=True)
        (recipe / "exp" / system / "final.pt").write_text("a net")
    return recipe / "run.sh"


def lines(run_sh: Path, *words: str) -> list[str]:
    command = [str(run_sh), *words]
    done = subprocess.run(command, cwd=run_sh.parent, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return [re.sub(r"^\S*run\.sh: ", "", line) for line in done.stdout.splitlines()]


def test_stages_3_and_4_print_what_they_resolved(run_sh: Path) -> None:
    said = lines(run_sh, "--stage", "3", "--stop_stage", "4", "--kd_type", "kld", "--seed", "0")
    split = said.index("stage 4: the student")
    teacher = dict(line.split(None, 1) for line in said[1 : split - 1])
    assert said[0] == "stage 3: the teacher" and teacher["model"] == "conf/model/resnet_tiny.conf"
    assert teacher["training"] == "conf/train.conf --seed 0" and teacher["folder"] == "exp/resnet_tiny_s0"
    student = dict(line.split(None, 1) for line in said[split + 1 : -1])
    assert student["kd_type"].startswith("kld: conf/kd/kld.conf, --type=kld, class KLD of speakerkd/kd/label.py")
    assert student["training"].startswith("conf/train") and student["classifier"] == "conf/head.conf"
    assert student["teacher"] == "exp/resnet_tiny_s0/final.pt (trained in stage 3)"
    assert student["folder"] == "exp/xvector_tiny_kld_resnet_tiny_s0"
    assert said[split - 1].startswith("train exp/resnet_tiny_s0 resnet_tiny none ")
    assert said[-1].startswith(
        "train exp/xvector_tiny_kld_resnet_tiny_s0 xvector_tiny kld --teacher exp/resnet_tiny_s0/"
    )


def test_each_system_is_scored_with_files_of_its_own(run_sh: Path) -> None:
    said = lines(run_sh, "--stage", "6", "--kd_type", "kld")
    teacher, student = "exp/resnet_tiny_s0", "exp/xvector_tiny_kld_resnet_tiny_s0"
    assert said[1:] == [
        f"score.py --cohort {each}/xvectors_train/xvector.scp data/test/trials {each}/xvectors_test/xvector.scp "
        f"{each}/xvectors_test/xvector.scp {each}/scores"
        for each in (teacher, student)
    ] + [
        f"score.py --mean {each}/mean.vec --spk2utt data/{each} data/dev/trials_x {each}/xvectors_dev/xvector.scp "
        f"{each}/xvectors_dev/xvector.scp {each}/scores_dev"
        for each in (teacher, student)
    ]


def test_maps_are_made_between_the_two_systems(run_sh: Path) -> None:
    words = ("--enroll_system", "resnet_tiny_s0", "--test_system", "xvector_tiny_kld_resnet_tiny_s0")
    assert lines(run_sh, "--stage", "7", *words)[1] == (
        "align.sh --nj 4 --cmd utils/run_jobs.sh --out exp/m exp/resnet_tiny_s0 exp/xvector_tiny_kld_resnet_tiny_s0 "
        "data/train data/test data/test/trials"
    )
    assert lines(run_sh, "--stage", "7", "--stop_stage", "7", *words)[0] == "stage 7: maps"
