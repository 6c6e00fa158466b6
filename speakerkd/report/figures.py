"""The charts of the report, each from what gather.py found. An empty text means that there is nothing to draw."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from speakerkd.report.gather import Experiment, System, interval_of, number, teacher_of
from speakerkd.report.svg import Axis, Chart, linear_axis, log_axis
from speakerkd.score.metrics import eer, roc

RATES = (0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
Scores = tuple[np.ndarray, np.ndarray]


def result_of(system: System, trials: str, scoring: str) -> dict[str, str] | None:
    found = [row for row in system.results if (row["trials"], row["scoring"]) == (trials, scoring)]
    return found[0] if found else None


def cost_chart(experiment: Experiment, trials: str, scoring: str, cost: str) -> str:
    """EER against parameters or the real-time factor; a thin line joins a student and its teacher."""
    title = {"parameters": "parameters in millions", "real_time_factor": "real-time factor on one thread"}[cost]
    scale = 1e-6 if cost == "parameters" else 1.0
    points: dict[str, tuple[float, float, System, dict[str, str]]] = {}
    for system in experiment.systems:
        row, value = result_of(system, trials, scoring), getattr(system, cost) * scale
        if row is not None and value > 0:
            points[system.name] = (value, number(row["eer"]), system, row)
    if len(points) < 2:
        return ""
    heights = [each[1] for each in points.values()]
    lows = [number(each[3].get("eer_low", "")) for each in points.values()]
    highs = [number(each[3].get("eer_high", "")) for each in points.values()]
    known = [value for value in (*heights, *lows, *highs) if not math.isnan(value)]
    chart = Chart(
        f"EER against {title}",
        log_axis(title, [each[0] for each in points.values()]),
        linear_axis("EER %", known, True),
    )
    families = sorted({each[2].family for each in points.values()})
    systems = [each[2] for each in points.values()]
    named: set[str] = set()
    for x, y, system, row in points.values():
        colour = families.index(system.family)
        taught_by = teacher_of(system, systems)
        if taught_by is not None and taught_by.name in points:
            tx, ty, *_ = points[taught_by.name]
            chart.line([(tx, ty), (x, y)], colour, thin=True)
        low, high = number(row.get("eer_low", "")), number(row.get("eer_high", ""))
        if not math.isnan(low + high):
            chart.whisker(x, low, high, colour)
        text = "" if system.family in named or len(families) > 14 else system.family
        named.add(system.family)
        chart.point(x, y, colour, f"{system.name}: EER {y:.2f} %, {title} {x:.3g}", text)
    return chart.text()


def det_chart(curves: dict[str, Scores]) -> str:
    """The miss rate against the false-acceptance rate, both on the normal-deviate scale."""
    if not curves:
        return ""
    inverse = NormalDist().inv_cdf
    drawn: dict[str, list[tuple[float, float]]] = {}
    for name, (scores, target) in curves.items():
        curve = roc(scores, target)
        inside = np.flatnonzero((curve.p_miss > 0) & (curve.p_fa > 0) & (curve.p_miss < 1) & (curve.p_fa < 1))
        chosen = inside[np.unique(np.linspace(0, len(inside) - 1, 300).astype(int))] if len(inside) else inside
        places = [(inverse(float(curve.p_fa[i])), inverse(float(curve.p_miss[i]))) for i in chosen]
        drawn[f"{name}: EER {100 * eer(curve)[0]:.2f} %"] = places
    values = [value for places in drawn.values() for point in places for value in point] or [0.0]
    low, high = max(min(values), inverse(RATES[0])), min(max(values), inverse(0.6))
    ticks = tuple((inverse(rate), f"{100 * rate:g} %") for rate in RATES if low <= inverse(rate) <= high)
    across, up = (Axis(title, low, max(high, low + 0.1), ticks) for title in ("false acceptances", "misses"))
    chart = Chart("Detection error trade-off", across, up, height=560)
    for colour, (name, places) in enumerate(drawn.items()):
        chart.line([(x, y) for x, y in places if low <= x <= high and low <= y <= high], colour, name)
    return chart.text()


def histogram_chart(name: str, scores: np.ndarray, target: np.ndarray) -> str:
    edges = np.linspace(float(scores.min()), float(scores.max()), 61)
    shares = [np.histogram(scores[kind], edges)[0] / max(kind.sum(), 1) for kind in (~target, target)]
    threshold = eer(roc(scores, target))[1]
    chart = Chart(
        f"Scores of {name}", linear_axis("score", edges.tolist()),
        linear_axis("share of the trials", [float(max(each.max() for each in shares))], True), height=320,
    )  # fmt: skip
    for colour, (label, each) in enumerate(zip(("different speakers", "same speaker"), shares, strict=True)):
        chart.area(edges.tolist(), each.tolist(), colour, label)
    chart.upright(threshold, f"EER threshold {threshold:.3f}")
    return chart.text()


def curve_chart(systems: Sequence[System], column: str, title: str, factor: float = 1.0) -> str:
    """A column of log.tsv over the epochs."""
    series = {}
    for system in systems:
        pairs = zip(system.log.get("epoch", []), system.log.get(column, []), strict=False)
        points = [(x, factor * y) for x, y in pairs if not math.isnan(x + y)]
        if len(points) > 1:
            series[system.name] = points
    if not series:
        return ""
    every = [point for points in series.values() for point in points]
    chart = Chart(
        f"{title} by epoch",
        linear_axis("epoch", [x for x, _ in every], True),
        linear_axis(title, [y for _, y in every], True),
    )
    for colour, (name, points) in enumerate(series.items()):
        chart.line(points, colour, name)
    return chart.text()


def noise_chart(rows: list[dict[str, str]]) -> str:
    """The EER by signal-to-noise ratio; the clean condition is at the right end."""
    # Telephone and rooms have no ratio, so they have no place here.
    rows = [row for row in rows if row["noise"] == "clean" or not math.isnan(number(row["snr"]))]
    levels = sorted({number(row["snr"]) for row in rows if not math.isnan(number(row["snr"]))})
    if not levels:
        return ""
    clean = levels[-1] + (levels[-1] - levels[0] or 5) / max(len(levels) - 1, 1)
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        snr = number(row["snr"])
        kind = "" if math.isnan(snr) else f" ({row['noise']})"
        place = clean if math.isnan(snr) else snr
        series.setdefault(row["system"] + kind, []).append((place, number(row["eer"])))
    joined = {name: list(points) for name, points in series.items() if "(" in name or len(points) > 1}
    for name, points in joined.items():
        points += [point for point in series.get(name.split(" (")[0], []) if point not in points]
        points.sort()
    ticks = (*((level, f"{level:g}") for level in levels), (clean, "clean"))
    values = [y for points in joined.values() for _, y in points]
    across = Axis("signal-to-noise ratio in dB", levels[0], clean, ticks)
    chart = Chart("EER by noise", across, linear_axis("EER %", values, True))
    for colour, (name, points) in enumerate(joined.items()):
        chart.line(points, colour, name)
        for x, y in points:
            chart.point(x, y, colour, f"{name}: {y:.2f} %")
    return chart.text()


def forest_chart(rows: list[dict[str, str]], column: str) -> str:
    """Differences of a comparison with their intervals, one line each."""
    found = [(row, ends) for row in rows if (ends := interval_of(row.get(column, "")))]
    if not found:
        return ""
    words = [(row["student"], row["kd_type"], row.get("teacher", "-")) for row, _ in found]
    names = [" ".join(word for word in each if word != "-") for each in words]
    places = tuple((float(len(found) - index), name) for index, name in enumerate(names))
    values = [0.0, *(value for _, ends in found for value in ends)]
    chart = Chart(
        f"{column} with intervals", linear_axis(f"{column}, points of EER", values),
        Axis("", 0.2, len(found) + 0.8, places), height=TOP_AND_BOTTOM + 24 * len(found), left=230,
    )  # fmt: skip
    chart.upright(0.0, "no difference")
    for (place, name), (_, (value, low, high)) in zip(places, found, strict=True):
        colour = 0 if high < 0 else 1 if low > 0 else 2
        chart.bar(low, high, place, colour)
        chart.point(value, place, colour, f"{name}: {value:+.2f} [{low:+.2f}, {high:+.2f}]")
    return chart.text()


TOP_AND_BOTTOM = 76
