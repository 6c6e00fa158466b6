"""What makes a run what it is. A folder that holds another run is refused, and so is a comparison of unlike ones.

Files count by their content, not by their name: another teacher under the same name is another run, and so are vectors of
the same utterances by another extractor.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from speakerkd.batches.utterances import Utterances
from speakerkd.conf import read_conf
from speakerkd.feats.source import feature_conf
from speakerkd.train.options import TrainConf

TABLES = ("utt2spk", "utt2uniq", "utt2num_frames", "utt2aug")  # of a data directory, as far as they are there
BLOCK = 1 << 20


def named_files(text: str) -> dict[str, str]:
    """name=file,name=file -> {name: file}."""
    return dict(part.partition("=")[::2] for part in text.split(",") if part)


def options_of(conf: TrainConf) -> dict[str, Any]:
    """Those of TrainConf alone, where conf has more."""
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
        "tables": {name: fingerprint(folder / name) for name in TABLES if (folder / name).exists()},
    }


def fingerprint(path: str | Path) -> str:
    """Of a file's content; of an scp's ids and all that its archives hold, wherever they lie."""
    digest = hashlib.sha256()
    if not str(path).endswith(".scp"):
        _add(digest, path)
        return digest.hexdigest()[:16]
    archives: dict[str, int] = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            key, _, place = line.strip().partition(" ")
            before, _, offset = place.rpartition(":")
            archive, offset = (before, offset) if offset.isdigit() else (place, "")
            number = archives.setdefault(archive.strip(), len(archives))
            digest.update(f"{key} {number} {offset}\n".encode())
    for archive in archives:
        _add(digest, archive)
    return f"vectors:{digest.hexdigest()[:16]}"


def fingerprints(paths: Iterable[str]) -> dict[str, str]:
    return {path: fingerprint(path) for path in paths if path}


def _add(digest: Any, path: str | Path) -> None:
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
