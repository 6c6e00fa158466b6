"""A data directory as augmentation reads it: all its tables, and the speaker and the length of each utterance."""

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

import soundfile

from speakerkd.audio.augment import Speed, parse
from speakerkd.audio.recordings import AudioError, read_audio
from speakerkd.conf import first_few
from speakerkd.files.tables import read_segments, read_table, without_speed


@dataclass
class SourceDir:
    """The data directory from which copies or babble are made."""

    folder: Path
    wav_scp: dict[str, str]
    segments: dict[str, str] | None
    utt2spk: dict[str, str] | None
    utt2aug: dict[str, str]
    utt2uniq: dict[str, str]
    utt2dur: dict[str, float] | None
    spk2gender: dict[str, str] | None
    aug_scp: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def utterances(self) -> list[str]:
        return list(self.wav_scp if self.segments is None else self.segments)

    def recording(self, utterance: str) -> str:
        return utterance if self.segments is None else self.segments[utterance].split()[0]

    def talker(self, utterance: str) -> str:
        """The person who speaks: the speaker before any change of speed. Without utt2spk it is the recording."""
        if self.utt2spk is not None:
            name = self.utt2spk[utterance]
        elif self.segments is not None:
            name = self.recording(utterance)
        else:
            name = self.utt2uniq.get(utterance, utterance)
        return without_speed(name)


def read_source_dir(folder: Path) -> SourceDir:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such data directory; prepare the data first")

    def table(name: str, num_fields: int | None = 2) -> dict[str, str] | None:
        if not (folder / name).exists():
            return None
        # one string for an id of several tables: a million utterances would take gigabytes
        return {sys.intern(key): value for key, value in read_table(folder / name, num_fields).items()}

    lengths = table("utt2dur")
    speakers = table("utt2spk")
    source = SourceDir(
        folder,
        table("wav.scp", None) or read_table(folder / "wav.scp"),
        table("segments", 4),
        None if speakers is None else {utt: sys.intern(speaker) for utt, speaker in speakers.items()},
        table("utt2aug", None) or {},
        table("utt2uniq") or {},
        None if lengths is None else {utt: to_seconds(text, folder / "utt2dur") for utt, text in lengths.items()},
        table("spk2gender"),
        table("aug.scp", None) or {},
    )
    if not source.utterances:
        raise ValueError(f"{folder}: there is no utterance in this data directory")
    for name, entries in (("utt2spk", source.utt2spk), ("utt2dur", source.utt2dur)):
        absent = [] if entries is None else [utt for utt in source.utterances if utt not in entries]
        if absent:
            raise ValueError(f"{folder}/{name}: no line for {first_few(absent)}; utils/fix_data_dir.sh {folder}")
    absent = [utt for utt in source.utterances if source.recording(utt) not in source.wav_scp]
    if absent:
        raise ValueError(f"{folder}/wav.scp: no recording for {first_few(absent)}; utils/fix_data_dir.sh {folder}")
    for utt, text in source.utt2aug.items():
        try:
            parse(text)
        except ValueError as error:
            raise ValueError(f"{folder}/utt2aug: {utt}: {error}") from error
    return source


def durations(source: SourceDir) -> dict[str, float]:
    """The seconds of each utterance after the changes of its own utt2aug."""
    if source.utt2dur is not None:
        return {utt: length for utt, length in source.utt2dur.items() if length > 0}
    segments = {} if source.segments is None else read_segments(source.folder / "segments")
    seconds: dict[str, float] = {}
    lengths: dict[str, float] = {}
    for utt in source.utterances:
        segment = segments.get(utt)
        if segment is not None and segment.end >= 0:
            seconds[utt] = segment.end - segment.start
        else:
            recording = source.recording(utt)
            if recording not in lengths:
                lengths[recording] = recording_seconds(source.wav_scp[recording])
            seconds[utt] = lengths[recording] - (segment.start if segment else 0.0)
        seconds[utt] /= speed_of(source.utt2aug.get(utt, ""))
    return {utt: length for utt, length in seconds.items() if length > 0}


def to_seconds(text: str, where: Path) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{where}: '{text}' is not a number of seconds") from error


def recording_seconds(recording: str) -> float:
    """The seconds of a recording, from the header of a file; pipes and archives are decoded. 0: it can't be read."""
    try:
        if Path(recording).is_file():
            return float(soundfile.info(recording).duration)
        samples, rate = read_audio(recording)
    except (AudioError, OSError, RuntimeError):
        return 0.0
    return len(samples) / rate


def speed_of(text: str) -> float:
    return math.prod(each.factor for each in (parse(text) if text else []) if isinstance(each, Speed))
