"""Starts from another net's weights, for fine-tuning, such as with a large margin on long crops."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from speakerkd.models.base import SpeakerNet, check_weights, load_net


class Start(NamedTuple):
    said: str  # what was taken
    known: np.ndarray  # (speakers,) bool: whose rows of the classifier were taken


def initialise(net: SpeakerNet, path: str | Path) -> Start:
    """Takes the encoder of a checkpoint, and the classifier's rows of the speakers that it knows.

    So a classifier trained with speed-perturbed copies as extra speakers can also start a run without them.
    """
    source = load_net(path)
    if type(source.encoder) is not type(net.encoder):
        kinds = f"{type(source.encoder).__name__}, not {type(net.encoder).__name__}"
        raise ValueError(f"{path}: has a different model ({kinds}); --model must be the conf that it was trained with")
    encoder = source.encoder.state_dict()  # type: ignore[attr-defined]
    check_weights(path, net.encoder, encoder)  # type: ignore[arg-type]
    net.encoder.load_state_dict(encoder)  # type: ignore[attr-defined]
    rows = {name: row for row, name in enumerate(source.speakers)}
    pairs = [(row, rows[name]) for row, name in enumerate(net.speakers) if name in rows]
    known = np.zeros(len(net.speakers), bool)
    if (
        net.head is None
        or source.head is None
        or net.head.conf.sub_centers != source.head.conf.sub_centers
        or not pairs
    ):
        return Start(f"the encoder of {path}; the classifier is new", known)
    here, there = (torch.tensor(column) for column in zip(*pairs, strict=True))
    count = net.head.conf.sub_centers
    with torch.no_grad():
        ours, theirs = net.head.weight.unflatten(0, (-1, count)), source.head.weight.unflatten(0, (-1, count))
        ours[here] = theirs[there]
        if net.head.bias is not None and source.head.bias is not None:
            net.head.bias[here] = source.head.bias[there]
    known[here] = True
    said = f"the encoder of {path}, and the classifier's rows of {len(pairs)} of {len(net.speakers)} speakers"
    return Start(said, known)
