"""Kaldi's archives and their lists: a checked writer of ark and scp, and a reader of the objects that an scp names."""

import functools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from speakerkd.files.names import Names
from speakerkd.files.objects import check_rows, pack, read_object
from speakerkd.files.opened import OpenFiles, pipe_output
from speakerkd.files.scplines import ARRAYS, read_scp
from speakerkd.files.stored import held, stored
from speakerkd.files.tables import check_id, temporary_beside

FEW = 10_000  # archives: so many paths are held as strings, which is faster


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
                self.scp.unlink(missing_ok=True)  # so that an scp never points into an archive of another run
                os.replace(self._temporary[0], self.ark)
                os.replace(self._temporary[1], self.scp)
        except OSError as problem:
            raise self._full(problem) from problem
        finally:
            for path in self._temporary:
                path.unlink(missing_ok=True)

    def _full(self, error: OSError) -> OSError:
        return OSError(f"{self.ark}: can't be written ({error.strerror or error}); check the disk space and the rights")


class Scp:
    """An scp of millions of entries in flat arrays, shared by forked workers.

    Entry i is `key(i)`; `read(i, start, stop)` fetches rows of its object and nothing else of the file. Lines are Kaldi's:
    `key file`, `key file:offset`, `key file:offset[2:9]`. A line `key command |` runs a command that the writer
    of the scp chose. So `pipes` must allow it, which is only for the user's own feats.scp. Vectors may come from elsewhere.
    `keep`: the arrays of a large scp are kept beside it, and other processes map them (speakerkd/files/stored.py).
    """

    def __init__(self, path: str | Path, pipes: bool = False, keep: bool = False) -> None:
        self.path = str(path)
        self.pipes = pipes
        make = functools.partial(read_scp, path)
        arrays = stored(Path(path).parent, Path(path).name, [path], ARRAYS, make) if keep else held(make)
        self.names = Names(arrays["text"], arrays["ends"])
        self._source, self._offset = arrays["source"], arrays["offset"]
        sources = Names(arrays["source_text"], arrays["source_ends"])
        self._sources: Sequence[str] = list(sources) if len(sources) <= FEW else sources
        self._files = OpenFiles()

    def __len__(self) -> int:
        return len(self._offset)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def key(self, index: int) -> str:
        return self.names[index]

    def find(self, key: str) -> int:
        """The entry of a key, by bisection; -1 if there is none."""
        return self.names.find(key)

    @property
    def sources(self) -> Sequence[str]:
        """The files and pipes that the lines name, each once."""
        return self._sources

    def place(self, index: int) -> tuple[str, int]:
        """(file or pipe, byte in it) of an entry; -1 if the line names no byte."""
        return self._sources[self._source.item(index)], self._offset.item(index)

    def read(self, index: int, start: int = 0, stop: int | None = None, rows: int | None = None) -> np.ndarray:
        """Rows start to stop of a matrix, or elements of a vector, as float32. `rows`: how many the object must have."""
        try:
            source, offset = self._sources[self._source.item(index)], self._offset.item(index)
            if offset < 0:
                return self._unusual(source, start, stop, rows)
            file = self._files.get(source) or self._files.open(source)
            if stop is not None and not file.scattered:
                file.expect_random_places()
            return read_object(file.read_at, file.size, offset, start, stop, rows)
        except (ValueError, OSError, MemoryError, OverflowError) as error:
            raise ValueError(self._said(index, error)) from error

    def _unusual(self, source: str, start: int, stop: int | None, rows: int | None) -> np.ndarray:
        """A line without an offset, a pipe, or rows and columns in brackets, which Kaldi counts with the last one."""
        part = re.fullmatch(r"(.*)\[([0-9]+:[0-9]+|:?)(?:,([0-9]+:[0-9]+|:?))?\]", source)
        if part:
            value = self._unusual(part[1], 0, None, None)
            value = value[tuple(_span(text) for text in part.groups()[1:] if text is not None)]
            check_rows(len(value), rows)
            return value[start:stop]
        if source.endswith("|") and not self.pipes:
            raise ValueError(
                "is a pipe, and commands are run only if they stand in a wav.scp or feats.scp of one's own"
            )
        if source.endswith("|"):
            data = pipe_output(source[:-1])
            return read_object(lambda count, place: data[place : place + count], len(data), 0, start, stop, rows)
        name, colon, offset = source.rpartition(":")
        path, place = (name, int(offset)) if colon and offset.isdecimal() else (source, 0)
        file = self._files.get(path) or self._files.open(path)
        return read_object(file.read_at, file.size, place, start, stop, rows)

    def _said(self, index: int, error: Exception) -> str:
        source, offset = self.place(index)
        where = source if offset < 0 else f"{source}:{offset}"
        reason = str(error)
        if isinstance(error, OSError):
            reason = f"can't be read ({error.strerror or error})"
        elif isinstance(error, MemoryError | OverflowError):
            reason = "asks for more memory than there is: the file is damaged; make it again"
        return f"{self.path}:{index + 1}: '{self.key(index)}': {where}: {reason}"


def _span(text: str) -> slice:
    """Kaldi's `2:9`, with the last one; nothing is all."""
    first, _, last = text.partition(":")
    return slice(int(first or 0), int(last) + 1 if last else None)
