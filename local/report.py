#!/usr/bin/env python3
"""Writes an experiment folder as one HTML page: sortable tables, pictures, settings, commands. It needs no network.

Usage: local/report.py [options] <exp-dir>
  local/report.py exp                  # writes exp/report.html
  local/report.py --runs 0 exp         # without real-time factors

The page shows what the folder holds: systems and their error rates, EER against parameters and real-time factor, DET
curves, histograms of the scores, error rates in noise (score_noise.sh), comparisons (compare_kd.sh), maps (stage 7), the
training curves, and each system's settings and command.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from speakerkd.conf import opt, parse_args, run
from speakerkd.files.tables import replacing
from speakerkd.report.gather import gather, measure_costs
from speakerkd.report.page import page_of


@dataclass
class Options:
    data: str = opt(
        "", "folder of the data directories with the trials and their labels; default: data beside <exp-dir>"
    )
    output: str = opt("", "page to write; default: <exp-dir>/report.html")
    title: str = opt("", "title of the page; default: the recipe's folder")
    seconds: float = opt(10.0, "seconds of speech for multiply-accumulates and the real-time factor")
    runs: int = opt(3, "timed runs of each model; 0: no real-time factors")

    def __post_init__(self) -> None:
        if not 0.1 <= self.seconds <= 3600 or self.runs < 0:
            raise ValueError("--seconds must be from 0.1 to 3600, and --runs 0 or more")


def main(argv: list[str]) -> None:
    options, (folder,) = parse_args(Options, argv, __doc__, 1)
    place = Path(folder)
    experiment = gather(place)
    measure_costs(experiment, options.seconds, options.runs)
    for warning in experiment.warnings:
        logging.warning("%s", warning)
    recipe = place.resolve().parent
    title = options.title or f"speakerkd: {recipe.parent.name}/{recipe.name}"
    output = Path(options.output or place / "report.html")
    with replacing(output) as file:
        file.write(page_of(experiment, Path(options.data or recipe / "data"), title))
    print(f"{output}: {len(experiment.systems)} systems; open it in a browser")


if __name__ == "__main__":
    run(main)
