"""Tables for people: rows of metrics.tsv as markdown."""

import math
from collections.abc import Iterable, Sequence

from speakerkd.score.metrics import PRIORS

Result = dict[str, str]
MEASURES = {
    "EER %": ("eer", 2),
    **{f"minDCF({prior:g})": (f"min_dcf_{prior:g}", 3) for prior in PRIORS},
    **{f"actDCF({prior:g})": (f"act_dcf_{prior:g}", 3) for prior in PRIORS[:1]},
    "Cllr": ("cllr", 3),
    "min Cllr": ("min_cllr", 3),
}


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first three columns are text."""
    table = [list(header), *(list(row) for row in rows)]
    widths = [max(2, *(len(row[column]) for row in table)) for column in range(len(header))]  # a rule needs 2
    cells = [
        [
            f"{text:<{width}}" if column < 3 else f"{text:>{width}}"
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in table
    ]
    rule = ["-" * width if column < 3 else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (cells[0], rule, *cells[1:]))


def p_text(p: float) -> str:
    return "-" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def metric_value(result: Result, name: str) -> float:
    try:
        return float(result.get(name, "nan"))
    except ValueError as error:
        raise ValueError(f"{result['system']}: '{result[name]}' under {name} in metrics.tsv is not a number") from error


def metric_text(result: Result, name: str, digits: int) -> str:
    value = metric_value(result, name)
    if math.isnan(value):
        return "-"
    stem, _, prior = name.rpartition("_") if name.startswith("min_dcf_") else (name, "", "")
    low, high = (metric_value(result, f"{stem}_{end}{'_' + prior if prior else ''}") for end in ("low", "high"))
    interval = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{value:.{digits}f}{interval}"
