#!/usr/bin/env python3
"""Measures the speed of the parts, each next to something that it is compared with, in one run.

Usage: tools/bench.py [options] [section ...]
  tools/bench.py fbank load index
Sections:
  fbank   wav to written ark, times real time on one core, beside kaldi-native-fbank
  crops   two-second crops of waves with their features, plain and with noise and rooms, beside torchaudio's chain
  load    two-second crops from compressed archives on one core, beside kaldiio.load_mat; bytes read from a cold disk
  index   a long scp: seconds to open, memory with no and with four workers
  opening a data directory of 9.8 million utterances, as training opens it: seconds, private memory
  train   crops per second of the training loop, beside the same model stepping on tensors in memory
  distill crops per second of a step of distillation, beside plain training, the teacher alone and its features
  sdpn    crops per second of SDPN's whole step, beside its forward and backward passes alone
  extract vectors of utterances, times real time by processor time of one thread: batches and nets prepared once in
          float32, ONNX Runtime and bf16, beside one by one; 2 to 5 minutes
  augment stage 1's plan of 8.7 million augmented copies: seconds, memory
  score   trials per second, beside loops over the trials
  asnorm  seconds for AS-norm of the same trials
  stage1  egs/voxceleb's stage 1 on a made-up tree of 1.2 million empty files, and its split over 64 jobs: seconds, memory
  stage6  egs/voxceleb's stage 6 on made-up vectors and lists as long as VoxCeleb1-E and H: seconds, memory
  stage7  its stage 7, maps between two made-up systems, trained and tried on lists as long: seconds, memory
  gpu     measurements that need a GPU (tests/gpu.sh); only if it is named

Machines are noisy, so the two sides take turns. The ratio is the median of the turns' ratios.
"""

import dataclasses
import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
if "SPEAKERKD_BENCH" not in os.environ:  # start again in the environment of the recipes
    os.environ["SPEAKERKD_BENCH"] = "started"
    if {"--help", "-h"} & set(sys.argv[1:]):  # the help needs no packages, so nothing is installed
        os.environ["PYTHONPATH"] = str(TOOLS.parent)
        os.execv(sys.executable, [sys.executable, __file__, *sys.argv[1:]])
    start = 'extras=dev; . "$0/env.sh" && exec python3 "$0/bench.py" "$@"'
    os.execvp("bash", ["bash", "-c", start, str(TOOLS), *sys.argv[1:]])

from speakerkd.conf import parse_args, run  # noqa: E402
from tools.benchmarks.common import Options, Row  # noqa: E402

# A section's module is loaded only when its turn comes, so that others don't add to the memory that it measures.
SECTIONS = {
    "fbank": "features",
    "load": "features",
    "crops": "wavecrops",
    "index": "features",
    "opening": "opening",
    "train": "training",
    "distill": "distilling",
    "sdpn": "selftaught",
    "extract": "extracting",
    "augment": "extracting",
    "score": "scoring",
    "asnorm": "scoring",
    "gpu": "gpu",
    "stage1": "lists",
    "stage6": "lists",
    "stage7": "lists",
}


def main(argv: list[str]) -> None:
    options, names = parse_args(Options, argv, __doc__, None)
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise ValueError(f"no section '{unknown[0]}' (there are: {' '.join(SECTIONS)})")
    rows = [Row("section", "what", "figure", "beside", "ratio", "aim")]
    for name in names or [name for name in SECTIONS if name != "gpu"]:
        print(f"bench.py: {name} ...", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            section: Callable[[Options, Path], list[Row]] = getattr(
                importlib.import_module(f"tools.benchmarks.{SECTIONS[name]}"), name
            )
            rows += section(options, Path(folder))
    table = [dataclasses.astuple(row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if any("FAILED" in line for line in table):
        raise SystemExit(1)


if __name__ == "__main__":
    run(main)
