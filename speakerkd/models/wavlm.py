"""WavLM with a small ECAPA-TDNN on top, as UniSpeech fine-tunes it for speaker verification: the teacher of ENSKD.

It takes the wave. The hidden states of all layers are averaged with learnt weights, normalised over time in each channel,
and go through an ECAPA-TDNN. WavLM itself is torchaudio's. The defaults are those of WavLM-Large and
wavlm_large_finetune.pth.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.conf import opt
from speakerkd.models.base import Encoded
from speakerkd.models.ecapa import ECAPA, ECAPAConf

SHORTEST = 3200  # samples: the ECAPA-TDNN needs some frames of 20 ms


@dataclass(frozen=True)
class WavLMConf:
    layers: int = opt(24, "number of layers of the transformer")
    size: int = opt(1024, "channels of the transformer")
    heads: int = opt(16, "attention heads of a layer")
    hidden: int = opt(4096, "channels of the feed-forward part of a layer")
    buckets: int = opt(320, "number of relative positions that are distinguished")
    max_distance: int = opt(800, "distance in frames above which relative positions are not distinguished")
    position_kernel: int = opt(128, "width of the convolution that encodes positions")
    position_groups: int = opt(16, "its groups")
    large: bool = opt(
        True, "true: layer norms first and in each convolution, normalised waves (WavLM-Large); false: Base, Base+"
    )
    channels: int = opt(512, "channels of the ECAPA-TDNN's blocks")
    joined_channels: int = opt(1536, "channels of the layer that is pooled")
    global_context: bool = opt(False, "true: the attention also takes the statistics of the utterance")
    embedding_dim: int = opt(256, "dimension of the embedding")


class WavLM(nn.Module):
    Conf: ClassVar[type] = WavLMConf

    def __init__(self, conf: WavLMConf, feat_dim: int) -> None:
        super().__init__()
        from torchaudio.models.wav2vec2.model import (
            wavlm_model,
        )  # imported here, so that other models need not wait for it

        if feat_dim != 1:
            raise ValueError(f"WavLM takes waves, one value per sample, not {feat_dim} values per frame")
        self.conf, self.feat_dim, self.dim = conf, feat_dim, conf.embedding_dim
        self.stage_channels: tuple[int, ...] = ()
        self.wavlm = wavlm_model(
            extractor_mode="layer_norm" if conf.large else "group_norm",
            extractor_conv_layer_config=None,
            extractor_conv_bias=False,
            encoder_embed_dim=conf.size,
            encoder_projection_dropout=0.0,
            encoder_pos_conv_kernel=conf.position_kernel,
            encoder_pos_conv_groups=conf.position_groups,
            encoder_num_layers=conf.layers,
            encoder_num_heads=conf.heads,
            encoder_num_buckets=conf.buckets,
            encoder_max_distance=conf.max_distance,
            encoder_attention_dropout=0.0,
            encoder_ff_interm_features=conf.hidden,
            encoder_ff_interm_dropout=0.0,
            encoder_dropout=0.0,
            encoder_layer_norm_first=conf.large,
            encoder_layer_drop=0.0,
            aux_num_out=None,
        )
        self.layer_weights = nn.Parameter(torch.zeros(conf.layers + 1))
        ecapa = ECAPAConf(
            channels=conf.channels,
            joined_channels=conf.joined_channels,
            global_context=conf.global_context,
            embedding_dim=conf.embedding_dim,
        )
        self.ecapa = ECAPA(ecapa, conf.size)

    def hidden_states(self, waves: Tensor) -> list[Tensor]:
        """(B, samples) -> the input of the first layer and the output of each layer, (B, T, size) each."""
        features, _ = self.wavlm.feature_extractor(waves, None)
        transformer = self.wavlm.encoder.transformer
        states = [transformer._preprocess(self.wavlm.encoder.feature_projection(features))]
        bias = None
        for layer in transformer.layers:
            state, bias = layer(states[-1], None, position_bias=bias)
            states.append(state)
        if not transformer.layer_norm_first:  # torchaudio's word for a norm after the position encoding
            states[-1] = transformer.layer_norm(states[-1])
        return states

    def forward(self, feats: Tensor) -> Encoded:
        waves = feats.squeeze(2)  # (B, samples, 1) -> (B, samples)
        if waves.shape[1] < SHORTEST:
            waves = waves.repeat(1, -(-SHORTEST // waves.shape[1]))[:, :SHORTEST]
        if self.conf.large:
            waves = F.layer_norm(waves, waves.shape[1:])
        states = torch.stack(self.hidden_states(waves))
        mixed = (self.layer_weights.softmax(0)[:, None, None, None] * states).sum(0) + 1e-6  # (B, T, size)
        return self.ecapa(F.instance_norm(mixed.transpose(1, 2)).transpose(1, 2))
