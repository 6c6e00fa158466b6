"""The EER of held-out speakers during training. The losses on the training speakers do not show it."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from speakerkd.batches.utterances import Utterances
from speakerkd.models.base import SpeakerNet
from speakerkd.score.cosine import length_normalise
from speakerkd.score.metrics import eer, roc
from speakerkd.train.netvectors import net_vectors


class Validation:
    """All pairs of up to `most` utterances of each speaker, cosine. Call it with what a method exports."""

    def __init__(
        self, data: Utterances, entries: np.ndarray, speakers: np.ndarray, device: torch.device, most: int = 20
    ) -> None:
        few = some_of_each(speakers, most)
        self.data, self.entries, self.device = data, entries[few], device
        first, second = np.triu_indices(len(few), 1)
        self.pairs = first, second
        self.target = speakers[few][first] == speakers[few][second]
        if not self.target.any() or self.target.all():
            raise ValueError("the speakers held out make no trials of both kinds; take more --valid-speakers, or none")

    def __call__(self, exports: Mapping[str, nn.Module]) -> float:
        """All processes call this, and all get the same EER."""
        net = exports["final"]
        assert isinstance(net, SpeakerNet)
        unit = length_normalise(net_vectors(net, self.data, self.entries, self.device))
        first, second = self.pairs
        return float(eer(roc((unit @ unit.T)[first, second], self.target))[0])


class CrossValidation:
    """For methods without audio: enrolments by one model, tests by another, all pairs of different utterances."""

    def __init__(
        self, data: Utterances, entries: np.ndarray, speakers: np.ndarray, device: torch.device, most: int = 20
    ) -> None:
        few = some_of_each(speakers, most)
        self.vectors = {name: torch.from_numpy(each.of(entries[few])) for name, each in data.vectors.items()}
        self.device = device
        self.pairs = np.nonzero(~np.eye(len(few), dtype=bool))
        self.target = speakers[few][self.pairs[0]] == speakers[few][self.pairs[1]]
        if not self.target.any() or self.target.all():
            raise ValueError("the speakers held out make no trials of both kinds; take more --valid-speakers, or none")

    @torch.no_grad()
    def __call__(self, exports: Mapping[str, nn.Module]) -> float:
        enroll, test = (exports[side].eval()(self.vectors[side].to(self.device)) for side in ("enroll", "test"))
        return float(eer(roc((enroll @ test.T).cpu().numpy()[self.pairs], self.target))[0])


def some_of_each(speakers: np.ndarray, most: int) -> np.ndarray:
    """The indices of up to `most` utterances of each speaker."""
    return np.concatenate([np.flatnonzero(speakers == speaker)[:most] for speaker in np.unique(speakers)])
