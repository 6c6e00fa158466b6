"""Reads the options of a model from the shapes of its weights, and builds a model with weights from elsewhere."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speakerkd.conf import first_few
from speakerkd.foreign.unispeech import wavlm
from speakerkd.models import MODELS, Encoder
from speakerkd.models.campplus import CAMPPlusConf
from speakerkd.models.dvector import DVectorConf
from speakerkd.models.ecapa import ECAPAConf
from speakerkd.models.resnet import ResNetConf
from speakerkd.models.xvector import XVectorConf

Shapes = Mapping[str, torch.Size]


def count(shapes: Shapes, pattern: str) -> int:
    """The number of parts that the pattern numbers."""
    return len({found[1] for name in shapes if (found := re.match(pattern, name))})


def pooling(shapes: Shapes) -> str:
    return "attentive" if "pooling.linear1.weight" in shapes else "statistics"


def xvector(shapes: Shapes) -> XVectorConf:
    return XVectorConf(
        channels=shapes["frame1.conv.weight"][0],
        stats_channels=shapes["frame5.conv.weight"][0],
        embedding_dim=shapes["embedding.linear1.weight"][0],
        embedding_layers=2 if "embedding.linear2.weight" in shapes else 1,
        pooling=pooling(shapes),
    )


def ecapa(shapes: Shapes) -> ECAPAConf:
    joined = shapes["join.weight"][0]
    attentive = pooling(shapes) == "attentive"
    return ECAPAConf(
        channels=shapes["layer1.conv.weight"][0],
        joined_channels=joined,
        scale=1 + count(shapes, r"layer2\.res2\.convs\.(\d+)\."),
        se_channels=shapes["layer2.gate.linear1.weight"][0],
        attention_channels=shapes["pooling.linear1.weight"][0] if attentive else ECAPAConf.attention_channels,
        global_context=shapes["pooling.linear1.weight"][1] == 3 * joined if attentive else ECAPAConf.global_context,
        embedding_dim=shapes["embedding.weight"][0],
        pooling=pooling(shapes),
        layout="speechbrain" if "join_norm.weight" in shapes else "wespeaker",
    )


def resnet(shapes: Shapes) -> ResNetConf:
    return ResNetConf(
        block="bottleneck" if "layer1.0.conv3.weight" in shapes else "basic",
        blocks=tuple(count(shapes, rf"layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)),
        base_channels=shapes["conv1.weight"][0],
        embedding_dim=shapes["embedding.linear1.weight"][0],
        embedding_layers=2 if "embedding.linear2.weight" in shapes else 1,
        pooling=pooling(shapes),
    )


def campplus(shapes: Shapes) -> CAMPPlusConf:
    growth = shapes["block1.layers.0.mask.local.weight"][0]
    return CAMPPlusConf(
        front_channels=shapes["front.conv1.weight"][0],
        channels=shapes["conv.weight"][0],
        growth=growth,
        bottleneck=shapes["block1.layers.0.linear.weight"][0] // growth,
        layers=tuple(count(shapes, rf"block{block}\.layers\.(\d+)\.") for block in (1, 2, 3)),
        embedding_dim=shapes["embedding.weight"][0],
        pooling=pooling(shapes),
    )


def dvector(shapes: Shapes) -> DVectorConf:
    return DVectorConf(
        hidden=shapes["linear.weight"][1],
        layers=count(shapes, r"lstms\.(\d+)\."),
        embedding_dim=shapes["linear.weight"][0],
    )


INFER: dict[str, Callable[[Shapes], Any]] = {
    "campplus": campplus,
    "dvector": dvector,
    "ecapa": ecapa,
    "resnet": resnet,
    "wavlm": wavlm,
    "xvector": xvector,
}


def infer(model: str, weights: Mapping[str, tuple[str, Tensor]], where: str | Path) -> Any:
    """The Conf of MODELS[model] whose weights these are."""
    try:
        return INFER[model]({name: value.shape for name, (_, value) in weights.items()})
    except KeyError as error:
        raise ValueError(f"{where}: the weights of a {model} lack {error.args[0]}: is it cut short?") from error
    except (IndexError, ZeroDivisionError) as error:  # a matrix that is a number, or empty
        raise ValueError(f"{where}: the weights have other shapes than those of a {model}") from error


def encoder_with(
    model: str, conf: Any, feat_dim: int, weights: Mapping[str, tuple[str, Tensor]], where: str | Path
) -> Encoder:
    """The encoder with these weights, {our name: (the name there, the weight)}: none may be missing, and none left over."""
    encoder = MODELS[model](conf, feat_dim)
    assert isinstance(encoder, nn.Module)
    wanted = encoder.state_dict()
    given: dict[str, Tensor] = {}
    shapes = []
    for name, (there, value) in weights.items():
        if name not in wanted:
            continue
        # the other toolkit may have a convolution of width 1 as the affine layer
        given[name] = value.squeeze(-1) if value.ndim == wanted[name].ndim + 1 and value.shape[-1] == 1 else value
        if given[name].shape != wanted[name].shape:
            shapes.append(f"{there} {tuple(value.shape)} for {tuple(wanted[name].shape)}")
    # counts the batches and has no effect here; some toolkits leave it out
    missing = sorted(name for name in set(wanted) - set(given) if not name.endswith("num_batches_tracked"))
    left_over = sorted(there for name, (there, _) in weights.items() if name not in wanted)
    problems = [
        f"{what}: {first_few(names, 6)}"
        for what, names in (("missing", missing), ("left over", left_over), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise ValueError(
            f"{where}: the weights are not those of a {model} for {feat_dim} features per frame ({'; '.join(problems)}); "
            "it is a variant that is not known here, or --model or --front-end don't describe it"
        )
    encoder.load_state_dict({**wanted, **given})
    return encoder
