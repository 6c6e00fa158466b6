"""Rooms and their effect on speech. Rooms, noises and music generated from a seed, for users without MUSAN and RIRS_NOISES.

utt2aug names them: `pink#17` is the pink noise of seed 17, `room#17:rt60=0.45` a room whose sound falls by 60 dB in
0.45 s. A noise lasts ten seconds and is repeated. Its level has no meaning: it is scaled to the given SNR.
"""

import math
import re
import zlib

import numpy as np
import torch

SOUND_SPEED = 343.0  # m/s
NOISE_SECONDS = 10.0


def noise(name: str, rate: int) -> np.ndarray | None:
    """`<kind>#<seed>` -> (samples,) float32 of unit power; None: the name has another form."""
    match = re.fullmatch(r"([a-z]+)#(\d+)", name)
    if not match or match[1] not in NOISES:
        return None
    random = np.random.default_rng([zlib.crc32(match[1].encode()), int(match[2])])
    made = NOISES[match[1]](random, round(NOISE_SECONDS * rate), rate)
    return (made / np.sqrt(np.mean(made**2))).astype(np.float32)


def response(name: str, rate: int) -> np.ndarray | None:
    """`room#<seed>:rt60=<seconds>` -> the impulse response; None: the name has another form."""
    match = re.fullmatch(r"room#(\d+):rt60=(\d+(?:\.\d+)?)", name)
    if not match or not 0.05 <= float(match[2]) <= 5:
        return None
    return shoebox(int(match[1]), float(match[2]), rate)


def power(wave: np.ndarray) -> float:
    return float(np.dot(wave, wave)) / max(len(wave), 1)


def reverberate(wave: np.ndarray, response: np.ndarray) -> np.ndarray:
    """The wave in the room, aligned with the wave, with the same length and power."""
    direct = int(np.argmax(np.abs(response)))
    wet = convolve(wave, response)[direct : direct + len(wave)]
    before, after = power(wave), power(wet)
    return wet * np.float32((before / after) ** 0.5) if before > 0 and after > 0 else wave.copy()


def convolve(wave: np.ndarray, response: np.ndarray) -> np.ndarray:
    """The full convolution, by FFTs of blocks that fit into the processor's cache."""
    length = len(wave) + len(response) - 1
    size = 1 << (min(length, max(1 << 15, 4 * len(response))) - 1).bit_length()
    step = size - len(response) + 1
    spectrum = torch.fft.rfft(torch.from_numpy(response), size)
    result = torch.zeros(length)
    for first in range(0, len(wave), step):
        block = torch.from_numpy(wave[first : first + step])
        stop = min(first + size, length)
        result[first:stop] += torch.fft.irfft(torch.fft.rfft(block, size) * spectrum, size)[: stop - first]
    return result.numpy()


def shoebox(seed: int, rt60: float, rate: int, early: float = 0.04) -> np.ndarray:
    """A room of random size with walls of one kind (Allen and Berkley 1979), a talker and a microphone in it.

    For `early` seconds after the direct sound the response is that of the image sources. Later there are so many that
    noise of the same power replaces them: 4 pi c^3 t^2 / V images a second, of amplitude 1 / (c t) before the losses.
    """
    random = np.random.default_rng([1000, seed])
    size = random.uniform([3.0, 3.0, 2.4], [8.0, 7.0, 3.6])  # m
    microphone = random.uniform(0.15, 0.85, 3) * size
    talker = random.uniform(0.15, 0.85, 3) * size
    volume, surface = size.prod(), 2 * (size[0] * size[1] + size[1] * size[2] + size[2] * size[0])
    # Eyring's formula, solved for the share of the energy that a wall reflects
    reflection = math.exp(-0.5 * 24 * math.log(10) / SOUND_SPEED * volume / (surface * rt60))

    direct = float(np.linalg.norm(talker - microphone))
    horizon = direct + early * SOUND_SPEED
    distance, order = images(size, talker, microphone, horizon)
    delay = np.rint(distance / SOUND_SPEED * rate).astype(int)
    # Alternating signs, as from soft walls. With equal signs the low frequencies would add up.
    taps = np.bincount(delay, (-reflection) ** order / np.maximum(distance, 0.1))

    start = round(horizon / SOUND_SPEED * rate)
    length = max(start, round((direct / SOUND_SPEED + rt60) * rate)) + 1
    time = np.arange(length) / rate
    deviation = np.sqrt(4 * math.pi * SOUND_SPEED / volume / rate) * 10 ** (-3 * time / rt60)
    result = deviation * random.standard_normal(length)
    result[:start] = 0
    result[: len(taps)] += taps[:length]
    return (result / np.abs(result).max()).astype(np.float32)


def images(
    size: np.ndarray, talker: np.ndarray, microphone: np.ndarray, horizon: float
) -> tuple[np.ndarray, np.ndarray]:
    """(distance to the microphone, number of reflections) of the talker's mirror images within the horizon."""
    offsets, orders = [], []
    for axis in range(3):
        room = np.arange(-int(horizon / (2 * size[axis])) - 1, int(horizon / (2 * size[axis])) + 2)
        # Image rooms 2n have the talker unmirrored (|2n| reflections), rooms 2n - 1 mirrored (|2n - 1| reflections).
        at = np.concatenate([2 * room * size[axis] + talker[axis], 2 * room * size[axis] - talker[axis]])
        offsets.append(at - microphone[axis])
        orders.append(np.concatenate([np.abs(2 * room), np.abs(2 * room - 1)]))
    x, y, z = np.ix_(*offsets)
    distance = np.sqrt(x**2 + y**2 + z**2)
    a, b, c = np.ix_(*orders)
    near = distance <= horizon
    return distance[near], np.broadcast_to(a + b + c, distance.shape)[near]


