"""Kinds of augmentation: each draws the operations for one utterance or crop, as words of utt2aug."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from speakerkd.audio.augment import Noise, Reverb, Telephone
from speakerkd.audio.sounds import RIR_FOLDERS, Sound, SoundSources
from speakerkd.conf import opt

FOREGROUND_GAP = 1.0  # seconds between the end of a noise and the start of the next
Item = TypeVar("Item")


@dataclass(frozen=True)
class DrawConf:
    """What is drawn from: folders, rooms, and ranges of signal-to-noise ratios."""

    musan: str = opt(
        "", "folder with noise/, music/ and speech/; empty: sounds are generated, and the source's speakers babble"
    )
    rirs: str = opt("", "folder RIRS_NOISES; empty: rooms are simulated")
    rooms: tuple[str, ...] = opt(("smallroom", "mediumroom"), f"rooms of --rirs: any of {' '.join(RIR_FOLDERS)}")
    noise_snrs: tuple[float, ...] = opt((15.0, 10.0, 5.0, 0.0), "SNRs in dB; one is drawn for each noise")
    music_snrs: tuple[float, ...] = opt((15.0, 10.0, 8.0, 5.0), "dB")
    babble_snrs: tuple[float, ...] = opt(
        (20.0, 17.0, 15.0, 13.0), "SNRs in dB; one is drawn for each speaker of babble"
    )
    babble_speakers: tuple[int, ...] = opt((3, 4, 5, 6, 7), "numbers of speakers in babble")


def check_draws(options: DrawConf, kinds: Sequence[str]) -> None:
    for kind in kinds:
        unknown = [part for part in kind.split("+") if part not in KINDS]
        if unknown:
            raise ValueError(
                f"--kinds: '{unknown[0]}' is not one of: {' '.join(KINDS)} (joined by + for several on one copy)"
            )
    for name in ("noise_snrs", "music_snrs", "babble_snrs", "babble_speakers", "rooms"):
        if not getattr(options, name):
            raise ValueError(f"--{name.replace('_', '-')}: nothing to draw from")
    for snr in (*options.noise_snrs, *options.music_snrs, *options.babble_snrs):
        if not math.isfinite(snr):
            raise ValueError(f"--noise-snrs, --music-snrs, --babble-snrs: {snr} is not a number in dB")
    if min(options.babble_speakers) < 1:
        raise ValueError("--babble-speakers must be 1 or more")
    for room in options.rooms:
        if room not in RIR_FOLDERS:
            raise ValueError(f"--rooms: '{room}' is not one of: {' '.join(RIR_FOLDERS)}")


def pick(draw: random.Random, items: Sequence[Item]) -> Item:
    """Like draw.choice, but the same in every version of Python."""
    return items[int(draw.random() * len(items))]


def draw_reverb(
    draw: random.Random, seconds: float, talker: str, sources: SoundSources, options: DrawConf
) -> list[str]:
    return [str(Reverb(pick(draw, pick(draw, sources.rooms))))]


def draw_telephone(
    draw: random.Random, seconds: float, talker: str, sources: SoundSources, options: DrawConf
) -> list[str]:
    return [str(Telephone())]


def draw_noise(draw: random.Random, seconds: float, talker: str, sources: SoundSources, options: DrawConf) -> list[str]:
    """Recorded noises follow each other, as with Kaldi's --fg-interval 1. A generated one is behind the whole utterance."""
    if not options.musan:
        return [background(draw, pick(draw, sources.noises), seconds, options.noise_snrs)]
    words: list[str] = []
    at = 0.0
    while not words or at < seconds:
        sound = pick(draw, sources.noises)
        start = draw.random() * max(0.0, sound.seconds - (seconds - at))  # Kaldi starts at 0: the rest is never used
        words.append(str(Noise(sound.name, pick(draw, options.noise_snrs), start, at=at)))
        at += sound.seconds - start + FOREGROUND_GAP
    return words


def draw_music(draw: random.Random, seconds: float, talker: str, sources: SoundSources, options: DrawConf) -> list[str]:
    return [background(draw, pick(draw, sources.music), seconds, options.music_snrs)]


def draw_babble(
    draw: random.Random, seconds: float, talker: str, sources: SoundSources, options: DrawConf
) -> list[str]:
    count = pick(draw, options.babble_speakers)
    distinct = min(count, len(sources.talkers) - (talker in sources.speech))
    chosen: list[str] = []
    while len(chosen) < count:  # all of different speakers, if there are enough
        name = pick(draw, sources.talkers)
        if name != talker and (name not in chosen or len(chosen) >= distinct):
            chosen.append(name)
    return [background(draw, pick(draw, sources.speech[name]), seconds, options.babble_snrs) for name in chosen]


def background(draw: random.Random, sound: Sound, seconds: float, snrs: Sequence[float]) -> str:
    start = sound.start + draw.random() * max(0.0, sound.seconds - seconds)
    return str(Noise(sound.name, pick(draw, snrs), start, sound.end))


KINDS: dict[str, Callable[[random.Random, float, str, SoundSources, DrawConf], list[str]]] = {
    "reverb": draw_reverb,
    "noise": draw_noise,
    "music": draw_music,
    "babble": draw_babble,
    "telephone": draw_telephone,
}
