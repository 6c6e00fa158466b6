"""Plain words: help texts and docstrings that can be read alone, and no words that stop a hurried reader."""

import ast
import re
from pathlib import Path

import pytest
from conftest import ROOT

# A help text that begins with one of these continues a sentence that is not there.
BEGINNINGS = {
    *("of", "and", "or", "but", "as", "where", "which", "whose", "whom", "than", "by", "from", "with", "to", "in"),
    *("for", "on", "between", "among", "within", "over", "under", "beyond"),
}
FILES = sorted(path for folder in ("speakerkd", "local", "egs", "tools") for path in (ROOT / folder).rglob("*.py"))


def own(path: Path) -> bool:
    """Not in the environment, and not seen a second time through a recipe's link."""
    return "venv" not in path.parts and not any(each.is_symlink() for each in path.parents if ROOT in each.parents)


def help_texts(path: Path) -> list[tuple[int, str]]:
    """(line, text) of each option: opt(default, text)."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "opt"
            and len(node.args) == 2
        ):
            text = node.args[1]
            if isinstance(text, ast.JoinedStr):
                text = text.values[0]
            if isinstance(text, ast.Constant):
                found.append((node.lineno, str(text.value)))
    return found


def test_there_are_options() -> None:
    assert sum(len(help_texts(path)) for path in FILES if own(path)) > 300


@pytest.mark.parametrize("path", [path for path in FILES if own(path)], ids=lambda path: str(path.relative_to(ROOT)))
def test_help_texts_stand_by_themselves(path: Path) -> None:
    wrong = [(line, text) for line, text in help_texts(path) if not text or text.split()[0].lower() in BEGINNINGS]
    assert wrong == []


# A docstring that begins with one of these continues the name of its function: mean, "Over the processes."
CONTINUING = {"of", "by", "in", "to", "from", "and", "or", "but", "which", "whose", "whom", "than"}
ENDS = (".", ":", "?", ")")
# Rare words, and "30 MB a step". In plain words: anyone, so, again, must, the same; 30 MB per step.
RARE = re.compile(
    r"\b(whoever|whomever|hence|anew|shall|thereof|lest|the very (?!first|last)\w+"
    r"|\d (?:[kMG]?B|bytes|seconds|s|steps|crops|values|features|numbers|windows|reads) (?:a|an) \w+)\b"
)
WRITTEN = (
    *("*.md", "egs/*.md", "egs/*/v1/*.md", "egs/*/v1/*.sh", "egs/*/v1/*.py", "egs/*/v1/conf/**/*.conf"),
    *("local/*", "utils/*", "tools/*.*", "tools/*/*.*", "speakerkd/**/*.py", "speakerkd/**/*.md"),
)


def docstrings(path: Path) -> list[tuple[int, str]]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    return [(getattr(node, "lineno", 1), text) for node in nodes if (text := ast.get_docstring(node))]


@pytest.mark.parametrize("path", [path for path in FILES if own(path)], ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_stand_by_themselves(path: Path) -> None:
    """The first paragraph begins a sentence of its own, and ends one. Tables and commands may follow."""
    wrong = [
        (line, first)
        for line, text in docstrings(path)
        for first in [text.split("\n\n")[0].rstrip()]
        if first.split()[0].lower() in CONTINUING or not first.endswith(ENDS)
    ]
    assert wrong == []


def test_no_rare_words() -> None:
    files = {path for pattern in WRITTEN for path in ROOT.glob(pattern) if path.is_file() and own(path)}
    assert len(files) > 300
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in sorted(files)
        if path.suffix not in (".svg", ".tsv")
        and b"\0" not in path.read_bytes()  # no text: what Python or a run left there
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for match in RARE.finditer(line)
    ]
    assert found == []
