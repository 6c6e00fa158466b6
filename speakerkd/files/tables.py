"""The text tables of a data directory: wav.scp, segments, utt2spk, spk2utt, utt2aug, ...

A table has one line per id: the id, a space, the rest. Tables are UTF-8 and sorted by id as bytes. Ids are unique and have
no white space. Reading checks all of that; errors name file, line and remedy. Writing sorts, and moves a complete file
into place.
"""

import glob
import logging
import math
import os
import re
import socket
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from speakerkd.conf import first_few
from speakerkd.files.datadir import made_by

FIX = "utils/fix_data_dir.sh mends a data directory"


class Segment(NamedTuple):
    """A stretch of a recording, in seconds; end < 0: to its end."""

    recording: str
    start: float
    end: float


def temporary_beside(path: Path) -> Path:
    """A name in the same folder that no other process uses. Removes files that killed processes of this machine left there.

    A job may outlive the script that started it, while the next run already works. So each must write to its own file.
    """
    here = socket.gethostname()
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        host, _, pid = leftover.name.removeprefix(f".{path.name}.").removesuffix(".tmp").rpartition(".")
        if host == here and pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            leftover.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{here}.{os.getpid()}.tmp")


@contextmanager
def replacing(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """Opens a temporary file beside path. If the block succeeds, it replaces path; otherwise it is removed."""
    path = Path(path)
    temporary = temporary_beside(path)
    try:
        text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
        with open(temporary, mode, **text) as file:  # type: ignore[call-overload]
            yield file
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise  # the block's own error, not one of writing this file
        raise OSError(f"{path}: can't be written ({error.strerror}); check the disk space and the rights") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """(line number, line) of a table. CR LF, empty lines and text that is not UTF-8 are errors."""
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise ValueError(f"{path}: can't be read ({error.strerror})") from error
    with file:
        for number, raw in enumerate(file, 1):
            if raw.endswith((b"\r\n", b"\r")):
                raise ValueError(f"{path}:{number}: the line ends in CR LF; remedy: sed -i 's/\\r$//' {path}")
            try:
                line = raw.decode("utf-8").rstrip("\n")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}:{number}: not UTF-8; remedy: iconv the file to UTF-8") from error
            if not line.strip(" \t"):
                raise ValueError(f"{path}:{number}: empty line; {FIX}")
            yield number, line


def read_table(path: str | Path, num_fields: int | None = None, only: Container[str] | None = None) -> dict[str, str]:
    """id -> the rest of its line, for all ids or only some. If num_fields (including the id) is given, it is checked."""
    table: dict[str, str] = {}
    for key, value in table_lines(path, num_fields, table):
        if only is None or key in only:
            table[key] = value
    return table


def table_lines(
    path: str | Path, num_fields: int | None = None, seen: Container[str] = ()
) -> Iterator[tuple[str, str]]:
    """(id, the rest of its line) of a table, checked like read_table, line by line: a long table needs no memory."""
    last = ""
    for number, line in read_lines(path):
        if line[0] in " \t":
            raise ValueError(f"{path}:{number}: the line starts with white space, not with an id; {FIX}")
        key, *rest = line.split(None, 1)
        if key in seen or key == last:
            raise ValueError(f"{path}:{number}: '{key}' occurs twice; {FIX}")
        if key < last:
            raise ValueError(f"{path}:{number}: '{key}' stands after '{last}': not sorted (LC_ALL=C sort); {FIX}")
        value = rest[0].rstrip(" \t") if rest else ""
        if num_fields is not None and 1 + len(value.split()) != num_fields:
            raise ValueError(
                f"{path}:{number}: {1 + len(value.split())} fields, not {num_fields}: '{line}' "
                "(ids must not have spaces)"
            )
        if num_fields is None and not value:
            raise ValueError(f"{path}:{number}: there is nothing after the id '{key}'; {FIX}")
        last = key
        yield key, value


