"""The number of frames of each matrix of an scp, read from the headers only: archives may have hundreds of gigabytes."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from speakerkd.files.kaldi import Scp

# The first bytes of a matrix in an archive, and the position of its number of rows.
ROWS_AT = {b"\0BFM ": 6, b"\0BDM ": 6, b"\0BCM ": 13, b"\0BCM2 ": 14, b"\0BCM3 ": 14}


def frames_of(scp: Scp) -> Iterator[int]:
    """The frames of each entry, in order. Other objects, and those from pipes, are read whole; that may be an error."""
    name = ""
    file: BinaryIO | None = None
    try:
        for index in range(len(scp)):
            source, offset = scp.place(index)
            rows = 0
            if offset >= 0:
                if source != name or file is None:
                    if file is not None:
                        file.close()
                    name, file = source, opened(source, scp, index)
                rows = rows_at(file, offset)
            yield rows if rows > 0 else len(scp.read(index))
    finally:
        if file is not None:
            file.close()


def opened(source: str, scp: Scp, index: int) -> BinaryIO:
    try:
        return open(source, "rb")
    except OSError as error:
        raise ValueError(
            f"{scp.path}:{index + 1}: '{scp.key(index)}': {source} can't be read ({error.strerror}); make it again"
        ) from error


def rows_at(file: BinaryIO, offset: int) -> int:
    """The number of rows of the matrix at this offset; 0: no known matrix begins there."""
    file.seek(offset)
    head = file.read(18)
    at = next((place for mark, place in ROWS_AT.items() if head.startswith(mark)), None)
    if at is None or len(head) < at + 4:
        return 0
    (rows,) = struct.unpack_from("<i", head, at)
    return int(rows)
