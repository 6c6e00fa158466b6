#!/usr/bin/env python3
"""Embeddings of fixed crops of some utterances: one job of extract_crop_xvectors.sh.

Usage: local/extract_crop_xvectors.py [options] <final.pt> <data-dir> <utterances> <out-prefix>
  local/extract_crop_xvectors.py --num-crops 4 exp/campplus/final.pt data/train data/train/feats.scp exp/crops/xvector.1

<utterances> is the data directory's feats.scp, or a part of it; segments or wav.scp if there is none. <out-prefix>.ark and
.scp are written, with a 1-D float vector for each crop, <utterance>-<first frame>-<frame after the last>, and .lost_utts
(utterance, reason). If <out-prefix> was made with the same model, options and features, it is kept.
"""

import logging
import time
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from speakerkd.audio.recordings import AudioError
from speakerkd.conf import opt, parse_args, run
from speakerkd.feats.frontend import Reading
from speakerkd.feats.pieces import Piece, Pieces
from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.made import Part, digest_of_file
from speakerkd.files.tables import write_table
from speakerkd.models.frozen import Frozen
from speakerkd.models.hearing import hear, net_and_features
from speakerkd.parallel import device_of_job

FORMAT = "crops 1"  # to be changed with what the same options compute
BATCH = 32  # crops


@dataclass
class Options:
    num_crops: int = opt(4, "most crops of an utterance; they are spread evenly over it")
    crop_frames: int = opt(200, "frames of a crop; students may take crops of as many frames or fewer")
    device: str = opt("cpu", "cpu, cuda or auto")
    job: int = opt(1, "number of this job, which chooses its GPU among those that it sees")
    threads: int = opt(1, "CPU threads; the jobs run side by side")


def main(argv: list[str]) -> None:
    options, (checkpoint, data_dir, utterances, prefix) = parse_args(Options, argv, __doc__, 4)
    torch.set_num_threads(options.threads)
    if min(options.num_crops, options.crop_frames) < 1:
        raise ValueError("--num-crops and --crop-frames must be 1 or more")
    net, source, reading = net_and_features(checkpoint, data_dir, utterances)
    settings = f"{FORMAT} {digest_of_file(checkpoint)} {options.num_crops} {options.crop_frames}"
    part = Part(prefix, source.origin(settings), ("lost_utts",))
    if part.kept():
        logging.info("%s.ark is kept, which was made with the same model from the same features", prefix)
        return
    device = device_of_job(options.device, options.job)
    prepared = Frozen(net, device)
    pieces = Pieces(source, data_dir, options.crop_frames, options.num_crops)

    began, count = time.monotonic(), 0
    lost: dict[str, str] = {}
    waiting: list[Piece] = []
    vectors: dict[str, np.ndarray] = {}
    for utterance in source:
        try:
            waiting += pieces(utterance)
        except AudioError as error:
            lost[utterance] = str(error)
            continue
        count += 1
        if len(waiting) >= BATCH:
            vectors |= embedded(prepared, waiting, reading, device)
            waiting = []
    vectors |= embedded(prepared, waiting, reading, device)
    with ArkWriter(prefix) as write:
        for name in sorted(vectors):
            write(name, vectors[name])
    write_table(f"{prefix}.lost_utts", lost)
    part.finish(lost, source.folder)
    source.log_warnings()
    speed = len(vectors) / max(time.monotonic() - began, 1e-9)
    logging.info(
        "%d in, %d crops of %d out, %d lost, %.0f crops/s", count + len(lost), len(vectors), count, len(lost), speed
    )


@torch.inference_mode()
def embedded(net: Frozen, pieces: list[Piece], reading: Reading, device: torch.device) -> dict[str, np.ndarray]:
    """The front ends make crops of one length equally long, so that they go through the net together."""
    found: dict[str, np.ndarray] = {}
    for shape, group in groupby(pieces, key=lambda piece: piece[1].shape):
        if len(shape) != 2 or shape[1] != net.feat_dim:
            raise ValueError(
                f"features of shape {shape}, the model takes {net.feat_dim} a frame; make them with its own conf"
            )
        members = list(group)
        for at in range(0, len(members), BATCH):
            names, feats = zip(*members[at : at + BATCH], strict=True)
            rows = hear(net, torch.from_numpy(np.stack(feats)).to(device), reading).embedding.float().cpu().numpy()
            if not np.isfinite(rows).all():
                raise ValueError(f"the model gives {names[0]} or a crop near it a vector that is not finite")
            found |= dict(zip(names, rows, strict=True))
    return found


if __name__ == "__main__":
    run(main)
