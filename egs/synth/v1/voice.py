"""Synthetic voices: a source (pulses, noise), filtered by a vocal tract (moving formants), then a session's channel.

    voice = voice_of(seed, speaker)                                     # what stays the same in a speaker
    session = draw_session(snr, generator(seed, SESSION, speaker, 1))   # what stays the same in a session
    samples = speak(voice, session, seconds, rng)                       # random phones, int16 at 16 kHz

Each random choice has its own generator, keyed by seed, kind and numbers. So a voice depends on nothing but its own number.
Filtering is done in the frequency domain for each frame of 12.5 ms, with overlap-add.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from egs.synth.v1.phones import FORMANTS, FRAMES_PER_SECOND, LEVELS, SILENT, draw_phones

Floats = NDArray[np.float32]

RATE = 16000
HOP = RATE // FRAMES_PER_SECOND
WINDOW, FFT = 2 * HOP, 512  # samples; the FFT leaves room for the tail of the formants' ringing
FREQUENCIES = np.fft.rfftfreq(FFT, 1 / RATE).astype(np.float32)
SOUND = 35000  # cm/s
REFERENCE_TRACT = 17.5  # cm, of the phones' formants
TRAITS = 4  # sex, size, age, tension: what voice and face share
PERSON, VOICE, SESSION, SPEECH, TRAIT_MAP, POSES, FACE, FRAME, STRANGER, STRANGER_FACE = range(10)  # generators


class Person(NamedTuple):
    sex: str  # m or f
    traits: NDArray[np.float64]  # sex (1 or -1), size, age, tension: about unit variance each


@dataclass(frozen=True)
class Voice:
    pitch: float  # Hz, in the middle of the range
    pitch_span: float  # octaves, the standard deviation of the melody
    tract: float  # cm
    formant_shift: Floats  # factors of the twelve formants, beside that of the tract's length
    accent: Floats  # (phones, 3) factors: how this speaker says each phone
    bandwidth: float  # factor
    tilt: float  # dB per octave
    breath: float  # amplitude against that of the pulses
    jitter: float  # octaves
    shimmer: float  # of log amplitude
    hiss_shift: float  # factor of the hisses' centre
    dip: tuple[float, float]  # Hz and dB: a side cavity
    rate: float  # factor of the phones' length


@dataclass(frozen=True)
class Session:
    channel: Floats  # dB at FREQUENCIES
    room: Floats  # impulse response
    noise_slope: float  # dB per octave
    snr: float  # dB
    pitch: float  # factor: mood
    tilt: float  # dB per octave: effort
    rate: float  # factor


def generator(seed: int, kind: int, *numbers: int) -> np.random.Generator:
    """A kind always has the same count of numbers, because numpy treats (1, 2) and (1, 2, 0) as the same key."""
    return np.random.default_rng([seed, kind, *numbers])


def draw_person(rng: np.random.Generator) -> Person:
    sex = 1.0 if rng.random() < 0.5 else -1.0
    return Person("m" if sex > 0 else "f", np.array([sex, *rng.standard_normal(TRAITS - 1)]))


def draw_voice(person: Person, rng: np.random.Generator) -> Voice:
    sex, size, age, tension = person.traits
    own = rng.standard_normal(12)
    return Voice(
        pitch=float(155 * 2 ** np.clip(-0.38 * sex - 0.06 * size - 0.05 * age + 0.14 * own[0], -1.1, 1.1)),
        pitch_span=float(0.13 * 2 ** (0.3 * own[1])),
        tract=float(np.clip(16.0 + 0.8 * sex + 0.5 * size + 0.3 * own[2], 12.5, 19.5)),
        formant_shift=np.exp(0.03 * rng.standard_normal(12)).astype(np.float32),
        accent=np.exp(0.03 * rng.standard_normal(FORMANTS.shape)).astype(np.float32),
        bandwidth=float(2 ** (0.25 * own[3])),
        tilt=float(-9.0 + 1.2 * tension - 0.5 * age + 0.8 * own[4]),
        breath=float(0.08 * 2 ** (0.5 * age - 0.5 * tension + 0.6 * own[5])),
        jitter=float(0.008 * 2 ** (0.4 * age + 0.4 * own[6])),
        shimmer=float(0.08 * 2 ** (0.5 * own[7])),
        hiss_shift=float(2 ** (-0.06 * sex - 0.04 * size + 0.08 * own[8])),
        dip=(float(4300 * 2 ** (0.15 * own[9])), float(8 + 3 * np.tanh(own[10]))),
        rate=float(2 ** (0.15 * own[11])),
    )


def person_of(seed: int, speaker: int) -> Person:
    return draw_person(generator(seed, PERSON, speaker))


def voice_of(seed: int, speaker: int) -> Voice:
    return draw_voice(person_of(seed, speaker), generator(seed, VOICE, speaker))


def draw_session(snr: tuple[float, ...], rng: np.random.Generator) -> Session:
    position = np.log1p(FREQUENCIES / 700) / np.log1p(RATE / 2 / 700)  # 0..1 on the mel scale
    waves = np.arange(1, 5)[:, None]
    amplitudes = 5.0 * rng.standard_normal((4, 1)) / waves  # a smooth curve, mostly a tilt
    channel = (amplitudes * np.cos(np.pi * waves * position + rng.uniform(0, np.pi, (4, 1)))).sum(0)
    length = int(rng.uniform(0.08, 0.3) * RATE)  # samples until the room has decayed by 60 dB
    room = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    room *= rng.uniform(0.1, 0.5) / np.linalg.norm(room)
    room[0] = 1.0
    mood = rng.standard_normal(3)
    return Session(
        channel=channel.astype(np.float32),
        room=room.astype(np.float32),
        noise_slope=float(rng.uniform(-6, -1)),
        snr=float(rng.uniform(snr[0], snr[1])),
        pitch=float(2 ** (0.09 * mood[0])),
        tilt=float(0.8 * mood[1]),
        rate=float(2 ** (0.1 * mood[2])),
    )


def speak(voice: Voice, session: Session, seconds: float, rng: np.random.Generator) -> NDArray[np.int16]:
    """A random utterance of this length."""
    num_samples = round(seconds * RATE)
    num_frames = num_samples // HOP + 2
    phones = draw_phones(num_frames, voice.rate * session.rate, rng)
    target = np.log(FORMANTS * voice.accent)[phones].astype(np.float64)
    target += (
        0.036 * 2 ** (0.12 * rng.standard_normal()) * _wander(target.shape, 25, rng)
    )  # no phone is said twice alike
    formants = np.exp(_smooth(target, 7)) * (voice.formant_shift[:3] * REFERENCE_TRACT / voice.tract)
    levels = LEVELS[phones].astype(np.float64)
    levels[:, :3] = _smooth(levels[:, :3], 3)
    pitch = _melody(phones, voice, session, rng)
    pulses = _pulses(pitch, num_frames * HOP + WINDOW, voice.shimmer, rng)
    sources = np.stack([pulses, rng.standard_normal(len(pulses), np.float32)])
    speech = _filter(sources, formants, levels, voice, session.tilt)[:num_samples]
    return _record(speech, session, rng)


def _melody(phones: NDArray[np.int64], voice: Voice, session: Session, rng: np.random.Generator) -> Floats:
    """Hz per frame: a slow random melody, a fall over each phrase, jitter."""
    frames = np.arange(len(phones))
    starts = np.flatnonzero(np.diff(phones == SILENT, prepend=True))  # of phrases and of pauses, in turn
    since = frames - np.concatenate([[0], starts])[np.searchsorted(starts, frames, "right")]
    fall = 0.25 - np.minimum(since / FRAMES_PER_SECOND, 2.0) / 3
    wander = np.clip(0.9 * _wander(phones.shape, 31, rng), -2, 2)
    mood = 0.03 * rng.standard_normal()
    octaves = mood + voice.pitch_span * (wander + fall) + voice.jitter * rng.standard_normal(len(phones))
    return (voice.pitch * session.pitch * 2**octaves).astype(np.float32)


def _wander(shape: tuple[int, ...], width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Slow noise of about unit variance."""
    return _smooth(rng.standard_normal(shape), width) * np.sqrt((width + 1) / 1.5)


