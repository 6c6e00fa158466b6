#!/usr/bin/env python3
"""The table of score_noise.sh: systems by condition.

Usage: local/noise_table.py <out-dir> <condition,condition,...> <system> [<system> ...]
  local/noise_table.py exp/noise clean,noise20,noise10,noise0 xvector_none_s0 xvector_skdfe_s0

It reads <out-dir>/<system>/scores_<condition>/metrics.tsv. It prints a table, writes it as noise.md, and writes all
figures as noise.tsv (columns: system, noise, SNR in dB, the columns of metrics.tsv). EERs are in percent. Intervals in
[ ] are 95 % intervals over the speakers of the trials. "EER : clean" is the EER divided by that of the same system and
scoring on clean speech.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from speakerkd.conf import parse_args, run
from speakerkd.files.tables import replacing
from speakerkd.score.evaluate import read_metrics
from speakerkd.score.markdown import MEASURES, markdown, metric_text

SHOWN = [name for name in MEASURES if name.startswith(("EER", "minDCF"))]


@dataclass
class Options:
    pass


def split(condition: str) -> tuple[str, str]:
    """reverb+noise-5 -> its kind and its SNR; clean has no SNR."""
    match = re.fullmatch(r"(.*?[^-\d.])(-?\d+(?:\.\d+)?)?", condition)
    if match is None:
        raise ValueError(f"'{condition}' is not a condition such as clean, noise20 or noise-5")
    return match[1], match[2] or "-"


def rows(out: Path, conditions: list[str], systems: list[str]) -> Iterator[dict[str, str]]:
    for system in systems:
        for condition in conditions:
            path = out / system / f"scores_{condition}/metrics.tsv"
            if not path.exists():
                raise ValueError(f"{path}: no such file; local/score_noise.sh writes it")
            kind, snr = split(condition)
            for row in read_metrics(path):
                yield {"system": system, "noise": kind, "snr": snr, **row}


def main(argv: list[str]) -> None:
    _, words = parse_args(Options, argv, __doc__, None)
    if len(words) < 3:
        raise ValueError("needs a folder, conditions and a system or more (see --help)")
    folder, conditions, *systems = words
    found = list(rows(Path(folder), conditions.split(","), systems))
    if not found:
        raise ValueError(f"{folder}: the systems have no scores")
    clean = {(row["system"], row["scoring"]): float(row["eer"]) for row in found if row["noise"] == "clean"}
    scorings = len({row["scoring"] for row in found}) > 1
    cells = []
    for row in found:
        base = clean.get((row["system"], row["scoring"]), 0.0)
        scoring = [row["scoring"]] if scorings else []
        ratio = [f"{float(row['eer']) / base:.2f}" if base and row["noise"] != "clean" else "-"] if clean else []
        measures = (metric_text(row, *MEASURES[name]) for name in SHOWN)
        cells.append([row["system"], row["noise"], row["snr"], *scoring, row["lost"], *measures, *ratio])
    optional = ["scoring"] if scorings else [], ["EER : clean"] if clean else []
    text = markdown(["system", "noise", "SNR dB", *optional[0], "lost", *SHOWN, *optional[1]], cells) + "\n"
    with replacing(Path(folder) / "noise.md") as file:
        file.write(text)
    with replacing(Path(folder) / "noise.tsv") as file:
        file.write("\t".join(found[0]) + "\n")
        file.writelines("\t".join(row.values()) + "\n" for row in found)
    sys.stdout.write(text)


if __name__ == "__main__":
    run(main)
