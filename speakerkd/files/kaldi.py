"""Kaldi archives: a checked writer, a reader of row ranges, an index over a long scp. The only file that imports kaldiio.

The layouts (kaldi/src/matrix): after `key ` an object starts with \\0B and a token.
  FV  \\4 <i4 dim>                     then f4             vectors
  FM  \\4 <i4 rows> \\4 <i4 columns>    then f4, row by row  matrices
  CM2 <f4 min> <f4 range> <i4 rows> <i4 columns>, then u2, row by row: min + range / 65535 * u2
"""

import mmap
import os
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import kaldiio
import numpy as np

from speakerkd.files.tables import FIX, check_id, read_lines, temporary_beside

_CM2_HEADER = struct.Struct("<ffii")


class ArkWriter:
    """Writes prefix.ark and prefix.scp; they appear under these names when the `with` block ends well.

    float32 only: 1-D arrays become FV, 2-D ones FM, or CM2 with compress. Keys come in ascending order, as the readers of
    Kaldi that stream an scp need them. Vectors have one length, and matrices one width, unless they are said to be ragged.
    """

    def __init__(self, prefix: str | Path, compress: bool = False, ragged: bool = False) -> None:
        self.ark = Path(os.path.abspath(f"{prefix}.ark"))
        self.scp = Path(os.path.abspath(f"{prefix}.scp"))
        check_id(str(self.ark), "path of the archive")
        self._compress, self._ragged = compress, ragged
        self._last: str | None = None
        self._shape: tuple[int, ...] = ()
        self._offset = 0

    def __enter__(self) -> "ArkWriter":
        self._temporary = [temporary_beside(path) for path in (self.ark, self.scp)]
        try:
            self.ark.parent.mkdir(parents=True, exist_ok=True)
            self._ark_file = open(self._temporary[0], "wb")
            self._scp_file = open(self._temporary[1], "w", encoding="utf-8", newline="\n")
        except OSError as error:
            raise OSError(f"{self.ark}: can't be written ({error.strerror}); check the rights of the folder") from error
        return self

    def __call__(self, key: str, value: np.ndarray) -> None:
        shape = value.shape[1:] if value.ndim == 2 else value.shape
        if self._last is None:
            self._shape = (value.ndim, *shape)
        elif self._shape != (value.ndim, *shape) and not self._ragged:
            raise ValueError(f"{self.ark}: '{key}' has shape {value.shape}, unlike those before it {self._shape[1:]}")
        self.put(key, pack(value, self._compress, f"{self.ark}: '{key}'"))

    def put(self, key: str, data: bytes) -> None:
        """Write an object that is packed already."""
        check_id(key, str(self.ark))
        if self._last is not None and key <= self._last:
            raise ValueError(f"{self.ark}: '{key}' is written after '{self._last}': keys must ascend and be unique")
        head = f"{key} ".encode()
        try:
            self._ark_file.write(head + data)
            self._scp_file.write(f"{key} {self.ark}:{self._offset + len(head)}\n")
        except OSError as error:
            raise self._full(error) from error
        self._offset += len(head) + len(data)
        self._last = key

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._ark_file.close()
            self._scp_file.close()
            if kind is None:
                self.scp.unlink(missing_ok=True)  # never an scp that points into an archive of another run
                os.replace(self._temporary[0], self.ark)
                os.replace(self._temporary[1], self.scp)
        except OSError as problem:
            raise self._full(problem) from problem
        finally:
            for path in self._temporary:
                path.unlink(missing_ok=True)

    def _full(self, error: OSError) -> OSError:
        return OSError(f"{self.ark}: can't be written ({error.strerror or error}); check the disk space and the rights")


def pack(value: np.ndarray, compress: bool, where: str) -> bytes:
    """One object as Kaldi writes it."""
    if value.dtype != np.float32:
        raise ValueError(f"{where}: float32 is written, not {value.dtype}")
    if value.ndim not in (1, 2) or value.size == 0:
        raise ValueError(f"{where}: a vector or a matrix that is not empty is written, not shape {value.shape}")
    if not np.isfinite(value).all():
        raise ValueError(f"{where}: holds NaN or infinite values")
    if value.ndim == 1:
        return b"\0BFV \4" + struct.pack("<i", len(value)) + value.astype("<f4").tobytes()
    rows, columns = value.shape
    if not compress:
        return b"\0BFM " + struct.pack("<bibi", 4, rows, 4, columns) + value.astype("<f4").tobytes()
    # Kaldi's arithmetic: single precision up to the rounding, which is done in double by adding 0.499.
    low, high = value.min(), value.max()
    if high == low:
        high = np.float32(low + (np.float32(1) + abs(low)))
    span = np.float32(high - low)
    if not np.isfinite(span):
        raise ValueError(f"{where}: the values span too wide a range ({low} to {high}) to be compressed")
    levels = np.clip((value - low) / span, 0, 1) * np.float32(65535)
    levels = (levels.astype(np.float64) + 0.499).astype("<u2")
    return b"\0BCM2 " + _CM2_HEADER.pack(low, span, rows, columns) + levels.tobytes()


