"""WavLM with a small ECAPA-TDNN on top, as UniSpeech fine-tunes it for speaker verification: the teacher of ENSKD.

It takes the wave. The hidden states of all layers are averaged with learnt weights, normalised over time in each channel,
and go through an ECAPA-TDNN. WavLM itself is torchaudio's. The defaults are those of WavLM-Large and
wavlm_large_finetune.pth.
wav2vec 2.0 and HuBERT can take WavLM's place. With --pooling=mean there is no ECAPA-TDNN: the embedding is the mean over all
layers and frames.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

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
    embedding_dim: int = opt(256, "dimension of the embedding; with --pooling=mean it is --size")
    trunk: str = opt("wavlm", "wavlm, or wav2vec2, the net of wav2vec 2.0 and HuBERT")
    conv_bias: bool = opt(False, "the first convolutions have biases: wav2vec 2.0 trained on LV-60 or as XLSR")
    pooling: str = opt("ecapa", "ecapa, or mean: the mean over all layers and frames")

    def __post_init__(self) -> None:
        if self.trunk not in ("wavlm", "wav2vec2") or self.pooling not in ("ecapa", "mean"):
            raise ValueError(f"--trunk={self.trunk} is wavlm or wav2vec2, --pooling={self.pooling} is ecapa or mean")


class WavLM(nn.Module):
    Conf: ClassVar[type] = WavLMConf

    def __init__(self, conf: WavLMConf, feat_dim: int) -> None:
        super().__init__()
        if feat_dim != 1:
            raise ValueError(f"WavLM takes waves, one value per sample, not {feat_dim} values per frame")
        self.conf, self.feat_dim = conf, feat_dim
        self.stage_channels: tuple[int, ...] = ()
        self.wavlm = trunk(conf)
        if conf.pooling == "mean":
            self.dim = conf.size
            return
        self.dim = conf.embedding_dim
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
        if self.conf.pooling == "mean":
            return Encoded(states.float().mean((0, 2)))
        mixed = (self.layer_weights.softmax(0)[:, None, None, None] * states).sum(0) + 1e-6  # (B, T, size)
        return self.ecapa(F.instance_norm(mixed.transpose(1, 2)).transpose(1, 2))


def trunk(conf: WavLMConf) -> Any:  # torchaudio has no types
    from torchaudio.models.wav2vec2.model import wav2vec2_model, wavlm_model  # here: other models need not wait for it

    own = {} if conf.trunk == "wav2vec2" else {
        "encoder_num_buckets": conf.buckets, "encoder_max_distance": conf.max_distance}  # fmt: skip
    return (wav2vec2_model if conf.trunk == "wav2vec2" else wavlm_model)(
        extractor_mode="layer_norm" if conf.large else "group_norm",
        extractor_conv_layer_config=None,
        extractor_conv_bias=conf.conv_bias,
        encoder_embed_dim=conf.size,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=conf.position_kernel,
        encoder_pos_conv_groups=conf.position_groups,
        encoder_num_layers=conf.layers,
        encoder_num_heads=conf.heads,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=conf.hidden,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=conf.large,
        encoder_layer_drop=0.0,
        aux_num_out=None,
        **own,
    )
