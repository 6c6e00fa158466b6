"""What a comparison leaves for a paper."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from speakerkd.conf import typed_conf
from speakerkd.files.kaldi import ArkWriter
from speakerkd.kd import METHODS
from speakerkd.score.plots import Bar, bar_plot, cost_plot, det_plot
from speakerkd.train.comparison import check_alike
from speakerkd.train.comparison_files import latex
from speakerkd.train.identity import fingerprints
from speakerkd.train.options import TrainConf


def test_latex() -> None:
    text = latex(["student", "kd_type", "t", "n", "EER %", "p"], [["x_v", "a&b", "-", "3", "1.5 [1, 2]", "<0.001"]])
    assert text == (
        "\\begin{tabular}{llllrr}\n\\toprule\nstudent & kd\\_type & t & n & EER \\% & p \\\\\n\\midrule\n"
        "x\\_v & a\\&b & - & 3 & 1.5 [1, 2] & $<$0.001 \\\\\n\\bottomrule\n\\end{tabular}\n"
    )


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_figures(tmp_path: Path, ending: str, magic: bytes) -> None:
    bars = [Bar(f"system {number}", 5.0 + number, 4.0, 12.0, 100000 * (number + 1)) for number in range(3)]
    bars.append(Bar("unknown", 0.0, math.nan, math.nan, 500000))
    bar_plot(tmp_path / f"eer.{ending}", bars)
    cost_plot(tmp_path / f"cost.{ending}", bars)
    rng, target = np.random.default_rng(0), np.arange(400) < 100
    det_plot(tmp_path / f"det.{ending}", {f"s{n}": (rng.normal(size=400) + 2 * target, target) for n in range(6)}, "t")
    for name in ("eer", "cost", "det"):
        assert (tmp_path / f"{name}.{ending}").read_bytes().startswith(magic)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", ["exp/t/final.pt", "exp/t/xvectors/xvector.scp"])
def test_two_teachers_of_one_name_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Vectors count by what their archives hold: the scp of another extractor has the same lines."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / name
    file.parent.mkdir(parents=True)

    def teach(value: float) -> None:
        if name.endswith(".pt"):
            file.write_bytes(bytes(f"{value}", "ascii"))
            return
        with ArkWriter(file.with_suffix("")) as write:
            write("a", np.full(4, value, np.float32))

    def system(seed: int) -> Path:
        folder = tmp_path / f"exp/c/xvector_enskd_own_s{seed}"
        folder.mkdir(parents=True)
        options = {each: {} for each in ("data", "model", "method", "head")}
        options |= {"train": {"seed": seed}, "init": "", "files": fingerprints([name])}
        record = {"options": options, "run": {"command": ["train.py", "--kd", "conf/enskd.conf"]}}
        (folder / "conf.json").write_text(json.dumps(record))
        return folder

    teach(1)
    text = file.read_bytes()
    first = system(0)
    check_alike([first, system(1)])
    teach(2)
    assert (file.read_bytes() == text) == name.endswith(".scp")
    with pytest.raises(ValueError, match=rf"_s0 was trained with other options than the files now say \(files\.{name}"):
        check_alike([first])
    second = system(2)
    for path in file.parent.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=rf"_s2 was trained with other options than {first.name} \(files\.{name}"):
        check_alike([first, second])


def test_an_option_that_is_newer_than_a_system_counts_as_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    conf = tmp_path / "conf/kd/enskd.conf"
    conf.parent.mkdir(parents=True)

    def system(seed: int, *lacking: str) -> Path:
        folder = tmp_path / f"exp/xvector_enskd_own_s{seed}"
        folder.mkdir(parents=True)
        conf.write_text("--type=dkd\n")
        name, _, method = typed_conf(conf, METHODS)
        kept = {key: value for key, value in asdict(method).items() if key not in lacking}
        train = {key: value for key, value in asdict(TrainConf(seed=seed)).items() if key not in lacking}
        options = {"data": {}, "model": {}, "head": None, "init": "", "files": {}, "train": train}
        options["method"] = {"type": name, **kept}
        record = {"options": options, "run": {"command": ["train.py", "--kd", "conf/kd/enskd.conf"]}}
        (folder / "conf.json").write_text(json.dumps(record))
        return folder

    systems = [system(0, "plain_cosines", "clip_each"), system(1)]
    check_alike(systems)
    check_alike(systems[::-1])
    conf.write_text("--type=dkd\n--plain-cosines=true\n")
    message = r"_s0 was trained with other options than the files now say \(method\.plain_cosines false for true\)"
    with pytest.raises(ValueError, match=message):
        check_alike(systems)
