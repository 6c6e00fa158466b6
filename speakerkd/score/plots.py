"""DET curves and histograms of scores. The file's ending is the format: .png, .pdf or .svg."""

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from speakerkd.score.metrics import PRIORS, Roc, eer, min_dcf, roc

_TICKS = (0.0001, 0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")  # colour-blind safe
_MARKERS = dict(zip(PRIORS, ("s", "^", "D"), strict=True))


def can_plot() -> bool:
    return find_spec("matplotlib") is not None


def _probit(shares: np.ndarray) -> np.ndarray:
    inverse = NormalDist().inv_cdf
    return np.array([inverse(share) for share in shares.tolist()])


def _thinned(curve: Roc, points: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """Probits of p_fa and p_miss, for the points that can be told apart in the picture."""
    inside = np.flatnonzero((curve.p_miss > 0) & (curve.p_fa > 0) & (curve.p_miss < 1) & (curve.p_fa < 1))
    if len(inside) > points:
        rates = np.log(curve.p_fa[inside]) - np.log(curve.p_miss[inside])  # falls along the curve
        places = np.searchsorted(-rates, np.linspace(-rates[0], -rates[-1], points))
        inside = inside[np.unique(places.clip(0, len(inside) - 1))]
    return _probit(curve.p_fa[inside]), _probit(curve.p_miss[inside])


def det_plot(path: str | Path, systems: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> None:
    """The DET curve of each system's (scores, target), with marks at the EER and at the minDCF."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    seen = [0.02, 0.2]
    for colour, (name, (scores, target)) in zip(_COLOURS, systems.items(), strict=False):
        curve = roc(scores, target)
        value, _ = eer(curve)
        horizontal, vertical = _thinned(curve)
        axes.plot(horizontal, vertical, color=colour, linewidth=1.6, label=f"{name}: EER {100 * value:.2f} %")
        if 0 < value < 1:
            point = _probit(np.array([value]))
            axes.plot(point, point, "o", color=colour, markersize=7)
        for prior, marker in _MARKERS.items():
            cost, threshold = min_dcf(curve, prior)
            place = np.searchsorted(curve.threshold, threshold)
            rates = np.array([curve.p_fa[place], curve.p_miss[place]])
            label = f"   minDCF({prior:g}) {cost:.3f}"
            if not ((rates > 0) & (rates < 1)).all():
                axes.plot([], [], marker, color="none", markeredgecolor=colour, label=f"{label} (off the plot)")
                continue
            x, y = _probit(rates)
            axes.plot([x], [y], marker, color="white", markeredgecolor=colour, markersize=8, label=label)
            seen += rates.tolist()
        seen += [value, 1 / (2 * max(target.sum(), 1)), 1 / (2 * max((~target).sum(), 1))]
    _probit_axes(axes, min(seen), max(seen))
    axes.set_title(title)
    axes.legend(loc="upper right", fontsize=9, framealpha=0.95)
    _save(figure, path)


def _probit_axes(axes, lowest: float, highest: float) -> None:  # type: ignore[no-untyped-def]
    low, high = max(lowest / 1.5, 2e-5), min(max(2 * highest, 0.5), 0.98)
    low, high = _probit(np.array([low, high]))
    ticks = [tick for tick in _TICKS if low <= _probit(np.array([tick]))[0] <= high]
    places, labels = _probit(np.array(ticks)), [f"{100 * tick:g}" for tick in ticks]
    axes.plot([low, high], [low, high], color="0.8", linewidth=0.8, zorder=0)
    axes.set_xticks(places, labels)
    axes.set_yticks(places, labels)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.grid(color="0.9", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel("false alarms (% of the nontarget trials)")
    axes.set_ylabel("misses (% of the target trials)")


def histogram(path: str | Path, scores: np.ndarray, target: np.ndarray, threshold: float, title: str) -> None:
    """The densities of target and nontarget scores, with the threshold of the EER."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    bins = np.linspace(scores.min(), scores.max(), int(np.clip(np.sqrt(target.sum()) * 2, 20, 100)) + 1).tolist()
    for kind, name, colour in ((~target, "nontarget", _COLOURS[1]), (target, "target", _COLOURS[0])):
        axes.hist(scores[kind], bins, density=True, color=colour, alpha=0.55, label=f"{int(kind.sum())} {name} trials")
    axes.axvline(threshold, color="0.2", linestyle="--", linewidth=1.2, label=f"threshold of the EER: {threshold:.4f}")
    axes.set_xlabel("score")
    axes.set_ylabel("density")
    axes.set_title(title)
    axes.legend(fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _save(figure, path)


class Bar(NamedTuple):
    """A system's EER in percent with its interval (NaN: unknown), and its parameters."""

    name: str
    rate: float
    low: float
    high: float
    parameters: int

    @property
    def arms(self) -> list[list[float]]:
        """What matplotlib calls xerr or yerr."""
        if np.isnan(self.low):
            return [[0.0], [0.0]]
        return [[max(0.0, self.rate - self.low)], [max(0.0, self.high - self.rate)]]


def bar_plot(path: str | Path, bars: Sequence[Bar]) -> None:
    """One line per system: a point with its interval. The first system is at the top."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 1.2 + 0.3 * len(bars)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, bar in enumerate(bars):
        axes.errorbar(bar.rate, -place, xerr=bar.arms, fmt="o", color=_COLOURS[0], capsize=3)
    axes.set_yticks([-place for place in range(len(bars))], [bar.name for bar in bars])
    axes.set_xlabel("EER %, mean over seeds, 95 % interval")
    axes.grid(axis="x", color="0.9")
    _save(figure, path)


def cost_plot(path: str | Path, bars: Sequence[Bar]) -> None:
    """EER against the number of parameters."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, bar in enumerate(bars):
        colour, marker = _COLOURS[number % len(_COLOURS)], "os^Dvp"[number // len(_COLOURS) % 6]
        axes.errorbar(
            bar.parameters / 1e6, bar.rate, yerr=bar.arms, fmt=marker, color=colour, capsize=3, label=bar.name
        )
    axes.set_xscale("log")
    axes.set_xlabel("parameters (millions)")
    axes.set_ylabel("EER %, mean over seeds, 95 % interval")
    axes.grid(color="0.9")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, path)


def _save(figure, path: str | Path) -> None:  # type: ignore[no-untyped-def]
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, dpi=130, format=path.suffix[1:] or "png")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
