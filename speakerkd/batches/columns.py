"""Reads the second column of a data directory's tables into flat arrays. The first column must equal the ids of the scp."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.files.blocks import Block, Fields, UnusualTableError, numbers, plain_blocks
from speakerkd.files.kaldi import Scp
from speakerkd.files.names import Names
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
        names, number, own = _by_blocks(path, scp)
    except UnusualTableError:
        values = _by_lines(path, scp)
        distinct = sorted(set(values))
        place = {name: index for index, name in enumerate(distinct)}
        number = np.fromiter((place[name] for name in values), np.int32, len(values))
        own = np.fromiter((name == key for name, key in zip(values, scp, strict=True)), bool, len(values))
        names = Names.of(distinct)
    for name, part in (("text", names.text), ("ends", names.ends), ("number", number), ("own", own)):
        sink.add(name, part)


def _by_blocks(path: Path, scp: Scp) -> tuple[Names, np.ndarray, np.ndarray]:
    """The values come in runs of equal ones: it is the runs' names that are sorted, if they are not."""
    runs: list[np.ndarray] = []  # for each line, the number of its run
    own: list[np.ndarray] = []
    texts: list[np.ndarray] = []  # the runs' names, one behind the other
    sizes: list[np.ndarray] = []
    count, last, ascending = 0, b"", True
    for block in _matching(path, scp):
        values = block.values()
        own.append(values.strings == block.keys().strings)
        begins = np.empty(len(block), bool)
        begins[0], begins[1:] = values.strings[0] != last, values.strings[1:] != values.strings[:-1]
        heads = values.strings[begins]
        if len(heads):
            ascending &= bool(heads[0] > last and (heads[1:] > heads[:-1]).all())
        runs.append((count - 1 + np.cumsum(begins)).astype(np.int32))
        texts.append(values.rows[begins][values.inside[begins]])
        sizes.append(values.sizes[begins])
        count, last = count + len(heads), values.strings[-1]
    if not count:
        raise UnusualTableError
    names = Names(np.concatenate(texts), np.concatenate([[0], np.cumsum(np.concatenate(sizes))]))
    number = np.concatenate(runs)
    del runs, texts, sizes
    return (names, number, np.concatenate(own)) if ascending else (*_sorted(names, number), np.concatenate(own))


def _sorted(names: Names, number: np.ndarray) -> tuple[Names, np.ndarray]:
    """The same with sorted names, each once."""
    each = Fields(names.text, names.ends[:-1], np.diff(names.ends), most=None)
    order = np.argsort(each.strings, kind="stable")  # timsort, which joins runs that are sorted already
    new = np.empty(len(order), bool)
    new[0] = True
    for first in range(1, len(order), 1 << 20):  # in parts, so that there is no second copy of all names
        part = each.strings[order[first - 1 : first + (1 << 20)]]
        new[first : first + (1 << 20)] = part[1:] != part[:-1]
    rank = np.empty(len(order), np.int32)
    rank[order] = np.cumsum(new) - 1
    kept = order[new]
    sizes = each.sizes[kept]
    texts = [each.rows[part][each.inside[part]] for part in np.array_split(kept, max(1, len(kept) >> 20))]
    return Names(np.concatenate(texts), np.concatenate([[0], np.cumsum(sizes)])), rank[number]


def _counts_by_lines(path: Path, scp: Scp, kind: type[np.integer]) -> np.ndarray:
    texts = _by_lines(path, scp)
    most = int(np.iinfo(kind).max)
    wrong = [i for i, text in enumerate(texts) if not re.fullmatch("[0-9]{1,18}", text) or not 0 < int(text) <= most]
    if wrong:
        raise ValueError(f"{path}:{wrong[0] + 1}: '{texts[wrong[0]]}' is not a number from 1 to {most}; make it again")
    return np.fromiter(map(int, texts), kind, len(texts))


def _by_lines(path: Path, scp: Scp) -> list[str]:
    values = []
    for index, (number, line) in enumerate(read_lines(path)):
        key, _, value = line.partition(" ")
        if index >= len(scp) or key != scp.key(index):
            expected = scp.key(index) if index < len(scp) else "the end"
            raise ValueError(f"{path}:{number}: '{key}' where {Path(scp.path).name} has '{expected}'; {FIX}")
        values.append(value.strip())
    if len(values) != len(scp):
        raise ValueError(f"{path}: {len(values)} lines, {Path(scp.path).name} has {len(scp)}; {FIX}")
    return values
