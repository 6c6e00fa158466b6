#!/usr/bin/env python3
"""A picture of a published comparison: the error rates with their intervals, as they stand in a RESULTS.md.

Usage: local/draw_results.py [options] <RESULTS.md> <picture.svg>
  local/draw_results.py --section "Distillation from a teacher" --teacher campplus RESULTS.md results.svg

The section's first table must have the columns that local/compare_kd.sh prints: student, kd_type, teacher, EER % and
parameters. The picture has one line per student and kd_type, with the EER and its interval. It shows the students
without a teacher and those of one teacher.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from speakerkd.conf import opt, parse_args, run
from speakerkd.files.tables import replacing
from speakerkd.report.svg import Axis, Chart, linear_axis

COLUMNS = ("student", "kd_type", "teacher", "EER %", "parameters")
INTERVAL = re.compile(r"([\d.]+) \[([\d.]+), ([\d.]+)\]")
LINE_HEIGHT, AROUND, LEFT = 22, 76, 180
GREY, COLOURS = 2, (0, 1, 3, 4, 5, 6, 7)  # of the chart; grey: without a teacher


@dataclass
class Options:
    section: str = opt("Distillation from a teacher", "heading of the section whose first table is drawn")
    teacher: str = opt("campplus", "teacher whose students are drawn; a dash: only those without a teacher")


Row = dict[str, str]


def read_table(path: Path, section: str) -> list[Row]:
    """The first table under this heading, a row as {column: cell}."""
    lines = path.read_text().splitlines()
    if f"## {section}" not in lines:
        raise ValueError(f"{path}: has no section '{section}'; give its heading as --section")
    found: list[list[str]] = []
    for line in lines[lines.index(f"## {section}") + 1 :]:
        if line.startswith("|"):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
        elif found or line.startswith("## "):
            break
    if not found or not set(COLUMNS) <= set(found[0]):
        raise ValueError(f"{path}: the first table of '{section}' needs the columns {', '.join(COLUMNS)}")
    return [dict(zip(found[0], cells, strict=True)) for cells in found[2:]]


def rates(row: Row) -> tuple[float, float, float]:
    match = INTERVAL.fullmatch(row["EER %"])
    if match is None:
        raise ValueError(f"'{row['EER %']}' is not an error rate with its interval, such as 4.79 [2.15, 7.21]")
    return float(match[1]), float(match[2]), float(match[3])


def draw(rows: list[Row], label: str) -> str:
    """The rows, one below the other; each student begins with a line that names it."""
    kinds = list(dict.fromkeys(row["kd_type"] for row in rows if row["teacher"] != "-"))
    lines: list[tuple[str, Row | None]] = []
    for row in rows:
        if row["student"] not in [each["student"] for _, each in lines if each]:
            lines.append((f"{row['student']} ({row['parameters']})", None))
        name = "no teacher" if row["kd_type"] == "none" else row["kd_type"]
        lines.append((f"{name} {rates(row)[0]:.2f}", row))
    ticks = tuple((float(len(lines) - index), name) for index, (name, _) in enumerate(lines))
    chart = Chart(
        label,
        linear_axis("EER % with 95 % interval; lower is better", [rates(row)[2] for row in rows] + [0.0], zero=True),
        Axis("", 0.2, len(lines) + 0.8, ticks),
        height=AROUND + LINE_HEIGHT * len(lines),
        left=LEFT,
    )
    for (place, name), (_, drawn) in zip(ticks, lines, strict=True):
        if drawn is not None:
            value, low, high = rates(drawn)
            colour = GREY if drawn["teacher"] == "-" else COLOURS[kinds.index(drawn["kd_type"]) % len(COLOURS)]
            chart.bar(low, high, place, colour)
            chart.point(value, place, colour, f"{drawn['student']} {name} [{low}, {high}]")
    return chart.file()


def main(argv: list[str]) -> None:
    options, (results, picture) = parse_args(Options, argv, __doc__, 2)
    rows = read_table(Path(results), options.section)
    teachers = sorted({row["teacher"] for row in rows})
    if options.teacher not in teachers:
        raise ValueError(f"{results}: the table has no teacher '{options.teacher}' (it has: {' '.join(teachers)})")
    text = draw([row for row in rows if row["teacher"] in ("-", options.teacher)], options.section)
    with replacing(Path(picture)) as file:
        file.write(text)


if __name__ == "__main__":
    run(main)
