"""How the weights of a foreign checkpoint are called there, and here."""

import re
from collections.abc import Callable
from dataclasses import dataclass

Rows = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]


@dataclass(frozen=True)
class WeightLayout:
    model: str  # in MODELS
    telling: str  # a weight that every checkpoint of the layout has, and no other layout of its family
    rows: Rows
    ignored: tuple[str, ...] = ()  # weights that the encoder does not need
    floors: tuple[tuple[str, float], ...] = ()  # of variances, by --pooling, where they are not the model's default
