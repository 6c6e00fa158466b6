"""Small trees with the folders, names and formats of VoxCeleb, CN-Celeb, MUSAN and RIRS_NOISES.

Usage: tests/corpora.py <folder>     makes all of them there, of egs/synth's voices, for tests/corpora.sh; with faces of the
                                     training speakers, and a network for these, where onnx and pillow are installed
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import soundfile
from faces import LACKING, picture, save_model, save_picture

Speech = Callable[[int, int, float], np.ndarray]  # speaker, utterance, seconds -> samples
RATE = 16000
VIDEOS = ("5r0dWxy17C8", "-_AbC012345", "zZ9_-xyzABC")  # their names may begin like an option


def noise(speaker: int, utterance: int, seconds: float) -> np.ndarray:
    draw = np.random.default_rng([speaker, utterance])
    return (0.1 * draw.standard_normal(round(seconds * RATE))).astype(np.float32)


def write(path: Path, samples: np.ndarray) -> None:
    """A file of the kind that its name says; m4a by ffmpeg."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".m4a":
        soundfile.write(path, samples, RATE, subtype="PCM_16")
        return
    wav = path.with_suffix(".tmp.wav")
    soundfile.write(wav, samples, RATE, subtype="PCM_16")
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-i", wav, "-c:a", "aac", "-b:a", "64k", path], check=True)
    wav.unlink()


def pairs(names: list[str]) -> Iterator[tuple[int, str, str]]:
    """1 or 0, and two recordings id10270/video/00001.wav."""
    for one, other in combinations(names, 2):
        yield int(one.split("/")[0] == other.split("/")[0]), one, other


def make_voxceleb(
    root: Path, speech: Speech = noise, suffix: str = ".wav", speakers: int = 3, videos: int = 2, seconds: float = 0.3
) -> tuple[Path, Path]:
    """VoxCeleb1, unzipped into dev/ and test/ and VoxCeleb2; the last recording of each speaker is in no list."""
    one, two = root / "VoxCeleb1", root / "VoxCeleb2"
    listed: dict[str, list[str]] = {"test": [], "dev": []}
    for part, first in (("test", 10270), ("dev", 10001)):
        for speaker in range(first, first + speakers):
            for video in VIDEOS[:videos]:
                for number in (1, 2):
                    name = f"id{speaker}/{video}/{number:05}.wav"
                    write(one / part / "wav" / name, speech(speaker, hash_of(name), seconds))
                    listed[part].append(name)
            listed[part].pop()
    for speaker in range(12, 12 + 2 * speakers):
        for video in VIDEOS[:videos]:
            for number in (1, 2):
                name = f"id{speaker:05}/{video}/{number:05}{suffix}"
                folder = "aac" if suffix == ".m4a" else "wav"
                write(two / "dev" / folder / name, speech(speaker, hash_of(name), seconds))
    lists = {
        "veri_test.txt": listed["test"],
        "veri_test2.txt": listed["test"][1:],
        "list_test_all2.txt": listed["dev"] + listed["test"],
        "list_test_hard2.txt": listed["dev"],
    }
    for name, recordings in lists.items():
        lines = "".join(f"{label} {a} {b}\n" for label, a, b in pairs(recordings))
        (one / "meta").mkdir(exist_ok=True)
        (one / "meta" / name).write_text(lines)
    return one, two


def hash_of(name: str) -> int:
    return sum((at + 1) * byte for at, byte in enumerate(name.encode()))


