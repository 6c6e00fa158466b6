#!/usr/bin/env python3
"""Spoils a share of a teacher's vectors, to see which methods bear it: half get a stranger's vector, half get noise.

Usage: ./spoil_vectors.py [options] <utt2spk> <xvector.scp> <out-dir>
  ./spoil_vectors.py --share 0.1 data/compare_no_ocean/utt2spk exp/campplus/xvectors_train_originals/xvector.scp exp/spoilt

Hashes of the utterances' names decide: the same utterances are spoilt in each run, and a larger share keeps those of a
smaller one. Vectors of other utterances than those of <utt2spk> are left out. It writes <out-dir>/xvector.ark and .scp, and
<out-dir>/utt2spoilt: for each utterance no, stranger or noise.
"""

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.conf import opt, parse_args, run
from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.tables import read_utt2spk, write_table
from speakerkd.files.vectors import read_vectors


@dataclass
class Options:
    share: float = opt(0.1, "share of the vectors that are spoilt, 0 to 1")
    noise: float = opt(2.0, "length of the Gaussian noise, in lengths of the vector that it is added to")


def draw(what: str, name: str) -> float:
    """A number from 0 to 1, which a hash of the name decides."""
    return int.from_bytes(hashlib.sha256(f"spoil {what} {name}".encode()).digest()[:7], "big") / 2**56


def spoilt(name: str, share: float) -> str:
    if draw("whether", name) >= share:
        return "no"
    return "stranger" if draw("how", name) < 0.5 else "noise"


def stranger(name: str, names: list[str], utt2spk: dict[str, str]) -> int:
    """The number of an utterance of another speaker."""
    start = int(draw("whose", name) * len(names))
    for step in range(len(names)):
        other = (start + step) % len(names)
        if utt2spk[names[other]] != utt2spk[name]:
            return other
    raise ValueError("all vectors are of one speaker; there is no stranger")


def main(argv: list[str]) -> None:
    options, (table, vectors_scp, out_dir) = parse_args(Options, argv, __doc__, 3)
    if not 0 <= options.share <= 1 or options.noise <= 0:
        raise ValueError("--share is from 0 to 1, and --noise is positive")
    utt2spk = read_utt2spk(table)
    vectors = read_vectors(vectors_scp, utt2spk)
    if len(vectors.ids) < len(utt2spk):
        raise ValueError(f"{vectors_scp}: {len(utt2spk) - len(vectors.ids)} utterances of {table} have no vector")
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    how = {name: spoilt(name, options.share) for name in vectors.ids}
    with ArkWriter(out / "xvector") as write:
        for name, vector in zip(vectors.ids, vectors.matrix, strict=True):
            if how[name] == "stranger":
                vector = vectors.matrix[stranger(name, vectors.ids, utt2spk)]
            elif how[name] == "noise":
                rng = np.random.default_rng(int(draw("noise", name) * 2**53))
                noise = rng.standard_normal(len(vector))
                vector = vector + options.noise * np.linalg.norm(vector) * noise / np.linalg.norm(noise)
            write(name, vector.astype(np.float32))
        write_table(out / "utt2spoilt", how)
    counts = Counter(how.values())
    logging.info("%s: %d vectors, %d of a stranger, %d with noise", out, len(how), counts["stranger"], counts["noise"])


if __name__ == "__main__":
    run(main)
