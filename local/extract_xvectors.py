#!/usr/bin/env python3
"""Embeddings of some utterances: one job of extract_xvectors.sh.

Usage: local/extract_xvectors.py [options] <final.pt> <feats.scp> <out-prefix>
  local/extract_xvectors.py --max-frames 6000 exp/xvector/final.pt data/test/feats.scp exp/xvector/xvectors_test/xvector.1

Whole utterances, minus their mean. One longer than --max-frames is cut into equal chunks, whose vectors are averaged.
Written are <out-prefix>.ark and .scp, with a 1-D float vector for each utterance.
"""

import logging
import time
from dataclasses import dataclass

import numpy as np
import torch

from speakerkd.conf import opt, parse_args, run
from speakerkd.data.kaldi import ArkWriter, Scp
from speakerkd.extract import embed
from speakerkd.models import load_net
from speakerkd.parallel import start


@dataclass
class Options:
    max_frames: int = opt(6000, "longer utterances are cut into chunks; 0: never")
    device: str = opt("cpu", "cpu, cuda or auto")
    threads: int = opt(1, "CPU threads; the jobs are the parallelism")


def main(argv: list[str]) -> None:
    options, (checkpoint, feats, prefix) = parse_args(Options, argv, __doc__, 3)
    torch.set_num_threads(options.threads)
    if options.max_frames < 0:
        raise ValueError("--max-frames can't be negative")
    net = load_net(checkpoint)
    device = start(options.device).device
    net.to(device)
    scp = Scp(feats)
    began, frames = time.monotonic(), 0
    with ArkWriter(prefix) as write:
        for index, utterance in enumerate(scp):
            features = scp.read(index)
            if features.ndim != 2 or features.shape[1] != net.feat_dim:
                raise ValueError(
                    f"{feats}: '{utterance}' has features of shape {features.shape}, the model of {checkpoint} takes "
                    f"{net.feat_dim} a frame; make them with the model's own conf/fbank.conf"
                )
            vector = embed(net, features, device, options.max_frames)
            if not np.isfinite(vector).all():
                raise ValueError(f"{checkpoint} gives '{utterance}' a vector that is not finite; the model is broken")
            write(utterance, vector)
            frames += len(features)
    speed = frames / 100 / max(time.monotonic() - began, 1e-9)
    logging.info("%d utterances, vectors of %d, %.0f times real time", len(scp), net.dim, speed)


if __name__ == "__main__":
    run(main)
