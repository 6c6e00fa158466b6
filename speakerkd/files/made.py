"""Finished parts of a stage: if a job would make the same part again, it keeps the old one.

A part is <prefix>.ark and the files beside it. <prefix>.made is written last. It has a digest of everything that determines
the part's content. So a part that was interrupted, or that has other input, is made again.
"""

import hashlib
import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from speakerkd.files.scplines import file_of, key_and_rest
from speakerkd.files.tables import read_lines, read_segments, read_table, replacing


class Part:
    def __init__(self, prefix: str | Path, origin: str, suffixes: Sequence[str], as_good: Sequence[str] = ()) -> None:
        """origin: the digest. suffixes: those of the part's files beside .ark and .scp. as_good: digests of parts that are
        kept too, because they differ by rounding only."""
        self.prefix, self.origin, self._kept = prefix, origin, (origin, *as_good)
        self._files = [Path(f"{prefix}.{suffix}") for suffix in ("ark", "scp", *suffixes)]
        self._made = Path(f"{prefix}.made")

    def kept(self) -> bool:
        """Is the part finished, with the same digest? If not, its mark is removed."""
        try:
            origin, *sizes = self._made.read_text().split()
            same = origin in self._kept and sizes == self._sizes()
        except (OSError, ValueError):
            same = False
        if not same:
            self._made.unlink(missing_ok=True)
        return same

    def finish(self, unread: Collection[str] = (), folder: Path | None = None) -> None:
        """unread: utterances of a data directory that could not be read. If that may change, the part is not kept."""
        if folder is not None and (again := may_be_read_later(folder, unread)):
            text = "%d utterance(s) could not be read, such as %s; the same command will try this part again"
            logging.warning(text, len(again), again[0])
            return
        with replacing(self._made) as file:
            file.write(" ".join([self.origin, *self._sizes()]) + "\n")

    def _sizes(self) -> list[str]:
        return [str(path.stat().st_size) for path in self._files]


def origin_in_recordings(folder: Path, utterances: Sequence[str], options: str) -> str:
    """The digest for results computed from recordings: their lines in the data directory's tables, the relevant options.

    For a recording in a file, it includes the size and the time of the last change.
    """
    wanted = set(utterances)
    segments = read_segments(folder / "segments", wanted) if (folder / "segments").exists() else {}
    recordings = {segment.recording for segment in segments.values()} or wanted
    sources = read_table(folder / "wav.scp", only=recordings)
    texts = read_table(folder / "utt2aug", only=wanted) if (folder / "utt2aug").exists() else {}
    noises = (folder / "aug.scp").read_bytes() if texts and (folder / "aug.scp").exists() else b""
    found = hashlib.sha256(f"{options}\n{hashlib.sha256(noises).hexdigest()}\n".encode())
    states: dict[str, str] = {}
    for utterance in utterances:
        segment = segments.get(utterance)
        source = sources.get(segment.recording if segment else utterance, "")
        if source not in states:
            states[source] = state_of(source)
        found.update(f"{utterance} {source} {states[source]} {segment} {texts.get(utterance, '')}\n".encode())
    return found.hexdigest()


def may_be_read_later(folder: Path, unread: Collection[str]) -> list[str]:
    """Those with a recording out of a pipe or noise from elsewhere: the digest doesn't see it if these work again.

    (It has the size and the time of a recording in a file.)
    """
    if not unread:
        return []
    segments = read_segments(folder / "segments", set(unread)) if (folder / "segments").exists() else {}
    recording_of = {each: segments[each].recording if each in segments else each for each in unread}
    sources = read_table(folder / "wav.scp", only=set(recording_of.values()))
    copies = read_table(folder / "utt2aug", only=set(unread)) if (folder / "utt2aug").exists() else {}
    piped = {each for each, source in sources.items() if source.rstrip().endswith("|")}
    return [each for each in unread if each in copies or recording_of[each] in piped]


def origin_in_archives(listed: str | Path, options: str) -> str:
    """The digest for results computed from the archives of an scp: its lines, and the archives' sizes and times."""
    found = hashlib.sha256(options.encode())
    archives: set[str] = set()
    for _, line in read_lines(listed):
        found.update(line.encode() + b"\n")
        archives.add(file_of(key_and_rest(line)[1])[0])
    for name in sorted(archives):
        found.update(f"{name} {state_of(name)}\n".encode())
    return found.hexdigest()


def state_of(source: str) -> str:
    """Size and time of the last change; '' if it is not a file, such as a pipe."""
    try:
        state = Path(source).stat()
    except (OSError, ValueError):
        return ""
    return f"{state.st_size} {state.st_mtime_ns}"


def digest_of_file(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
