"""compare_kd.sh: what it trains, what it leaves alone, and its table."""

import fcntl
import json
import re
import subprocess
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from conftest import replace_scripts
from toy import command

from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.tables import read_utt2spk
from speakerkd.score.metrics import eer, roc
from speakerkd.score.trials import read_scores, read_trials

Run = Callable[..., subprocess.CompletedProcess[str]]


def rows_of(text: str) -> dict[str, list[str]]:
    lines = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return {" ".join(cells[:3]): cells for cells in lines[2:]}


def test_a_comparison(recipe: Path, data: Path, sh: Run) -> None:
    utt2spk = read_utt2spk(data / "utt2spk")
    with (data / "trials").open("w") as file:
        for one, other in combinations(utt2spk, 2):
            file.write(f"{one} {other} {'target' if utt2spk[one] == utt2spk[other] else 'nontarget'}\n")
    sh(*command("exp/t", "--valid-speakers", 0, "--num-epochs", 1, "--average", 1))
    options = ["--train-options", "--num-epochs 1 --average 1 --valid-speakers 0", "--teachers", "own=exp/t/final.pt"]
    ends = ["data/train", "data/train", "data/train/trials", "exp/c"]
    words = ["local/compare_kd.sh", "--kd-types", "none cosine", "--students", "xvector", *options]
    done = sh(*words, "--seeds", "0 1", *ends)
    assert "4 systems, 4 of them to be trained" in done.stdout
    before = (recipe / "exp/c/xvector_cosine_own_s1/final.pt").stat().st_mtime_ns

    # widened: only what is new is done
    done = sh(*words[:2], "none cosine enskd", *words[3:], "--seeds", "0 1", *ends)
    assert "6 systems, 2 of them to be trained" in done.stdout
    assert (recipe / "exp/c/xvector_cosine_own_s1/final.pt").stat().st_mtime_ns == before
    again = sh(*words[:2], "none cosine enskd", *words[3:], "--seeds", "0 1", *ends)
    assert "6 systems, 0 of them to be trained" in again.stdout
    assert again.stdout.split("\n", 1)[1] == done.stdout.split("\n", 1)[1].removeprefix(done.stdout.split("\n", 1)[0])
    text = (recipe / "exp/c/table.md").read_text()
    assert text in again.stdout
    # Stage 6 of a recipe may have scored the teacher in another way; the comparison has scores of its own.
    assert (recipe / "exp/c/teachers/own/scores/trials.cosine").exists()
    assert not (recipe / "exp/t/scores/trials.cosine").exists()

    rows = rows_of(text)
    assert list(rows) == ["xvector none -", "xvector cosine own", "xvector enskd own"]
    trials = read_trials(data / "trials")
    scores = {
        name: [read_scores(recipe / f"exp/c/xvector_{name}_s{seed}/scores/trials.cosine", trials)[0] for seed in (0, 1)]
        for name in ("none", "enskd_own")
    }
    means = {name: 100 * np.mean([eer(roc(each, trials.target))[0] for each in two]) for name, two in scores.items()}
    row = rows["xvector enskd own"]
    assert row[3] == "2" and float(row[4].split()[0]) == round(means["enskd_own"], 2)
    change = means["enskd_own"] - means["none"]
    assert abs(float(row[6].split()[0]) - change) < 0.006
    # Two seeds give no test: the difference alone, and a line that says why.
    assert row[6] == f"{float(row[6]):+.2f}" and row[7] == "-"
    assert "No p-values: a test over seeds needs 3 seeds or more." in text
    assert rows["xvector none -"][6:9] == ["-", "-", "-"]
    told = (recipe / "exp/c/table.tsv").read_text().splitlines()
    by_seed = [line.split("\t") for line in (recipe / "exp/c/systems.tsv").read_text().splitlines()]
    assert len(by_seed) == 7 and by_seed[0][0] == "system"
    own = [dict(zip(by_seed[0], line, strict=True)) for line in by_seed[1:] if line[2] == "enskd"]
    assert [line["seed"] for line in own] == ["0", "1"]
    assert np.mean([float(line["eer"]) for line in own]) == pytest.approx(means["enskd_own"], abs=1e-4)
    assert all(int(line["mac_per_second"]) > 0 and line["commit"] for line in own)
    for name in ("eer.pdf", "cost.png", "det.pdf", "table.tex"):
        assert (recipe / "exp/c" / name).stat().st_size > 0
    assert len(told) == 4 and told[0].split("\t")[:3] == ["student", "kd_type", "teacher"]

    # against another method
    against = rows_of(
        sh("local/compare_kd_table.py", "--reference", "none cosine", "data/train/trials", "exp/c").stdout
    )
    assert against["xvector cosine own"][8] == "-" and against["xvector none -"][6:10] == ["-"] * 4
    assert against["xvector enskd own"][6:8] == row[6:8]
    drop = float(row[4].split()[0]) - float(rows["xvector cosine own"][4].split()[0])
    assert abs(float(against["xvector enskd own"][8].split()[0]) - drop) < 0.011
    assert "EER - cosine" in (recipe / "exp/c/table.md").read_text()

    # by noise: here the scores of the other seed stand for it, so the mean over seeds is the clean one
    for name in ("none", "cosine_own", "enskd_own"):
        for seed in (0, 1):
            for condition, source in (("noise10", 1 - seed), ("noise0", seed)):
                folder = recipe / f"exp/c/noise/xvector_{name}_s{seed}/scores_{condition}"
                folder.mkdir(parents=True)
                (folder / "trials.cosine").write_bytes(
                    (recipe / f"exp/c/xvector_{name}_s{source}/scores/trials.cosine").read_bytes()
                )
    noise = ["--noise", "exp/c/noise", "--conditions", "noise10,noise0", "data/train/trials", "exp/c"]
    sh("local/compare_kd_table.py", "--teachers", "own=exp/c/teachers/own", *noise)
    assert (recipe / "exp/c/table.md").read_text() == text
    noisy = rows_of((recipe / "exp/c/table_noise.md").read_text())["xvector enskd own"]
    assert noisy[4:7] == [row[4].split()[0]] * 3
    assert noisy[7].split()[0] == row[4].split()[0] and noisy[8].split()[0] == row[6].split()[0]
    (recipe / "exp/c/noise/xvector_enskd_own_s1/scores_noise0/trials.cosine").unlink()
    assert "scores_noise0/trials.cosine" in sh("local/compare_kd_table.py", *noise, fails=True).stderr

    # the same folder with other options would mix the two, and hours later is late to hear of it
    words = [
        "local/compare_kd.sh",
        "--kd-types",
        "none enskd",
        "--students",
        "xvector",
        "--teachers",
        "own=exp/t/final.pt",
    ]
    confs = {name: (recipe / f"conf/{name}.conf").read_text() for name in ("kd/enskd", "model/xvector", "head")}
    for name, line, message in (
        ("kd/enskd", "--gamma=3", r"xvector_enskd_own_s0 .* the files now say \(method.gamma 2.0 for 3.0\)"),
        ("model/xvector", "--channels=16", r"xvector_none_s0 .* the files now say \(model.channels 8 for 16\)"),
        ("head", "--margin=0.2", r"xvector_none_s0 .* the files now say \(head.margin 0.1 for 0.2\)"),
    ):
        lines = [each for each in confs[name].splitlines() if not each.startswith(line.split("=")[0] + "=")]
        (recipe / f"conf/{name}.conf").write_text("\n".join([*lines, line]))
        done = sh(*words, *options, "--seeds", "0 1 2", *ends, fails=True)
        assert re.search(message, done.stderr) and not (recipe / "exp/c/xvector_none_s2").exists(), done.stderr
        (recipe / f"conf/{name}.conf").write_text(confs[name])
    record = recipe / "exp/c/xvector_enskd_own_s1/conf.json"
    before = record.read_text()
    record.write_text(before.replace(json.loads(before)["options"]["files"]["exp/t/final.pt"], "another"))
    done = sh(*words, *options, "--seeds", "0 1", *ends, fails=True)
    assert (
        "xvector_enskd_own_s1 was trained with other options than the files now say (files.exp/t/final.pt another for"
        in done.stderr
    )
    record.write_text(before)
    options[1] = options[1].replace("--num-epochs 1", "--num-epochs 2")
    words = ["local/compare_kd.sh", "--kd-types", "none", "--students", "xvector", *options, "--seeds", "0 1 2"]
    done = sh(*words, *ends, fails=True)
    assert (
        "xvector_none_s0 was trained with other options than this call asks for (train.num_epochs 1 for 2)"
        in done.stderr
    )
    assert not (recipe / "exp/c/xvector_none_s2").exists()
    words[words.index(options[1])] = options[1].replace("--num-epochs 2", "--num-epochs 1")
    utt2spk_text = (data / "utt2spk").read_text()
    (data / "utt2spk").write_text(utt2spk_text.replace("\n", " \n", 1))
    assert "than this call asks for (data.tables.utt2spk " in sh(*words, *ends, fails=True).stderr
    (data / "utt2spk").write_text(utt2spk_text)

    # dev, and two lists: the systems are kept, the scores and tables stand apart
    (recipe / "data/dev").symlink_to("train")
    lines = (data / "trials").read_text().splitlines(keepends=True)
    (data / "few").write_text("".join(lines[::2]))
    dev = [
        *words[:2],
        "none",
        *words[3:-2],
        "--seeds",
        "0 1",
        "data/train",
        "data/dev",
        "data/dev/trials,data/dev/few",
        "exp/c",
    ]
    weights = (recipe / "exp/c/xvector_none_s1/final.pt").stat().st_mtime_ns
    table = (recipe / "exp/c/table.md").read_text()
    assert "2 systems, 2 of them to be trained or scored" in sh(*dev).stdout
    assert (recipe / "exp/c/xvector_none_s1/final.pt").stat().st_mtime_ns == weights
    assert rows_of((recipe / "exp/c/table_dev.md").read_text())["xvector none -"] == rows["xvector none -"]
    assert (recipe / "exp/c/table.md").read_text() == table
    (recipe / "exp/c/xvector_none_s0/scores_dev/few.cosine").unlink()
    done = sh(*dev)
    assert "2 systems, 1 of them to be trained or scored" in done.stdout
    fewer = (recipe / "exp/c/table_dev_few.md").read_text()
    assert fewer.startswith(f"few: {len(lines[::2])} trials, ") and fewer in done.stdout
    # other trials under the same name are scored
    (data / "few").write_text("".join(lines[::3]))
    done = sh(*dev)
    assert "2 systems, 2 of them to be trained or scored" in done.stdout
    assert (recipe / "exp/c/table_dev_few.md").read_text().startswith(f"few: {len(lines[::3])} trials, ")


