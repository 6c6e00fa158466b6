"""Voice profiles in a folder: one JSON file per person, with the embeddings of the recordings and the model's digest."""

import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.files.tables import replacing
from speakerkd.verify.encoder import unit

FORMAT = "speakerkd-profile-1"


@dataclass(frozen=True)
class Profile:
    name: str
    model: str  # SHA-256 of the model file
    vectors: np.ndarray  # (recordings, D), each of length 1
    speech: float  # seconds, over all recordings

    @property
    def vector(self) -> np.ndarray:
        return unit(self.vectors.mean(0))


def check_name(name: str) -> str:
    """The name in one form of Unicode: some systems write an accent as a character of its own."""
    name = unicodedata.normalize("NFC", name)
    plain = "".join("-" if unicodedata.category(each)[0] == "M" else each for each in name)  # vowel signs and the like
    if not re.fullmatch(r"\w[\w .@-]{0,99}", plain) or name != name.strip():
        raise ValueError(f"'{name}' can't name a profile: letters, digits, spaces and _.@- are allowed, at most 100")
    return name


def write_profile(folder: str | Path, profile: Profile) -> Path:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{check_name(profile.name)}.json"
    record = {
        "format": FORMAT,
        "name": profile.name,
        "model": profile.model,
        "speech": round(profile.speech, 2),
        "vectors": [[round(float(value), 7) for value in vector] for vector in profile.vectors],
    }
    with replacing(path) as file:
        json.dump(record, file)
        file.write("\n")
    return path


def read_profile(path: Path, model: str, dim: int) -> Profile:
    """Reads a profile. A profile made with another model is refused."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ValueError(f"format is not {FORMAT}")
        vectors = np.array(record["vectors"], np.float32)
        profile = Profile(str(record["name"]), str(record["model"]), vectors, float(record["speech"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is not a profile, or is damaged ({error}); enrol again") from error
    if profile.model != model:
        raise ValueError(f"{path}: was made with another model; enrol {profile.name} again with this one")
    if vectors.ndim != 2 or vectors.shape[1] != dim or not len(vectors) or not np.isfinite(vectors).all():
        raise ValueError(f"{path}: its vectors are damaged; enrol {profile.name} again")
    return profile


def read_profiles(folder: str | Path, model: str, dim: int) -> list[Profile]:
    paths = sorted(Path(folder).glob("*.json"))
    if not paths:
        raise ValueError(f"{folder}: holds no profiles; enrol somebody first: --enroll name=a.wav,b.wav")
    return [read_profile(path, model, dim) for path in paths]
