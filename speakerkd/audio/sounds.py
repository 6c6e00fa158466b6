"""The sources of sounds for augmentation: folders like MUSAN and RIRS, the source directory's speakers, generators."""

import random
import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import soundfile

from speakerkd.audio.augment import number
from speakerkd.audio.rooms import NOISE_SECONDS
from speakerkd.audio.sourcedir import SourceDir, speed_of
from speakerkd.files.tables import read_segments

GENERATED_NOISES = ("white", "pink", "brown", "band", "hum", "clicks", "surge")
GENERATED_SEEDS = 32  # of each kind: generated sounds are kept, and all of them must fit into the Augmenter's cache
GENERATED_ROOMS = 256
RIR_FOLDERS = {
    "smallroom": "simulated_rirs/smallroom",
    "mediumroom": "simulated_rirs/mediumroom",
    "largeroom": "simulated_rirs/largeroom",
    "real": "real_rirs_isotropic_noises",
}


class Sound(NamedTuple):
    """A sound that can be added: an id of aug.scp, or a generated one; all of it, or the stretch from start to end."""

    name: str
    seconds: float
    start: float = 0.0
    end: float | None = None


@dataclass
class SoundSources:
    """The sounds that augmentation may add, of each kind."""

    files: MutableMapping[str, str] = field(default_factory=dict)  # aug.scp
    rooms: list[list[str]] = field(default_factory=list)  # for each size
    noises: list[Sound] = field(default_factory=list)
    music: list[Sound] = field(default_factory=list)
    speech: Mapping[str, Sequence[Sound]] = field(default_factory=dict)  # by talker
    talkers: Sequence[str] = ()  # those of `speech`, sorted
    said: dict[str, str] = field(default_factory=dict)  # kind -> where its sounds come from, for the log


def gather_sounds(source: SourceDir, kinds: set[str], musan: str, rirs: str, rooms: Iterable[str]) -> SoundSources:
    sources = SoundSources(files=dict(source.aug_scp))
    generated = "generated, for there is no --musan"
    if "reverb" in kinds and rirs:
        sources.rooms = [list_rirs(Path(rirs), room, sources) for room in rooms]
        sources.said["reverb"] = f"{sum(map(len, sources.rooms))} responses of {rirs}"
    elif "reverb" in kinds:
        sources.rooms = [[generated_room(seed) for seed in range(GENERATED_ROOMS)]]
        sources.said["reverb"] = "simulated rooms, for there is no --rirs"
    if "noise" in kinds:
        sources.noises = list_musan(musan, "noise", sources) or generated_sounds(GENERATED_NOISES)
        sources.said["noise"] = f"{len(sources.noises)} noises of {musan}" if musan else generated
    if "music" in kinds:
        sources.music = list_musan(musan, "music", sources) or generated_sounds(["music"])
        sources.said["music"] = f"{len(sources.music)} pieces of {musan}" if musan else generated
    if "babble" in kinds and musan:
        sources.speech = {sound.name: [sound] for sound in list_musan(musan, "speech", sources)}
        sources.said["babble"] = f"{len(sources.speech)} recordings of {musan}"
    elif "babble" in kinds:
        sources.speech = list_speech(source, sources)
        sources.said["babble"] = said_of_babble(len(sources.speech), source.folder)
    sources.talkers = sorted(sources.speech)
    return sources


def generated_sounds(kinds: Iterable[str]) -> list[Sound]:
    return [Sound(f"{kind}#{seed}", NOISE_SECONDS) for kind in kinds for seed in range(GENERATED_SEEDS)]


def generated_room(seed: int) -> str:
    return f"room#{seed}:rt60={number(random.Random(f'room {seed}').uniform(0.1, 0.8))}"


def audio_files(folder: Path, expected: str) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".wav", ".flac") and path.is_file())
    if not files:
        raise ValueError(f"{folder}: there is no .wav or .flac file in this folder; {expected}")
    return files


def list_files(files: Iterable[Path], root: Path, name: str, sources: SoundSources) -> dict[str, Path]:
    """id -> file, entered into aug.scp. The id: name, folders unless the file's own name repeats them, that name."""
    listed: dict[str, Path] = {}
    for path in files:
        short = path.stem
        for part in reversed(path.relative_to(root).parts[:-1]):
            short = short if part in short else f"{part}-{short}"
        key = re.sub(r"\s+", "_", f"{name}-{short}")
        if key in listed:  # then all folders and the suffix make it unique
            key = re.sub(r"\s+", "_", "-".join([name, *path.relative_to(root).parts]))
        if key in listed or sources.files.get(key, str(path.absolute())) != str(path.absolute()):
            raise ValueError(
                f"{path}: its id {key} is taken by {listed.get(key) or sources.files[key]}; rename the file"
            )
        listed[key] = path
    sources.files.update({key: str(path.absolute()) for key, path in listed.items()})
    return listed


def list_musan(folder: str, part: str, sources: SoundSources) -> list[Sound]:
    """The files of musan/<part>; none without a folder."""
    if not folder:
        return []
    expected = f"--musan is a folder with noise/, music/ and speech/, and {folder}/{part}/ is needed"
    sounds = []
    for key, path in list_files(audio_files(Path(folder, part), expected), Path(folder), "musan", sources).items():
        try:
            sounds.append(Sound(key, float(soundfile.info(str(path)).duration)))
        except RuntimeError as error:
            raise ValueError(f"{path}: can't be read ({error}); unpack --musan again") from error
    return sounds


def list_rirs(folder: Path, room: str, sources: SoundSources) -> list[str]:
    where = folder / RIR_FOLDERS[room]
    files = audio_files(where, f"--rirs is the unpacked RIRS_NOISES, and {where}/ is needed")
    # The folder of the real rooms also has recordings of noise.
    files = [path for path in files if room != "real" or "noise" not in path.stem.lower()]
    return list(list_files(files, where.parent, "rirs", sources))


def list_speech(source: SourceDir, sources: SoundSources) -> dict[str, list[Sound]]:
    """The recorded utterances of the source, by talker. If there are originals, copies are left out."""
    originals = [utt for utt in source.utterances if utt not in source.utt2aug] or source.utterances
    segments = {} if source.segments is None else read_segments(source.folder / "segments")
    speech: dict[str, list[Sound]] = {}
    for utt in originals:
        if utt not in source.seconds:
            continue
        recording = source.recording(utt)
        seconds = source.seconds[utt] * speed_of(source.utt2aug.get(utt, ""))
        # After the end of a segment, the talker of the copy may speak.
        start, end = (segments[utt].start, segments[utt].start + seconds) if segments else (0.0, None)
        speech.setdefault(source.talker(utt), []).append(Sound(recording, seconds, start, end))
        if sources.files.setdefault(recording, source.wav_scp[recording]) != source.wav_scp[recording]:
            raise ValueError(f"{source.folder}/aug.scp: {recording} is a recording of wav.scp too; rename one of them")
    check_talkers(len(speech), source.folder)
    return speech


def check_talkers(count: int, folder: Path) -> None:
    if count < 2:
        raise ValueError(f"{folder}: babble needs two speakers or more; give --musan, or --kinds without babble")


def said_of_babble(count: int, folder: Path) -> str:
    return f"{count} speakers of {folder}, for there is no --musan"
