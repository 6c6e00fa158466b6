"""A net with features as its own front end makes them: of a data directory, or crops of one length.

A crop is heard whole, or in windows whose vectors are averaged.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from speakerkd.feats.frontend import Reading, front_end_of
from speakerkd.feats.source import FeatureSource, feature_source
from speakerkd.models.base import Encoded, SpeakerNet, load_net


def net_and_features(checkpoint: str, data_dir: str, utterances: str) -> tuple[SpeakerNet, FeatureSource, Reading]:
    """A net, the features of these utterances as it was trained to read them, and how it reads them."""
    net = load_net(checkpoint)
    front_end = front_end_of(net.info, checkpoint)
    source, note = feature_source(front_end, data_dir, utterances, checkpoint)
    if note:
        logging.info("front end: %s", note)
    return net, source, front_end.conf if front_end else Reading()


def hear(net: Callable[[Tensor], Encoded], feats: Tensor, reading: Reading) -> Encoded:
    """(B, T, F) raw features -> what the net makes of them if it reads them as it was trained to."""
    if reading.mean == "utterance":
        feats = feats - feats.mean(1, keepdim=True)
    frames = reading.window_frames
    if not frames:
        return net(feats)
    if feats.shape[1] < frames:
        feats = feats.repeat(1, -(-frames // feats.shape[1]), 1)[:, :frames]
    shift = reading.window_shift or frames
    starts = list(range(0, feats.shape[1] - frames + 1, shift))
    if starts[-1] + frames < feats.shape[1]:
        starts.append(feats.shape[1] - frames)
    windows = torch.stack([feats[:, start : start + frames] for start in starts], 1)  # (B, n, frames, F)
    vectors = net(windows.flatten(0, 1)).embedding.float().unflatten(0, (len(feats), len(starts)))
    return Encoded(F.normalize(vectors.mean(1), dim=1))
