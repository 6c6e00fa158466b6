"""card.json of an exported model: what the model is, its features, its error rates and its thresholds.

local/export_onnx.py writes it, verify reads it. The important entries:
    format       "speakerkd-export-1"
    files        {"fp32": {"name", "sha256", "bytes"}, "int8": the same or absent}
    front_end    the options of Kaldi's fbank, and waveform_scale; min_frames is the shortest input of the model
    conditions   a list, one entry per measured length and noise: the map from scores to log likelihood ratios, thresholds
    snr_split    recordings below this estimated signal-to-noise ratio (dB) are judged by the noisy conditions
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = "speakerkd-export-1"
NAME = "card.json"
NEEDED = ("format", "name", "files", "front_end", "dim", "min_frames", "conditions")


@dataclass(frozen=True)
class Condition:
    """The measurement for recordings of one length, with or without noise."""

    seconds: float  # median seconds of speech
    label: str  # 1 s, 2 s, 4 s or whole
    noise: str  # "clean" or such as "10 dB"
    scale: float  # log likelihood ratio = scale * score + offset
    offset: float
    eer: float  # percent
    false_accepts: tuple[tuple[float, float], ...]  # (rate, threshold of the score), rates falling
    speakers: int
    target: int
    nontarget: int

    @property
    def clean(self) -> bool:
        return self.noise == "clean"

    def ratio(self, score: float) -> float:
        return self.scale * score + self.offset

    def threshold_of_prior(self, prior: float) -> float:
        """The score above which the decision "same speaker" costs less. Both kinds of errors cost the same."""
        if not 0 < prior < 1:
            raise ValueError(f"--prior={prior:g} is not between 0 and 1")
        return (-math.log(prior / (1 - prior)) - self.offset) / self.scale

    def threshold_of_false_accepts(self, rate: float) -> float:
        """The threshold for a rate. Between two measured rates it is interpolated over the logarithm of the rate."""
        rates = [each for each, _ in self.false_accepts]
        if not rates or not min(rates) <= rate <= max(rates):
            measured = f"{min(rates):g} to {max(rates):g}" if rates else "none"
            raise ValueError(
                f"--far={rate:g} is outside the false-acceptance rates that were measured for this model ({measured}, on "
                f"{self.nontarget} nontarget trials of {self.speakers} speakers, {self.label}, {self.noise})"
            )
        for (above, low), (below, high) in zip(self.false_accepts, self.false_accepts[1:], strict=False):
            if below <= rate <= above:
                part = math.log(above / rate) / math.log(above / below)
                return low + part * (high - low)
        return self.false_accepts[0][1]


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_card(folder: str | Path) -> dict[str, Any]:
    """The card of an exported folder, checked."""
    path = Path(folder) / NAME
    if not path.is_file():
        what = "has no card.json" if Path(folder).is_dir() else "is not a folder"
        raise ValueError(f"{folder} {what}; give a folder that local/export_onnx.py wrote")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is damaged ({error}); export the model again") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ValueError(
            f"{path}: is not the card of an exported model ('format' must be {FORMAT}); export the model again"
        )
    lacking = [name for name in NEEDED if name not in card]
    if lacking:
        raise ValueError(f"{path}: lacks {', '.join(lacking)}; export the model again")
    return card


def conditions_of(card: dict[str, Any]) -> list[Condition]:
    try:
        return [
            Condition(**{**each, "false_accepts": tuple((float(r), float(t)) for r, t in each["false_accepts"])})
            for each in card["conditions"]
        ]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{NAME} of {card.get('name')}: its conditions are damaged ({error})") from error


def choose_condition(conditions: list[Condition], seconds: float, clean: bool) -> Condition:
    """The longest condition that the shorter recording reaches, or else the shortest; noisy ones if clean is false."""
    if not conditions:
        raise ValueError("this model was exported without thresholds; export it again with --calibration-dir")
    fitting = [each for each in conditions if each.clean == clean] or conditions
    reached = [each for each in fitting if each.seconds <= 1.05 * seconds]
    return max(reached, key=lambda each: each.seconds) if reached else min(fitting, key=lambda each: each.seconds)
