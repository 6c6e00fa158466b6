"""What run.sh works out before its stages: local/options.sh, local/stages.sh and local/plan.py, which all recipes share."""

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, environment, replace_scripts

from local import kd_info
from speakerkd.files.tables import read_table, write_table
from speakerkd.kd import METHODS

Run = Callable[..., subprocess.CompletedProcess[str]]
NAMES = ("--teacher", "resnet_tiny", "--student", "xvector_tiny")

RUN = """#!/usr/bin/env bash
# A recipe.
#   --corpus ""    its own option
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. local/options.sh
teacher=resnet_tiny
student=xvector_tiny
corpus=
. utils/parse_options.sh
. local/stages.sh
if runs 1 "jobs"; then
  utils/run_jobs.sh JOB=1:2 exp/log/JOB.log bash -c 'echo $$ > pid.JOB; exec sleep 300'
fi
if runs 2 "nothing"; then echo "corpus $corpus, seed $seed"; fi
if runs 3 "the teacher"; then train_teacher; fi
"""


@pytest.fixture
def run_sh(recipe: Path) -> Path:
    """A recipe of three stages."""
    (recipe / "run.sh").write_text(RUN)
    (recipe / "run.sh").chmod(0o755)
    (recipe / "path.sh").write_text("")
    (recipe / "cmd.sh").write_text("train_cmd=utils/run_jobs.sh cuda_cmd=utils/run_jobs.sh\n")
    return recipe / "run.sh"


@pytest.fixture
def own_conf(recipe: Path) -> Path:
    """A conf folder that may be changed."""
    (recipe / "conf").unlink()
    for part in ("kd", "model"):
        (recipe / "conf" / part).mkdir(parents=True)
        for file in (ROOT / "egs/mini/v1/conf" / part).iterdir():
            (recipe / "conf" / part / file.name).symlink_to(file)
    for name in ("head", "head_large", "train"):
        (recipe / f"conf/{name}.conf").write_text("")
    return recipe / "conf"


def plan(sh: Run, *words: object) -> dict[str, str]:
    """Variable: text; an array's elements are joined."""
    text = sh("local/plan.py", *NAMES, *words).stdout
    arrays = dict(re.findall(r"^(\w+)=\((.*)\)$", text, re.MULTILINE))
    rest = re.sub(r"^\w+=\(.*\)$", "", text, flags=re.MULTILINE)
    return {**arrays, **dict(word.split("=", 1) for word in shlex.split(rest))}


def test_bad_options_are_refused_before_anything_is_loaded(run_sh: Path) -> None:
    """In an environment that has none of the packages."""
    bare = {"PATH": "/usr/bin:/bin"}
    for words, told in (
        (("--stage", "x"), "option --stage takes a whole number, not 'x'"),
        (("--stage", "3.5"), "option --stage takes a whole number, not '3.5'"),
        (("--stage", ""), "option --stage takes a whole number, not ''"),
        (("--stop-stage", "4"), "--stop_stage 4: the stages are 1 to 3"),
        (("--stage", "0", "--stop_stage", "1"), "--stage 0: the stages are 1 to 3"),
        (("--stage", "3", "--stop_stage", "2"), "--stage 3 comes after --stop_stage 2"),
        (("--seed", "0;touch x"), "option --seed takes a whole number, not '0;touch x'"),
        (("--stop_stage", "1", "--nj", "0"), "--nj 0 must be 1 or more"),
        (("--stop_stage", "1", "--gpus", "-1"), "--gpus -1 must not be negative"),
        (("--stop_stage", "1", "--processes", "-1"), "--processes -1 must not be negative"),
        (("--large_margin", "maybe"), "option --large_margin takes true or false, not 'maybe'"),
        (("extra",), "unexpected argument 'extra'"),
    ):
        done = subprocess.run([run_sh, *words], env=bare, capture_output=True, text=True, timeout=20)
        assert done.returncode == 1 and told in done.stderr and not done.stdout, (words, done.stderr)
        assert len(done.stderr.splitlines()) == 1
    done = subprocess.run([run_sh, "--corpora", "x"], env=bare, capture_output=True, text=True, timeout=20)
    allowed = done.stderr.partition("(allowed: ")[2].split()
    assert {"--corpus", "--enroll_system", "--kd_type", "--vectors"} <= set(allowed) and not [
        x for x in allowed if "_po" in x
    ]
    shown = subprocess.run([run_sh, "--help"], env=bare, capture_output=True, text=True, timeout=20).stdout
    assert shown.index("A recipe.") < shown.index("--corpus") < shown.index("--train_config") < shown.index("--gpus")
    assert "sourced" not in shown


