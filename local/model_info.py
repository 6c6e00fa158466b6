#!/usr/bin/env python3
"""How large and how fast models are: parameters, multiply-accumulates per second of speech, real-time factor on one thread.

Usage: local/model_info.py [options] <model.conf or final.pt> [...]
  local/model_info.py conf/model/*.conf
  local/model_info.py --seconds 2 --runs 0 exp/teacher/final.pt exp/student/final.pt

It prints one line per model:
  parameters   millions of parameters of the encoder, without classifier and without running statistics of batch norm
  GMAC/s       10^9 multiply-accumulates of convolutions, affine layers and matrix products per second of speech
  RTF          seconds that one thread needs for one second of speech, without the features (median of --runs)
The "FLOPs" in WeSpeaker's README are multiply-accumulates of 2 seconds: about twice the GMAC/s of --seconds 2. They are
up to 2 % higher because batch norm is counted there, and 7 % for CAM++, because its masks are computed once per segment
here.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from speakerkd.conf import opt, parse_args, run
from speakerkd.models import MODELS, Encoder, load_net, read_model
from speakerkd.models.cost import count_macs, num_parameters, time_run

FRAMES_PER_SECOND = 100


@dataclass
class Options:
    feat_dim: int = opt(80, "features per frame, for a conf (a checkpoint knows its own)")
    seconds: float = opt(10.0, "seconds of speech that are measured")
    runs: int = opt(3, "timed runs; 0: no timing")


def encoder_of(path: str, feat_dim: int) -> Encoder:
    """The encoder of a checkpoint, or a new one with random weights for a conf file."""
    if Path(path).suffix != ".conf":
        return load_net(path).encoder
    name, conf = read_model(path)
    try:
        return MODELS[name](conf, feat_dim)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def describe(path: str, options: Options) -> list[str]:
    """One line of the table."""
    encoder = encoder_of(path, options.feat_dim)
    assert isinstance(encoder, nn.Module)
    frames = round(options.seconds * FRAMES_PER_SECOND)
    factor = "-"
    if options.runs > 0:
        factor = f"{time_run(encoder, encoder.feat_dim, frames, options.runs) / options.seconds:.4f}"
    name = path if Path(path).suffix != ".conf" else Path(path).stem
    millions = num_parameters(encoder) / 1e6
    macs = count_macs(encoder, encoder.feat_dim, frames) / options.seconds / 1e9
    return [name, f"{millions:.2f} M", f"{macs:.3f}", str(encoder.dim), str(encoder.feat_dim), factor]


def main(argv: list[str]) -> None:
    options, paths = parse_args(Options, argv, __doc__, None)
    if not paths:
        raise ValueError("no model is given, e.g. conf/model/*.conf or exp/*/final.pt (see --help)")
    if options.seconds * FRAMES_PER_SECOND < 1 or options.runs < 0:
        raise ValueError(f"--seconds={options.seconds} must be positive and --runs={options.runs} not negative")
    torch.set_num_threads(1)
    rows = [["model", "parameters", "GMAC/s", "embedding", "feat-dim", "RTF"]]
    rows += [describe(path, options) for path in paths]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        first, *rest = (
            cell.ljust(width) if not index else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]))


if __name__ == "__main__":
    run(main)
