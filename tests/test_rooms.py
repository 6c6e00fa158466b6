"""The rooms of the package: each may import from those above it in this table only, so nothing flows back."""

import ast
import re
from pathlib import Path

import pytest
from conftest import ROOT

# A room, and what it may import from. What is not listed is refused.
GROUND = {"conf", "finite", "parallel", "processes", "progress", "schedules", "torchfile"}
ROOMS: dict[str, set[str]] = {
    "files": GROUND,
    "audio": GROUND | {"files"},
    "score": GROUND | {"files"},
    "verify": GROUND | {"files", "audio", "score"},
    "feats": GROUND | {"files", "audio"},
    "batches": GROUND | {"files", "audio", "feats"},
    "losses": GROUND,
    "models": GROUND | {"files", "audio", "feats", "losses"},
    "foreign": GROUND | {"files", "audio", "feats", "losses", "models", "verify"},
    "kd": GROUND | {"files", "audio", "feats", "batches", "losses", "models"},
    "report": GROUND | {"files", "score", "losses", "models"},
    "train": GROUND | {"files", "audio", "feats", "batches", "losses", "models", "score", "kd"},
}
PACKAGE = ROOT / "speakerkd"


def imported(path: Path) -> set[str]:
    """The dotted modules that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
    return names


def rooms_imported(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.startswith("speakerkd.")}


def test_every_folder_is_a_room_of_the_table_and_nothing_lies_loose() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    loose = {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    assert folders == set(ROOMS)
    assert loose == GROUND


def test_the_table_is_an_order() -> None:
    seen = set(GROUND)
    for room, allowed in ROOMS.items():
        assert allowed <= seen, room
        seen.add(room)


@pytest.mark.parametrize("room", ROOMS)
def test_no_import_runs_back_up(room: str) -> None:
    for path in sorted((PACKAGE / room).rglob("*.py")):
        assert rooms_imported(path) <= ROOMS[room] | {room}, path


def test_the_ground_imports_no_room() -> None:
    for name in GROUND:
        assert rooms_imported(PACKAGE / f"{name}.py") <= GROUND


def test_scoring_needs_no_torch_and_one_module_knows_kaldiio() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        packages = {name.split(".")[0] for name in imported(path)}
        if path.parent.name in ("score", "files", "verify"):
            assert "torch" not in packages, path
        if path != PACKAGE / "files/objects.py":
            assert "kaldiio" not in packages, path


def test_one_module_opens_onnx_sessions() -> None:
    openers = [path for path in PACKAGE.rglob("*.py") if ".InferenceSession(" in path.read_text()]
    assert openers == [PACKAGE / "verify/onnxsession.py"]


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_says_what_enters_and_what_leaves(room: str) -> None:
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text())) or ""
    first = text.split("\n")[0]
    assert re.search(r"\bgo(es)? in\b|\bin go\b", first) and re.search(r"\bcomes? out\b|\bout come\b", first), first
