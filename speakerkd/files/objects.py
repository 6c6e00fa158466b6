"""Kaldi's vectors and matrices as bytes: packs one, or reads it or some of its rows. Only this module imports kaldiio.

In an archive an object follows its `key `. A binary object starts with \\0B and a token (kaldi/src/matrix):
  FV DV   \\4 <i4 dim>                                    then the values, f4 or f8
  FM DM   \\4 <i4 rows> \\4 <i4 columns>                   then the values, row by row
  CM2 CM3 <f4 min> <f4 range> <i4 rows> <i4 columns>      then u2 or u1, row by row: min + range * u / 65535 or 255
  CM      the same header                                 then four percentiles and one byte per value, column by column
A text object is ` [ 1 2 3 ]` (vector) or ` [` newline `1 2` newline `3 4 ]` (matrix).

Nothing else is read. kaldiio would also unpickle an object that starts with PKL; this can run code from a file.
"""

import io
import math
import struct
from collections.abc import Callable
from typing import NamedTuple

import kaldiio.matio
import numpy as np

AGAIN = "make it again"
SINGLE = np.dtype(np.float32)
_COMPRESSED = struct.Struct("<ffii")
_HEADER = 22  # bytes of the longest header
_BLOCK = 1 << 16

ReadAt = Callable[[int, int], bytes]  # (count, place) -> up to `count` bytes from `place` on, as os.pread gives them


class Kind(NamedTuple):
    """A kind of object whose values are stored row by row."""

    first: int  # bytes from the object's start to the first value
    sizes: struct.Struct  # of the header behind the first 6 bytes
    value: np.dtype
    top: float = 0.0  # the integer that means 1; 0: plain numbers


# By the first 6 bytes. In Kaldi each size of a plain object follows a byte 4.
KINDS = {
    b"\0BFV \4": Kind(10, struct.Struct("<i"), np.dtype("<f4")),
    b"\0BDV \4": Kind(10, struct.Struct("<i"), np.dtype("<f8")),
    b"\0BFM \4": Kind(15, struct.Struct("<ixi"), np.dtype("<f4")),
    b"\0BDM \4": Kind(15, struct.Struct("<ixi"), np.dtype("<f8")),
    b"\0BCM2 ": Kind(_HEADER, _COMPRESSED, np.dtype("<u2"), 1.52590218966964e-05),
    b"\0BCM3 ": Kind(_HEADER, _COMPRESSED, np.dtype("u1"), 1 / 255),
}


def pack(value: np.ndarray, compress: bool, where: str) -> bytes:
    """One object in Kaldi's format: FV, FM, or CM2 if compress is set for a matrix."""
    if value.dtype != np.float32:
        raise ValueError(f"{where}: only float32 can be written, not {value.dtype}")
    if value.ndim not in (1, 2) or value.size == 0:
        raise ValueError(f"{where}: only a vector or matrix that is not empty can be written, not shape {value.shape}")
    if not np.isfinite(value).all():
        raise ValueError(f"{where}: holds NaN or infinite values")
    if value.ndim == 1:
        return b"\0BFV \4" + struct.pack("<i", len(value)) + value.astype("<f4").tobytes()
    rows, columns = value.shape
    if not compress:
        return b"\0BFM " + struct.pack("<bibi", 4, rows, 4, columns) + value.astype("<f4").tobytes()
    # Kaldi's arithmetic: float32, except for the rounding, which adds 0.499 in float64.
    low, high = value.min(), value.max()
    if high == low:
        high = np.float32(low + (np.float32(1) + abs(low)))
    span = np.float32(high - low)
    if not np.isfinite(span):
        raise ValueError(f"{where}: the values span too wide a range ({low} to {high}) to be compressed")
    levels = np.clip((value - low) / span, 0, 1) * np.float32(65535)
    levels = (levels.astype(np.float64) + 0.499).astype("<u2")
    return b"\0BCM2 " + _COMPRESSED.pack(low, span, rows, columns) + levels.tobytes()


