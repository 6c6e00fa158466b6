"""The files of a data directory are listed once, in speakerkd/files/datadir.txt."""

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from speakerkd.files.datadir import DATA_FILES, keyed_by, made_by

NAMES = {file.name for file in DATA_FILES}
SEVERAL = 5  # names that stand together are a list; fewer are a choice for one purpose
SOURCES = [
    path
    for folder in ("speakerkd", "local", "utils", "egs", "tools")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".sh", ".awk") and "venv" not in path.parts
]


def lists_of_python(text: str) -> list[set[str]]:
    """The strings of each tuple, list, set and dictionary."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict):
            parts = node.keys if isinstance(node, ast.Dict) else node.elts
            found.append({part.value for part in parts if isinstance(part, ast.Constant)})
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
            found.append(set(re.split(r"[ ,|/]+", node.value)))
    return found


def lists_of_shell(text: str) -> list[set[str]]:
    """The words of each line, but for comments."""
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [set(re.split(r"[^\w.]+", line)) for line in lines if not line.lstrip().startswith("#")]


def second_lists(path: Path) -> list[set[str]]:
    lists = lists_of_python if path.suffix == ".py" else lists_of_shell
    return [each & NAMES for each in lists(path.read_text()) if len(each & NAMES) >= SEVERAL]


def test_no_second_list() -> None:
    assert {str(path.relative_to(ROOT)): found for path in SOURCES if (found := second_lists(path))} == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", 'TABLES = ("utt2spk", "segments", "feats.scp", "text", "utt2dur", "x")\n'),
        ("a.py", 'TABLES = "utt2spk segments feats.scp text utt2dur".split()\n'),
        ("a.sh", "for f in utt2spk segments feats.scp \\\n  text utt2dur; do true; done\n"),
        ("a.sh", "  utt2spk | segments | feats.scp | text | utt2dur) echo 2 ;;\n"),
    ],
)
def test_a_second_list_is_found(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert second_lists(tmp_path / name)


def test_the_shell_reads_the_same_list() -> None:
    kinds = {
        "utt_files": "utterance",
        "part_files": "some-utterances",
        "reco_files": "recording",
        "spk_files": "speaker",
        "whole_files": "whole",
        "report_files": "report",
    }
    script = ". utils/data_lib.sh; " + "; ".join(f'echo "${name}"' for name in kinds)
    script += (
        "; for f in " + " ".join(map(shlex.quote, sorted(NAMES))) + ' trials_O; do echo "$f $(fields_of "$f")"; done'
    )
    lines = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert [tuple(line.split()) for line in lines[: len(kinds)]] == [keyed_by(key) for key in kinds.values()]
    numbers = dict(line.split(" ", 1) for line in lines[len(kinds) :])
    assert numbers["segments"] == "4 4" and numbers["text"] == "1 0" and numbers["wav.scp"] == "2 0"
    assert numbers["spk2gender"] == "2 2" and numbers["trials_O"] == "3 3"


def test_every_file_has_its_place() -> None:
    assert set(made_by("data")) | set(made_by("later")) == NAMES
    assert {file.key for file in DATA_FILES} <= {
        "utterance", "some-utterances", "recording", "speaker", "inverse", "whole", "report"
    }  # fmt: skip
    assert made_by("later")[:3] == ("feats.scp", "vad.scp", "waves.scp")
