"""What the READMEs tell people to open, to run or to write is there, and works."""

import functools
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, environment

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


EXAMPLE = """
import sys
import torch
sys.path[:0] = sys.argv[1:]
from test_kd import NAMES, batch_of, net_of, vector_teacher
import speakerkd
from speakerkd.conf import typed_conf
from speakerkd.kd import METHODS, Clock, Components, embed
from speakerkd.kd.teacher import NetTeacher
assert speakerkd.__file__.startswith(sys.argv[1])

_, kind, conf = typed_conf("huber.conf", METHODS)
assert issubclass(kind, embed.EmbeddingLevel) and kind.Conf is embed.EmbedConf
# |difference| 0.5 and 3: 0.5 * 0.5 ** 2 and 3 - 0.5
found = kind.compare(None, torch.tensor([[0.5, 3.0]]), torch.zeros(1, 2))
assert abs(float(found) - (0.125 + 2.5) / 2) < 1e-6
for teacher in (NetTeacher(net_of(0), "t", NAMES), vector_teacher()):
    method = kind(conf, Components(net_of(1), NAMES, teacher)).train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = method(batch_of(teacher=torch.randn(8, 9)), Clock(3.0, 4)).losses
    assert losses["kd"] > 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in method.parameters())
print("learnt")
"""


def test_the_example_of_a_loss(tmp_path: Path) -> None:
    """Followed step by step in a copy of the package, then forward and backward in bf16."""
    text = (ROOT / "speakerkd/kd/README.md").read_text()
    code, line = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (entry,) = re.findall(r'`("huber": Huber,)` to `METHODS`', text)
    shutil.copytree(ROOT / "speakerkd", tmp_path / "speakerkd", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "speakerkd/kd/embed.py").open("a") as module:
        module.write(f"\n\n{code}")
    table = tmp_path / "speakerkd/kd/__init__.py"
    before = table.read_text()
    after = re.sub(r"from speakerkd\.kd\.embed import .*\n", line, before)
    assert after != before, "the line is of the module as it is"
    assert re.sub(" Huber,", "", line) in before, "it imports what is imported already, and Huber"
    head = "METHODS: dict[str, type[Distiller]] = {\n"
    table.write_text(after.replace(head, f"{head}    {entry}\n"))
    (tmp_path / "huber.conf").write_text("--type=huber\n")
    done = subprocess.run(
        ["python3", "-c", EXAMPLE, str(tmp_path), str(ROOT / "tests")],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "learnt\n"), done.stderr
