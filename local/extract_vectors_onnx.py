#!/usr/bin/env python3
"""Vectors of a data directory by a speaker encoder in ONNX, from any toolkit. Such vectors can be a teacher.

Usage: local/extract_vectors_onnx.py [options] <model.onnx> <data-dir> <out-dir>
  local/extract_vectors_onnx.py --front-end conf/frontend/wespeaker.conf voxceleb_resnet34.onnx data/train exp/resnet34_onnx

--front-end names the conf file of the model's features; conf/frontend/*.conf are those of known toolkits. feats.scp is used
if its features are the same. Otherwise they are computed from wav.scp (and segments, utt2aug). A model that takes a fixed
number of frames needs --window-frames in that conf.

It writes the files of local/extract_xvectors.sh: xvector.scp and .ark (1-D float vectors), lost_utts, mean.vec, and
spk_xvector.scp and num_utts.ark if there is a spk2utt. It is one process. For several, split the data directory with
utils/split_data.sh.
Needs onnxruntime: tools/setup.sh --extras onnx.
"""

import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from speakerkd.conf import opt, parse_args, run
from speakerkd.feats.frontend import read_front_end
from speakerkd.feats.source import feature_source, utterance_list_of
from speakerkd.foreign.onnxencoder import OnnxEncoder
from speakerkd.models.extract import Cut, write_vectors


@dataclass
class Options:
    front_end: str = opt("conf/frontend/wespeaker.conf", "conf file of the front end")
    output: str = opt("", "name of the output that is the vector, if the model has several")
    max_frames: int = opt(
        6000, "frames above which an utterance is cut into chunks, whose vectors are averaged; 0: never"
    )
    max_lost: int = opt(5, "largest percentage of utterances without a vector that is not an error")
    threads: int = opt(1, "CPU threads")


def main(argv: list[str]) -> None:
    options, (model, data_dir, out_dir) = parse_args(Options, argv, __doc__, 3)
    if options.max_frames < 0 or options.threads < 1:
        raise ValueError("--max-frames can't be negative, --threads must be 1 or more")
    torch.set_num_threads(options.threads)
    front_end = read_front_end(options.front_end)
    encoder = OnnxEncoder(model, front_end.dim, options.output, options.threads)
    encoder.check_frames(front_end.conf.window_frames)
    folder, out = Path(data_dir), Path(out_dir)
    source, note = feature_source(front_end, folder, utterance_list_of(folder), options.front_end)
    if note:
        logging.info("front end: %s", note)

    def require_width(features: np.ndarray, utterance: str) -> None:
        if features.ndim != 2 or features.shape[1] != front_end.dim:
            raise ValueError(
                f"{folder}: '{utterance}' has features of shape {features.shape}, {options.front_end} describes "
                f"{front_end.dim} a frame; make them with its options, or remove {folder}/feats.scp"
            )

    for name in ("xvector.scp", "spk_xvector.scp", "spk_xvector.ark", "num_utts.ark", "mean.vec"):  # of other vectors
        (out / name).unlink(missing_ok=True)
    cut = Cut(options.max_frames, 0, front_end.conf)
    done = write_vectors(out / "xvector", source, encoder, cut, out / "lost_utts", options.max_lost, require_width)
    logging.info("%s: %s", model, done)
    speakers = folder / "spk2utt"
    average = [sys.executable, str(Path(__file__).with_name("average_xvectors.py"))]
    words = [str(speakers) if speakers.exists() else "", str(out / "xvector.scp"), str(out)]
    raise SystemExit(subprocess.run(average + words).returncode)


if __name__ == "__main__":
    run(main)
