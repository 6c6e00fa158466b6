"""Encoders of waves: UniSpeech's speaker verification models, and torchaudio's WavLM, wav2vec 2.0 and HuBERT without a head.

The names and shapes of their weights in torchaudio, and the options, read from them.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Size, Tensor

from speakerkd.foreign.layout import WeightLayout
from speakerkd.models.wavlm import WavLMConf

PARTS = ("q_proj", "k_proj", "v_proj")
RELATIVE = "relative_attention_bias."  # WavLM's alone
THEIRS = r"^wavlm\.encoder\.layers\.(\d+)\."
OURS = r"wavlm.encoder.transformer.layers.\1."
POSITIONS = "wavlm.encoder.transformer.pos_conv_embed.conv."
LAYERS = r"wavlm\.encoder\.transformer\.layers\.(\d+)\."

UNISPEECH_WAVLM = WeightLayout(
    "wavlm",
    f"feature_extract.model.encoder.layers.0.self_attn.{RELATIVE}weight",
    (
        (r"^feature_extract\.model\.", "wavlm."),
        (r"(\.conv_layers\.\d+)\.0\.", r"\1.conv."),
        (r"(\.conv_layers\.\d+)\.2\.(1\.)?", r"\1.layer_norm."),
        (r"^wavlm\.post_extract_proj\.", "wavlm.encoder.feature_projection.projection."),
        (r"^wavlm\.layer_norm\.", "wavlm.encoder.feature_projection.layer_norm."),
        (r"^wavlm\.encoder\.layer_norm\.", "wavlm.encoder.transformer.layer_norm."),
        (r"^wavlm\.encoder\.pos_conv\.0\.weight_g$", POSITIONS + "parametrizations.weight.original0"),
        (r"^wavlm\.encoder\.pos_conv\.0\.weight_v$", POSITIONS + "parametrizations.weight.original1"),
        (r"^wavlm\.encoder\.pos_conv\.0\.bias$", POSITIONS + "bias"),
        (THEIRS + r"self_attn\.relative_attention_bias\.", OURS + "attention.rel_attn_embed."),
        (THEIRS + r"self_attn\.grep_linear\.", OURS + "attention.gru_rel_pos_linear."),
        (THEIRS + r"self_attn\.grep_a$", OURS + "attention.gru_rel_pos_const"),
        (THEIRS + r"self_attn\.([kqv]_proj)\.", OURS + r"attention.\2."),  # wav2vec 2.0; WavLM's are joined before
        (THEIRS + r"self_attn\.", OURS + "attention.attention."),
        (THEIRS + r"self_attn_layer_norm\.", OURS + "layer_norm."),
        (THEIRS + r"fc1\.", OURS + "feed_forward.intermediate_dense."),
        (THEIRS + r"fc2\.", OURS + "feed_forward.output_dense."),
        (THEIRS + r"final_layer_norm\.", OURS + "final_layer_norm."),
        (r"^feature_weight$", "layer_weights"),
        (r"^(layer\d)\.Conv1dReluBn1\.", r"\1.before."),
        (r"^(layer\d)\.Conv1dReluBn2\.", r"\1.after."),
        (r"^(layer\d)\.Res2Conv1dReluBn\.convs\.(\d+)\.", r"\1.res2.convs.\2.conv."),
        (r"^(layer\d)\.Res2Conv1dReluBn\.bns\.(\d+)\.", r"\1.res2.convs.\2.norm."),
        (r"^(layer\d)\.SE_Connect\.", r"\1.gate."),
        (r"^(layer\d.*)\.bn\.", r"\1.norm."),
        (r"^(layer\d)\.", r"ecapa.\1."),
        (r"^conv\.", "ecapa.join."),
        (r"^pooling\.", "ecapa.pooling."),
        (r"^bn\.", "ecapa.norm."),
        (r"^linear\.", "ecapa.embedding."),
    ),
    # of the training before this one
    ignored=(r"\.mask_emb$", r"\.final_proj\.", r"\.label_embs_concat$", r"\.quantizer\.", r"\.project_q\."),
)
# wav2vec 2.0 and HuBERT under the same head
UNISPEECH_WAV2VEC2 = replace(
    UNISPEECH_WAVLM,
    telling="feature_weight",
    rows=(*UNISPEECH_WAVLM.rows, (r"\.attention\.attention\.out_proj\.", ".attention.out_proj.")),
)
TORCHAUDIO = WeightLayout(
    "wavlm",
    "encoder.feature_projection.projection.weight",
    (
        (r"^", "wavlm."),
        (r"\.pos_conv_embed\.conv\.weight_g$", ".pos_conv_embed.conv.parametrizations.weight.original0"),
        (r"\.pos_conv_embed\.conv\.weight_v$", ".pos_conv_embed.conv.parametrizations.weight.original1"),
    ),
    ignored=(r"^aux\.", r"^mask_generator\.", r"^logit_generator\."),  # of speech recognition, of HuBERT's own training
)


def joined(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Joins the three matrices of a layer of WavLM (queries, keys and values) into the one that torchaudio has."""
    result = dict(weights)
    if not any(RELATIVE in name for name in weights):
        return result
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
    relative = shapes.get(first + "attention.rel_attn_embed.weight")
    positions = shapes[POSITIONS + "parametrizations.weight.original1"]
    conf = WavLMConf(
        layers=len({found[1] for name in shapes if (found := re.match(LAYERS, name))}),
        size=size,
        heads=relative[1] if relative else usual_heads(size),
        hidden=shapes[first + "feed_forward.intermediate_dense.weight"][0],
        buckets=relative[0] if relative else WavLMConf.buckets,
        position_kernel=positions[2],
        position_groups=size // positions[1],
        large="wavlm.feature_extractor.conv_layers.1.layer_norm.weight" in shapes,
        trunk="wavlm" if relative else "wav2vec2",
        conv_bias="wavlm.feature_extractor.conv_layers.0.conv.bias" in shapes,
    )
    if "layer_weights" not in shapes:
        return replace(conf, pooling="mean")
    return replace(
        conf,
        channels=shapes["ecapa.layer1.conv.weight"][0],
        joined_channels=shapes["ecapa.join.weight"][0],
        global_context=shapes["ecapa.pooling.linear1.weight"][1] == 3 * shapes["ecapa.join.weight"][0],
        embedding_dim=shapes["ecapa.embedding.weight"][0],
    )


def usual_heads(size: int) -> int:
    """The weights don't tell. All published models have heads of 64 channels, but those of 1,280 and more have 16 heads."""
    return 16 if size >= 1280 else max(1, size // 64)
