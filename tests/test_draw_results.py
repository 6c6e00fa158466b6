"""draw_results.py: the picture of a published table, and the README's table beside it."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import ROOT

RESULTS = ROOT / "egs/mini/v1/RESULTS.md"


@pytest.mark.parametrize(("recipe_name", "section"), [("mini", "Distillation from a teacher"), ("open", "ENSKD")])
def test_the_picture_is_of_the_table_as_it_is(
    sh: Callable[..., object], tmp_path: Path, recipe_name: str, section: str
) -> None:
    folder = ROOT / "egs" / recipe_name / "v1"
    sh("local/draw_results.py", "--section", section, folder / "RESULTS.md", tmp_path / "results.svg")
    assert (tmp_path / "results.svg").read_text() == (folder / "results.svg").read_text(), (
        f"in egs/{recipe_name}/v1: local/draw_results.py --section '{section}' RESULTS.md results.svg"
    )


def test_each_mark_says_its_figures() -> None:
    root = ElementTree.parse(RESULTS.parent / "results.svg").getroot()
    titles = [each.text for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 15  # three students; none and four methods
    assert "xvector_tiny enskd 4.79 [2.15, 7.21]" in titles


def test_the_readme_has_no_figure_of_its_own() -> None:
    """Each error rate of its table stands in the row of this student and method in RESULTS.md."""
    section = (ROOT / "README.md").read_text().split("## Results")[1].split("\n## ")[0]
    published = RESULTS.read_text().split("## Distillation from a teacher")[1].split("\n## ")[0]
    students = {"x-vector": "xvector_tiny", "ResNet": "resnet_micro", "CAM++": "campplus_micro"}
    kinds = ("none", "kld", "enskd")
    seen = 0
    for name, student in students.items():
        cells = [cell.strip() for cell in re.findall(rf"^\| {re.escape(name)} \|(.*)\|$", section, re.M)[0].split("|")]
        for kind, cell in zip(kinds, cells[1:], strict=True):
            teacher = "-" if kind == "none" else "campplus"
            (row,) = re.findall(rf"^\| {student} +\| {kind} +\| {teacher} +\|.*$", published, re.M)
            assert f" {cell} |" in row and f" {cells[0]} |" in row, (name, kind)
            seen += 1
    assert seen == 9


def test_refusals(sh: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    def refused(*words: object) -> str:
        done = sh("local/draw_results.py", *words, RESULTS, tmp_path / "x.svg", fails=True)
        assert not (tmp_path / "x.svg").exists()
        return done.stderr

    assert "has no section 'Distilation'" in refused("--section", "Distilation")
    assert "needs the columns student" in refused("--section", "Without distillation")
    assert "no teacher 'big' (it has: - campplus own)" in refused("--teacher", "big")
