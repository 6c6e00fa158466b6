"""Keeps arrays computed from large tables as .npy files, in a folder .cache beside the tables, and maps them into memory.

So a data directory of 10 million utterances is read once, and then opens at once. All processes and workers share the
pages. A cache belongs to the size, times and inode of its source files. When any of these changes, the arrays are computed
again. `.cache` may be removed at any time. If it can't be written, each process computes and holds the arrays itself.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

SMALL = 1 << 24  # bytes of all sources together: up to here arrays are computed each time
HEADER = 128  # bytes before the values of a .npy file with one or two dimensions
FORMAT = "1"  # of what is stored; another one when the arrays change


class Sink:
    """Takes arrays piece by piece, so that the caller need not hold them whole; finish() joins them."""

    def __init__(self) -> None:
        self._parts: dict[str, list[np.ndarray]] = {}

    def add(self, name: str, part: np.ndarray) -> None:
        self._parts.setdefault(name, []).append(part)

    def clear(self) -> None:
        """Forget all that was added."""
        self._parts.clear()

    def finish(self) -> dict[str, np.ndarray]:
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}


class NotWritableError(Exception):
    """The file system did not take what was written."""


class FileSink(Sink):
    """The pieces go to files at once."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._files: dict[str, tuple[IO[bytes], np.ndarray, int]] = {}  # name -> file, first part, rows so far

    def add(self, name: str, part: np.ndarray) -> None:
        try:
            if name not in self._files:
                new = open(self.folder / f"{name}.npy", "wb")  # noqa: SIM115
                new.write(bytes(HEADER))
                self._files[name] = new, part[:0], 0
            file, sample, rows = self._files[name]
            part.astype(sample.dtype, order="C", copy=False).tofile(file)
            self._files[name] = file, sample, rows + len(part)
        except OSError as error:
            raise NotWritableError(error.strerror or str(error)) from error

    def clear(self) -> None:
        for file, _, _ in self._files.values():
            with contextlib.suppress(OSError):
                file.close()
        self._files.clear()

    def finish(self) -> dict[str, np.ndarray]:
        try:
            for file, sample, rows in self._files.values():
                file.seek(0)
                shape = (rows, *sample.shape[1:])
                header = {"descr": sample.dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                if file.tell() != HEADER:
                    raise OSError(f"a header of {file.tell()} bytes")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise NotWritableError(error.strerror or str(error)) from error
        finally:
            self.clear()
        return {}


def stored(
    folder: Path, name: str, sources: Sequence[str | Path], arrays: Sequence[str], make: Callable[[Sink], None]
) -> dict[str, np.ndarray]:
    """The arrays of these names that make() gives for these files; from folder/.cache if they are large."""
    stamp, size = _stamp(sources)
    if size <= SMALL:
        return held(make)
    cache = folder / ".cache" / f"{name}-{stamp}"
    if found := _mapped(cache, arrays):
        return found
    try:
        with _alone(cache.parent):
            if found := _mapped(cache, arrays):  # another process has made it meanwhile
                return found
            logging.info("%s: the tables are read for the first time; %s keeps what they hold", sources[-1], cache)
            _make(cache, name, make)
            if found := _mapped(cache, arrays):
                return found
            raise NotWritableError("what was written can't be read")
    except NotWritableError as error:
        logging.info("%s can't be kept (%s): each process reads the tables and holds them itself", cache, error)
    return held(make)


def held(make: Callable[[Sink], None]) -> dict[str, np.ndarray]:
    """What make() gives, in this process's memory."""
    sink = Sink()
    make(sink)
    return sink.finish()


def _make(cache: Path, name: str, make: Callable[[Sink], None]) -> None:
    here = socket.gethostname()
    for other in cache.parent.glob("*.tmp"):  # of processes that were killed
        *_, host, pid = other.name.removesuffix(".tmp").split(",")
        if host == here and pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            shutil.rmtree(other, ignore_errors=True)
    temporary = cache.with_name(f"{cache.name},{here},{os.getpid()}.tmp")
    try:
        try:
            temporary.mkdir()
        except OSError as error:
            raise NotWritableError(error.strerror or str(error)) from error
        sink = FileSink(temporary)
        try:
            make(sink)
            sink.finish()
        finally:
            sink.clear()
        _return_memory()
        for old in cache.parent.glob(f"{name}-*"):  # of tables that have changed, or damaged
            if not old.name.endswith(".tmp"):
                shutil.rmtree(old, ignore_errors=True)
        with contextlib.suppress(OSError):  # without locks, another process may have been first
            temporary.rename(cache)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _return_memory() -> None:
    """glibc keeps what was freed, if each piece was below 32 MB: 100 MB after the tables of 10 million utterances."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _stamp(sources: Sequence[str | Path]) -> tuple[str, int]:
    """(what stands for these very files, their bytes together)."""
    digest, total = hashlib.sha256(FORMAT.encode()), 0
    for source in sources:
        try:
            state = Path(source).stat()
        except OSError as error:
            raise ValueError(f"{source}: can't be read ({error.strerror})") from error
        total += state.st_size
        facts = state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino
        digest.update(f"{os.path.abspath(source)} {facts}\n".encode())
    return digest.hexdigest()[:16], total


def _mapped(cache: Path, arrays: Sequence[str]) -> dict[str, np.ndarray]:
    """The stored arrays; none if any of them is missing or damaged."""
    try:
        return {name: np.asarray(np.load(cache / f"{name}.npy", mmap_mode="r", allow_pickle=False)) for name in arrays}
    except (OSError, ValueError, EOFError):
        return {}


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time, so that the ranks of a training don't all compute the same."""
    try:
        folder.mkdir(exist_ok=True)
        lock = open(folder / "lock", "w")  # noqa: SIM115
    except OSError as error:
        raise NotWritableError(error.strerror or str(error)) from error
    with lock:
        with contextlib.suppress(OSError):  # without locks, each computes, and the first one's folder stays
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