def make_cnceleb(
    root: Path, speech: Speech = noise, speakers: int = 3, lengths: tuple[float, ...] = (0.5, 0.2, 0.2, 0.2, 0.1)
) -> tuple[Path, Path]:
    """CN-Celeb_flac and CN-Celeb2_flac; `lengths` are those of the recordings of each genre."""
    one, two = root / "CN-Celeb_flac", root / "CN-Celeb2_flac"
    dev, test, second = range(speakers), range(800, 800 + speakers), range(10000, 10000 + speakers)
    for base, some in ((one, [*dev, *test]), (two, [*second])):
        for speaker in some:
            for genre in ("interview", "singing"):
                for number, seconds in enumerate(lengths, 1):
                    name = f"id{speaker:05}/{genre}-01-{number:03}.flac"
                    write(base / "data" / name, speech(speaker, hash_of(name), seconds))
    (one / "dev").mkdir()
    (one / "dev/dev.lst").write_text("".join(f"id{speaker:05}\n" for speaker in dev))
    (two / "spk.lst").write_text("".join(f"id{speaker:05}\n" for speaker in second))
    for folder in ("enroll", "test", "lists"):
        (one / "eval" / folder).mkdir(parents=True)
    enroll_map, enroll_lst, trials, tests = [], [], [], []
    for speaker in test:
        name = f"id{speaker:05}"
        first = [f"{name}/interview-01-{number:03}" for number in (1, 2)]
        whole = np.concatenate([soundfile.read(one / "data" / f"{each}.flac")[0] for each in first])
        write(one / f"eval/enroll/{name}-enroll.flac", whole)
        enroll_map.append(f"{name}-enroll {' '.join(f'{each}.wav' for each in first)}\n")
        enroll_lst.append(f"{name}-enroll enroll/{name}-enroll.wav\n")
        for number in range(1, len(lengths) + 1):
            tests.append(f"{name}-singing-01-{number:03}")
            shutil.copy(one / "data" / name / f"singing-01-{number:03}.flac", one / f"eval/test/{tests[-1]}.flac")
    for speaker in test:
        trials += [f"id{speaker:05}-enroll test/{t}.wav {int(t.startswith(f'id{speaker:05}'))}\n" for t in tests]
    for file, lines in (("enroll.map", enroll_map), ("enroll.lst", enroll_lst), ("trials.lst", trials)):
        (one / "eval/lists" / file).write_text("".join(lines))
    return one, two


def make_noises(root: Path, seconds: float = 2.0) -> tuple[Path, Path]:
    musan, rirs = root / "musan", root / "RIRS_NOISES"
    draw = np.random.default_rng(5)
    for part in ("noise/free-sound", "music/fma", "speech/librivox"):
        for number in range(8):
            name = part.replace("/", "-") + f"-{number:04}.wav"
            write(musan / part / name, 0.05 * draw.standard_normal(round(seconds * RATE)))
    for room in ("smallroom", "mediumroom"):
        for number in range(3):
            decay = np.exp(-np.arange(2000) / 300) * draw.standard_normal(2000) * 0.1
            decay[0] = 0.9
            write(rirs / "simulated_rirs" / room / f"Room{number:03}/Room{number:03}-00001.wav", decay)
    return musan, rirs


def make_faces(root: Path, voxceleb2: Path) -> None:
    """faces/idXXXXX/<video>/001.jpg of the training speakers, alike in all videos, and a network of the usual size."""
    for video in voxceleb2.glob("dev/*/id*/*"):
        face = picture(int(video.parent.name[2:])).repeat(28, 0).repeat(28, 1)
        for number in (1, 2):
            darker = 1 - 0.2 * np.random.default_rng(hash_of(f"{video.name}{number}")).random(face.shape)
            save_picture(root / "faces" / video.parent.name / video.name / f"{number:03}.jpg", np.uint8(face * darker))
    save_model(root / "faces.onnx", ["n", 3, 112, 112], size=112, pool=28)


def voices() -> Speech:
    """As egs/synth makes them, but all in one room: there are seconds to learn who is who."""
    from egs.synth.v1 import voice

    session = voice.draw_session((20.0, 28.0), np.random.default_rng(0))

    def speak(speaker: int, utterance: int, seconds: float) -> np.ndarray:
        rng = np.random.default_rng([speaker, utterance])
        return voice.speak(voice.voice_of(0, speaker), session, seconds, rng).reshape(-1)

    return speak


def main() -> None:
    (folder,) = (Path(word) for word in sys.argv[1:])
    speech = voices()
    suffix = ".m4a" if shutil.which("ffmpeg") else ".wav"
    print(f"{sys.argv[0]}: VoxCeleb2 as {suffix[1:]}" + ("" if suffix == ".m4a" else ", for there is no ffmpeg here"))
    _, two = make_voxceleb(folder, speech, suffix, speakers=5, videos=3, seconds=2.5)
    if LACKING:
        print(f"{sys.argv[0]}: no faces, for there is no {' '.join(LACKING)} here")
    else:
        make_faces(folder, two)
    make_cnceleb(folder, speech, speakers=5, lengths=2 * (3.0, 1.0, 1.5, 2.0, 1.2))
    make_noises(folder)


if __name__ == "__main__":
    main()
