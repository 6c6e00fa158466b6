"""One utterance -> one vector."""

import numpy as np
import torch

from speakerkd.models.base import SpeakerNet


@torch.inference_mode()
def embed(net: SpeakerNet, features: np.ndarray, device: torch.device, max_frames: int = 0) -> np.ndarray:
    """(T, F) raw features -> (D,). Past max_frames: the mean of the vectors of equal chunks, weighted alike."""
    features = features - features.mean(0)
    count = -(-len(features) // max_frames) if max_frames else 1
    chunks = np.array_split(features, count)
    vectors = [net(torch.from_numpy(chunk)[None].to(device)).embedding[0].float().cpu() for chunk in chunks]
    return torch.stack(vectors).mean(0).numpy()
