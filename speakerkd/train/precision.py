"""Mixed precision: the type that --amp means on a device.

auto   bf16 on GPUs that have it, else float32; float32 on CPUs
fast   as auto, and bf16 on CPUs with AMX or AVX512-BF16; other CPUs take longer in bf16 than in float32
bf16   bf16 on any CPU, and on GPUs that have it
fp16   half precision with loss scaling, for GPUs before Ampere (V100, T4, RTX 2080), which have no bf16
none   float32
"""

import torch

from speakerkd.models.precision import hardware_half

AMP = ("auto", "fast", "bf16", "fp16", "none")


def autocast_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """The type of autocast; None: everything is computed in float32."""
    if amp in ("none", "fp16"):
        return torch.float16 if amp == "fp16" else None
    has_bf16 = hardware_half(device) == torch.bfloat16
    if device.type == "cuda":
        if amp == "bf16" and not has_bf16:
            raise ValueError("--amp=bf16: this GPU has no bf16; --amp=fp16 is fast on it, --amp=none always works")
        return torch.bfloat16 if has_bf16 else None
    return torch.bfloat16 if amp == "bf16" or (amp == "fast" and has_bf16) else None


def dtype_name(dtype: torch.dtype | None) -> str:
    return {None: "float32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
