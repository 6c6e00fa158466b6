#!/usr/bin/env python3
"""Embeddings of some utterances: one job of extract_xvectors.sh.

Usage: local/extract_xvectors.py [options] <final.pt> <data-dir> <utterances> <out-prefix>
  local/extract_xvectors.py exp/xvector/final.pt data/test data/test/feats.scp exp/xvector/xvectors_test/xvector.1

<utterances> is the data directory's feats.scp, or a part of it; segments or wav.scp where there is none. The features are
those of feats.scp if they are the model's own, else they are computed from the recordings with its front end.

Whole utterances, minus their mean, unless the model's front end says otherwise. One longer than --max-frames is cut into
equal chunks, whose vectors are averaged. With --chunk-frames each piece of that many frames is taken as an utterance of
its own, <utterance>-<first frame>-<frame after the last>. Written are <out-prefix>.ark and .scp, with a 1-D float vector
for each utterance or piece, and .lost_utts (utterance, reason).
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch

from speakerkd.conf import opt, parse_args, run
from speakerkd.feats.frontend import recorded
from speakerkd.feats.source import source_of
from speakerkd.models import load_net
from speakerkd.models.extract import embed, write_vectors
from speakerkd.parallel import start


@dataclass
class Options:
    max_frames: int = opt(6000, "longer utterances are cut into chunks; 0: never")
    chunk_frames: int = opt(0, "a vector for each piece of so many frames; 0: one for the utterance")
    device: str = opt("cpu", "cpu, cuda or auto")
    threads: int = opt(1, "CPU threads; the jobs are the parallelism")


def main(argv: list[str]) -> None:
    options, (checkpoint, data_dir, utterances, prefix) = parse_args(Options, argv, __doc__, 4)
    torch.set_num_threads(options.threads)
    if min(options.max_frames, options.chunk_frames) < 0:
        raise ValueError("--max-frames and --chunk-frames can't be negative")
    net = load_net(checkpoint)
    front_end = recorded(net.info, checkpoint)
    source, note = source_of(front_end, data_dir, utterances, checkpoint)
    if note:
        logging.info("front end: %s", note)
    device = start(options.device).device
    net.to(device)

    def vector(features: np.ndarray, utterance: str) -> np.ndarray:
        if features.ndim != 2 or features.shape[1] != net.feat_dim:
            raise ValueError(
                f"{data_dir}: '{utterance}' has features of shape {features.shape}, the model of {checkpoint} takes "
                f"{net.feat_dim} a frame; make them with the model's own conf/fbank.conf"
            )
        return embed(net, features, device, options.max_frames, front_end.conf if front_end else None)

    done = write_vectors(prefix, source, vector, f"{prefix}.lost_utts", chunk_frames=options.chunk_frames)
    logging.info("vectors of %d: %s", net.dim, done)


if __name__ == "__main__":
    run(main)
