"""The classifier's rows of speakers that --init does not know: their mean embeddings instead of random numbers.

Random rows say nothing about the speakers, so the encoder's first gradients would say nothing about them either.
"""

import logging

import numpy as np
import torch
from torch.nn import functional as F

from speakerkd.batches.utterances import Utterances
from speakerkd.models.base import SpeakerNet
from speakerkd.train.netvectors import net_vectors

SHARE = 0.1  # of its random row that a sub-centre keeps, so that those of a class are not alike


def set_class_rows(
    net: SpeakerNet, data: Utterances, entries: np.ndarray, known: np.ndarray, utts: int, device: torch.device
) -> str:
    """Up to `utts` originals for each speaker of the entries that is not known. Returns a description.

    A row gets the direction of the mean, and keeps the length that it was drawn with. A speaker without utterances keeps
    its random row.
    """
    assert net.head is not None and data.labels is not None
    few = some_of_class(data.labels, entries[data.original[entries]], ~known, utts)
    if bare := int((~known).sum()) - len(np.unique(data.labels[few])):
        logging.warning("--init-utts: %d new speaker(s) have no original utterance; their rows are random", bare)
    if not len(few):
        return "the first net knows all other speakers"
    vectors = F.normalize(torch.from_numpy(net_vectors(net.to(device), data, few, device)).double())
    net.cpu().train()
    labels = torch.from_numpy(data.labels[few].astype(np.int64))
    sums = torch.zeros(net.head.num_classes, net.head.dim, dtype=torch.float64).index_add_(0, labels, vectors)
    heard = sums.any(1)
    count = net.head.conf.sub_centers
    with torch.no_grad():
        rows = net.head.weight.unflatten(0, (-1, count))
        lengths = rows[heard].norm(dim=2, keepdim=True)
        directions = F.normalize(sums[heard]).float().unsqueeze(1).expand(-1, count, -1)
        if count > 1:
            directions = F.normalize(directions + SHARE * F.normalize(rows[heard], dim=2), dim=2)
        rows[heard] = lengths * directions
    return f"the rows of {int(heard.sum())} speakers are mean embeddings of {len(few)} utterances"


def some_of_class(labels: np.ndarray, entries: np.ndarray, wanted: np.ndarray, most: int) -> np.ndarray:
    """Up to `most` of the entries of each wanted class, spread evenly over all that it has."""
    entries = entries[wanted[labels[entries]]]
    order = entries[np.argsort(labels[entries], kind="stable")]
    ends = np.cumsum(np.bincount(labels[order], minlength=len(wanted)))
    parts = [order[first:last] for first, last in zip(np.r_[0, ends[:-1]], ends, strict=True) if last > first]
    return np.concatenate([np.zeros(0, entries.dtype), *(_spread(part, most) for part in parts)])


def _spread(part: np.ndarray, most: int) -> np.ndarray:
    return part if len(part) <= most else part[np.arange(most) * len(part) // most]
