"""Numbers, sorts and picks millions of values in parts, so that the steps between take little memory."""

import sys

import numpy as np

from speakerkd.files.stored import Sink

WAITING = 1 << 17  # names that are collected before they are sorted
PART = 1 << 17


class Numbering:
    """Gives the number of each line's name among the distinct names, which are sorted. add() takes further lines.

    It holds the distinct names, four bytes per line, and the names that wait to be sorted.
    """

    def __init__(self) -> None:
        self._names: np.ndarray = np.zeros(0, "S1")  # sorted, each once
        self._numbers: list[np.ndarray] = []  # of the lines so far, int32
        self._heads: list[np.ndarray] = []  # of the lines that wait: the name of each run of equal names
        self._runs: list[np.ndarray] = []  # and the run of each line
        self._waiting = 0

    def add(self, strings: np.ndarray) -> None:
        """One or more names without zero bytes, as an array of type S."""
        begins = np.ones(len(strings), bool)
        begins[1:] = strings[1:] != strings[:-1]
        self._heads.append(strings[begins])
        self._runs.append((self._waiting - 1 + np.cumsum(begins)).astype(np.int32))
        self._waiting += len(self._heads[-1])
        if self._waiting >= WAITING:
            self._merge()

    def finish(self, sink: Sink) -> list[np.ndarray]:
        """The numbers of the lines, in parts. The names go into the sink, as text and ends (speakerkd/files/names.py)."""
        if self._heads:
            self._merge()
        total = 0
        sink.add("ends", np.zeros(1, np.int64))
        for first in range(0, len(self._names), PART):
            rows = self._names[first : first + PART].view(np.uint8).reshape(-1, self._names.itemsize)
            inside = rows != 0
            ends = total + np.cumsum(inside.sum(1))
            sink.add("text", rows[inside])
            sink.add("ends", ends)
            total = int(ends[-1])
        return self._numbers

    def _merge(self) -> None:
        """Sorts in the names that wait. Numbers of earlier lines rise if names come in before theirs."""
        names, rank = _distinct(np.concatenate(self._heads))
        self._heads.clear()
        kind = np.promote_types(self._names.dtype, names.dtype)
        place = np.searchsorted(self._names.astype(kind, copy=False), names.astype(kind, copy=False))
        inside = place < len(self._names)
        missing = ~inside
        missing[inside] = self._names[place[inside]] != names[inside]
        number = (place + np.cumsum(missing) - missing).astype(np.int32)
        if missing.any():
            places = place[missing]
            if places[0] < len(self._names):
                moved = np.cumsum(np.bincount(places, minlength=len(self._names) + 1)).astype(np.int32)
                for part in self._numbers:
                    part += moved[part]
            self._names = np.insert(self._names.astype(kind, copy=False), places, names[missing])
        self._numbers += [number[rank[run]] for run in self._runs]
        self._runs.clear()
        self._waiting = 0


def _distinct(strings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(each string once, sorted; the number of each string among these)."""
    order = np.argsort(strings, kind="stable")  # timsort, which joins runs that are sorted already
    ordered = strings[order]
    new = np.ones(len(order), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    rank = np.empty(len(order), np.int32)
    rank[order] = np.cumsum(new) - 1
    return ordered[new], rank


def by_number(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places sorted by their numbers, starts), int32: the places of one number are places[starts[i] : starts[i + 1]].

    Places with the same number keep their order. One integer holds the number and the place, so it can be sorted in place:
    argsort would take twice the memory.
    """
    pairs = numbers.astype(np.int64)
    del numbers
    pairs <<= 32
    for first in range(0, len(pairs), PART):
        pairs[first : first + PART] |= np.arange(first, min(first + PART, len(pairs)))
    pairs.sort()
    low, count = int(sys.byteorder == "big"), len(pairs)
    halves = pairs.view(np.int32)
    bounds = starts(halves[1 - low :: 2])
    for first in range(0, count, PART):  # the places move into the first half of the memory; the rest is given back
        last = min(first + PART, count)
        halves[first:last] = halves[2 * first + low : 2 * last : 2].copy()
    del halves
    pairs.resize((count + 1) // 2, refcheck=False)
    return pairs.view(np.int32)[:count], bounds


def starts(numbers: np.ndarray) -> np.ndarray:
    """int32: where each number starts in a sorted array, and its end."""
    changes = places_of(numbers[1:] != numbers[:-1])
    changes += 1
    return np.concatenate([[0], changes, [len(numbers)]], dtype=np.int32)


def taken(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """values[places], in parts: NumPy makes 8-byte integers of the places first, 80 MB for 10 million."""
    found = np.empty(len(places), values.dtype)
    for first in range(0, len(places), PART):
        found[first : first + PART] = values[places[first : first + PART]]
    return found


def places_of(mask: np.ndarray) -> np.ndarray:
    """int32: where a mask is true, as np.flatnonzero gives it in 8-byte integers."""
    found = np.empty(np.count_nonzero(mask), np.int32)
    count = 0
    for first in range(0, len(mask), PART):
        part = np.flatnonzero(mask[first : first + PART])
        found[count : count + len(part)] = first + part
        count += len(part)
    return found
