"""How many frames each matrix of an scp has, told by its header alone: archives of hundreds of gigabytes aren't read."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from speakerkd.files.kaldi import Scp

# What a matrix in an archive begins with, and where its number of rows stands.
ROWS_AT = {b"\0BFM ": 6, b"\0BDM ": 6, b"\0BCM ": 13, b"\0BCM2 ": 14, b"\0BCM3 ": 14}


def frames_of(scp: Scp) -> Iterator[int]:
    """For each entry, in order. What is no such matrix, or comes from a pipe, is read whole; that may be an error."""
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
    """0: no matrix that is known begins there."""
    file.seek(offset)
    head = file.read(18)
    at = next((place for mark, place in ROWS_AT.items() if head.startswith(mark)), None)
    if at is None or len(head) < at + 4:
        return 0
    (rows,) = struct.unpack_from("<i", head, at)
    return int(rows)
