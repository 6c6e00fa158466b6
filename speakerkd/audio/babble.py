"""The utterances of a training directory as sources of babble, in flat arrays. Those of a large directory are mapped."""

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np

from speakerkd.audio.sounds import Sound, SoundSources, check_talkers, said_of_babble
from speakerkd.files.columns import Column, read_column, read_counts, read_seconds
from speakerkd.files.kaldi import Scp
from speakerkd.files.names import Names
from speakerkd.files.numbering import Numbering, by_number, taken
from speakerkd.files.stored import Sink, stored
from speakerkd.files.tables import without_speed

PART = 1 << 16  # names


class Recordings(Mapping[str, str]):
    """Id -> its file, its place in an archive, or its pipe."""

    def __init__(self, scp: Scp) -> None:
        self._scp = scp

    def __getitem__(self, key: str) -> str:
        index = self._scp.find(key)
        if index < 0:
            raise KeyError(key)
        source, offset = self._scp.place(index)
        return source if offset < 0 else f"{source}:{offset}"

    def __iter__(self) -> Iterator[str]:
        return iter(self._scp)

    def __len__(self) -> int:
        return len(self._scp)


def add_babble(folder: Path, rate: int, sources: SoundSources) -> None:
    """The talkers of the training directory: its wave archive, or otherwise its recordings."""
    babble = Babble(folder, rate)
    check_talkers(len(babble), folder)
    for name, path in sources.files.items():
        if babble.recordings.get(name, path) != path:
            raise ValueError(f"{path}: its id {name} is taken by an utterance of {folder}; rename the file")
    sources.files = ChainMap(dict(sources.files), babble.recordings)  # type: ignore[arg-type]  # only the first is written to
    sources.speech, sources.talkers = babble, babble.talkers
    sources.said["babble"] = said_of_babble(len(babble), folder)


class Babble(Mapping[str, Sequence[Sound]]):
    """Talker -> the utterances. Talkers are persons: the names of the speakers without a change of speed, sorted."""

    def __init__(self, folder: Path, rate: int) -> None:
        archived = (folder / "waves.scp").exists()
        self._scp = Scp(folder / ("waves.scp" if archived else "wav.scp"), keep=True)
        self.recordings = Recordings(self._scp)
        self._lengths, self._per_second = _lengths(folder, self._scp, rate)
        table = folder / "utt2spk"
        speakers = read_column(table, self._scp) if table.exists() else None
        sources: list[str | Path] = [self._scp.path, *([table] if speakers else [])]
        arrays = stored(
            folder,
            f"talkers.of.{Path(self._scp.path).name}",
            sources,
            ("text", "ends", "entries", "first"),
            lambda sink: _by_talker(self._scp.names, speakers, sink),
        )
        self.talkers = Names(arrays["text"], arrays["ends"])
        self._entries, self._first = arrays["entries"], arrays["first"]

    def __getitem__(self, talker: str) -> Sequence[Sound]:
        place = self.talkers.find(talker)
        if place < 0:
            raise KeyError(talker)
        return _Sounds(self, self._entries[self._first[place] : self._first[place + 1]])

    def __iter__(self) -> Iterator[str]:
        return iter(self.talkers)

    def __len__(self) -> int:
        return len(self.talkers)

    def sound(self, entry: int) -> Sound:
        return Sound(self._scp.key(entry), self._lengths.item(entry) / self._per_second)


class _Sounds(Sequence[Sound]):
    """The utterances of a talker."""

    def __init__(self, babble: Babble, entries: np.ndarray) -> None:
        self._babble, self._entries = babble, entries

    @overload
    def __getitem__(self, index: int) -> Sound: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sound]: ...
    def __getitem__(self, index: int | slice) -> Sound | Sequence[Sound]:
        if isinstance(index, slice):
            return _Sounds(self._babble, self._entries[index])
        return self._babble.sound(self._entries.item(index))

    def __len__(self) -> int:
        return len(self._entries)


def _lengths(folder: Path, scp: Scp, rate: int) -> tuple[np.ndarray, int]:
    """(lengths of the entries, how many of them make a second)."""
    if (folder / "utt2num_samples").exists():
        return read_counts(folder / "utt2num_samples", scp, np.int64), rate
    if (folder / "utt2dur").exists():
        return read_seconds(folder / "utt2dur", scp), 1
    raise ValueError(f"{folder} has neither utt2num_samples nor utt2dur, which babble needs; local/make_wave_ark.sh")


def _by_talker(utterances: Names, speakers: Column | None, sink: Sink) -> None:
    numbering = Numbering()
    names = iter(utterances if speakers is None else speakers.names)
    while part := [without_speed(name).encode() for name in islice(names, PART)]:
        numbering.add(np.array(part))
    talker_of = np.concatenate(numbering.finish(sink))
    entries, first = by_number(talker_of if speakers is None else taken(talker_of, speakers.number))
    sink.add("entries", entries)
    sink.add("first", first)
