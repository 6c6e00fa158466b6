"""What the tests of scoring share: Kaldi's golden back-end files, made-up speakers, the stage scripts as modules."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np

from speakerkd.files.kaldi import ArkWriter

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).resolve().parent / "data" / "kaldi-golden-backend"


def text_archive(path: Path) -> dict[str, np.ndarray]:
    """key -> vector, of an archive that Kaldi wrote as text."""
    vectors = {}
    for line in path.read_text().splitlines():
        key, values = line.split(None, 1)
        vectors[key] = np.array(values.strip("[] ").split(), dtype=np.float32)
    return vectors


def script(name: str) -> ModuleType:
    """local/<name>.py"""
    spec = importlib.util.spec_from_file_location(f"local_{name}", ROOT / "local" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_vectors(prefix: Path, vectors: dict[str, np.ndarray]) -> Path:
    with ArkWriter(prefix) as write:
        for key in sorted(vectors):
            write(key, vectors[key].astype(np.float32))
    return Path(f"{prefix}.scp")


def golden_folder(folder: Path) -> Path:
    """The golden files where a recipe would have them."""
    for name in ("train", "test"):
        (folder / "data" / name).mkdir(parents=True)
        write_vectors(
            folder / "exp" / "sys" / f"xvectors_{name}" / "xvector", text_archive(GOLDEN / f"{name}_xvector.txt")
        )
    for name in ("utt2spk", "spk2utt"):
        (folder / "data" / "train" / name).write_bytes((GOLDEN / f"train_{name}").read_bytes())
    for name in ("trials", "enroll_spk2utt"):
        (folder / "data" / "test" / name).write_bytes((GOLDEN / name).read_bytes())
    utterances = sorted(text_archive(GOLDEN / "test_xvector.txt"))
    (folder / "data" / "test" / "utt2spk").write_text("".join(f"{utt} {utt.split('-')[0]}\n" for utt in utterances))
    return folder


def made_up(
    rng: np.random.Generator, num_speakers: int, num_utts: int, dim: int = 16
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, enrolment speakers and test speakers of all pairs of utterances; some speakers are harder than others."""
    centres = 1.3 * rng.normal(size=(num_speakers, 1, dim))
    spread = np.exp(0.25 * rng.normal(size=(num_speakers, 1, 1)))
    vectors = (centres + spread * rng.normal(size=(num_speakers, num_utts, dim)) + 0.5).reshape(-1, dim)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    one, other = np.triu_indices(len(vectors), 1)
    scores = np.einsum("nd,nd->n", vectors[one], vectors[other]).astype(np.float32)
    return scores, one // num_utts, other // num_utts
