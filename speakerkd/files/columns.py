"""Reads the second column of a data directory's tables into flat arrays. The first column must equal the ids of the scp."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.files.blocks import Block, UnusualTableError, numbers, plain_blocks
from speakerkd.files.kaldi import Scp
from speakerkd.files.names import Names
from speakerkd.files.numbering import Numbering
from speakerkd.files.scplines import key_and_rest
from speakerkd.files.stored import Sink, stored
from speakerkd.files.tables import FIX, read_lines


@dataclass(frozen=True)
class Column:
    """Entry i has names[number[i]]; the names are sorted, each is there once."""

    names: Names
    number: np.ndarray  # (entries,) int32
    own: np.ndarray  # (entries,) bool: the value is the entry's own name

    def __iter__(self) -> Iterator[str]:
        names = list(self.names)
        return (names[number] for number in self.number.tolist())


def read_column(path: Path, scp: Scp) -> Column:
    """Such as the speakers of utt2spk. Those of a large table are kept beside it."""
    arrays = _stored(path, scp, ("text", "ends", "number", "own"), lambda sink: _read(path, scp, sink))
    return Column(Names(arrays["text"], arrays["ends"]), arrays["number"], arrays["own"])


def read_counts(path: Path, scp: Scp, kind: type[np.integer]) -> np.ndarray:
    """(entries,): the numbers of a table such as utt2num_frames, which are 1 or more."""

    def make(sink: Sink) -> None:
        try:
            for block in _matching(path, scp):
                value, fine = numbers(block.text, block.space + 1, block.end)
                if not fine.all() or value.min() < 1 or value.max() > np.iinfo(kind).max:
                    raise UnusualTableError
                sink.add("value", value.astype(kind))
        except UnusualTableError:
            sink.clear()
            sink.add("value", _counts_by_lines(path, scp, kind))

    return _stored(path, scp, ("value",), make)["value"]


def read_seconds(path: Path, scp: Scp) -> np.ndarray:
    """(entries,) float64: the lengths of utt2dur."""

    def make(sink: Sink) -> None:
        lines = enumerate(_by_lines(path, scp), 1)
        sink.add("value", np.fromiter((_seconds(text, f"{path}:{number}") for number, text in lines), np.float64))

    return _stored(path, scp, ("value",), make)["value"]


def _stored(path: Path, scp: Scp, arrays: Sequence[str], make: Callable[[Sink], None]) -> dict[str, np.ndarray]:
    return stored(path.parent, f"{path.name}.of.{Path(scp.path).name}", [scp.path, path], arrays, make)


def _matching(path: Path, scp: Scp) -> Iterator[Block]:
    """Blocks of a table. UnusualTableError is raised if the ids are not those of the scp."""
    entries, ends = 0, scp.names.ends
    for block in plain_blocks(path):
        keys, last = block.keys(), entries + len(block)
        if last > len(scp) or not np.array_equal(keys.sizes, np.diff(ends[entries : last + 1])):
            raise UnusualTableError
        if not np.array_equal(keys.joined(), scp.names.text[ends[entries] : ends[last]]):
            raise UnusualTableError
        yield block
        entries = last
    if entries < len(scp):
        raise UnusualTableError


def _read(path: Path, scp: Scp, sink: Sink) -> None:
    try:
        _by_blocks(path, scp, sink)
    except UnusualTableError:
        sink.clear()
        values = list(_by_lines(path, scp))
        distinct = sorted(set(values))
        place = {name: index for index, name in enumerate(distinct)}
        names = Names.of(distinct)
        sink.add("text", names.text)
        sink.add("ends", names.ends)
        sink.add("number", np.fromiter((place[name] for name in values), np.int32, len(values)))
        own = (name == key for name, key in zip(values, scp, strict=True))
        sink.add("own", np.fromiter(own, bool, len(values)))


def _by_blocks(path: Path, scp: Scp, sink: Sink) -> None:
    numbering = Numbering()
    for block in _matching(path, scp):
        values = block.values()
        sink.add("own", values.strings == block.keys().strings)
        numbering.add(values.strings)
    for number in numbering.finish(sink):
        sink.add("number", number)


def _counts_by_lines(path: Path, scp: Scp, kind: type[np.integer]) -> np.ndarray:
    texts = list(_by_lines(path, scp))
    most = int(np.iinfo(kind).max)
    wrong = [i for i, text in enumerate(texts) if not re.fullmatch("[0-9]{1,18}", text) or not 0 < int(text) <= most]
    if wrong:
        raise ValueError(f"{path}:{wrong[0] + 1}: '{texts[wrong[0]]}' is not a number from 1 to {most}; make it again")
    return np.fromiter(map(int, texts), kind, len(texts))


def _seconds(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: '{text}' is not a number of seconds; make it again")
    return value


def _by_lines(path: Path, scp: Scp) -> Iterator[str]:
    count = 0
    for number, line in read_lines(path):
        key, value = key_and_rest(line)
        if count >= len(scp) or key != scp.key(count):
            expected = scp.key(count) if count < len(scp) else "the end"
            raise ValueError(f"{path}:{number}: '{key}' where {Path(scp.path).name} has '{expected}'; {FIX}")
        yield value
        count += 1
    if count != len(scp):
        raise ValueError(f"{path}: {count} lines, {Path(scp.path).name} has {len(scp)}; {FIX}")
