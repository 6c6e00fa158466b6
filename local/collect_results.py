#!/usr/bin/env python3
"""One markdown table of the results of all systems of an experiment folder.

Usage: local/collect_results.py [options] <exp-dir>|<system> [<system> ...]
  local/collect_results.py exp > results.md
  local/collect_results.py --trials trials --scoring cosine exp

Reads <exp-dir>/*/scores/metrics.tsv, or only the systems that are named. A folder in <exp-dir> is left out, with a warning,
if its scores are older than its final.pt: they belong to an earlier model. Systems whose folders differ only in an ending
_s0, _s1, ... are seeds of one; a second table has their mean and standard deviation. Intervals in [ ] are 95 %, over
the speakers of the trials; EERs are in percent. "calibration" says how the scores were calibrated for actDCF and Cllr: by a
stored calibration, or by cross-validation over the test speakers. Compare only figures of the same kind.

A recipe of several corpora writes <system>/trained_on: the names of the corpora that the system was trained on, in one line.
The table then has a column "corpus met": whether the corpus of trials_<corpus> is one of them; "-" if that isn't known.
"""

import logging
import math
import re
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from speakerkd.conf import opt, parse_args, run
from speakerkd.files.tables import replacing
from speakerkd.score.evaluate import is_stale, read_metrics
from speakerkd.score.markdown import MEASURES, Result, markdown, metric_text, metric_value

SEED = re.compile(r"_s\d+$")


@dataclass
class Options:
    trials: str = opt("", "only the trials of this name")
    scoring: str = opt("", "only this scoring, such as cosine")
    output: str = opt("", "file to write instead of printing")


def systems_of(folders: list[Path]) -> list[Path]:
    """The systems that are named, and those in a folder of systems."""
    systems = []
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder")
        if (folder / "scores/metrics.tsv").exists():
            systems.append(folder)
        else:
            inside = sorted(path.parent.parent for path in folder.glob("*/scores/metrics.tsv"))
            systems += [path for path in inside if not path.name.startswith(".")]
    return systems


def current_rows(system: Path) -> list[dict[str, str]]:
    rows = read_metrics(system / "scores/metrics.tsv")
    kept = [row for row in rows if not is_stale(system, row)]
    if len(kept) < len(rows):
        left = f"{len(rows) - len(kept)} of {len(rows)} results of {system} are" if kept else f"{system} is"
        logging.warning("%s left out: the scores are older than its final.pt; run stages 5 and 6 again", left)
    return kept


def load(folders: list[Path], options: Options) -> list[Result]:
    results = [
        {"system": system.resolve().name, "met": corpus_met(system, row["trials"]), **row}
        for system in systems_of(folders)
        for row in (read_metrics(system / "scores/metrics.tsv") if system in folders else current_rows(system))
        if options.trials in ("", row["trials"]) and options.scoring in ("", row["scoring"])
    ]
    if not results:
        named = " ".join(map(str, folders))
        raise ValueError(f"{named}: there is no */scores/metrics.tsv with such rows; local/score.py writes them")
    return sorted(results, key=lambda row: (row["trials"], row["scoring"], row["system"]))


def corpus_met(system: Path, trials: str) -> str:
    """Was the system trained on the corpus of these trials?"""
    listed = system / "trained_on"
    corpus = trials.split("_")[1] if trials.startswith("trials_") else ""
    if not corpus or not listed.exists():
        return "-"
    return "yes" if corpus in listed.read_text(encoding="utf-8").split() else "no"


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
            values = [metric_value(row, name) for row in group]
            known = not any(math.isnan(value) for value in values)
            cells.append(
                f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}" if known else "-"
            )
        rows.append([*key, str(len(group)), *cells])
    return markdown(["system", "trials", "scoring", "seeds", *MEASURES], rows) if rows else ""


def main(argv: list[str]) -> None:
    options, folders = parse_args(Options, argv, __doc__, None)
    if not folders:
        raise ValueError("give the folder of the systems, as a rule exp (see --help)")
    results = load([Path(folder) for folder in folders], options)
    header = ["system", "trials", "scoring", "target", "nontarget", "lost", "speakers", *MEASURES, "calibration"]
    several_corpora = any(row["met"] != "-" for row in results)
    rows = [
        [
            *(row[name] for name in header[:7]),
            *(metric_text(row, *measure) for measure in MEASURES.values()),
            row.get("calibration", "-"),
            *([row["met"]] if several_corpora else []),
        ]
        for row in results
    ]
    text = markdown([*header, *(["corpus met"] if several_corpora else [])], rows) + "\n"
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
