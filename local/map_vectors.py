#!/usr/bin/env python3
"""Maps the vectors of one system into the space of another, with a map of stage 7.

Usage: local/map_vectors.py [options] <map> <xvector.scp> <out-dir>
  local/map_vectors.py exp/old_new_nessa/nessa/test.pt exp/new/xvectors_test/xvector.scp exp/old_new_nessa/nessa/test_test

<map> is an enroll.pt or test.pt, which knows the system whose vectors it takes, or a matrix in Kaldi's format, which
knows only their dimension. A matrix may have one column more than the vectors have dimensions: an offset. Vectors are
length-normalised before and after the map. So local/score.py --enroll-spk2utt averages profiles in the mapped space,
and each utterance counts the same. Written are <out-dir>/xvector.ark and .scp; local/average_xvectors.py makes
spk_xvector.scp of them.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.conf import opt, parse_args, run
from speakerkd.files.backend import read_matrix
from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.vectors import Vectors, read_vectors
from speakerkd.score.cosine import length_normalise
from speakerkd.score.plda import apply_transform


@dataclass
class Options:
    any_system: bool = opt(False, "allow vectors of a system that the map was not trained for")


def by_net(path: str, vectors: Vectors, any_system: bool) -> np.ndarray:
    import torch  # loading takes a second, which a matrix does not need

    from speakerkd.models.vectormap import load_map, same_system, system_of

    net = load_map(path)
    mine, other, given = net.record["system"], net.record["other"], system_of(vectors.path)
    what = f"{path} is the {net.record['side']} map, for vectors of {mine['name']}"
    if not any_system and not same_system(mine, given):
        if same_system(other, given):
            side = "test" if net.record["side"] == "enroll" else "enroll"
            raise ValueError(f"{what}; {vectors.path} is of {given['name']}: that is the {side} side")
        why = "trained again since" if mine["name"] == given["name"] else f"but these are of {given['name']}"
        raise ValueError(
            f"{what}, {why} ({vectors.path}); train a map for it (local/align.sh), or, if you are sure: --any-system true"
        )
    if vectors.dim != net.in_dim:
        raise ValueError(f"{what} of {net.in_dim} dimensions; those of {vectors.path} have {vectors.dim}")
    with torch.inference_mode():
        return net(torch.from_numpy(vectors.matrix)).numpy()


def main(argv: list[str]) -> None:
    options, (path, scp, out) = parse_args(Options, argv, __doc__, 3)
    vectors = read_vectors(scp)
    zero = int((~vectors.matrix.any(1)).sum())
    if Path(path).suffix == ".pt":
        mapped: np.ndarray = by_net(path, vectors, options.any_system)
    else:
        transform = read_matrix(path)
        try:
            mapped = length_normalise(apply_transform(transform, length_normalise(vectors.matrix)))
        except ValueError as error:
            raise ValueError(f"{path}, {scp}: {error}; is this the map of the other side?") from error
    mapped[~vectors.matrix.any(1)] = 0  # zero vectors stay zero: score.py leaves them out
    with ArkWriter(Path(out) / "xvector") as write:
        for row, key in enumerate(vectors.ids):
            write(key, mapped[row].astype(np.float32))
    logging.info("%d vectors from %d to %d dimensions; %d are zero", len(mapped), vectors.dim, mapped.shape[1], zero)


if __name__ == "__main__":
    run(main)
