"""A made-up language: phones with their formants and noises, syllables, phrases with pauses between them.

phones = draw_phones(num_frames, rate, rng)      # (frames,): the number of the phone in each frame
FORMANTS[phones], LEVELS[phones]                 # (frames, 3) in Hz; (frames, 5), whose columns are named in Phone
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FRAMES_PER_SECOND = 80


class Phone(NamedTuple):
    formants: tuple[float, float, float]  # Hz, in a tract of 17.5 cm
    voice: float = 0.0  # amplitude of the pulses
    breath: float = 0.0  # amplitude of the noise that passes through the whole tract
    hiss: float = 0.0  # amplitude of the noise that is made at the constriction
    centre: float = 4000.0  # Hz, of that noise
    width: float = 0.5  # octaves, of that noise
    seconds: float = 0.09


PAUSE = Phone((500, 1500, 2500), seconds=0.25)
VOWELS = [
    Phone(formants, voice=1.0, seconds=0.11)
    for formants in (
        (280, 2250, 2950), (400, 1980, 2550), (540, 1830, 2480), (670, 1700, 2420), (740, 1120, 2450),
        (580, 860, 2410), (440, 1030, 2250), (310, 880, 2250), (630, 1200, 2400), (490, 1350, 1750),
    )
]  # fmt: skip
ASPIRATE = Phone((550, 1500, 2500), breath=0.5, seconds=0.06)  # like h
CONSONANTS = [
    Phone((260, 1050, 2200), voice=0.35, seconds=0.07),  # like m
    Phone((260, 1500, 2450), voice=0.35, seconds=0.07),  # n
    Phone((360, 1080, 2700), voice=0.5, seconds=0.07),  # l
    Phone((350, 1200, 1650), voice=0.5, seconds=0.07),  # r
    Phone((290, 2150, 2900), voice=0.5, seconds=0.06),  # j
    Phone((310, 720, 2250), voice=0.5, seconds=0.06),  # w
    Phone((350, 1600, 2600), hiss=0.5, centre=6000, width=0.45, seconds=0.10),  # s
    Phone((350, 1700, 2500), hiss=0.5, centre=3400, width=0.55, seconds=0.10),  # sh
    Phone((350, 1100, 2300), hiss=0.15, centre=5000, width=1.2, seconds=0.09),  # f
    Phone((350, 1600, 2600), voice=0.3, hiss=0.3, centre=5800, width=0.5, seconds=0.08),  # z
    Phone((350, 1100, 2300), voice=0.35, hiss=0.1, centre=4500, width=1.2, seconds=0.07),  # v
]
# A stop is a closure and a burst: at the lips, the teeth, the palate; with and without voice.
STOPS = [
    [
        Phone(formants, voice=hum, seconds=0.06),
        Phone(formants, breath=0.2, hiss=0.5, centre=centre, width=0.7, seconds=burst),
    ]
    for formants, centre in (((300, 900, 2200), 1200), ((300, 1700, 2600), 4200), ((300, 1900, 2350), 2000))
    for hum, burst in ((0.0, 0.04), (0.12, 0.015))
]
STARTS = [[ASPIRATE], *([phone] for phone in CONSONANTS), *STOPS]  # of a syllable
INVENTORY = [PAUSE, ASPIRATE, *VOWELS, *CONSONANTS, *(phone for stop in STOPS for phone in stop)]
NUMBER_OF = {phone: number for number, phone in enumerate(INVENTORY)}
FORMANTS = np.array([phone.formants for phone in INVENTORY], np.float32)
LEVELS = np.array([phone[1:6] for phone in INVENTORY], np.float32)
SILENT = NUMBER_OF[PAUSE]


def draw_phones(num_frames: int, rate: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Random syllables in phrases, pauses at both ends and between phrases."""
    numbers, lengths = [SILENT], [rng.uniform(4, 12)]
    left = int(rng.integers(3, 11))  # syllables of this phrase
    while sum(lengths) < num_frames:
        syllable = _draw_syllable(rng) if left else [PAUSE]
        left = left - 1 if left else int(rng.integers(3, 11))
        numbers += [NUMBER_OF[phone] for phone in syllable]
        lengths += [phone.seconds / rate * 2 ** (0.3 * rng.standard_normal()) * FRAMES_PER_SECOND for phone in syllable]
    ends = np.round(np.cumsum(lengths)).astype(int)
    phones = np.repeat(numbers, np.diff(ends, prepend=0))[:num_frames]
    phones[-int(rng.uniform(6, 14)) :] = SILENT
    return phones


def _draw_syllable(rng: np.random.Generator) -> list[Phone]:
    start = STARTS[rng.integers(len(STARTS))] if rng.random() < 0.9 else []
    end = [CONSONANTS[rng.integers(len(CONSONANTS))]] if rng.random() < 0.35 else []
    return [*start, VOWELS[rng.integers(len(VOWELS))], *end]