def test_bad_names_are_refused_before_the_first_stage(run_sh: Path) -> None:
    for words, told in (
        (("--kd_type", "foo"), "conf/kd/foo.conf: no such method; there are: "),
        (("--student", "foo"), "conf/model/foo.conf: no such model; there are: "),
        (
            ("--kd_type", "enskd", "--teacher", "foo"),
            "--teacher 'foo' is neither a model of conf/model (",
        ),
        (("--kd_type", "enskd", "--teacher", ""), "conf/kd/enskd.conf needs a teacher; give --teacher"),
        (("--kd_type", "nessa"), "conf/kd/nessa.conf trains maps between two systems, which is stage 7"),
        (("--train_config", "conf/no.conf"), "conf/no.conf: no such file"),
        (("--large_margin", "true"), "conf/train_lm.conf: no such file"),
        (("--kd_type", "enskd", "--vectors", "quality=a"), "conf/kd/enskd.conf takes none"),
        (("--kd_type", "vgsr", "--vectors", "face=a"), "conf/kd/vgsr.conf takes quality=<file> or not"),
        (("--student", "$(touch ran)"), "--student '$(touch ran)': names may hold only letters"),
        (("--teacher", "a`touch ran`.scp"), "--teacher 'a`touch ran`.scp': names may hold"),
        (("--teacher", "JOB.scp"), "--teacher 'JOB.scp': names may hold only letters, digits"),
        (("--train_options", "--num-epochs 1;touch ran"), "--train_options '1;touch': names may hold"),
    ):
        done = subprocess.run(
            [run_sh, "--stop_stage", "2", *words], env=environment(), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1 and told in done.stderr and "stage 1" not in done.stdout, (words, done.stderr)
    assert not (run_sh.parent / "ran").exists()
    done = subprocess.run(
        [run_sh, "--stage", "2", "--stop_stage", "2", "--corpus", "a b", "--seed", "7"],
        env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["./run.sh: stage 2: nothing", "corpus a b, seed 7"], done.stderr


def test_who_teaches_whom(recipe: Path, sh: Run) -> None:
    found = plan(sh)
    assert found["systems"] == "exp/resnet_tiny_s0 exp/xvector_tiny_none_s0" and found["taught_by"] == ""
    assert found["teacher_kinds"] == "trained" and found["teacher_models"] == "resnet_tiny"

    found = plan(sh, "--kd-type", "enskd", "--seed", 3)
    assert found["taught_by"] == "exp/resnet_tiny_s3/final.pt"
    assert found["systems"] == "exp/resnet_tiny_s3 exp/xvector_tiny_enskd_resnet_tiny_s3"
    assert found["student_chain"].splitlines()[0].split(None, 1) == [
        "kd_type",
        "enskd: conf/kd/enskd.conf, --type=dkd, class DKD of speakerkd/kd/label.py",
    ]
    rows = dict(line.split(None, 1) for line in found["student_chain"].splitlines())
    assert rows["teacher"] == "exp/resnet_tiny_s3/final.pt (trained in stage 3)"
    assert rows["training"] == "conf/train.conf --seed 3" and rows["classifier"] == "conf/head.conf"
    assert rows["folder"] == "exp/xvector_tiny_enskd_resnet_tiny_s3"

    found = plan(sh, "--kd-type", "skdfe")
    assert found["systems"] == "exp/xvector_tiny_skdfe_s0" and found["teacher_kinds"] == ""
    assert found["teacher_chain"] == "kd_type=skdfe needs no teacher"

    found = plan(sh, "--kd-type", "sdpn")
    assert "classifier   none" in found["student_chain"] and found["student_config"] == "conf/train_sdpn.conf"

    # A folder of exp that is no model of conf/model: its vectors teach. It is scored beside the student.
    (recipe / "exp/big").mkdir(parents=True)
    (recipe / "exp/big/final.pt").touch()
    found = plan(sh, "--kd-type", "enskd", "--teacher", "big")
    assert found["teacher_kinds"] == "imported"
    assert found["taught_by"] == "exp/big/crops_train_originals/xvector.scp"
    assert found["systems"] == "exp/big exp/xvector_tiny_enskd_big_s0"
    found = plan(sh, "--kd-type", "enskd", "--teacher", "big", "--hear", "utterance")
    assert found["taught_by"] == "exp/big/xvectors_train_originals/xvector.scp"
    found = plan(sh, "--teacher", "big")
    assert found["taught_by"] == "" and found["systems"] == "exp/big exp/xvector_tiny_none_s0"

    # Files, with names of their own or with the user's.
    found = plan(sh, "--kd-type", "vgsr", "--teacher", "data/train/face.scp", "--spare-vectors", "quality=q,other=o")
    assert found["systems"] == "exp/xvector_tiny_vgsr_face_s0" and found["vectors"] == "quality=q"
    found = plan(sh, "--kd-type", "enskd", "--teacher", "faces=data/train/face.scp", "--spare-vectors", "quality=q")
    assert found["systems"] == "exp/xvector_tiny_enskd_faces_s0" and found["vectors"] == ""
    found = plan(sh, "--kd-type", "enskd", "--teacher", "old=exp/big/final.pt")
    assert found["systems"] == "exp/xvector_tiny_enskd_old_s0" and found["teacher_kinds"] == "net"
    assert found["teacher_chain"] == "the teacher is exp/big/final.pt"
    done = sh("local/plan.py", *NAMES, "--kd-type", "enskd", "--teacher", "exp/no/final.pt", "--stage", 4, fails=True)
    assert "exp/no/final.pt: no such teacher; run stage 3" in done.stderr


def test_several_teachers(recipe: Path, sh: Run) -> None:
    for name in ("big", "own"):
        (recipe / f"exp/{name}").mkdir(parents=True)
        (recipe / f"exp/{name}/final.pt").touch()
    (recipe / "exp/own/spk2id").touch()  # it has a classifier
    found = plan(sh, "--kd-type", "cosine", "--teacher", "resnet_tiny,big,face=data/train/face.scp")
    assert found["teacher_kinds"].split() == ["trained", "imported", "vectors"]
    assert found["teacher_dirs"].split() == ["exp/resnet_tiny_s0", "exp/big", "''"]
    assert found["taught_by"] == (
        "resnet_tiny=exp/resnet_tiny_s0/final.pt,big=exp/big/crops_train_originals/xvector.scp,face=data/train/face.scp"
    )
    student = "exp/xvector_tiny_cosine_resnet_tiny+big+face_s0"
    assert found["systems"].split() == ["exp/resnet_tiny_s0", "exp/big", student] and found["centroids"] == ""
    assert "exp/big/final.pt is there already\nthe teacher is data/train/face.scp" in found["teacher_chain"]

    # Who hears the crop judges by its own classifier; without one, by mean vectors.
    found = plan(sh, "--kd-type", "enskd", "--source", "waves", "--teacher", "big,own,old=exp/own/final.pt")
    assert found["taught_by"] == "big=exp/big/final.pt,own=exp/own/final.pt,old=exp/own/final.pt"
    assert found["teacher_ears"].split() == ["crop", "crop", "''"]
    assert found["centroids"] == "big=exp/big/xvectors_train_originals/spk_xvector.scp"
    assert (
        "(imported, hears the crop, judges by the speakers' mean vectors); exp/own/final.pt (imported, hears the crop);"
        in (found["student_chain"])
    )
    assert plan(sh, "--kd-type", "enskd", "--source", "waves", "--teacher", "big")["centroids"] == (
        "exp/big/xvectors_train_originals/spk_xvector.scp"
    )

    for teachers, told in (
        ("big,big=exp/own/final.pt", "two teachers are called 'big'; name them: big=exp/a/final.pt"),
        ("big,x-y=exp/own/final.pt", "has a name of letters, digits and _, and 'x-y' is none"),
        ("big,foo", "--teacher 'foo' is neither a model of conf/model"),
        ("old=exp/own/final.pt,face=data/no.scp", "data/no.scp: no such teacher; run stage 3"),
    ):
        done = sh("local/plan.py", *NAMES, "--kd-type", "enskd", "--stage", 4, "--teacher", teachers,
                  "--hear", "utterance", "--source", "waves", fails=True)  # fmt: skip
        assert told in done.stderr, (teachers, done.stderr)
    done = sh("local/plan.py", *NAMES, "--kd-type", "enskd", "--teacher", "big", "--hear", "crop", fails=True)
    assert "--hear 'crop' is not one of: crop (with --source waves), places, utterance" in done.stderr


def test_stages_make_what_several_teachers_need(run_sh: Path, data: Path) -> None:
    """Beside scripts that only note what they are asked for: a teacher is trained or makes vectors, the student has all."""
    recipe = run_sh.parent
    noted = ("train.sh", "extract_xvectors.sh", "extract_crop_xvectors.sh", "make_wave_ark.sh")
    stub = 'echo "$(basename "$0") $*" >> asked\nmkdir -p "${@: -1:1}"\n'
    stub += 'for x in waves.scp final.pt xvector.scp; do echo 1 > "${@: -1:1}/$x"; done\n'
    replace_scripts(recipe, {**dict.fromkeys(noted, stub), "model_info.py": "echo 0.01\n"})
    with open(run_sh, "a") as file:
        file.write('if runs 4 "the student"; then train_student; fi\n')
    data.rename(recipe / "data/train_all")
    write_table(recipe / "data/train_all/utt2dur", dict.fromkeys(read_table(recipe / "data/train_all/utt2spk"), "1.0"))
    for name in ("big", "own"):
        (recipe / f"exp/{name}").mkdir(parents=True)
        (recipe / f"exp/{name}/final.pt").write_text("1")
    (recipe / "exp/own/spk2id").touch()
    (recipe / "face.scp").write_text("1")
    teachers = "xvector,big,own,face=face.scp"
    words = ["--stage", "3", "--stop_stage", "4", "--kd_type", "cosine", "--student", "xvector", "--teacher", teachers]
    # --processes is for CPUs: with GPUs there is one for each
    for source, made, gpus, processes in (
        ("feats", ["extract_crop_xvectors.sh", "extract_crop_xvectors.sh"], "0", "3"),
        ("waves", ["extract_xvectors.sh", "make_wave_ark.sh"], "1", "0"),
    ):
        done = subprocess.run(
            [run_sh, *words, "--source", source, "--processes", "3", "--gpus", gpus],
            env={**environment(), "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        asked = [line.split() for line in (recipe / "asked").read_text().splitlines()]
        (recipe / "asked").unlink()
        teacher, *others, student = asked
        assert teacher[0] == student[0] == "train.sh" and teacher[-1] == "exp/xvector_s0"
        assert all(each[each.index("--processes") + 1] == processes for each in (teacher, student))
        assert [each[0] for each in others] == made
        crops = "crops_train_originals/xvector.scp" if source == "feats" else "final.pt"
        given = student[student.index("--teacher") + 1]
        assert given == f"xvector=exp/xvector_s0/final.pt,big=exp/big/{crops},own=exp/own/{crops},face=face.scp"
        means = "big=exp/big/xvectors_train_originals/spk_xvector.scp"
        assert (("--centroids" in student) and student[student.index("--centroids") + 1] == means) == (
            source == "waves"
        )
    # wave archives are made again if what they are made of is newer
    for name, again in (("utt2spk", False), ("wav.scp", True)):
        os.utime(recipe / "data/train_all/waves.scp")
        later = (recipe / "data/train_all/waves.scp").stat().st_mtime + 10
        os.utime(recipe / "data/train_all" / name, (later, later))
        four = [*words, "--source", "waves", "--stage", "4"]
        subprocess.run([run_sh, *four], env=environment(), check=True, capture_output=True, timeout=100)
        asked = (recipe / "asked").read_text()
        (recipe / "asked").unlink()
        assert ("make_wave_ark.sh" in asked) == again


def test_systems_of_stage_7(recipe: Path, sh: Run) -> None:
    (recipe / "exp/a").mkdir(parents=True)
    (recipe / "exp/a/final.pt").touch()
    seven = ("local/plan.py", *NAMES, "--stage", 7, "--stop-stage", 7)
    assert "stage 7 needs --enroll_system and --test_system" in sh(*seven, "--test-system", "a", fails=True).stderr
    done = sh(*seven, "--enroll-system", "a", "--test-system", "b", fails=True)
    assert "--test_system 'b': exp/b is not there; there are: a" in done.stderr
    sh(*seven, "--enroll-system", "a", "--test-system", "a")
    sh("local/plan.py", *NAMES, "--stage", 4, "--stop-stage", 7, "--enroll-system", "a", "--test-system", "to_be_made")


def test_one_rule_for_the_training_conf(own_conf: Path, sh: Run) -> None:
    assert plan(sh, "--kd-type", "enskd")["student_config"] == "conf/train.conf"
    (own_conf / "train_enskd.conf").write_text("")
    found = plan(sh, "--kd-type", "enskd", "--train-options", "--lr 0.1")
    assert found["student_config"] == "conf/train_enskd.conf" and found["teacher_config"] == "conf/train.conf"
    assert "training     conf/train_enskd.conf --seed 0 --lr 0.1" in found["student_chain"]
    assert plan(sh, "--kd-type", "kld")["student_config"] == "conf/train.conf"
    found = plan(sh, "--kd-type", "enskd", "--train-config", "conf/train.conf")
    assert found["student_config"] == "conf/train.conf"
    (own_conf / "train_lm.conf").write_text("")
    found = plan(sh, "--large-margin", "true", "--kd-type", "enskd")
    assert found["fine_tuned"] == "exp/xvector_tiny_enskd_resnet_tiny_lm_s0"
    assert found["systems"].split()[2] == found["fine_tuned"]


@pytest.mark.parametrize("recipe_name", ["mini", "synth", "voxceleb", "cnceleb"])
def test_methods_that_have_settings_of_their_own_are_trained_by_them(recipe_name: str) -> None:
    """In all recipes: days of training with another method's settings are days lost."""
    folder = ROOT / "egs" / recipe_name / "v1"
    (model,) = sorted(folder.glob("conf/model/xvector.conf"))
    for kd_type in ("sdpn", "dino"):
        words = ["local/plan.py", "--student", model.stem, "--kd-type", kd_type]
        done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, check=True)
        assert f"student_config=conf/train_{kd_type}.conf" in done.stdout


def test_what_methods_need_is_known_without_pytorch(
    recipe: Path, sh: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    conf = str(recipe / "conf/kd/enskd.conf")
    monkeypatch.setattr(kd_info, "KEPT", tmp_path / "kept/needs.json")
    (first,) = kd_info.methods([conf])
    assert first.cls == "DKD of speakerkd/kd/label.py" and tuple(first.words) == ("labels", "teacher", "audio")
    monkeypatch.setattr(kd_info, "_load", None)  # would be an error
    assert kd_info.methods([conf]) == [first]
    stored = json.loads((tmp_path / "kept/needs.json").read_text())
    (tmp_path / "kept/needs.json").write_text(json.dumps({**stored, "version": "older"}))
    with pytest.raises(TypeError):
        kd_info.methods([conf])
    monkeypatch.undo()
    for file in sorted((recipe / "conf/kd").glob("*.conf")):  # the same for all, whether it was kept or not
        fresh, kept = kd_info._load(str(file)), kd_info.methods([str(file)])[0]
        assert (fresh.type, fresh.cls, [*fresh.words]) == (kept.type, kept.cls, [*kept.words])
        assert METHODS[fresh.type].__name__ == fresh.cls.split()[0]
    script = "import sys; from local import plan; plan.main(sys.argv[1:]); assert 'torch' not in sys.modules"
    subprocess.run(
        ["python3", "-c", script, *NAMES, "--kd-type", "enskd"], cwd=recipe, env=environment(), check=True, timeout=60
    )


def alive(pid: int) -> bool:
    """Running, and no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_that_run_sh_has_started(run_sh: Path, number: int) -> None:
    process = subprocess.Popen(
        [run_sh, "--stop_stage", "1"], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    files = [run_sh.parent / f"pid.{job}" for job in (1, 2)]
    for _ in range(300):
        if all(file.exists() and file.read_text().strip() for file in files):
            break
        time.sleep(0.1)
    pids = [int(file.read_text()) for file in files]
    assert all(alive(pid) for pid in pids)
    os.kill(process.pid, number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == -number
    assert "stopped by SIG" in told and "the same command goes on from there" in told
    assert not any(alive(pid) for pid in pids)
