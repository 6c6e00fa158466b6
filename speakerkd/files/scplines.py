"""The lines of an scp in flat arrays."""

import re
from array import array
from pathlib import Path

import numpy as np

from speakerkd.files.blocks import UnusualTableError, numbers, plain_blocks
from speakerkd.files.names import Names
from speakerkd.files.stored import Sink
from speakerkd.files.tables import FIX, read_lines

# text and ends: the keys; source and offset: of each line, the number of its file or pipe, and the byte in it or -1;
# source_text and source_ends: the files and pipes.
ARRAYS = ("text", "ends", "source", "offset", "source_text", "source_ends")


PLACE = re.compile(r"(.*?)(?::([0-9]{1,18}))?(\[[0-9:,]*\])?")


def key_and_rest(line: str) -> tuple[str, str]:
    """An id and what follows it after white space. '' as the id: the line starts with white space."""
    key, *rest = line.split(None, 1) if line[:1].strip() else ("", line)
    return key, rest[0].strip() if rest else ""


def file_of(source: str) -> tuple[str, str]:
    """(file, where in it) of `x.ark:5[0:9]`, or ('', the text) of a command."""
    found = PLACE.fullmatch(source)
    if source.endswith("|") or not found:
        return "", source
    return found[1], source[len(found[1]) :]


def read_scp(path: str | Path, sink: Sink) -> None:
    """Lines are `key file`, `key file:offset` or `key command |`. What is wrong is said with the line's number."""
    try:
        sources = _by_blocks(path, sink)
    except UnusualTableError:
        sink.clear()
        sources = _by_lines(path, sink)
    names = Names.of(sources)
    sink.add("source_text", names.text)
    sink.add("source_ends", names.ends)


def _by_blocks(path: str | Path, sink: Sink) -> dict[str, int]:
    sources: dict[str, int] = {}
    last, total = b"", 0
    sink.add("ends", np.zeros(1, np.int64))
    for block in plain_blocks(path):
        keys = block.keys()
        if not (keys.strings[0] > last and (keys.strings[1:] > keys.strings[:-1]).all()):
            raise UnusualTableError
        colon = block.last(":")
        offset, known = numbers(block.text, colon + 1, block.end)
        known &= colon >= 0
        names, number = block.fields(block.space + 1, np.where(known, colon, block.end)).distinct()
        ends = total + np.cumsum(keys.sizes)
        sink.add("text", keys.joined())
        sink.add("ends", ends)
        sink.add("source", np.array([sources.setdefault(name, len(sources)) for name in names], np.int32)[number])
        sink.add("offset", np.where(known, offset, -1))
        last, total = keys.strings[-1], int(ends[-1])
    if not total:
        raise UnusualTableError
    return sources


def _by_lines(path: str | Path, sink: Sink) -> dict[str, int]:
    names, ends, source_of, offsets = bytearray(), array("q", [0]), array("i"), array("q")
    sources: dict[str, int] = {}
    last = ""
    for number, line in read_lines(path):
        key, rest = key_and_rest(line)
        if not key or not rest:
            raise ValueError(f"{path}:{number}: not 'key archive:offset': '{line}'")
        if key <= last:
            raise ValueError(f"{path}:{number}: '{key}' stands after '{last}': not sorted or not unique; {FIX}")
        source, colon, offset = rest.rpartition(":")
        if not colon or not re.fullmatch("[0-9]{1,18}", offset):
            source, offset = rest, "-1"
        names += key.encode()
        ends.append(len(names))
        source_of.append(sources.setdefault(source, len(sources)))
        offsets.append(int(offset))
        last = key
    if not offsets:
        raise ValueError(f"{path}: is empty")
    sink.add("text", np.frombuffer(bytes(names), np.uint8))
    sink.add("ends", np.frombuffer(ends, np.int64))
    sink.add("source", np.frombuffer(source_of, np.int32))
    sink.add("offset", np.frombuffer(offsets, np.int64))
    return sources
