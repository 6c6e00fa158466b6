"""Reads what torch.save wrote. No code in the file is run."""

from pathlib import Path
from typing import IO, Any

import torch


class UnreadableError(ValueError):
    """The file is missing, cut short, damaged, or holds more than tensors and plain values; its cause is torch's error."""


def read_torch_file(file: str | Path | IO[bytes]) -> Any:
    """On the CPU."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    # A wrong byte can make torch's unpickler fail anywhere: IndexError, TypeError and struct.error were seen too
    except Exception as error:
        raise UnreadableError(f"{type(error).__name__}: {error}") from error
