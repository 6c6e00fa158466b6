#!/usr/bin/env python3
"""One table of the maps between several pairs of systems, made from the matrix.tsv files of local/align.sh.

Usage: local/collect_maps.py [options] <label>=<folder> [<label>=<folder> ...]
  local/collect_maps.py --maps "raw procrustes nessa" old_new=exp/maps/old_new halves=exp/maps/halves

S and T are the two systems; T is the better one. TS means: T enrols, S verifies. G is the gain from upgrading one side
to T, divided by the gain from upgrading both. Intervals are 95 % intervals over the speakers. A pair without a gain has
no G.
"""

from dataclasses import dataclass
from pathlib import Path

from speakerkd.conf import opt, parse_args, run
from speakerkd.files.tables import read_lines
from speakerkd.score.markdown import markdown

HEADER = ("pair", "map", "SS", "TT", "TS", "ST", "G of TS", "G of ST")


@dataclass
class Options:
    maps: str = opt("", "the maps to show, in this order; default: all of them")
    scoring: str = opt("cosine", "cosine or asnorm")
    table: str = opt("matrix", "name of the tsv file in each folder; matrix_<trials> for a further list of align.sh")


Rows = dict[tuple[str, str], dict[str, float]]  # (map, cell) -> its figures


def read_matrix_tsv(path: Path, scoring: str) -> Rows:
    lines = [line.split("\t") for _, line in read_lines(path)]
    names, found = lines[0], Rows()
    for line in lines[1:]:
        row = dict(zip(names, line, strict=True))
        if row["scoring"] == scoring:
            keys = ("eer", "eer_low", "eer_high", "gain", "gain_low", "gain_high")
            found[row["map"], row["cell"]] = {key: float(row[key]) for key in keys}
    if ("raw", "SS") not in found or ("raw", "TT") not in found:
        raise ValueError(f"{path}: has no {scoring} scores of the systems without a map; run local/align.sh again")
    return found


def figure_text(row: dict[str, float] | None, name: str) -> str:
    if row is None or row[name] != row[name]:
        return "-"
    ends = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:.2f}" + ("" if ends[0] != ends[0] else f" [{ends[0]:.2f}, {ends[1]:.2f}]")


def rows_of(label: str, found: Rows, maps: list[str]) -> list[list[str]]:
    rows = []
    both = [figure_text(found["raw", cell], "eer") for cell in ("SS", "TT")]
    worth = found["raw", "SS"]["eer"] > found["raw", "TT"]["eer"]
    for name in maps or list(dict.fromkeys(key for key, _ in found)):
        cells = [found.get((name, cell)) for cell in ("TS", "ST")]
        if any(cells):
            gains = [figure_text(cell, "gain") if worth else "-" for cell in cells]
            rows.append([label, name, *both, *(figure_text(cell, "eer") for cell in cells), *gains])
    return rows


def main(argv: list[str]) -> None:
    options, words = parse_args(Options, argv, __doc__, None)
    rows = []
    for word in words:
        label, equals, folder = word.partition("=")
        if not equals:
            raise ValueError(f"'{word}' is not <label>=<folder>")
        path = Path(folder) / f"{options.table}.tsv"
        if not path.exists():
            raise ValueError(f"{path} is not there; local/align.sh writes it")
        rows += rows_of(label, read_matrix_tsv(path, options.scoring), options.maps.split())
    if not rows:
        raise ValueError("there is nothing to show: give <label>=<folder>, and --maps that exist (see --help)")
    print(markdown(HEADER, rows))


if __name__ == "__main__":
    run(main)
