"""Public checkpoints of other toolkits: the names of their weights, there and here.

The rows of a layout are regular expressions, which are applied to a name one after the other. The result must be the name
of a weight of our model (speakerkd/models/*.py). speakerkd/foreign/infer.py reads the model's options from the shapes.
"""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from speakerkd.conf import first_few
from speakerkd.foreign.layout import WeightLayout
from speakerkd.foreign.unispeech import TORCHAUDIO, UNISPEECH_WAV2VEC2, UNISPEECH_WAVLM
from speakerkd.losses.margin import MarginConf
from speakerkd.torchfile import UnreadableError, read_torch_file


def layer_from_0(match: re.Match[str]) -> str:
    """Dense layers are counted from 1 there, from 0 here."""
    return f"{match[1]}.layers.{int(match[2]) - 1}."


XVECTOR = WeightLayout(
    "xvector",
    "frame_1.conv_1d.weight",
    (
        (r"^frame_(\d)\.conv_1d\.", r"frame\1.conv."),
        (r"^frame_(\d)\.bn\.", r"frame\1.norm."),
        (r"^pool\.", "pooling."),
        (r"^seg_(\d)\.", r"embedding.linear\1."),
        (r"^seg_bn_1\.", "embedding.norm."),
    ),
)
RESNET = WeightLayout(
    "resnet",
    "layer1.0.conv1.weight",
    (
        (r"\bbn(\d)\.", r"norm\1."),
        (r"^pool\.", "pooling."),
        (r"^seg_(\d)\.", r"embedding.linear\1."),
        (r"^seg_bn_1\.", "embedding.norm."),
    ),
)
CAMPPLUS = WeightLayout(
    "campplus",
    "xvector.tdnn.linear.weight",
    (
        (r"^head\.", "front."),
        (r"\bbn(\d)\.", r"norm\1."),
        (r"^xvector\.tdnn\.linear\.", "conv."),
        (r"^xvector\.tdnn\.nonlinear\.batchnorm\.", "norm."),
        (r"^xvector\.(block\d)\.tdnnd(\d+)\.", layer_from_0),
        (r"\.nonlinear(\d)\.batchnorm\.", r".norm\1."),
        (r"^(block\d\.layers\.\d+)\.linear1\.", r"\1.linear."),
        (r"\.cam_layer\.linear_local\.", ".mask.local."),
        (r"\.cam_layer\.", ".mask."),
        (r"^xvector\.transit(\d)\.nonlinear\.batchnorm\.", r"block\1.norm."),
        (r"^xvector\.transit(\d)\.linear\.", r"block\1.transit."),
        (r"^xvector\.out_nonlinear\.batchnorm\.", "out_norm."),
        (r"^xvector\.stats\.", "pooling."),
        (r"^xvector\.dense\.linear\.", "embedding."),
        (r"^xvector\.dense\.nonlinear\.batchnorm\.", "embedding_norm."),
    ),
    ignored=(r"^pool\.",),  # the same weights as xvector.stats
)
WESPEAKER_ECAPA = WeightLayout(
    "ecapa",
    "layer2.se_res2block.0.conv.weight",
    (
        (r"\.se_res2block\.1\.convs\.(\d+)\.", r".res2.convs.\1.conv."),
        (r"\.se_res2block\.1\.bns\.(\d+)\.", r".res2.convs.\1.norm."),
        (r"\.se_res2block\.0\.", ".before."),
        (r"\.se_res2block\.2\.", ".after."),
        (r"\.se_res2block\.3\.", ".gate."),
        (r"\.bn\.", ".norm."),
        (r"^conv\.", "join."),
        (r"^pool\.", "pooling."),
        (r"^bn\.", "norm."),
        (r"^linear\.", "embedding."),
    ),
)
SPEECHBRAIN_ECAPA = WeightLayout(
    "ecapa",
    "blocks.0.conv.conv.weight",
    (
        (r"\.conv\.conv\.", ".conv."),
        (r"\.norm\.norm\.", ".norm."),
        (r"^blocks\.0\.", "layer1."),
        (r"^blocks\.1\.", "layer2."),
        (r"^blocks\.2\.", "layer3."),
        (r"^blocks\.3\.", "layer4."),
        (r"\.tdnn1\.", ".before."),
        (r"\.tdnn2\.", ".after."),
        (r"\.res2net_block\.blocks\.", ".res2.convs."),
        (r"\.se_block\.conv(\d)\.conv\.", r".gate.linear\1."),
        (r"^mfa\.conv\.", "join."),
        (r"^mfa\.norm\.", "join_norm."),
        (r"^asp\.tdnn\.conv\.", "pooling.linear1."),
        (r"^asp\.tdnn\.norm\.", "pooling.norm."),
        (r"^asp\.conv\.", "pooling.linear2."),
        (r"^asp_bn\.norm\.", "norm."),
        (r"^fc\.conv\.", "embedding."),
    ),
)
DVECTOR = WeightLayout(
    "dvector",
    "lstm.weight_ih_l0",
    ((r"^lstm\.(.+)_l(\d+)$", r"lstms.\2.\1_l0"),),
    ignored=(r"^similarity_(weight|bias)$",),  # scale and offset of the loss
)

