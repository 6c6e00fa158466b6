#!/usr/bin/env python3
"""What methods need, by their conf files.

Usage: local/kd_info.py <conf/kd/*.conf> [...]
  local/kd_info.py --words true conf/kd/enskd.conf     # for scripts: labels teacher audio
"""

from dataclasses import dataclass
from pathlib import Path

from speakerkd.conf import opt, parse_args, run, typed_conf
from speakerkd.kd import METHODS


@dataclass
class Options:
    words: bool = opt(False, "only what is needed, for scripts")


def main(argv: list[str]) -> None:
    options, paths = parse_args(Options, argv, __doc__, None)
    if not paths:
        raise ValueError("give one or more files of conf/kd")
    for path in paths:
        name, kind, conf = typed_conf(path, METHODS)
        needs = kind.needs_of(conf)
        having = {"labels": needs.labels, "teacher": needs.teacher, "audio": bool(needs.views)}
        words = [word for word, needed in having.items() if needed] + [f"vectors:{each}" for each in needs.vectors]
        words += [f"may-have:{each}" for each in needs.may_have]
        words += [f"utts_per_speaker:{needs.utts_per_speaker}"] if needs.utts_per_speaker else []
        print(" ".join(words) if options.words else f"{Path(path).stem:<16} --type={name:<8} needs {', '.join(words)}")


if __name__ == "__main__":
    run(main)
