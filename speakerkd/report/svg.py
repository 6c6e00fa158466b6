"""Charts as SVG text. In a page its style gives the colours, so a dark page has dark charts; a file brings its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 640, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 16, 52
NUM_COLOURS = 8
DASHES = ("", "6 3", "2 3", "8 3 2 3")
# A file of its own is shown on light and on dark pages, so its background is drawn too.
STYLE = """
text { fill: #1b1f24; font: 13px system-ui, sans-serif; } .name { font-size: 12px; }
.back { fill: #fff; stroke: #d0d7de; } .grid { stroke: #d0d7de; } .mark { stroke: #57606a; stroke-dasharray: 4 3; }
.line { fill: none; stroke-width: 2; } .thin { fill: none; stroke-width: 1; opacity: .6; } .area { fill-opacity: .35; }
""" + "\n".join(
    f".s{number} {{ stroke: {colour}; }} circle.s{number}, .area.s{number} {{ fill: {colour}; }}"
    for number, colour in enumerate(
        ("#0969da", "#bc4c00", "#6e7781", "#1a7f37", "#8250df", "#bf3989", "#9a6700", "#1b7c83")
    )
)


@dataclass(frozen=True)
class Axis:
    """An axis from low to high, linear or logarithmic, with ticks (place, label)."""

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def part(self, value: float) -> float:
        if self.log:
            return math.log(max(value, 1e-300) / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear_axis(title: str, values: Sequence[float], zero: bool = False) -> Axis:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    low = 0.0 if zero and low >= 0 else low
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    margin = 0.05 * (high - low)
    low, high = (low if zero and low == 0 else low - margin), high + margin
    step = _step((high - low) / 5)
    first = math.ceil(low / step)
    places = [number * step for number in range(first, math.floor(high / step) + 1)]
    return Axis(title, low, high, tuple((place, f"{place:.10g}") for place in places))


def log_axis(title: str, values: Sequence[float]) -> Axis:
    known = [value for value in values if value > 0] or [1.0]
    low, high = min(known) / 1.5, max(known) * 1.5
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    places = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    inside = [place for place in places if low <= place <= high]
    return Axis(title, low, high, tuple((place, f"{place:.3g}") for place in inside), log=True)


def _step(rough: float) -> float:
    power = 10 ** math.floor(math.log10(rough))
    return next(power * each for each in (1, 2, 5, 10) if power * each >= rough)


@dataclass
class Chart:
    """Two axes, and marks that are drawn on top of each other."""

    label: str  # what a screen reader says
    x: Axis
    y: Axis
    height: int = HEIGHT
    left: int = LEFT
    _marks: list[str] = field(default_factory=list)
    _names: list[tuple[int, str]] = field(default_factory=list)

    def place(self, x: float, y: float) -> tuple[float, float]:
        return (
            self.left + self.x.part(x) * (WIDTH - self.left - RIGHT),
            self.height - BOTTOM - self.y.part(y) * (self.height - TOP - BOTTOM),
        )

    def line(self, points: Sequence[tuple[float, float]], colour: int, name: str = "", thin: bool = False) -> None:
        path = " ".join(
            f"{'M' if not number else 'L'}{x:.1f} {y:.1f}" for number, (x, y) in enumerate(self._all(points))
        )
        dash = DASHES[colour // NUM_COLOURS % len(DASHES)]
        title = f"<title>{escape(name)}</title>" if name else ""
        self._marks.append(
            f'<g data-series="{colour}"><path d="{path}" class="s{colour % NUM_COLOURS} {"thin" if thin else "line"}" '
            f'stroke-dasharray="{dash}">{title}</path></g>'
        )
        if name:
            self._names.append((colour, name))

    def _all(self, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [self.place(x, y) for x, y in points]

    def point(self, x: float, y: float, colour: int, name: str, text: str = "", hollow: bool = False) -> None:
        px, py = self.place(x, y)
        kind = "hollow" if hollow else "dot"
        self._marks.append(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5" class="s{colour % NUM_COLOURS} {kind}">'
            f"<title>{escape(name)}</title></circle>"
        )
        if text:
            anchor, shift = ("end", -9) if px > WIDTH * 0.7 else ("start", 9)
            self._marks.append(
                f'<text x="{px + shift:.1f}" y="{py - 7:.1f}" text-anchor="{anchor}" class="name">{escape(text)}</text>'
            )

    def bar(self, low: float, high: float, y: float, colour: int) -> None:
        """A horizontal interval."""
        (x1, y1), (x2, _) = self.place(low, y), self.place(high, y)
        self._marks.append(
            f'<path d="M{x1:.1f} {y1:.1f}H{x2:.1f}M{x1:.1f} {y1 - 4:.1f}v8M{x2:.1f} {y1 - 4:.1f}v8" '
            f'class="s{colour % NUM_COLOURS} line"/>'
        )

    def whisker(self, x: float, low: float, high: float, colour: int) -> None:
        """A vertical interval."""
        (x1, y1), (_, y2) = self.place(x, low), self.place(x, high)
        self._marks.append(f'<path d="M{x1:.1f} {y1:.1f}V{y2:.1f}" class="s{colour % NUM_COLOURS} thin"/>')

    def area(self, edges: Sequence[float], heights: Sequence[float], colour: int, name: str) -> None:
        """A histogram."""
        points = [(edges[0], 0.0)]
        for index, height in enumerate(heights):
            points += [(edges[index], height), (edges[index + 1], height)]
        points.append((edges[-1], 0.0))
        path = " ".join(
            f"{'M' if not number else 'L'}{x:.1f} {y:.1f}" for number, (x, y) in enumerate(self._all(points))
        )
        self._marks.append(
            f'<g data-series="{colour}"><path d="{path}Z" class="s{colour % NUM_COLOURS} area">'
            f"<title>{escape(name)}</title></path></g>"
        )
        self._names.append((colour, name))

    def upright(self, x: float, name: str) -> None:
        px, _ = self.place(x, self.y.low)
        self._marks.append(
            f'<path d="M{px:.1f} {TOP}V{self.height - BOTTOM}" class="mark"><title>{escape(name)}</title></path>'
            f'<text x="{px + 4:.1f}" y="{TOP + 12}" class="name">{escape(name)}</text>'
        )

    def text(self, legend: bool = True) -> str:
        parts = [f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{escape(self.label)}">']
        bottom = self.height - BOTTOM
        for value, name in self.x.ticks:
            px, _ = self.place(value, self.y.low)
            parts.append(f'<path d="M{px:.1f} {TOP}V{bottom}" class="grid"/>')
            parts.append(
                f'<text x="{px:.1f}" y="{bottom + 18}" text-anchor="middle" class="tick">{escape(name)}</text>'
            )
        for value, name in self.y.ticks:
            _, py = self.place(self.x.low, value)
            if self.y.title:
                parts.append(f'<path d="M{self.left} {py:.1f}H{WIDTH - RIGHT}" class="grid"/>')
            parts.append(
                f'<text x="{self.left - 6}" y="{py + 4:.1f}" text-anchor="end" class="tick">{escape(name)}</text>'
            )
        middle = (self.left + WIDTH - RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{self.height - 12}" text-anchor="middle">{escape(self.x.title)}</text>')
        if self.y.title:
            up = (TOP + bottom) / 2
            parts.append(
                f'<text transform="translate(16 {up}) rotate(-90)" text-anchor="middle">{escape(self.y.title)}</text>'
            )
        svg = "".join([*parts, *self._marks, "</svg>"])
        return svg + (self._legend() if legend and self._names else "")

    def file(self) -> str:
        """The chart as an SVG file of its own, without a legend."""
        head, _, marks = self.text(legend=False).partition(">")
        head = head.replace(
            "<svg", f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{self.height}"', 1
        )
        back = f'<rect class="back" x="0.5" y="0.5" width="{WIDTH - 1}" height="{self.height - 1}" rx="6"/>'
        return f"{head}>\n<style>{STYLE}</style>\n{back}{marks}\n".replace("><", ">\n<")

    def _legend(self) -> str:
        items = "".join(
            f'<li><button type="button" aria-pressed="true" data-toggle="{colour}">'
            '<svg viewBox="0 0 24 8" aria-hidden="true">'
            f'<path d="M0 4H24" class="s{colour % NUM_COLOURS} line" '
            f'stroke-dasharray="{DASHES[colour // NUM_COLOURS % len(DASHES)]}"/></svg>{escape(name)}</button></li>'
            for colour, name in self._names
        )
        return f'<ul class="legend">{items}</ul>'
