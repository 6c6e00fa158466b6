"""If the memory is too small, the run ends with one line that says what to change."""

import contextlib
from collections.abc import Iterator

import torch

from speakerkd.train.options import TrainConf

SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory", "bad_alloc")


@contextlib.contextmanager
def enough_memory(conf: TrainConf) -> Iterator[None]:
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError, OSError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(
            sign in str(error) for sign in SIGNS
        ):
            raise
        raise ValueError(
            f"there is too little memory for batches of {conf.batch_size} crops of {conf.num_frames} frames: lower "
            "--batch-size or --num-frames, share the batch among more GPUs, or allow the process more memory (ulimit -v, "
            "the job's --mem)"
        ) from error
