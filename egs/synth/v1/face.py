"""Made-up faces: vectors as a face network might give them, each with a quality figure. There are no pictures."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from egs.synth.v1 import voice
from egs.synth.v1.voice import TRAITS, Person, generator

Vector = NDArray[np.float64]


class Faces(NamedTuple):
    """The options of the faces."""

    seed: int
    dim: int
    voice_share: float  # of the identity that follows from the traits of the body
    bad_share: float  # of the faces that are a stranger's or of low quality


class Face(NamedTuple):
    vector: NDArray[np.float32]
    quality: float
    is_stranger: bool


def unit(vector: Vector) -> Vector:
    return vector / np.linalg.norm(vector)


def identity(person: Person, faces: Faces, rng: np.random.Generator) -> Vector:
    """A face without pose. One part follows from the traits (by the same map for all), one is the person's own."""
    trait_map = generator(faces.seed, voice.TRAIT_MAP).standard_normal((faces.dim, TRAITS))
    shared, own = unit(trait_map @ person.traits), unit(rng.standard_normal(faces.dim))
    return unit(np.sqrt(faces.voice_share) * shared + np.sqrt(1 - faces.voice_share) * own)


def speaker_identity(speaker: int, faces: Faces) -> Vector:
    return identity(voice.person_of(faces.seed, speaker), faces, generator(faces.seed, voice.FACE, speaker))


def stranger_identity(frame: tuple[int, ...], faces: Faces) -> Vector:
    """Someone who never speaks. It is drawn for each frame separately, so that it depends on no other speaker."""
    person = voice.draw_person(generator(faces.seed, voice.STRANGER, *frame))
    return identity(person, faces, generator(faces.seed, voice.STRANGER_FACE, *frame))


def draw_face(speaker: int, session: int, number: int, faces: Faces) -> Face:
    """One frame of the speaker's face: identity, pose and noise. The better the frame, the more of the identity."""
    frame = (speaker, session, number)
    rng = generator(faces.seed, voice.FRAME, *frame)
    quality, luck, kind = rng.beta(5, 2), rng.random(), rng.random()
    bad = luck < faces.bad_share  # a larger share keeps the bad faces of a smaller one
    is_stranger = bad and kind < 0.5
    if bad and not is_stranger:
        quality *= 0.2
    face = stranger_identity(frame, faces) if is_stranger else speaker_identity(speaker, faces)
    poses = generator(faces.seed, voice.POSES).standard_normal((faces.dim, 2))  # the same two axes for everybody
    rest = unit(0.6 * unit(poses @ rng.standard_normal(2)) + unit(rng.standard_normal(faces.dim)))
    clear = 0.3 + 0.68 * quality
    vector = unit(clear * face + np.sqrt(1 - clear**2) * rest)
    vector *= 20 * (0.4 + 0.6 * quality) * np.exp(0.05 * rng.standard_normal())  # poor frames have short vectors
    return Face(vector.astype(np.float32), float(quality), is_stranger)
