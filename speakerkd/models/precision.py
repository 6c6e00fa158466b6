"""Half precision for a net in application: used if the machine supports it and the vectors hardly change."""

import logging
from collections.abc import Sequence

import numpy as np
import torch

from speakerkd.models.base import SpeakerNet
from speakerkd.models.extract import NetEncoder

AMP = ("none", "auto", "fast", "bf16")
ALIKE = 0.9995  # lowest allowed cosine between a vector in half precision and in float32
TRIED = 300  # frames of each utterance on which the two are compared


def choose_half(amp: str, net: SpeakerNet, device: torch.device, samples: Sequence[np.ndarray]) -> torch.dtype | None:
    """The type of --amp; None: float32. `auto` compares the vectors of some utterances (T, F), mean subtracted."""
    if amp not in AMP:
        raise ValueError(f"--amp={amp} is not one of: {' '.join(AMP)}")
    half = torch.bfloat16 if amp == "bf16" else hardware_half(device) if amp in ("auto", "fast") else None
    if half is None or not samples:
        return half
    given = [each[:TRIED] for each in samples]
    vectors = [np.stack([NetEncoder(net, device, kind)([each])[0] for each in given]) for kind in (None, half)]
    plain, fast = (each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-12) for each in vectors)
    cosine = float((plain * fast).sum(1).min())
    name = str(half).removeprefix("torch.")
    if amp == "auto" and not cosine >= ALIKE:
        logging.info("float32 is used: a vector in %s has a cosine of %.6f to it, less than %g", name, cosine, ALIKE)
        return None
    logging.info("%s: the vectors' cosine to float32 is %.6f or more (%d utterances)", name, cosine, len(given))
    return half


def hardware_half(device: torch.device) -> torch.dtype | None:
    """The half-precision type in which this device computes faster than in float32; None: it has none."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    units = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # names that torch may change
    return torch.bfloat16 if any(getattr(torch.cpu, name, bool)() for name in units) else None
