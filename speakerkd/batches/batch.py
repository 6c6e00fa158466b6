"""What a step is given."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass
class Batch:
    feats: list[Tensor]  # one (B, T, F) per view
    labels: Tensor | None = None  # (B,)
    vectors: dict[str, Tensor] = field(default_factory=dict)  # name -> (B, D)
    heard: dict[str, Tensor] = field(default_factory=dict)  # teacher -> (B, ...), the first view by its front end
    hidden: list[Tensor] = field(default_factory=list)  # (B, 4) per view, if feats are waves: bounds of what is hidden

    def to(self, device: torch.device) -> "Batch":
        return replace(
            self,
            feats=[each.to(device, non_blocking=True) for each in self.feats],
            labels=None if self.labels is None else self.labels.to(device, non_blocking=True),
            vectors={name: each.to(device, non_blocking=True) for name, each in self.vectors.items()},
            heard={name: each.to(device, non_blocking=True) for name, each in self.heard.items()},
            hidden=[each.to(device, non_blocking=True) for each in self.hidden],
        )

    def pin_memory(self) -> "Batch":
        return replace(
            self,
            feats=[each.pin_memory() for each in self.feats],
            labels=None if self.labels is None else self.labels.pin_memory(),
            vectors={name: each.pin_memory() for name, each in self.vectors.items()},
            heard={name: each.pin_memory() for name, each in self.heard.items()},
            hidden=[each.pin_memory() for each in self.hidden],
        )
