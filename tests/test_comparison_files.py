"""What a comparison leaves for a paper."""

import math
from pathlib import Path

import numpy as np
import pytest

from speakerkd.score.plots import Bar, bar_plot, cost_plot, det_plot
from speakerkd.train.comparison_files import latex


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