def test_what_a_comparison_refuses(recipe: Path, data: Path, sh: Run) -> None:
    (data / "trials").write_text("s0-0 s0-1 target\n")
    ends = ["data/train", "data/train", "data/train/trials", "exp/c"]
    assert (
        "teachers are needed for enskd"
        in sh("local/compare_kd.sh", "--kd-types", "none enskd", *ends, fails=True).stderr
    )
    words = ["local/compare_kd.sh", "--kd-types", "none", "--students", "xvectors"]
    assert "conf/model/xvectors.conf: no such file" in sh(*words, *ends, fails=True).stderr
    for seed in ("--seed 7", "--lr 0.1 --seed=7"):
        done = sh("local/compare_kd.sh", "--kd-types", "none", "--train-options", seed, *ends, fails=True)
        assert f"--train-options '{seed}': the seeds are those of --seeds" in done.stderr
    (recipe / "exp/c").mkdir(parents=True, exist_ok=True)
    with open(recipe / "exp/c/.compare.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = sh("local/compare_kd.sh", "--kd-types", "none", *ends, fails=True)
        assert "another comparison is at work in exp/c; wait for it, or give another folder" in done.stderr
    words = ["local/compare_kd.sh", "--teachers", "own=exp/none.pt"]
    assert "exp/none.pt: no such teacher" in sh(*words, *ends, fails=True).stderr


def test_a_method_with_two_vector_inputs(recipe: Path, data: Path, sh: Run) -> None:
    (data / "trials").write_text("s0-0 s0-1 target\ns0-0 s1-0 nontarget\n")
    replace_scripts(recipe, {"kd_info.py": "echo labels audio vectors:face vectors:voice\n"})
    for name in ("face", "voice"):
        (recipe / f"{name}.scp").write_text("s0-0 x.ark:5\n")
    words = ["local/compare_kd.sh", "--kd-types", "cosine", "--seeds", "0", "--cmd", "true"]
    ends = ["data/train", "data/train", "data/train/trials", "exp/c"]
    done = sh(*words, "--vectors", "face=face.scp", *ends, fails=True)
    assert "kd_type=cosine needs vectors 'voice': give --vectors voice=file" in done.stderr
    done = sh(*words, "--vectors", "face=face.scp,voice=none.scp", *ends, fails=True)
    assert "voice=none.scp is not name=file, or there is no such file" in done.stderr
    done = sh(*words, "--vectors", "face=face.scp,voice=voice.scp,other=face.scp", *ends, fails=True)
    assert "none of the methods takes other" in done.stderr
    sh(*words, "--vectors", "face=face.scp,voice=voice.scp", *ends, fails=True)  # nothing was trained: no table
    table = (recipe / "exp/c/log/jobs").read_text()
    assert table == "xvector cosine 0 - face=face.scp,voice=voice.scp xvector_cosine_s0\n"


def test_a_method_without_audio_is_refused(recipe: Path, data: Path, sh: Run) -> None:
    (data / "trials").write_text("s0-0 s0-1 target\ns0-0 s1-0 nontarget\n")
    words = ["local/compare_kd.sh", "--kd-types", "nessa", "data/train", "data/train", "data/train/trials", "exp/c"]
    assert "kd_type=nessa trains no encoder" in sh(*words, fails=True).stderr


def test_vectors_go_to_the_methods_that_take_them(recipe: Path, data: Path, sh: Run) -> None:
    (data / "trials").write_text("s0-0 s0-1 target\ns0-0 s1-0 nontarget\n")
    rng = np.random.default_rng(3)
    keys = list(read_utt2spk(data / "utt2spk"))
    with ArkWriter(recipe / "exp/v/face") as write:
        for key in keys:
            write(key, rng.standard_normal(5).astype(np.float32))
    (recipe / "exp/v/utt2quality").write_text("".join(f"{key} 0.5\n" for key in keys))
    options = [
        "--train-options",
        "--num-epochs 1 --average 1 --valid-speakers 0",
        "--students",
        "xvector",
        "--seeds",
        "0",
    ]
    words = ["local/compare_kd.sh", "--kd-types", "none cosine vgsr", *options, "--teachers"]
    ends = ["data/train", "data/train", "data/train/trials", "exp/c"]
    done = sh(*words, "faces=exp/v/face.scp,quality=exp/v/no", *ends, fails=True)
    assert "quality=exp/v/no is not name=file, or there is no such file" in done.stderr
    done = sh(*words, "faces=exp/v/face.scp,qualities=exp/v/utt2quality", *ends, fails=True)
    assert "none of the methods takes qualities" in done.stderr
    done = sh(*words, "faces=exp/v/face.scp,quality=exp/v/utt2quality", *ends)
    assert "3 systems, 3 of them to be trained" in done.stdout
    taken = {}
    for kd_type in ("cosine", "vgsr"):
        options_of = json.loads((recipe / f"exp/c/xvector_{kd_type}_faces_s0/conf.json").read_text())["run"]["command"]
        assert "exp/v/face.scp" in options_of
        taken[kd_type] = "quality=exp/v/utt2quality" in options_of
    assert taken == {"cosine": False, "vgsr": True}
    assert list(rows_of((recipe / "exp/c/table.md").read_text())) == [
        "xvector none -",
        "xvector cosine faces",
        "xvector vgsr faces",
    ]
