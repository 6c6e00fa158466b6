"""The weights of UniSpeech's WavLM checkpoints in torchaudio's shapes, and the options, read from them."""

import re
from collections.abc import Mapping

import torch
from torch import Size, Tensor

from speakerkd.models.wavlm import WavLMConf

PREFIX = "feature_extract.model."
PARTS = ("q_proj", "k_proj", "v_proj")


def joined(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Joins the three matrices of a layer (queries, keys and values) into the one that torchaudio has."""
    result = dict(weights)
    for name in weights:
        found = re.fullmatch(r"(.+\.self_attn\.)q_proj\.(weight|bias)", name)
        if found:
            names = [f"{found[1]}{part}.{found[2]}" for part in PARTS]
            if all(each in result for each in names):
                result[f"{found[1]}in_proj_{found[2]}"] = torch.cat([result.pop(each) for each in names])
    return result


def wavlm(shapes: Mapping[str, Size]) -> WavLMConf:
    first = "wavlm.encoder.transformer.layers.0."
    size = shapes["wavlm.encoder.feature_projection.projection.weight"][0]
    buckets, heads = shapes[first + "attention.rel_attn_embed.weight"]
    layers = {found[1] for name in shapes if (found := re.match(r"wavlm\.encoder\.transformer\.layers\.(\d+)\.", name))}
    positions = shapes["wavlm.encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original1"]
    return WavLMConf(
        layers=len(layers),
        size=size,
        heads=heads,
        hidden=shapes[first + "feed_forward.intermediate_dense.weight"][0],
        buckets=buckets,
        max_distance=WavLMConf.max_distance,
        position_kernel=positions[2],
        position_groups=size // positions[1],
        large="wavlm.feature_extractor.conv_layers.1.layer_norm.weight" in shapes,
        channels=shapes["ecapa.layer1.conv.weight"][0],
        joined_channels=shapes["ecapa.join.weight"][0],
        global_context=shapes["ecapa.pooling.linear1.weight"][1] == 3 * shapes["ecapa.join.weight"][0],
        embedding_dim=shapes["ecapa.embedding.weight"][0],
    )