# 3D-Speaker adds 1e-8 to the variances of statistics pooling, nothing in CAM++, and 1e-10 in attentive pooling. Without any
# addition, a constant channel would have no gradient. 1e-12 is as good as nothing in float32.
FLOORS = (("statistics", 1e-8), ("attentive", 1e-10))
CAMPPLUS_FLOORS = (("statistics", 1e-12), ("attentive", 1e-10))


@dataclass(frozen=True)
class Family:
    layouts: tuple[WeightLayout, ...]
    head: MarginConf = MarginConf()  # noqa: RUF009 (frozen)


FAMILIES: dict[str, Family] = {
    "3dspeaker": Family(
        (
            replace(CAMPPLUS, floors=CAMPPLUS_FLOORS),
            SPEECHBRAIN_ECAPA,
            replace(RESNET, floors=FLOORS),
            replace(XVECTOR, floors=FLOORS),
        )
    ),
    "resemblyzer": Family((DVECTOR,)),
    "speechbrain": Family((SPEECHBRAIN_ECAPA,), MarginConf(scale=30.0)),
    "torchaudio": Family((TORCHAUDIO,)),
    "unispeech": Family((UNISPEECH_WAVLM, UNISPEECH_WAV2VEC2)),
    "wespeaker": Family((XVECTOR, WESPEAKER_ECAPA, RESNET, CAMPPLUS)),
}
WRAPPERS = ("model_state", "state_dict", "model")  # entries in which some toolkits keep the weights


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The named tensors of a foreign checkpoint. No code in it is run."""
    try:
        content = read_torch_file(path)
    except UnreadableError as error:
        if not isinstance(error.__cause__, pickle.UnpicklingError):
            raise ValueError(f"{path}: can't be read as a PyTorch checkpoint ({error})") from error
        raise ValueError(
            f"{path}: is damaged, or holds more than weights, and code out of a file is not run here; save "
            "model.state_dict() alone with its own toolkit, where the file is trusted"
        ) from error
    for name in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise ValueError(f"{path}: not a table of weights such as model.state_dict() gives")
    weights = {name.removeprefix("module."): value for name, value in content.items()}
    wrapped = all(name.startswith("model.") for name in weights)  # torchaudio's bundles that normalise waves
    return {name.removeprefix("model."): value for name, value in weights.items()} if wrapped else weights


def layout_of(weights: Mapping[str, Tensor], family: str, where: str | Path) -> WeightLayout:
    for layout in FAMILIES[family].layouts:
        if layout.telling in weights:
            return layout
    known = "; ".join(f"{layout.model} by {layout.telling}" for layout in FAMILIES[family].layouts)
    raise ValueError(
        f"{where}: no model of --family {family} that is known here ({known}); the first weights there are "
        f"{first_few(weights)}"
    )


def rename(weights: Mapping[str, Tensor], layout: WeightLayout) -> dict[str, tuple[str, Tensor]]:
    """our name -> (the name there, the weight)."""
    renamed: dict[str, tuple[str, Tensor]] = {}
    for there, value in weights.items():
        if any(re.search(pattern, there) for pattern in layout.ignored):
            continue
        name = there
        for pattern, replacement in layout.rows:
            name = re.sub(pattern, replacement, name)
        assert name not in renamed, f"{there} and {renamed[name][0]} would both be {name}"
        renamed[name] = there, value
    return renamed