def read_object(
    read_at: ReadAt, size: int, place: int, start: int = 0, stop: int | None = None, rows: int | None = None
) -> np.ndarray:
    """Rows start to stop of the matrix at this place of a file of `size` bytes, or elements of a vector, as float32.

    rows: the total number that there must be. An error says what is wrong, without the file's name.
    """
    # A whole object is often a short vector, which fits into the first read.
    head = read_at(_HEADER if start or stop is not None else 4096, place)
    kind = KINDS.get(head[:6])
    if kind is None:
        value = _whole(read_at, size, place, head)
        check_rows(len(value), rows)
        return value[start:stop]
    first, sizes, dtype, top = kind
    if len(head) < first:
        raise ValueError(f"the header is past the end of the file, which has {size} bytes: truncated? {AGAIN}")
    numbers = sizes.unpack_from(head, 6)
    height, columns = numbers[-2:] if len(numbers) > 1 else (numbers[0], 1)
    if height <= 0 or columns <= 0:
        raise ValueError(f"the header says {height} rows of {columns}: empty or damaged; {AGAIN}")
    if rows is not None and height != rows:
        check_rows(height, rows)
    width = columns * dtype.itemsize
    if place + first + width * height > size:
        raise ValueError(f"{height} rows of {columns} don't fit into the {size} bytes of the file: truncated? {AGAIN}")
    last = height if stop is None or stop > height else stop
    place, count = place + first + width * start, max(last - start, 0) * width
    data = head[first : first + count] if start == 0 and first + count <= len(head) else read_at(count, place)
    if len(data) < count:
        raise ValueError(f"only {len(data)} of {count} bytes could be read: truncated? {AGAIN}")
    values: np.ndarray = np.ndarray((count // width, columns), dtype, data).astype(SINGLE)
    if top:
        low, span = numbers[:2]
        if not math.isfinite(low + span):
            raise ValueError(f"the header has a range that is not finite: damaged; {AGAIN}")
        np.multiply(values, span * top, values)  # faster than *= for the few values of a crop
        np.add(values, low, values)
    return values if len(numbers) > 1 else values[:, 0]


def check_rows(found: int, expected: int | None) -> None:
    if expected is not None and found != expected:
        raise ValueError(f"has {found} rows, but utt2num_frames says {expected}; {AGAIN}")


def _whole(read_at: ReadAt, size: int, place: int, head: bytes) -> np.ndarray:
    """A CM matrix, a vector of int32, or a text object."""
    if not head:
        raise ValueError(f"is past the end of the file, which has {size} bytes: truncated? {AGAIN}")
    if head[:2] != b"\0B":
        if head.lstrip()[:1] != b"[":
            raise ValueError("there is no Kaldi object, neither binary (\\0B) nor text ([ ... ])")
        return text_array(_up_to_bracket(read_at, place)).astype(np.float32)
    if head[2:5] == b"CM ":
        _, _, rows, columns = _COMPRESSED.unpack(read_at(_COMPRESSED.size, place + 5).ljust(_COMPRESSED.size, b"\0"))
        length = 5 + _COMPRESSED.size + 8 * columns + rows * columns
    elif head[2:3] == b"\4":
        (rows,), columns = struct.unpack("<i", head[3:7].ljust(4, b"\0")), 1
        length = 7 + 5 * rows
    else:
        raise ValueError(f"the kind of the object is not known: {head[2:8]!r}")
    if rows <= 0 or columns <= 0:
        raise ValueError(f"the header says {rows} rows of {columns}: empty or damaged; {AGAIN}")
    if place + length > size:
        raise ValueError(f"{rows} rows of {columns} don't fit into the {size} bytes of the file: truncated? {AGAIN}")
    try:
        value = kaldiio.matio.read_kaldi(io.BytesIO(read_at(length, place)))
    except (ValueError, AssertionError, struct.error) as error:
        raise ValueError(f"can't be decoded ({str(error) or type(error).__name__}): damaged; {AGAIN}") from error
    return value.astype(np.float32, copy=False)


def _up_to_bracket(read_at: ReadAt, place: int) -> str:
    """The text between the brackets of a text object."""
    parts: list[bytes] = []
    while data := read_at(_BLOCK, place):
        parts.append(data.partition(b"]")[0])
        if b"]" in data:
            return b"".join(parts).decode("utf-8", "replace").partition("[")[2]
        place += len(data)
    raise ValueError(f"the text has no closing bracket: truncated? {AGAIN}")


def text_array(inside: str) -> np.ndarray:
    """The vector or matrix with this text between its brackets, as float64."""
    rows = [[float(word) for word in line.split()] for line in inside.split("\n") if line.strip()]
    if len({len(row) for row in rows}) > 1:
        raise ValueError("the rows of a text matrix have different lengths")
    is_matrix = inside.lstrip(" ").startswith("\n") or len(rows) > 1
    return np.array(rows if is_matrix else (rows[0] if rows else []), dtype=np.float64)
