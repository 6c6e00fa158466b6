#!/usr/bin/env python3
"""One markdown table of the results of all systems of an experiment folder.

Usage: local/collect_results.py [options] <exp-dir>
  local/collect_results.py exp > results.md
  local/collect_results.py --trials trials --scoring cosine exp

Reads <exp-dir>/*/scores/metrics.tsv. Systems whose folders differ only in an ending _s0, _s1, ... are seeds of one; a
second table has their mean and standard deviation. Intervals in [ ] are 95 %, over the speakers of the trials; EERs are
in percent.
"""

import math
import re
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from speakerkd.conf import opt, parse_args, run
from speakerkd.files.tables import replacing
from speakerkd.score.evaluate import read_metrics
from speakerkd.score.markdown import MEASURES, Result, markdown, shown, value_of

SEED = re.compile(r"_s\d+$")


@dataclass
class Options:
    trials: str = opt("", "only the trials of this name")
    scoring: str = opt("", "only this scoring, such as cosine")
    output: str = opt("", "file to write instead of printing")


def load(folder: Path, options: Options) -> list[Result]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    results = [
        {"system": path.parent.parent.name, **row}
        for path in sorted(folder.glob("*/scores/metrics.tsv"))
        for row in read_metrics(path)
        if options.trials in ("", row["trials"]) and options.scoring in ("", row["scoring"])
    ]
    if not results:
        raise ValueError(f"{folder}: there is no */scores/metrics.tsv with such rows; local/score.py writes them")
    return sorted(results, key=lambda row: (row["trials"], row["scoring"], row["system"]))


def spread(results: Iterable[Result]) -> str:
    """Mean and standard deviation over the seeds of a system; empty if none has several."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for row in results:
        groups.setdefault((SEED.sub("", row["system"]), row["trials"], row["scoring"]), []).append(row)
    rows = []
    for key, group in groups.items():
        if len(group) < 2:
            continue
        cells = []
        for name, digits in MEASURES.values():
            values = [value_of(row, name) for row in group]
            known = not any(math.isnan(value) for value in values)
            cells.append(
                f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}" if known else "-"
            )
        rows.append([*key, str(len(group)), *cells])
    return markdown(["system", "trials", "scoring", "seeds", *MEASURES], rows) if rows else ""


def main(argv: list[str]) -> None:
    options, (folder,) = parse_args(Options, argv, __doc__, 1)
    results = load(Path(folder), options)
    header = ["system", "trials", "scoring", "target", "nontarget", "lost", "speakers", *MEASURES]
    rows = [
        [*(row[name] for name in header[:7]), *(shown(row, *measure) for measure in MEASURES.values())]
        for row in results
    ]
    text = markdown(header, rows) + "\n"
    seeds = spread(results)
    if seeds:
        text += f"\nMean and standard deviation over seeds of the training:\n\n{seeds}\n"
    if options.output:
        with replacing(options.output) as file:
            file.write(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    run(main)