def read_segments(path: str | Path, only: Container[str] | None = None) -> dict[str, Segment]:
    segments = {}
    for utt, text in read_table(path, 4, only).items():
        recording, start, end = text.split()
        try:
            segment = Segment(recording, float(start), float(end))
        except ValueError as error:
            raise ValueError(f"{path}: '{utt} {text}': start and end must be seconds") from error
        if not (math.isfinite(segment.start + segment.end) and segment.start >= 0) or 0 <= segment.end <= segment.start:
            raise ValueError(f"{path}: '{utt} {text}': the segment must start at 0 or later and end after its start")
        segments[utt] = segment
    return segments


def read_utt2spk(path: str | Path) -> dict[str, str]:
    return read_table(path, 2)


def check_id(name: str, where: str) -> str:
    if not name or name.split() != [name] or "\0" in name:
        raise ValueError(f"{where}: '{name}' can't be an id: an id is not empty and has no white space")
    return name


def write_table(path: str | Path, table: Mapping[str, object] | Iterable[tuple[str, object]]) -> int:
    """Writes the table, sorted. Duplicate ids are an error. Returns the number of lines."""
    rows = sorted(table.items() if isinstance(table, Mapping) else table, key=lambda row: row[0])
    twice = [key for key, count in Counter(key for key, _ in rows).items() if count > 1]
    if twice:
        raise ValueError(f"{path}: '{twice[0]}' would be written twice")
    with replacing(path) as file:
        for key, value in rows:
            text = str(value)
            if "\n" in text or "\r" in text:
                raise ValueError(f"{path}: the value of '{key}' has a line break")
            file.write(f"{check_id(key, str(path))} {text}\n")
    return len(rows)


def without_speed(name: str) -> str:
    """The name of a speaker or utterance without a change of speed: sp0.9-anna, as Kaldi writes it, is anna."""
    return re.sub(r"^(sp[0-9]+\.[0-9]+-)+", "", name)


def spk2utt(utt2spk: Mapping[str, str]) -> dict[str, list[str]]:
    """speaker -> its utterances, both sorted."""
    groups: dict[str, list[str]] = {}
    for utt in sorted(utt2spk):
        groups.setdefault(utt2spk[utt], []).append(utt)
    return dict(sorted(groups.items()))


def remove_features(folder: Path) -> None:
    """What later stages made of the data that stood here: it is not of what is about to be written."""
    found = [name for name in (*made_by("later"), "conf/fbank.conf") if (folder / name).exists()]
    for name in found:
        (folder / name).unlink()
    if found:
        logging.info("%s: %s of the earlier data were removed; run stage 2 again", folder, first_few(found, 9))


def write_data_dir(
    folder: str | Path,
    wav_scp: Mapping[str, str],
    utt2spk: Mapping[str, str],
    segments: Mapping[str, Segment] | None = None,
    **tables: Mapping[str, object],
) -> None:
    """Writes wav.scp, utt2spk, spk2utt, segments and other tables keyed by utterance, which keywords name."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder}: can't make this folder ({error.strerror})") from error
    if not utt2spk:
        raise ValueError(f"{folder}: there would be no utterance in this data directory")
    odd = [utt for utt, speaker in utt2spk.items() if not utt.startswith(speaker)]
    if odd:
        raise ValueError(f"{folder}: the speaker must be a prefix of the utterance: {odd[0]} {utt2spk[odd[0]]}")
    remove_features(folder)
    write_table(folder / "wav.scp", wav_scp)
    write_table(folder / "utt2spk", utt2spk)
    write_table(folder / "spk2utt", {spk: " ".join(utts) for spk, utts in spk2utt(utt2spk).items()})
    if segments is not None:
        write_table(folder / "segments", {u: f"{s.recording} {s.start:.3f} {s.end:.3f}" for u, s in segments.items()})
    for name, table in tables.items():
        write_table(folder / name, table)
