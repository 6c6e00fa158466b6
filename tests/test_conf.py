"""Options: conf files, the command line, their order, and what a typo gives."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from speakerkd.conf import build, from_json, opt, parse_args, read_conf, to_json, to_text


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
