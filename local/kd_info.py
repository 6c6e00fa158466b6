#!/usr/bin/env python3
"""Prints what methods need: labels, a teacher, vectors.

Usage: local/kd_info.py <conf/kd/*.conf> [...]
  local/kd_info.py --words true conf/kd/enskd.conf     # for scripts: labels teacher audio

The first call for a conf file loads the methods and PyTorch, which takes seconds. The answer is then kept in
speakerkd/kd/__pycache__, as Python keeps its compiled modules, until the conf file or a file of speakerkd/kd changes.
"""

import hashlib
import inspect
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import speakerkd
from speakerkd.conf import opt, parse_args, run, typed_conf
from speakerkd.files.tables import replacing

FOLDER = Path(speakerkd.__file__).parent / "kd"
KEPT = FOLDER / "__pycache__/needs.json"


@dataclass
class Options:
    words: bool = opt(False, "print only the needs, for scripts")


@dataclass(frozen=True)
class Method:
    """What a conf file of a method says."""

    type: str
    cls: str  # "DKD of speakerkd/kd/label.py"
    words: Sequence[str]  # labels teacher teacher-net audio vectors:<name> may-have:<name> utts_per_speaker:<n>
    classifier: bool  # the student has a classifier, by conf/head.conf


def methods(paths: Sequence[str]) -> list[Method]:
    """Reads the conf files. PyTorch is loaded only if something has changed since the last time."""
    code = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(FOLDER.glob("*.py"))]
    version = hashlib.sha256(f"{code}{Path(__file__).read_text()}".encode()).hexdigest()
    kept: dict[str, dict[str, object]] = {}
    with suppress(OSError, ValueError, KeyError, TypeError):  # the stored answer may not exist yet
        stored = json.loads(KEPT.read_text())
        kept = stored["methods"] if stored["version"] == version else {}
    keys = [hashlib.sha256(_text(path)).hexdigest() for path in paths]
    if not set(keys) <= set(kept):
        kept |= {key: asdict(_load(path)) for key, path in zip(keys, paths, strict=True)}
        with suppress(OSError):  # a read-only installation works too, only slower
            KEPT.parent.mkdir(exist_ok=True)
            with replacing(KEPT) as file:
                json.dump({"version": version, "methods": kept}, file)
    return [Method(**kept[key]) for key in keys]  # type: ignore[arg-type]


def _text(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: can't read this conf file ({error.strerror})") from error


def _load(path: str) -> Method:
    from speakerkd.kd import METHODS

    name, kind, conf = typed_conf(path, METHODS)
    needs = kind.needs_of(conf)
    having = {
        "labels": needs.labels, "teacher": needs.teacher, "teacher-net": needs.teacher_net, "audio": bool(needs.views)
    }  # fmt: skip
    words = [word for word, needed in having.items() if needed] + [f"vectors:{each}" for each in needs.vectors]
    words += [f"may-have:{each}" for each in needs.may_have]
    words += [f"utts_per_speaker:{needs.utts_per_speaker}"] if needs.utts_per_speaker else []
    file = Path(inspect.getfile(kind)).relative_to(FOLDER.parent.parent)
    return Method(name, f"{kind.__name__} of {file}", words, needs.labels and needs.classifier)


def main(argv: list[str]) -> None:
    options, paths = parse_args(Options, argv, __doc__, None)
    if not paths:
        raise ValueError("give one or more files of conf/kd")
    for path, method in zip(paths, methods(paths), strict=True):
        needed = ", ".join(method.words)
        print(
            " ".join(method.words) if options.words else f"{Path(path).stem:<16} --type={method.type:<8} needs {needed}"
        )


if __name__ == "__main__":
    run(main)
