"""What the READMEs tell people to open, to run or to write is there, and works."""

import functools
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import ROOT, environment

from speakerkd.kd import embed

READMES = sorted(
    path
    for path in [
        ROOT / "README.md",
        *ROOT.glob("*/README.md"),
        *ROOT.glob("speakerkd/*/README.md"),
        *ROOT.glob("egs/*/v1/*.md"),
    ]
    if "egs/my" not in str(path)
)
MAX_LINES = 160  # of the README at the top: what a newcomer reads in three minutes


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_readme_at_the_top_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", READMES, ids=name_of)
def test_links(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", READMES, ids=name_of)
def test_files_that_are_named(path: Path) -> None:
    named = set(re.findall(r"`((?:local|utils|tools|tests|speakerkd|egs)/[\w/.-]+)`", path.read_text()))
    made = ("egs/mycorpus", "tools/venv")  # by the commands themselves
    assert [name for name in named if not (ROOT / name).exists() and not name.startswith(made)] == []


def test_there_is_something_to_check() -> None:
    """The patterns above must find what they look for."""
    assert {"README.md", "egs/README.md", "local/README.md", "speakerkd/README.md", "speakerkd/kd/README.md"} <= {
        name_of(path) for path in READMES
    }
    assert len(list(commands(ROOT / "local/README.md"))) > 20


def commands(path: Path) -> Iterator[list[str]]:
    """The words of each command in the blocks of a README that have no language."""
    for block in re.findall(r"^```\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"\s&&\s", line):
                if re.match(r"(\./|local/|utils/|tools/|tests/)\w+", part):
                    yield shlex.split(part.replace("...", ""), comments=True)


def script_of(word: str, readme: Path) -> Path:
    if word.startswith("./"):
        recipe = readme.parent if (readme.parent / "run.sh").exists() else ROOT / "egs/mini/v1"
        return recipe / word[2:]
    return ROOT / word


@functools.cache
def options_of(script: Path) -> set[str]:
    """The options that a script's --help lists, with hyphens."""
    folder = script.parent if script.parent.parent.parent == ROOT / "egs" else ROOT
    done = subprocess.run(
        [str(script), "--help"], cwd=folder, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{script} --help: {done.stderr}"
    names = re.findall(r"--([a-zA-Z][\w-]*)", done.stdout)
    return {name.replace("_", "-") for name in names} | {"config", "help"}


@pytest.mark.parametrize("path", [path for path in READMES if list(commands(path))], ids=name_of)
def test_commands(path: Path) -> None:
    """Each script is there, and has the options that it is given; so has train.py those that are handed on to it."""
    for words in commands(path):
        script = script_of(words[0], path)
        assert script.exists(), f"{path}: {words[0]}"
        assert script.stat().st_mode & 0o100, f"{script} can't be executed"
        given = {
            word[2:].partition("=")[0].replace("_", "-")
            for word in words[1:]
            if re.match(r"--[a-zA-Z][\w-]*(=|$)", word)
        }
        if given:
            assert given <= options_of(script), f"{path}: {' '.join(words)}: no {given - options_of(script)}"
        for word in words[1:]:
            if re.match(r"--[\w-]+ ", word):  # several options in one word
                handed = {each[2:].replace("_", "-") for each in word.split() if each.startswith("--")}
                assert handed <= options_of(ROOT / "local/train.py"), f"{path}: {word}"


def test_the_example_of_a_loss() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "speakerkd/kd/README.md").read_text(), re.DOTALL)
    names = dict(vars(embed))
    exec(code, names)  # noqa: S102
    method = names["Huber"]
    assert issubclass(method, embed.EmbeddingLevel) and method.Conf is embed.EmbedConf
    # |difference| 0.5 and 3: 0.5 * 0.5 ** 2 and 3 - 0.5
    found = method.compare(None, torch.tensor([[0.5, 3.0]]), torch.zeros(1, 2))
    assert found.tolist() == [pytest.approx((0.125 + 2.5) / 2)]
