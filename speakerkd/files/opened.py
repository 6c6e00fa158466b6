"""Files that are read at random places: a pool of open files, and the output of a pipe.

os.pread takes the place with each call. So forked workers can share a descriptor, although it has only one position.
"""

import errno
import functools
import os
import resource
import stat
import subprocess
from pathlib import Path

MOST = 4096


def open_regular(path: str | Path) -> int:
    """A descriptor of a regular file. FIFOs, devices and folders are refused: the first two can hang or never end."""
    try:
        # Without O_NONBLOCK, open() would wait for a FIFO's writer. It has no effect on regular files.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise ValueError("there is no such file") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise ValueError("is a folder" if stat.S_ISDIR(mode) else "is not a regular file")
    return descriptor


class OpenFile:
    """A regular file: read_at(count, place) gives bytes. It is closed when nothing refers to it any more."""

    def __init__(self, path: str | Path) -> None:
        self._descriptor = -1
        self._descriptor = open_regular(path)
        self.size = os.fstat(self._descriptor).st_size
        if self.size == 0:
            raise ValueError("is an empty file")
        self.read_at = functools.partial(os.pread, self._descriptor)
        self.scattered = False

    def expect_random_places(self) -> None:
        """Tells the system not to read ahead from now on."""
        self.scattered = True
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


class OpenFiles(dict[str, OpenFile]):
    """The files that were opened last, by path: files.get(path) or files.open(path).

    It holds at most half of the descriptors that the process may have.
    """

    def __init__(self) -> None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.most = MOST if limit < 0 else max(1, min(MOST, limit // 2))

    def open(self, path: str) -> OpenFile:
        if len(self) >= self.most:
            self.pop(next(iter(self)), None)
        try:
            self[path] = OpenFile(path)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self.most = max(1, len(self) // 2)  # other parts of this process need descriptors too
            self.clear()
            try:
                self[path] = OpenFile(path)
            except OSError as again:
                raise OSError(again.errno, "too many open files; allow more: ulimit -n 4096", path) from error
        return self[path]

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return OpenFiles, ()


def pipe_output(command: str) -> bytes:
    """The output of a shell command. Only the user's own wav.scp and feats.scp may name commands."""
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ValueError(f"the pipe failed with status {done.returncode}" + (f" ({said[-1].strip()})" if said else ""))
    if not done.stdout:
        raise ValueError("the pipe gave nothing")
    return done.stdout
