#!/usr/bin/env python3
"""Speaker means, counts and the mean of all vectors, as Kaldi's ivector-mean writes them.

Usage: local/average_xvectors.py <spk2utt> <xvector.scp> <out-dir>
  local/average_xvectors.py data/test/spk2utt exp/xvector/xvectors_test/xvector.scp exp/xvector/xvectors_test

It writes <out-dir>/spk_xvector.ark and .scp, num_utts.ark (text) and mean.vec (text). The number of utterances without a
vector is logged. A speaker without any vector is left out. If there are no speakers, give '' as <spk2utt>; it then writes
only mean.vec.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.conf import parse_args, run
from speakerkd.files.backend import write_num_utts, write_text_vector
from speakerkd.files.kaldi import ArkWriter, Scp
from speakerkd.files.tables import read_table


@dataclass
class Options:
    pass


def main(argv: list[str]) -> None:
    _, (spk2utt, vectors, out) = parse_args(Options, argv, __doc__, 3)
    scp = Scp(vectors)
    total = np.zeros(scp.read(0).shape, np.float64)
    for index in range(len(scp)):
        total += scp.read(index)
    if spk2utt:
        counts: dict[str, int] = {}
        missing = 0
        with ArkWriter(Path(out) / "spk_xvector") as write:
            for speaker, text in read_table(spk2utt).items():
                found = [index for index in map(scp.find, text.split()) if index >= 0]
                missing += len(text.split()) - len(found)
                if found:
                    rows = np.stack([scp.read(index) for index in found])
                    write(speaker, np.asarray(rows.mean(0, dtype=np.float64), np.float32))
                    counts[speaker] = len(found)
        write_num_utts(Path(out) / "num_utts.ark", counts)
        lost = f"; {missing} of their utterances have no vector" if missing else ""
        logging.info("the mean vectors of %d speakers are written%s", len(counts), lost)
    write_text_vector(Path(out) / "mean.vec", total / len(scp))


if __name__ == "__main__":
    run(main)