def _smooth(track: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Moving average with a Hann window over the first axis."""
    weights = np.hanning(width + 2)[1:-1]
    weights /= weights.sum()
    padded = np.pad(track, [(width // 2, width // 2)] + [(0, 0)] * (track.ndim - 1), mode="edge")
    return np.tensordot(weights, np.lib.stride_tricks.sliding_window_view(padded, width, 0), ([0], [-1]))


def _pulses(pitch: Floats, num_samples: int, shimmer: float, rng: np.random.Generator) -> Floats:
    """One pulse per period, of unit power on average. A pulse may lie between two samples."""
    hertz = np.interp(np.arange(num_samples), np.arange(len(pitch)) * HOP, pitch)
    phase = np.cumsum(hertz / RATE) + rng.random()
    at = np.flatnonzero(np.diff(np.floor(phase)) > 0)  # the last sample before each pulse
    late = np.ceil(phase[at]) - phase[at]
    late /= phase[at + 1] - phase[at]
    size = np.sqrt(RATE / hertz[at]) * np.exp(shimmer * rng.standard_normal(len(at)))
    pulses = np.zeros(num_samples, np.float32)
    pulses[at] += size * (1 - late)
    pulses[at + 1] += size * late
    return pulses


def _resonance(formants: NDArray[np.floating], bandwidths: NDArray[np.floating]) -> NDArray[np.complex64]:
    """Response at FREQUENCIES of resonators in cascade, unit gain at 0 Hz: (frames, n) -> (frames, bins)."""
    response = np.ones((len(formants), len(FREQUENCIES)), np.complex64)
    for hertz, width in zip(formants.T[..., None], bandwidths.T[..., None], strict=True):
        squares = (FREQUENCIES / hertz.astype(np.float32)) ** 2
        response /= (1 - squares) + np.complex64(1j) * squares * width.astype(np.float32) / np.maximum(FREQUENCIES, 1)
    return response


def _filter(
    sources: Floats, formants: NDArray[np.float64], levels: NDArray[np.float64], voice: Voice, tilt: float
) -> Floats:
    """Sources (pulses and noise) through the tract, frame by frame."""
    num_frames = (sources.shape[1] - WINDOW) // HOP
    window = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    cuts = np.lib.stride_tricks.sliding_window_view(sources, WINDOW, 1)[:, : num_frames * HOP : HOP]
    pulses, noise = np.fft.rfft(cuts * window, FFT).astype(np.complex64)  # (frames, bins) each
    formants = formants[:num_frames]
    voiced, breath, hiss, centre, width = levels[:num_frames].astype(np.float32).T[..., None]
    # Formants 4 to 12 do not depend on the phone: those of a tube closed at one end.
    upper = (np.arange(7, 25, 2) * SOUND / 4 / voice.tract * voice.formant_shift[3:])[None]
    tract = _resonance(formants, voice.bandwidth * (50 + formants / 25))
    tract *= _resonance(upper, voice.bandwidth * (50 + upper / 25))
    dip = 10 ** (-voice.dip[1] / 20 * np.exp(-((FREQUENCIES / voice.dip[0] - 1) ** 2) / 0.013))
    # The lips radiate with +6 dB per octave.
    glottis = 10 ** ((voice.tilt + tilt + 6) * np.log2(np.maximum(FREQUENCIES, 80) / 100) / 20)
    away = np.log2(np.maximum(FREQUENCIES, 50) / (centre * np.float32(voice.hiss_shift))) / width
    spectrum = tract * dip * (voiced * glottis * pulses + (breath / 4 + voiced * voice.breath) * noise)
    spectrum += hiss * np.exp(-away * away / 2) * noise
    return _overlap_add(np.fft.irfft(spectrum, FFT).astype(np.float32))


def _overlap_add(frames: Floats) -> Floats:
    tail = -(-FFT // HOP)
    frames = np.pad(frames, ((0, 0), (0, tail * HOP - FFT)))
    total = np.zeros((len(frames) + tail, HOP), np.float32)
    for part in range(tail):
        total[part : part + len(frames)] += frames[:, part * HOP : (part + 1) * HOP]
    return total.ravel()


def _record(speech: Floats, session: Session, rng: np.random.Generator) -> NDArray[np.int16]:
    """The room, the channel, the noise, the level; 16 bits."""
    size = 1 << (len(speech) + len(session.room)).bit_length()
    hertz = np.fft.rfftfreq(size, 1 / RATE)
    channel = 10 ** (np.interp(hertz, FREQUENCIES, session.channel) / 20)
    heard = np.fft.irfft(np.fft.rfft(speech, size) * np.fft.rfft(session.room, size) * channel, size)[: len(speech)]
    colour = 10 ** (session.noise_slope * np.log2(np.maximum(hertz, 100) / 1000) / 20)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(len(speech)), size) * colour, size)[: len(speech)]
    noise *= np.std(heard) / np.std(noise) * 10 ** (-session.snr / 20)
    signal = heard + noise
    level = 10 ** ((-26 + 3 * rng.standard_normal()) / 20)  # of full scale
    signal *= min(level / np.std(signal), 0.95 / np.abs(signal).max())
    return np.rint(signal * 32767).astype(np.int16)
