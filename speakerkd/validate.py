"""The EER of speakers held out, while a net is trained: what the losses on the training speakers do not tell."""

import numpy as np
import torch

from speakerkd.data.dataset import Utterances
from speakerkd.extract import embed
from speakerkd.models.base import SpeakerNet
from speakerkd.score.cosine import length_normalise
from speakerkd.score.metrics import eer, roc


class Validation:
    """All pairs of up to `most` utterances of each speaker, cosine. Call it with a net."""

    def __init__(
        self, data: Utterances, entries: np.ndarray, speakers: np.ndarray, device: torch.device, most: int = 20
    ) -> None:
        few = np.concatenate([np.flatnonzero(speakers == speaker)[:most] for speaker in np.unique(speakers)])
        self.data, self.entries, self.device = data, entries[few], device
        first, second = np.triu_indices(len(few), 1)
        self.pairs = first, second
        self.target = speakers[few][first] == speakers[few][second]
        if not self.target.any() or self.target.all():
            raise ValueError("the speakers held out make no trials of both kinds; take more --valid-speakers, or none")

    def __call__(self, net: SpeakerNet) -> float:
        net.eval()
        vectors = [embed(net, self.data.scp.read(int(entry), 0, 1000), self.device) for entry in self.entries]
        unit = length_normalise(np.stack(vectors))
        first, second = self.pairs
        return float(eer(roc((unit @ unit.T)[first, second], self.target))[0])
