"""The page: one HTML file that contains its styles and its script and works without a network."""

import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from speakerkd.report import figures
from speakerkd.report.gather import Experiment, System, labelled_scores, number

HERE = Path(__file__).resolve().parent
MOST_CURVES = 24  # systems in one picture


def page_of(experiment: Experiment, data: Path, title: str) -> str:
    sections = [
        ("systems", "Systems", systems_section(experiment)),
        ("cost", "Error rate and cost", cost_section(experiment)),
        ("det", "Detection error trade-off", det_section(experiment, data)),
        ("scores", "Scores", histogram_section(experiment, data)),
        ("noise", "Noise", noise_section(experiment)),
        ("comparisons", "Comparisons", comparison_section(experiment)),
        ("maps", "Enrol with one model, verify with another", maps_section(experiment)),
        ("training", "Training", training_section(experiment)),
        ("settings", "Settings and commands", settings_section(experiment)),
    ]
    present = [each for each in sections if each[2]]
    links = "".join(f'<li><a href="#{key}">{escape(name)}</a></li>' for key, name, _ in present)
    body = "".join(f'<section id="{key}"><h2>{escape(name)}</h2>{text}</section>' for key, name, text in present)
    notes = "".join(f"<li>{escape(each)}</li>" for each in experiment.warnings)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{(HERE / 'page.css').read_text()}</style></head><body>"
        f"<header><h1>{escape(title)}</h1><nav><ul>{links}</ul></nav></header><main>"
        + (f"<ul>{notes}</ul>" if notes else "")
        + f"{body}</main><script>{(HERE / 'page.js').read_text()}</script></body></html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A sortable table; numbers are aligned at the right."""
    lines = [list(row) for row in rows]
    numeric = [
        any(row[column] != "-" for row in lines) and all(row[column] == "-" or leads(row[column]) for row in lines)
        for column in range(len(head))
    ]
    kinds = [' class="n"' if each else "" for each in numeric]
    heads = "".join(
        f'<th scope="col"{kind}><button type="button">{escape(name)}</button></th>'
        for name, kind in zip(head, kinds, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in lines
    )
    return f'<div class="wide"><table class="sort"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def leads(text: str) -> bool:
    """Does the text begin with a number?"""
    return bool(text) and not math.isnan(number(text.split()[0]))


def figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>" if svg else ""


def known(value: float, text: str) -> str:
    return "-" if math.isnan(value) else text


def short(row: dict[str, str], name: str) -> str:
    return known(number(row.get(name, "")), row.get(name, "")[:5])


def rate(row: dict[str, str], name: str, digits: int) -> str:
    value = number(row.get(name, ""))
    stem, _, prior = name.rpartition("_") if name.startswith("min_dcf_") else (name, "", "")
    low, high = (number(row.get(f"{stem}_{end}{'_' + prior if prior else ''}", "")) for end in ("low", "high"))
    interval = known(low, f" [{low:.{digits}f}, {high:.{digits}f}]")
    return known(value, f"{value:.{digits}f}{interval if interval != '-' else ''}")


def systems_section(experiment: Experiment) -> str:
    head = [
        "system",
        "trials",
        "scoring",
        "EER %",
        "minDCF(0.01)",
        "Cllr",
        "parameters M",
        "MMAC/s",
        "real-time factor",
    ]
    rows = []
    for system in experiment.systems:
        cost = [
            known(system.parameters, f"{system.parameters / 1e6:.2f}"), known(system.macs, f"{system.macs / 1e6:.0f}"),
            known(system.real_time_factor, f"{system.real_time_factor:.5f}"),
        ]  # fmt: skip
        for row in system.results or [{}]:
            rates = [
                rate(row, "eer", 2),
                rate(row, "min_dcf_0.01", 3),
                short(row, "cllr"),
            ]
            rows.append([system.name, row.get("trials", "-"), row.get("scoring", "-"), *rates, *cost])
    note = "Brackets: 95 % intervals over the speakers of the trials. A click on a column's head sorts."
    return table(head, rows) + f'<p class="soft">{note}</p>' if rows else ""


def conditions(experiment: Experiment) -> list[tuple[str, str]]:
    """(trials, scoring) pairs with results, those of most systems first."""
    count: dict[tuple[str, str], int] = {}
    for system in experiment.systems:
        for row in system.results:
            key = (row["trials"], row["scoring"])
            count[key] = count.get(key, 0) + 1
    return sorted(count, key=lambda key: (-count[key], key[1] != "cosine", key[0]))


def cost_section(experiment: Experiment) -> str:
    note = "Upright lines are intervals; slanted ones join teacher and student."
    charts = [
        figure(
            figures.cost_chart(experiment, trials, scoring, cost),
            f"{trials}, {scoring}. {note}",
        )
        for trials, scoring in conditions(experiment)
        for cost in ("parameters", "real_time_factor")
        if scoring == "cosine"
    ]
    return f'<div class="charts">{"".join(charts)}</div>' if any(charts) else ""


def scored(experiment: Experiment, data: Path, trials: str, scoring: str) -> dict[str, figures.Scores]:
    found: dict[str, figures.Scores] = {}
    for system in experiment.systems:
        scores = labelled_scores(system, trials, scoring, data) if len(found) < MOST_CURVES else None
        if scores is not None:
            found[system.name] = scores
    return found


def caption(experiment: Experiment, trials: str, scoring: str) -> str:
    """Says so if there are more systems than a picture has."""
    known = sum(
        any((row["trials"], row["scoring"]) == (trials, scoring) for row in each.results) for each in experiment.systems
    )
    more = f"; the first {MOST_CURVES} of {known} systems" if known > MOST_CURVES else ""
    return f"{trials}, {scoring}{more}"


def det_section(experiment: Experiment, data: Path) -> str:
    charts = [
        figure(figures.det_chart(scored(experiment, data, trials, scoring)), caption(experiment, trials, scoring))
        for trials, scoring in conditions(experiment)
    ]
    return f'<div class="charts">{"".join(charts)}</div>' if any(charts) else ""


def histogram_section(experiment: Experiment, data: Path) -> str:
    if not conditions(experiment):
        return ""
    trials, scoring = conditions(experiment)[0]
    charts = [
        figure(figures.histogram_chart(name, *scores), f"{name}: {caption(experiment, trials, scoring)}")
        for name, scores in scored(experiment, data, trials, scoring).items()
    ]
    return f'<div class="charts">{"".join(charts)}</div>' if charts else ""


def noise_section(experiment: Experiment) -> str:
    charts = [figure(figures.noise_chart(rows), name) for name, rows in experiment.noise.items()]
    return f'<div class="charts">{"".join(charts)}</div>' if any(charts) else ""


def comparison_section(experiment: Experiment) -> str:
    text = ""
    for name, rows in experiment.comparisons.items():
        if not rows:
            continue
        text += f"<h3>{escape(name)}</h3>" + table(
            list(rows[0]), [[row.get(key, "-") for key in rows[0]] for row in rows]
        )
        columns = [key for key in rows[0] if " - " in key]
        note = "Left of the line is better; a bar that crosses it may be chance."
        charts = "".join(figure(figures.forest_chart(rows, key), f"{key}. {note}") for key in columns)
        text += f'<div class="charts">{charts}</div>' if charts else ""
    return text


def maps_section(experiment: Experiment) -> str:
    text = ""
    for name, rows in experiment.maps.items():
        wanted = [row for row in rows if row.get("scoring", "cosine") == "cosine"] or rows
        maps, cells = list(dict.fromkeys(row["map"] for row in wanted)), ("TT", "TS", "ST", "SS")
        lines = []
        for each in maps:
            of = {row["cell"]: row for row in wanted if row["map"] == each}
            gains = [short(of.get(cell, {}), "gain") for cell in ("TS", "ST")]
            lines.append([each, *(of[cell]["eer"][:5] if cell in of else "-" for cell in cells), *gains])
        text += f"<h3>{escape(name)}</h3>" + table(["map", *cells, "G of TS", "G of ST"], lines)
    note = "EER in %. T is the better system, S the other; the first letter enrols, the second verifies."
    return text + f'<p class="soft">{note}</p>' if text else ""


def training_section(experiment: Experiment) -> str:
    columns = [("ce", "cross entropy", 1.0), ("loss", "loss", 1.0), ("accuracy", "accuracy %", 100.0)]
    columns += [("valid_eer_percent", "EER % of held-out speakers", 1.0)]
    charts = [figure(figures.curve_chart(experiment.systems[:MOST_CURVES], *each), each[1]) for each in columns]
    return f'<div class="charts">{"".join(charts)}</div>' if any(charts) else ""


def settings_section(experiment: Experiment) -> str:
    return "".join(settings_of(system) for system in experiment.systems if system.settings)


def settings_of(system: System) -> str:
    options = json.dumps(system.settings.get("options", {}), indent=1)
    command = f"{escape(system.command)}\ncommit {escape(system.commit)}"
    return (
        f"<details><summary>{escape(system.name)}</summary><pre>{command}</pre><pre>{escape(options)}</pre></details>"
    )
