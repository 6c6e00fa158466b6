"""The files that a data directory has: datadir.txt, as Python reads it."""

from pathlib import Path
from typing import NamedTuple


class DataFile(NamedTuple):
    """A line of datadir.txt, whose head describes the columns."""

    name: str
    key: str
    fields: str
    made: str


def read_data_files() -> tuple[DataFile, ...]:
    lines = Path(__file__).with_name("datadir.txt").read_text(encoding="utf-8").splitlines()
    return tuple(DataFile(*line.split()) for line in lines if line and not line.startswith("#"))


DATA_FILES = read_data_files()


def keyed_by(*keys: str) -> tuple[str, ...]:
    return tuple(file.name for file in DATA_FILES if file.key in keys)


def made_by(made: str) -> tuple[str, ...]:
    """made: data or later."""
    return tuple(file.name for file in DATA_FILES if file.made == made)
