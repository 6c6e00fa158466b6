#!/usr/bin/env python3
"""Makes the utt2num_frames of a data directory whose features come from elsewhere, such as MFCCs of Kaldi's scripts.

Usage: local/make_num_frames.py [options] <data-dir>
  local/make_num_frames.py data/train

Training needs this file beside feats.scp, and so do Kaldi's own programs. Only the archives' headers are read.
local/make_fbank.sh writes the file itself.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from speakerkd.conf import parse_args, run
from speakerkd.files.kaldi import Scp
from speakerkd.files.numframes import frames_of
from speakerkd.files.tables import write_table


@dataclass
class Options:
    pass


def main(argv: list[str]) -> None:
    _, (data_dir,) = parse_args(Options, argv, __doc__, 1)
    path = Path(data_dir) / "feats.scp"
    if not path.exists():
        raise ValueError(f"{path}: no such file; run stage 2")
    scp = Scp(path, pipes=True)
    frames = dict(zip(scp, frames_of(scp), strict=True))
    write_table(Path(data_dir) / "utt2num_frames", frames)
    logging.info("%s/utt2num_frames: %d utterances, %d frames", data_dir, len(frames), sum(frames.values()))


if __name__ == "__main__":
    run(main)