def load(source: str) -> np.ndarray:
    """The whole object that an scp line names, of any kind that Kaldi writes, as float32."""
    try:
        value = kaldiio.load_mat(source)
    except (ValueError, AssertionError, EOFError, RuntimeError, OSError, struct.error) as error:
        raise ValueError(f"{source}: can't be read ({str(error) or type(error).__name__}); is it truncated?") from error
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{source}: holds {type(value).__name__}, not a vector or matrix")
    return value.astype(np.float32, copy=False)


class Scp:
    """An scp of a million entries in flat arrays: the key and 20 bytes an entry, which forked workers share.

    Entry i is `key(i)`; `read(i, start, stop)` fetches rows. FM and CM2 are read by offset through a memory map, anything
    else whole.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        names, ends, source_of, offsets = bytearray(), array("q", [0]), array("i"), array("q")
        sources: dict[str, int] = {}
        last = ""
        for number, line in read_lines(path):
            key, _, rest = line.partition(" ")
            rest = rest.strip()
            if not key or not rest:
                raise ValueError(f"{path}:{number}: not 'key archive:offset': '{line}'")
            if key <= last:
                raise ValueError(f"{path}:{number}: '{key}' stands after '{last}': not sorted or not unique; {FIX}")
            source, colon, offset = rest.rpartition(":")
            if not colon or not offset.isdigit():
                source, offset = rest, "-1"
            names += key.encode()
            ends.append(len(names))
            source_of.append(sources.setdefault(source, len(sources)))
            offsets.append(int(offset))
            last = key
        if not offsets:
            raise ValueError(f"{path}: is empty")
        self._names, self._ends = np.frombuffer(bytes(names), np.uint8), np.frombuffer(ends, np.int64)
        self._source, self._offset = np.frombuffer(source_of, np.int32), np.frombuffer(offsets, np.int64)
        self._sources = list(sources)
        self._maps: dict[int, mmap.mmap] = {}

    def __len__(self) -> int:
        return len(self._offset)

    def __iter__(self) -> Iterator[str]:
        return (self.key(index) for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}

    def key(self, index: int) -> str:
        return self._names[self._ends[index] : self._ends[index + 1]].tobytes().decode()

    def find(self, key: str) -> int:
        """The entry of a key, by bisection; -1 if there is none."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.key(middle) < key:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self.key(low) == key else -1

    def place(self, index: int) -> tuple[str, int]:
        """(file or pipe, byte in it) of an entry; -1 if the line names no byte."""
        return self._sources[self._source[index]], int(self._offset[index])

    def read(self, index: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start to stop of a matrix, or a vector, as float32."""
        where = self._where(index)
        if self._offset[index] < 0:
            return load(self._sources[self._source[index]])[start:stop]
        try:
            found = self._rows(index, start, stop)
            return load(where)[start:stop] if found is None else found
        except (ValueError, OSError) as error:
            raise ValueError(f"{self.path}:{index + 1}: '{self.key(index)}': {error}; make it again") from error

    def _where(self, index: int) -> str:
        source, offset = self._sources[self._source[index]], self._offset[index]
        return source if offset < 0 else f"{source}:{offset}"

    def _map(self, number: int) -> mmap.mmap:
        if number not in self._maps:
            if not Path(self._sources[number]).is_file():
                raise ValueError(f"there is no {self._sources[number]}")
            with open(self._sources[number], "rb") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    raise ValueError(f"{self._sources[number]} is empty")
                self._maps[number] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[number]

    def _rows(self, index: int, start: int, stop: int | None) -> np.ndarray | None:
        """None for a kind of object whose rows don't stand in a row."""
        data, offset = self._map(int(self._source[index])), int(self._offset[index])
        head = data[offset : offset + 22]
        if len(head) < 14 or (head[:6] == b"\0BCM2 " and len(head) < 22):
            raise ValueError(f"{self._where(index)} is past the end of the archive ({len(data)} bytes): truncated?")
        low, step = 0.0, 1.0
        if head[:5] == b"\0BFM ":
            rows, columns = struct.unpack_from("<xixi", head, 5)
            kind, first = "<f4", offset + 15
        elif head[:5] == b"\0BFV ":
            ((rows,), columns) = struct.unpack_from("<xi", head, 5), 1
            kind, first = "<f4", offset + 10
        elif head[:6] == b"\0BCM2 ":
            low, span, rows, columns = _CM2_HEADER.unpack_from(head, 6)
            kind, first, step = "<u2", offset + 22, span * 1.52590218966964e-05
        elif head[:2] == b"\0B":
            return None
        else:
            raise ValueError(f"no object of Kaldi stands at {self._where(index)}")
        start, stop = min(start, rows), rows if stop is None else min(stop, rows)
        width = np.dtype(kind).itemsize * columns
        if first + width * rows > len(data):
            raise ValueError(f"{self._where(index)}: {rows} rows don't fit into the archive: truncated?")
        count = max(stop - start, 0) * columns
        values = np.frombuffer(data, kind, count, first + start * width).astype(np.float32)
        if head[:5] != b"\0BFV ":
            values = values.reshape(-1, columns)
        if kind == "<u2":
            values *= np.float32(step)
            values += np.float32(low)
        return values
