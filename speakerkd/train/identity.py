"""What identifies a run. A folder with another run is refused, and so is a comparison of runs with different options.

Files are compared by content, not by name. Another teacher under the same name makes another run. So do vectors of the same
utterances from another extractor.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from speakerkd.batches.utterances import Utterances
from speakerkd.conf import read_conf
from speakerkd.feats.source import feature_conf
from speakerkd.files.scplines import file_of, key_and_rest
from speakerkd.train.options import TrainConf

TABLES = ("utt2spk", "utt2uniq", "utt2num_frames", "utt2aug")  # of a data directory, if they exist
BLOCK = 1 << 20


def named_files(text: str) -> dict[str, str]:
    """name=file,name=file -> {name: file}."""
    return dict(part.partition("=")[::2] for part in text.split(",") if part)


def options_of(conf: TrainConf) -> dict[str, Any]:
    """The options of TrainConf only; conf may have more."""
    return {field.name: getattr(conf, field.name) for field in fields(TrainConf)}


def with_type(kind: str, conf: Any) -> dict[str, Any]:
    return {"type": kind, **(asdict(conf) if conf else {})}


def describe_data(data: Utterances) -> dict[str, Any]:
    folder = Path(data.folder)
    front_end = feature_conf(folder) if data.audio else None
    return {
        "folder": str(folder),
        "utterances": len(data),
        "frames": int(data.frames.sum()),
        "speakers": len(data.speakers),
        "feat_dim": data.dim,
        "fbank": read_conf(front_end) if front_end else {},
        "tables": fingerprints_of_tables(folder),
    }


def fingerprints_of_tables(folder: Path) -> dict[str, str]:
    return {name: fingerprint(folder / name) for name in TABLES if (folder / name).exists()}


def fingerprint(path: str | Path) -> str:
    """A digest of a file's content. For an scp: of its ids and its archives' contents, not of the paths."""
    digest = hashlib.sha256()
    if not str(path).endswith(".scp"):
        _add(digest, path)
        return digest.hexdigest()[:16]
    archives: dict[str, int] = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            key, source = key_and_rest(line)
            archive, place = file_of(source)
            number = archives.setdefault(archive, len(archives)) if archive else -1  # a command has no file to read
            digest.update(f"{key} {number} {place.removeprefix(':')}\n".encode())
    for archive in archives:
        _add(digest, archive)
    return f"vectors:{digest.hexdigest()[:16]}"


def fingerprints(paths: Iterable[str]) -> dict[str, str]:
    return {os.path.normpath(path): fingerprint(path) for path in paths if path}


def _add(digest: Any, path: str | Path) -> None:
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