def shaped(random: np.random.Generator, length: int, gain: np.ndarray) -> np.ndarray:
    """Noise whose spectrum is white times gain, one number for each of length // 2 + 1 frequencies."""
    return np.fft.irfft(np.fft.rfft(random.standard_normal(length)) * gain, length)


def frequencies(length: int, rate: int) -> np.ndarray:
    return np.maximum(np.fft.rfftfreq(length, 1 / rate), 20.0)  # Hz; constant below 20 Hz


def white(random: np.random.Generator, length: int, rate: int) -> np.ndarray:
    return random.standard_normal(length)


def pink(random: np.random.Generator, length: int, rate: int) -> np.ndarray:
    return shaped(random, length, frequencies(length, rate) ** -0.5)


def brown(random: np.random.Generator, length: int, rate: int) -> np.ndarray:
    return shaped(random, length, 1 / frequencies(length, rate))


def band(random: np.random.Generator, length: int, rate: int) -> np.ndarray:
    """Like a fan or a tap: noise around one frequency, on a faint pink floor."""
    centre, octaves = 10 ** random.uniform(2.3, math.log10(0.4 * rate)), random.uniform(0.2, 1.0)
    frequency = frequencies(length, rate)
    gain = np.exp(-0.5 * (np.log2(frequency / centre) / octaves) ** 2)
    return shaped(random, length, gain + 0.03 * (centre / frequency) ** 0.5)


def hum(random: np.random.Generator, length: int, rate: int) -> np.ndarray:
    """Like the mains or a motor: a tone that drifts slightly, its harmonics, and a faint pink floor."""
    tone = random.choice([50.0, 60.0, random.uniform(40, 200)])
    time = np.arange(length) / rate
    phase = 2 * math.pi * tone * (time + 0.01 * random.random() * np.sin(2 * math.pi * random.uniform(0.1, 0.5) * time))
    wave = np.exp(1j * phase).astype(np.complex64)
    total, harmonic = np.zeros(length, np.float32), wave.copy()
    for order in range(1, min(20, int(0.45 * rate / tone)) + 1):
        total += random.random() / order**0.7 * (harmonic * np.exp(2j * math.pi * random.random())).imag
        harmonic *= wave
    return total / total.std() + 0.1 * unit(pink(random, length, rate))


def clicks(random: np.random.Generator, length: int, rate: int) -> np.ndarray:
    """Like keys, steps and plates: from time to time something is struck and rings."""
    total = 0.01 * random.standard_normal(length)
    for first in random.integers(0, length, random.poisson(random.uniform(1, 6) * length / rate)):
        decay = 10 ** random.uniform(-2.7, -1.0)  # s
        time = np.arange(min(length - first, int(6 * decay * rate) + 1)) / rate
        ring = np.sin(2 * math.pi * random.uniform(200, 0.45 * rate) * time) + random.standard_normal(len(time))
        total[first : first + len(time)] += random.uniform(0.2, 1) * np.exp(-time / decay) * ring
    return total


def surge(random: np.random.Generator, length: int, rate: int) -> np.ndarray:
    """Like traffic and wind: coloured noise that swells and falls."""
    colour = frequencies(length, rate) ** -random.uniform(0.3, 1.2)
    swell = shaped(random, length, np.fft.rfftfreq(length, 1 / rate) < random.uniform(0.3, 3.0))
    return unit(shaped(random, length, colour)) * np.exp(random.uniform(0.5, 1.2) * unit(swell))


def music(random: np.random.Generator, length: int, rate: int) -> np.ndarray:
    """Chords of a scale with a melody over them; the harmonics of each note decay."""
    scale = np.array([0, 2, 4, 5, 7, 9, 11] if random.random() < 0.5 else [0, 2, 3, 5, 7, 8, 10])  # major or minor
    key, beat = random.uniform(110, 220), random.uniform(0.3, 0.7)  # Hz, s
    slope, decay = random.uniform(0.8, 2.0), random.uniform(0.2, 1.0)  # of the instrument
    total = np.zeros(length)
    for number in range(math.ceil(length / rate / beat)):
        chord = int(random.integers(7)) + np.array([0, 2, 4] if number % 4 == 0 else [], int)  # each bar
        for degree in [*chord, int(random.integers(7, 14))]:
            pitch = key * 2 ** ((scale[degree % 7] + 12 * (degree // 7)) / 12)
            start = round(number * beat * rate)
            time = np.arange(min(length - start, round(4 * beat * rate)), dtype=np.float32) / rate
            wave = np.exp((2j * math.pi * pitch - 0.5 / decay) * time).astype(np.complex64)
            sound, harmonic = np.zeros(len(time), np.float32), wave.copy()
            for order in range(1, min(10, int(0.45 * rate / pitch)) + 1):
                sound += order**-slope * harmonic.imag
                harmonic *= wave  # the next harmonic: its pitch and its decay are so many times as high
            total[start : start + len(time)] += random.uniform(0.5, 1) * np.minimum(time / 0.01, 1) * sound
    return total


def unit(wave: np.ndarray) -> np.ndarray:
    return wave / max(float(wave.std()), 1e-12)


NOISES = {
    "white": white,
    "pink": pink,
    "brown": brown,
    "band": band,
    "hum": hum,
    "clicks": clicks,
    "surge": surge,
    "music": music,
}
GENERATED = " ".join(f"{name}#17" for name in NOISES) + " for noise, room#17:rt60=0.45 (0.05 to 5 s) for reverb"
