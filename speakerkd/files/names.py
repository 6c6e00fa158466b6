"""Millions of names in two flat arrays, which processes can share: as Python strings, 10 million of them take a gigabyte."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np

BLOCK = 1 << 16


class Names(Sequence[str]):
    """Name i is text[ends[i] : ends[i + 1]], in UTF-8."""

    def __init__(self, text: np.ndarray, ends: np.ndarray) -> None:
        self.text, self.ends = text, ends

    @classmethod
    def of(cls, strings: Iterable[str]) -> "Names":
        encoded = [string.encode() for string in strings]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        index = range(len(self))[index]  # negative ones count from the end; an IndexError beyond it
        return self.text[self.ends[index] : self.ends[index + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BLOCK):
            ends = self.ends[start : start + BLOCK + 1].tolist()
            data = self.text[ends[0] : ends[-1]].tobytes()
            for first, last in pairwise(ends):
                yield data[first - ends[0] : last - ends[0]].decode()

    def same(self, other: "Names") -> bool:
        return np.array_equal(self.ends, other.ends) and np.array_equal(self.text, other.text)

    def find(self, name: str) -> int:
        """The place of a name, by bisection; -1 if it is not there. The names must be sorted."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self[middle] < name:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self[low] == name else -1


def places(wanted: Names, there: Names) -> np.ndarray:
    """(wanted,) int32: where each name is among those that are there, -1 if it is not. Both are sorted."""
    if wanted.same(there):
        return np.arange(len(there), dtype=np.int32)
    found = np.full(len(wanted), -1, np.int32)
    rest = iter(enumerate(there))
    place, name = next(rest, (-1, ""))
    for number, each in enumerate(wanted):
        while name < each and place >= 0:
            place, name = next(rest, (-1, ""))
        if place < 0:
            break
        if name == each:
            found[number] = place
    return found
