"""Reads tables of millions of lines with numpy, some thousands of lines at a time, in bounded memory.

This works for plain tables: ASCII, one space after the id, no other white space at the ends of the rest. For other tables
there is an UnusualTableError. The caller then reads the table line by line, and says what is wrong with which line.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

BLOCK = 1 << 22  # bytes
MOST = 1 << 27  # bytes of a block's fields at one width: a very long line among thousands of short ones
NEWLINE, SPACE, ZERO = 10, 32, 48
DIGITS = 18  # of the largest numbers


class UnusualTableError(Exception):
    """The table is not plain, or not what the reader expects."""


class Block:
    """Whole lines. Line i is text[first[i] : end[i]], and its id ends at space[i]."""

    def __init__(self, data: bytes) -> None:
        self.text = text = np.frombuffer(data, np.uint8)
        self.end = np.flatnonzero(text == NEWLINE)
        if not data.isascii() or np.count_nonzero(text < SPACE) != len(self.end):
            raise UnusualTableError
        self.first = np.concatenate([[0], self.end[:-1] + 1])
        spaces = np.flatnonzero(text == SPACE)
        after = np.searchsorted(spaces, self.first)
        if after[-1] >= len(spaces):
            raise UnusualTableError
        self.space = spaces[after]
        if ((self.space == self.first) | (self.space >= self.end - 1)).any():
            raise UnusualTableError
        if ((text[self.space + 1] == SPACE) | (text[self.end - 1] == SPACE)).any():
            raise UnusualTableError

    def __len__(self) -> int:
        return len(self.end)

    def fields(self, first: np.ndarray, last: np.ndarray) -> "Fields":
        """text[first[i] : last[i]] of each line."""
        return Fields(self.text, first, last - first)

    def keys(self) -> "Fields":
        return self.fields(self.first, self.space)

    def values(self) -> "Fields":
        """The rest of each line, after its id."""
        return self.fields(self.space + 1, self.end)

    def last(self, character: str) -> np.ndarray:
        """Where this character stands for the last time in each line's value; -1 if it does not."""
        found = np.concatenate([[-1], np.flatnonzero(self.text == ord(character))])
        place = found[np.searchsorted(found, self.end) - 1]
        return np.where(place > self.space, place, -1)


class Fields:
    """Strings side by side at one width, with zeros behind the shorter ones, so that numpy compares them at once."""

    def __init__(self, text: np.ndarray, first: np.ndarray, sizes: np.ndarray, most: int | None = MOST) -> None:
        self.sizes = sizes
        width = -(-int(sizes.max()) // 8) * 8
        if sizes.min() < 1 or (most and len(sizes) * width > most):
            raise UnusualTableError
        longer = np.concatenate([text, np.zeros(width, np.uint8)])
        self.rows = np.lib.stride_tricks.sliding_window_view(longer, width)[first]  # (lines, width)
        self.inside = np.arange(width) < sizes[:, None]
        self.rows *= self.inside
        self.strings = self.rows.view(f"S{width}")[:, 0]  # (lines,)

    def joined(self) -> np.ndarray:
        """The strings, one behind the other."""
        return self.rows[self.inside]

    def distinct(self) -> tuple[list[str], np.ndarray]:
        """(each string once, and for each line its number among these)."""
        hashes = np.zeros(len(self.rows), np.uint64)
        for word in self.rows.view(np.uint64).T:
            hashes = (hashes ^ word) * np.uint64(0x9E3779B97F4A7C15)
            hashes ^= hashes >> np.uint64(29)
        _, where, number = np.unique(hashes, return_index=True, return_inverse=True)
        if (self.strings[where][number] != self.strings).any():  # two strings with one hash
            raise UnusualTableError
        return [string.decode() for string in self.strings[where].tolist()], number


def numbers(text: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(int64, bool): the decimal numbers text[first[i] : last[i]], and where it is one of 1 to 18 digits."""
    sizes = last - first
    fine = (sizes > 0) & (sizes <= DIGITS)
    value: np.ndarray = np.zeros(len(sizes), np.int64)
    for place in range(int(sizes[fine].max(initial=0))):
        here = fine & (place < sizes)
        digit = text[np.where(here, first + place, 0)].astype(np.int64) - ZERO
        fine &= ~here | ((digit >= 0) & (digit <= 9))
        value = np.where(here, 10 * value + digit, value)
    return value, fine


def plain_blocks(path: str | Path) -> Iterator[Block]:
    rest = b""
    try:
        with open(path, "rb") as file:
            while data := file.read(BLOCK):
                data = rest + data
                cut = data.rfind(b"\n") + 1
                rest = data[cut:]
                if not cut:
                    raise UnusualTableError
                yield Block(data[:cut])
    except OSError as error:
        raise UnusualTableError from error
    if rest:
        yield Block(rest + b"\n")
