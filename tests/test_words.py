"""Help texts in plain words: each begins with a word that stands by itself, so that it can be read alone."""

import ast
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
