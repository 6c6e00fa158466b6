"""The d-vector: LSTM layers, the last frame's output, an affine layer, ReLU, length 1 (Wan et al. 2018, GE2E).

Sizes and the ReLU are Resemblyzer's. Resemblyzer's model was trained on windows of 160 frames, so utterances are read
in such windows (speakerkd/feats/frontend.py). The network itself takes any length.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.conf import opt, require_least
from speakerkd.models.base import Encoded
from speakerkd.models.pooling import at_least
from speakerkd.models.timelayers import onednn_computes


@dataclass(frozen=True)
class DVectorConf:
    hidden: int = opt(256, "units of each LSTM layer")
    layers: int = opt(3, "number of LSTM layers")
    embedding_dim: int = opt(256, "dimension of the embedding")

    def __post_init__(self) -> None:
        require_least(self, 1, "hidden", "layers", "embedding_dim")


class DVector(nn.Module):
    Conf: ClassVar[type] = DVectorConf

    def __init__(self, conf: DVectorConf, feat_dim: int) -> None:
        super().__init__()
        self.conf, self.feat_dim, self.dim = conf, feat_dim, conf.embedding_dim
        self.stage_channels: tuple[int, ...] = (conf.hidden,) * conf.layers
        # one by one: the output of each layer is a stage
        self.lstms = nn.ModuleList(
            nn.LSTM(conf.hidden if layer else feat_dim, conf.hidden, batch_first=True) for layer in range(conf.layers)
        )
        self.linear = nn.Linear(conf.hidden, conf.embedding_dim)

    def forward(self, feats: Tensor) -> Encoded:
        frames = at_least(feats, 1)  # (B, T, F)
        stages = []
        half = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        lacks = frames.device.type == "cpu" and not onednn_computes(half)  # PyTorch has no other kernels for this
        with torch.autocast("cpu", enabled=False) if lacks else nullcontext():
            for lstm in self.lstms:
                frames, _ = lstm(frames.float() if lacks else frames)
                stages.append(frames.transpose(1, 2))  # (B, C, T)
        return Encoded(F.normalize(F.relu(self.linear(frames[:, -1])).float()), tuple(stages))
