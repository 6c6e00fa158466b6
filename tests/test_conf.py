"""Options: conf files, the command line, their order, and what a typo gives."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, environment

from speakerkd.conf import build, from_json, opt, parse_args, read_conf, to_json, to_text, typed_conf


@dataclass(frozen=True)
class Small:
    num_bins: int = opt(23, "bins")
    gamma: float = opt(2.0, "weight")
    deep: bool = opt(False, "depth")
    name: str = opt("a", "name")
    snrs: tuple[int, ...] = opt((15, 10), "list")
    top: int | None = opt(None, "may be empty")


def test_conf_file_is_kaldis(tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text("# comment\n--num-bins=80  # eighty\n\n--deep\n--snrs=5:0\n--gamma = 1/1000\n--top=4\n")
    assert build(Small, read_conf(path), str(path)) == Small(80, 1e-3, True, "a", (5, 0), 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--num-bims=80\n", r"no option --num-bims.*--deep --gamma --name --num-bins"),
        ("--num-bins=8o\n", "--num-bins=8o: not a whole number"),
        ("--deep=yes\n", "not true or false"),
        ("--gamma=6/0\n", "--gamma=6/0: not a number"),
        ("--num-bins=6/2\n", "--num-bins=6/2: not a whole number"),
        ("num-bins=80\n", "x.conf:1: 'num-bins=80' is not of the form"),
        ("--gamma=nan\n", "x.conf: --gamma=nan: not a number"),
        ("--gamma=-inf\n", "x.conf: --gamma=-inf: not a number"),
        ("--gamma=1e999\n", "not a finite number"),
        ("--gamma=1/0\n", "not a number: it divides by 0"),
        ("--gamma=1_0.5\n", "not a number"),
        ("--gamma=1/2/3\n", "not a number"),
        ("--gamma=\n", "not a number"),
        ("--num-bins=1_000\n", "--num-bins=1_000: not a whole number"),
        ("--num-bins=٣\n", "not a whole number"),
        ("--num-bins=8.0\n", "not a whole number"),
        ("--num-bins=99999999999999999999\n", "not a whole number"),
        ("--snrs=5:1_0\n", "not a whole number"),
        ("--top=²\n", "not a whole number"),
        ("--gamma=1\n--gamma=2\n", "x.conf:2: --gamma is given twice"),
    ],
)
def test_bad_conf_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.conf"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        build(Small, read_conf(path), str(path))


def test_missing_conf_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.conf: can't read"):
        read_conf(tmp_path / "nowhere.conf")


def test_later_wins(tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text("--gamma=3\n--num-bins=40\n")
    argv = ["--num-bins", "64", "in", "--config", str(path), "--deep=true", "out"]
    conf, rest = parse_args(Small, argv, "usage", 2)
    assert conf == Small(64, 3.0, True) and rest == ["in", "out"]
    assert parse_args(Small, ["--num_bins", "5"], "usage")[0].num_bins == 5


@pytest.mark.parametrize(
    ("argv", "message"), [(["--gamma"], "needs a value"), (["x"], "0 argument"), (["--gama", "1"], "no option --gama")]
)
def test_bad_command_lines(argv: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_args(Small, argv, "usage")


def test_round_trips(tmp_path: Path) -> None:
    conf = Small(7, 0.25, True, "b", (1, 2, 3), 9)
    path = tmp_path / "x.conf"
    path.write_text(to_text(conf))
    assert build(Small, read_conf(path), "x") == conf
    assert from_json(Small, to_json(conf), "x") == conf
    assert from_json(Small, to_json(Small()), "x") == Small()


def test_run_gives_no_traceback(tmp_path: Path) -> None:
    script = tmp_path / "boom.py"
    script.write_text(
        "from speakerkd.conf import run\ndef main(argv):\n    raise ValueError('data/x: mend it')\nrun(main)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "boom.py: error: data/x: mend it\n"


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("+.5", 0.5), ("-2.", -2), ("6/150", 0.04), ("-1/4", -0.25), ("7E2", 700)]
)
def test_numbers_as_they_are_written(text: str, value: float) -> None:
    assert build(Small, {"gamma": text}, "x").gamma == value


@pytest.mark.parametrize("name", ["xvector", "resnet", "ecapa", "campplus", "dvector"])
def test_sizes_of_zero_are_refused_with_the_conf_file(tmp_path: Path, name: str) -> None:
    from speakerkd.models import MODELS

    path = tmp_path / "x.conf"
    for size in ("0", "-3"):
        path.write_text(f"--type={name}\n--embedding-dim={size}\n")
        with pytest.raises(ValueError, match=rf"x\.conf: --embedding-dim={size} must be 1 or more"):
            typed_conf(path, MODELS)


def test_no_more_memory_is_one_line(tmp_path: Path) -> None:
    script = tmp_path / "big.py"
    script.write_text(
        "from speakerkd.conf import run\ndef main(argv):\n    raise MemoryError('Unable to allocate 9 TiB')\nrun(main)\n"
    )
    done = subprocess.run([sys.executable, script], env=environment(), capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "the memory is used up (Unable to allocate 9 TiB)" in done.stderr


@pytest.mark.parametrize(
    ("name", "base", "changed"),
    [
        ("sdpn_no_koleo", "sdpn", {"koleo": "0"}),
        ("sdpn_no_memax", "sdpn", {"memax": "0"}),
        ("sdpn_no_sinkhorn", "sdpn", {"sinkhorn_iterations": "0"}),
        ("dino_koleo", "dino", {"koleo": "0.1"}),
    ],
)
def test_a_method_without_a_part_is_otherwise_the_method(name: str, base: str, changed: dict[str, str]) -> None:
    """Their conf files repeat the method's, so a change there is easily forgotten here."""
    confs = ROOT / "egs/open/v1/conf/kd"
    whole = read_conf(confs / f"{base}.conf")
    assert read_conf(confs / f"{name}.conf") == {**whole, **changed} != whole
