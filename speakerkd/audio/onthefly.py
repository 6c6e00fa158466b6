"""Augmentation on the fly: what is done to a crop is drawn again each time the crop is used.

The draw depends only on the crop's seed. The kinds are those of utt2aug (local/augment_data_dir.py): noise, music, babble,
rooms, a telephone line. There are no speeds: a copy at another speed is another speaker and stays a copy on disk.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.audio.augment import Augmenter
from speakerkd.audio.babble import add_babble
from speakerkd.audio.draws import KINDS, DrawConf, check_draws, pick
from speakerkd.audio.sounds import gather_sounds
from speakerkd.audio.sourcedir import SourceDir
from speakerkd.conf import opt
from speakerkd.files.tables import table_lines


@dataclass(frozen=True)
class AugmentConf(DrawConf):
    probability: float = opt(0.6, "part of the crops that are changed; the others stay unchanged")
    kinds: tuple[str, ...] = opt(
        ("reverb", "noise", "music", "babble"),
        "kinds, one of which is drawn for a crop; kinds joined by + are applied one after the other",
    )

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"--probability={self.probability} is not between 0 and 1")
        if not self.kinds:
            raise ValueError("--kinds: nothing to draw from; for unchanged crops leave --augment out")
        check_draws(self, self.kinds)


class OnTheFly:
    """onthefly(wave, seed, talker) -> the changed wave, with the same length. `talker` is never in its own babble."""

    def __init__(self, conf: AugmentConf, folder: Path, rate: int) -> None:
        self.conf, self._rate = conf, rate
        kinds = {part for kind in conf.kinds for part in kind.split("+")}
        here = {"babble"} if "babble" in kinds and not conf.musan else set()
        nothing = SourceDir(folder, {}, None, None, {}, {}, None, None, {})
        self._sources = gather_sounds(nothing, kinds - here, conf.musan, conf.rirs, conf.rooms)
        if here:
            add_babble(folder, rate, self._sources)
        self.said = "; ".join(f"{kind}: {text}" for kind, text in self._sources.said.items())
        self._augmenter = Augmenter(self._sources.files, rate)

    def __call__(self, wave: np.ndarray, seed: int, talker: str) -> np.ndarray:
        text = self.draw(len(wave) / self._rate, seed, talker)
        return self._augmenter(wave, text) if text else wave

    def draw(self, seconds: float, seed: int, talker: str) -> str:
        """The words of utt2aug for a crop; none if it stays unchanged."""
        draw = random.Random(seed)
        if draw.random() >= self.conf.probability:
            return ""
        words: list[str] = []
        for kind in pick(draw, self.conf.kinds).split("+"):
            words += KINDS[kind](draw, seconds, talker, self._sources, self.conf)
        return " ".join(words)


def check_not_twice(folder: Path) -> None:
    """Copies with noise or rooms of utt2aug must not be changed again."""
    path = folder / "utt2aug"
    count, first = 0, ""
    for key, text in table_lines(path) if path.exists() else ():
        if any(not word.startswith("speed=") for word in text.split()):
            count, first = count + 1, first or f"{key}: {text}"
    if count:
        raise ValueError(
            f"{path}: noise, rooms or a telephone are in {count} copies already ({first}), "
            "and --augment would change them a second time. What utt2aug says was done when the waves were made, so it "
            "wins: leave --augment out, or train on a directory without these copies (originals, and copies at other speeds)"
        )
