"""Embeddings of training utterances by the net that is trained. The processes share the work."""

import numpy as np
import torch

from speakerkd.batches.utterances import Utterances
from speakerkd.models.base import SpeakerNet
from speakerkd.models.extract import Cut, NetEncoder, vectors_of
from speakerkd.parallel import gather_rows

LONGEST = 1000  # frames that are read of an utterance, at most
READ = 64  # utterances in memory at the same time


def net_vectors(net: SpeakerNet, data: Utterances, entries: np.ndarray, device: torch.device) -> np.ndarray:
    """(entries, D), in their order. All processes call this. Each makes the vectors of its share, and all get all of them.

    The net is in evaluation mode afterwards.
    """
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank, size = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if several else (0, 1)
    if several:  # on CPUs each process has its own batch norms; the checkpoint has those of the first process
        for buffer in net.buffers():
            torch.distributed.broadcast(buffer, 0)
    share = np.resize(entries, -(-len(entries) // size) * size)[rank::size]  # the same number for each process
    encode = NetEncoder(net.eval(), device)
    rows: list[np.ndarray] = []
    for start in range(0, len(share), READ):
        features = [data.crops.rows(int(entry), 0, LONGEST) for entry in share[start : start + READ]]
        rows += vectors_of(encode, features, Cut())
    gathered = gather_rows(torch.from_numpy(np.stack(rows)).to(device))
    return gathered.unflatten(0, (size, -1)).transpose(0, 1).flatten(0, 1)[: len(entries)].cpu().numpy()
