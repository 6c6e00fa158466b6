#!/usr/bin/env python3
"""Embeddings of some utterances: one job of extract_xvectors.sh.

Usage: local/extract_xvectors.py [options] <final.pt> <data-dir> <utterances> <out-prefix>
  local/extract_xvectors.py exp/xvector/final.pt data/test data/test/feats.scp exp/xvector/xvectors_test/xvector.1

<utterances> is the data directory's feats.scp, or a part of it; segments or wav.scp if there is none. The features are
those of feats.scp if they are the model's own. Otherwise they are computed from the recordings with its front end.

Utterances are read whole, minus their mean, unless the model's front end says otherwise. One longer than --max-frames is
cut into equal chunks, whose vectors are averaged. With --chunk-frames each piece of that many frames counts as an utterance,
<utterance>-<first frame>-<frame after the last>. <out-prefix>.ark and .scp are written, with a 1-D float vector for each
utterance or piece, and .lost_utts (utterance, reason). If <out-prefix> was made with the same model, options and features,
it is kept.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch

from speakerkd.conf import opt, parse_args, run
from speakerkd.feats.frontend import Reading
from speakerkd.feats.source import FeatureSource
from speakerkd.files.made import Part, digest_of_file
from speakerkd.files.tables import read_table
from speakerkd.foreign.onnxnet import choose_engine, onnx_or_torch
from speakerkd.models.extract import Cut, Encode, NetEncoder, pieces_of, write_vectors
from speakerkd.models.hearing import net_and_features
from speakerkd.models.precision import AMP, choose_half
from speakerkd.parallel import device_of_job

FORMAT = "vectors 2"  # to be changed with what the same options compute
SAMPLES = 16  # utterances on which half precision or ONNX Runtime is tried


@dataclass
class Options:
    max_frames: int = opt(6000, "longer utterances are cut into chunks; 0: never")
    chunk_frames: int = opt(0, "a vector for each piece of so many frames; 0: one vector per utterance")
    device: str = opt("cpu", "cpu, cuda or auto")
    job: int = opt(1, "number of this job, which chooses its GPU among those that it sees")
    amp: str = opt(
        "none",
        "none: float32; bf16; fast: half precision if the device has it; auto: if no vector changes by it either",
    )
    engine: str = opt(
        "auto",
        "torch: PyTorch; onnx: ONNX Runtime, on CPUs in float32; auto: onnx if the packages onnx and onnxruntime are there, "
        "the job has 500 utterances or more and its vectors are those of PyTorch, otherwise torch",
    )
    threads: int = opt(1, "CPU threads; the jobs run side by side")


def main(argv: list[str]) -> None:
    options, (checkpoint, data_dir, utterances, prefix) = parse_args(Options, argv, __doc__, 4)
    torch.set_num_threads(options.threads)
    if min(options.max_frames, options.chunk_frames) < 0:
        raise ValueError("--max-frames and --chunk-frames can't be negative")
    if options.amp not in AMP:
        raise ValueError(f"--amp={options.amp} is not one of: {' '.join(AMP)}")
    net, source, reading = net_and_features(checkpoint, data_dir, utterances)
    on_cpu = options.device == "cpu" or (options.device == "auto" and not torch.cuda.is_available())
    engine = choose_engine(options.engine, net, checkpoint, on_cpu, options.amp, len(list(source)))
    settings = f"{FORMAT} {digest_of_file(checkpoint)} {options.max_frames} {options.chunk_frames} {options.amp}"
    origins = {"torch": source.origin(settings), "onnx": source.origin(f"{settings} onnx")}
    origin = origins.pop(engine)
    as_good = list(origins.values()) if options.engine == "auto" else []
    part = Part(prefix, origin, ("lost_utts",), as_good)
    if part.kept():
        logging.info("%s.ark is kept, which was made with the same model from the same features", prefix)
        return
    device = device_of_job(options.device, options.job)

    def require_width(features: np.ndarray, utterance: str) -> None:
        if features.ndim != 2 or features.shape[1] != net.feat_dim:
            raise ValueError(
                f"{data_dir}: '{utterance}' has features of shape {features.shape}, the model of {checkpoint} takes "
                f"{net.feat_dim} a frame; make them with the model's own conf/fbank.conf"
            )

    def samples() -> list[np.ndarray]:
        return some_pieces(source, reading, net.feat_dim)

    encode: Encode
    if engine == "onnx":
        encode = onnx_or_torch(net, options.engine == "onnx", samples, options.threads)
    else:
        half = choose_half(options.amp, net, device, [] if options.amp == "none" else samples())
        encode = NetEncoder(net, device, half)
    cut = Cut(options.max_frames, options.chunk_frames, reading)
    done = write_vectors(prefix, source, encode, cut, f"{prefix}.lost_utts", check=require_width)
    part.finish(read_table(f"{prefix}.lost_utts"), source.folder)
    logging.info("vectors of %d: %s", net.dim, done)


def some_pieces(source: FeatureSource, reading: Reading, dim: int) -> list[np.ndarray]:
    """The pieces of some utterances, spread over the list; those that can't be read are left out."""
    names, pieces = list(source), []
    for name in names[:: max(len(names) // SAMPLES, 1)][:SAMPLES]:
        try:
            features = source(name)
        except ValueError:
            continue  # it is met again, and said then
        if features.ndim == 2 and features.shape[1] == dim:
            pieces.append(pieces_of(features, 0, reading)[0])
    return pieces


if __name__ == "__main__":
    run(main)
