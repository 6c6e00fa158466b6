"""The models: features go in, embeddings come out, and clusters of them. MODELS lists them by the --type of a conf file."""

from pathlib import Path
from typing import Any

from speakerkd.conf import typed_conf
from speakerkd.losses.margin import MarginConf, MarginHead
from speakerkd.models.base import Encoded, Encoder, SpeakerNet, load_net, save_net
from speakerkd.models.campplus import CAMPPlus
from speakerkd.models.dvector import DVector
from speakerkd.models.ecapa import ECAPA
from speakerkd.models.resnet import ResNet
from speakerkd.models.wavlm import WavLM
from speakerkd.models.xvector import XVector

MODELS: dict[str, type[Encoder]] = {
    "campplus": CAMPPlus,
    "dvector": DVector,
    "ecapa": ECAPA,
    "resnet": ResNet,
    "wavlm": WavLM,
    "xvector": XVector,
}

__all__ = ["MODELS", "Encoded", "Encoder", "SpeakerNet", "load_net", "make_net", "read_model", "save_net"]


def read_model(path: str | Path) -> tuple[str, Any]:
    """conf/model/*.conf -> the model's name in MODELS, and its options."""
    name, _, conf = typed_conf(path, MODELS)
    return name, conf


def make_net(
    path: str | Path, feat_dim: int, speakers: tuple[str, ...] = (), head: MarginConf | None = None
) -> SpeakerNet:
    """A new net as conf/model/*.conf describes it; with `head`, it has a classifier of these speakers."""
    name, conf = read_model(path)
    try:
        encoder = MODELS[name](conf, feat_dim)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return SpeakerNet(encoder, None if head is None else MarginHead(head, encoder.dim, len(speakers)), speakers)
