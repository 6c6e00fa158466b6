"""How many bytes of samples a sound file should have according to its own header.

If a file is truncated, libsndfile reads what is there and does not complain. This module knows the containers below. FLAC,
Ogg and MP3 have no such length; libsndfile counts their samples.
"""

import io
import re
import struct
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

STREAMED = 0x7FFFF000  # programs that write into a pipe don't know the length; they write values from here on
W64_RIFF, W64_WAVE, W64_DATA = (
    bytes.fromhex(text)
    for text in (
        "726966662e91cf11a5d628db04c10000",
        "77617665f3acd3118cd100c04f8edb8a",
        "64617461f3acd3118cd100c04f8edb8a",
    )
)


class Samples(NamedTuple):
    """Where the samples start, and how many bytes of them there should be; -1: the header does not say."""

    start: int
    length: int


def declared(file: IO[bytes]) -> Samples | None:
    """What the header at the start of the file says. None: the format is not known, or the header is damaged."""
    head = file.read(40)
    for recognises, samples in FORMATS:
        if recognises(head):
            try:
                return samples(file, head)
            except (struct.error, ValueError, OSError, OverflowError):
                return None
    return None


def _chunks(file: IO[bytes], first: int, header: str, counts: int, even: int) -> Iterator[tuple[bytes, int]]:
    """(name, length) of each chunk, with the file at its content. counts: bytes of the header in the length."""
    while True:
        file.seek(first)
        raw = file.read(struct.calcsize(header))
        if len(raw) < struct.calcsize(header):
            return
        name, length = struct.unpack(header, raw)
        length -= counts
        yield name, length
        if length < 0:
            return
        first += len(raw) + length + -length % even


def begins_chunk(file: IO[bytes], place: int) -> bool:
    """Is a further chunk here, as long as the rest of the file? Then a data chunk of length 0 before it is empty."""
    size = file.seek(0, 2)
    for name, length in _chunks(file, place, "<4sI", 0, 2):
        if not (name.isascii() and name.decode("ascii").isprintable()):
            return False
        place = file.tell() + length
        if place + place % 2 >= size:
            return place <= size
    return False


def _riff(file: IO[bytes], head: bytes) -> Samples | None:
    long = -1  # RF64 has the true length in a chunk of its own
    for name, length in _chunks(file, 12, ">4sI" if head[:4] == b"RIFX" else "<4sI", 0, 2):
        if name == b"ds64":
            _, long = struct.unpack("<QQ", file.read(16))
        if name == b"data":
            first = file.tell()
            unknown = length >= STREAMED or (length == 0 and not begins_chunk(file, first))
            return Samples(first, (long if 0 < long < 1 << 62 else -1) if unknown else length)
    return None


def _wave64(file: IO[bytes], head: bytes) -> Samples | None:
    for name, length in _chunks(file, 40, "<16sq", 24, 8):
        if name == W64_DATA:
            return Samples(file.tell(), length)
    return None


def _aiff(file: IO[bytes], head: bytes) -> Samples | None:
    for name, length in _chunks(file, 12, ">4sI", 0, 2):
        if name == b"SSND":
            return Samples(file.tell() + 8, length - 8)
    return None


def _core_audio(file: IO[bytes], head: bytes) -> Samples | None:
    for name, length in _chunks(file, 8, ">4sq", 0, 1):
        if name == b"data":
            return Samples(file.tell() + 4, length - 4 if length >= 0 else -1)
    return None


def _sun(file: IO[bytes], head: bytes) -> Samples:
    start, length = struct.unpack_from(">II" if head[:4] == b".snd" else "<II", head, 4)
    return Samples(start, -1 if length >= STREAMED else length)


def _nist(file: IO[bytes], head: bytes) -> Samples | None:
    start = int(head[8:16])
    file.seek(0)
    text = file.read(start).decode("latin-1")
    fields = dict(re.findall(r"^(\w+) -\w+ (\S+)", text, re.MULTILINE))
    if "embedded" in fields.get("sample_coding", ""):  # compressed
        return None
    sizes = [int(fields[name]) for name in ("sample_count", "channel_count", "sample_n_bytes") if name in fields]
    return Samples(start, sizes[0] * sizes[1] * sizes[2]) if len(sizes) == 3 else None


FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[IO[bytes], bytes], Samples | None]], ...] = (
    (lambda head: head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE", _riff),
    (lambda head: head[:16] == W64_RIFF and head[24:40] == W64_WAVE, _wave64),
    (lambda head: head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"), _aiff),
    (lambda head: head[:4] == b"caff", _core_audio),
    (lambda head: head[:4] in (b".snd", b"dns."), _sun),
    (lambda head: head[:7] == b"NIST_1A", _nist),
)


def with_length(data: bytes, start: int) -> IO[bytes]:
    """A WAV whose writer could not seek back, with its true length. Its samples begin at `start`."""
    length = struct.pack("<I", len(data) - start)
    return io.BytesIO(data[:4] + struct.pack("<I", len(data) - 8) + data[8 : start - 4] + length + data[start:])
