"""Features of waves on the device that trains, a batch at a time (--features device). The loader gives samples.

The values are the loader's up to float32 rounding. The dither is drawn in the loader, by the crop's seed.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from speakerkd.batches.batch import Batch
from speakerkd.feats.batchfbank import BatchFbank
from speakerkd.feats.fbank import Fbank, FbankConf
from speakerkd.feats.frontend import FrontEnd, KaldiFrontEnd


class OnDevice:
    def __init__(self, conf: FbankConf) -> None:
        self._dither = Fbank(conf)
        self._student = BatchFbank(conf)
        self._teachers: dict[str, BatchFbank] = {}

    def listen(self, name: str, front_end: FrontEnd) -> None:
        """Teachers with Kaldi's features are served as well; those of other front ends are made in the loader."""
        if isinstance(front_end, KaldiFrontEnd):
            self._teachers[name] = BatchFbank(front_end.conf)

    def makes(self, name: str) -> bool:
        return name in self._teachers

    def samples(self, wave: np.ndarray, seed: int) -> np.ndarray:
        """What the student's features are made of: the wave with its dither."""
        return self._dither.dithered(wave, seed).numpy()

    def __call__(self, batch: Batch) -> Batch:
        feats = [self._student(waves) for waves in batch.feats]
        feats = [each - each.mean(1, keepdim=True) for each in feats]
        for each, bounds in zip(feats, batch.hidden, strict=True):
            hide(each, bounds)
        heard = {name: self._teachers[name](each) if self.makes(name) else each for name, each in batch.heard.items()}
        return replace(batch, feats=feats, heard=heard, hidden=[])


def hide(feats: Tensor, bounds: Tensor) -> None:
    """SpecAugment: frames and bins between the bounds, (B, 4), become the mean, which is 0."""
    if bounds.shape[1] == 0:
        return
    frames, bins = (torch.arange(size, device=feats.device) for size in feats.shape[1:])
    first, last, low, high = (each[:, None] for each in bounds.unbind(1))
    feats.masked_fill_(((frames >= first) & (frames < last))[:, :, None], 0)
    feats.masked_fill_(((bins >= low) & (bins < high))[:, None, :], 0)
