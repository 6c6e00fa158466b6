"""A comparison for a paper: its table in LaTeX, a line for each system in TSV, and figures as PNG and PDF."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from speakerkd.files.tables import replacing
from speakerkd.models.base import load_net
from speakerkd.models.cost import count_macs, time_run
from speakerkd.score.intervals import share_interval
from speakerkd.score.plots import Bar, bar_plot, cost_plot, det_plot
from speakerkd.score.trials import Trials, read_scores
from speakerkd.train.comparison import Cell, parts_of

SECONDS = 3.0  # of speech, for multiply-accumulates and real-time factor
MOST_CURVES = 8
SYSTEM_COLUMNS = (
    *("system", "model", "method", "teacher", "seed", "eer", "min_dcf_0.01", "parameters", "mac_per_second"),
    *("real_time_factor", "epochs", "training_seconds", "commit"),
)

Cells = dict[tuple[str, str, str], Cell]


def latex(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A tabular with the rules of booktabs; the first four columns are text."""
    special = {"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "<": "$<$"}
    lines = [
        " & ".join("".join(special.get(letter, letter) for letter in cell) for cell in row) + r" \\"
        for row in (header, *rows)
    ]
    columns = "l" * 4 + "r" * (len(header) - 4)
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    return f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}\n"


def cost_of(path: Path) -> tuple[int, float]:
    """Multiply-accumulates per second of speech, and the real-time factor on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        net = load_net(path)
        frames = round(100 * SECONDS)
        feat_dim = net.encoder.feat_dim
        taken = time_run(net.encoder, feat_dim, frames, 3)  # type: ignore[arg-type]
        return round(count_macs(net.encoder, feat_dim, frames) / SECONDS), taken / SECONDS  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(threads)


def write_systems(path: Path, systems: Sequence[Path], cells: Cells) -> None:
    """One line per system and seed."""
    costs: dict[str, tuple[int, float]] = {}
    lines = ["\t".join(SYSTEM_COLUMNS)]
    for system in systems:
        conf = json.loads((system / "conf.json").read_text(encoding="utf-8"))
        kd_type, teacher, seed = parts_of(system, conf)
        student = system.name.split(f"_{kd_type}_")[0]
        cell = cells[student, kd_type, teacher]
        if student not in costs:
            costs[student] = cost_of(system / "final.pt")
        rate, cost = cell.points[cell.seeds.index(seed)]
        macs, factor = costs[student]
        seconds = float(conf["run"].get("seconds", math.nan))
        values = [
            *(system.name, student, kd_type, teacher or "-", seed, f"{100 * rate:.4f}", f"{cost:.4f}", cell.parameters),
            *(macs, f"{factor:.5f}", conf["options"]["train"].get("num_epochs", "-"), f"{seconds:.0f}"),
            conf["run"].get("commit", "-"),
        ]
        lines.append("\t".join(map(str, values)))
    with replacing(path) as file:
        file.write("\n".join(lines) + "\n")


def write_figures(out: Path, systems: Sequence[Path], cells: Cells, trials: Trials, num_speakers: int) -> None:
    """eer, cost and det, each as .png and .pdf. The DET curves are those of the first seed."""
    bars = []
    for cell in cells.values():
        low, high = share_interval(cell.estimate(0, num_speakers))
        name = " ".join(filter(None, (cell.student, cell.kd_type, cell.teacher)))
        bars.append(Bar(name, 100 * float(cell.mean[0]), 100 * low, 100 * high, cell.parameters))
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for system in systems:
        kd_type, teacher, seed = parts_of(system, json.loads((system / "conf.json").read_text(encoding="utf-8")))
        cell = cells[system.name.split(f"_{kd_type}_")[0], kd_type, teacher]
        if seed == cell.seeds[0] and len(curves) < MOST_CURVES:
            scores, _ = read_scores(system / f"scores/{Path(trials.path).name}.cosine", trials)
            curves[system.name] = (scores, trials.target)
    for ending in ("png", "pdf"):
        bar_plot(out / f"eer.{ending}", bars)
        cost_plot(out / f"cost.{ending}", bars)
        det_plot(out / f"det.{ending}", curves, Path(trials.path).name)
