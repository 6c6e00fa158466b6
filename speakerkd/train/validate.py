"""The EER of held-out speakers during training. The losses on the training speakers do not show it."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from speakerkd.batches.utterances import Utterances
from speakerkd.models.base import SpeakerNet
from speakerkd.models.extract import Cut, NetEncoder, vectors_of
from speakerkd.parallel import gather_rows
from speakerkd.score.cosine import length_normalise
from speakerkd.score.metrics import eer, roc

LONGEST = 1000  # frames that are read of an utterance, at most
READ = 64  # utterances in memory at the same time


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
        """All processes call this. Each makes the vectors of its share, and all get the same EER."""
        net = exports["final"]
        assert isinstance(net, SpeakerNet)
        net.eval()
        unit = length_normalise(self.vectors(net))
        first, second = self.pairs
        return float(eer(roc((unit @ unit.T)[first, second], self.target))[0])

    def vectors(self, net: SpeakerNet) -> np.ndarray:
        """(entries, D), in the order of the entries."""
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, size = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if several else (0, 1)
        if several:  # on CPUs each process has its own batch norms; the checkpoint has those of the first process
            for buffer in net.buffers():
                torch.distributed.broadcast(buffer, 0)
        share = np.resize(self.entries, -(-len(self.entries) // size) * size)[
            rank::size
        ]  # the same number for each process
        encode = NetEncoder(net, self.device)
        rows: list[np.ndarray] = []
        for start in range(0, len(share), READ):
            features = [self.data.crops.rows(int(entry), 0, LONGEST) for entry in share[start : start + READ]]
            rows += vectors_of(encode, features, Cut())
        gathered = gather_rows(torch.from_numpy(np.stack(rows)).to(self.device))
        return gathered.unflatten(0, (size, -1)).transpose(0, 1).flatten(0, 1)[: len(self.entries)].cpu().numpy()


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
