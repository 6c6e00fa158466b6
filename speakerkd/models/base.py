"""What every model offers; a model with its classifier (SpeakerNet); the checkpoint format.

A checkpoint is a plain dict that torch.load reads with weights_only=True. It says how to build the net:
    format       "speakerkd-net-1"
    model        name in MODELS             conf        its options as a dict       feat_dim   of the input features
    head         options of the classifier as a dict; None: no classifier
    num_classes  of the classifier          speakers    their names in class order; []: not known
    info         any JSON values: front end, mean subtraction, licence
    weights      state_dict of SpeakerNet: encoder.*, head.*
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from speakerkd.conf import first_few, from_json
from speakerkd.files.tables import replacing
from speakerkd.finite import not_finite
from speakerkd.losses.margin import MarginConf, MarginHead
from speakerkd.torchfile import UnreadableError, read_torch_file

FORMAT = "speakerkd-net-1"
RECORDED = {
    "model": str,
    "conf": dict,
    "feat_dim": int,
    "num_classes": int,
    "speakers": list,
    "info": dict,
    "weights": dict,
}


class Encoded(NamedTuple):
    """The output of an encoder for a batch.

    A stage is the output of a part of the net, before the pooling: (B, C, F, T) of a 2-D net, (B, C, T) of a 1-D net.
    """

    embedding: Tensor  # (B, D)
    stages: tuple[Tensor, ...] = ()  # shallow to deep


class Encoder(Protocol):
    """What every class in MODELS offers (each is an nn.Module)."""

    Conf: ClassVar[type]  # its options and their defaults
    conf: Any
    feat_dim: int
    dim: int  # of the embedding
    stage_channels: tuple[int, ...]

    def __init__(self, conf: Any, feat_dim: int) -> None: ...

    def forward(self, feats: Tensor) -> Encoded: ...  # (B, T, F), any T

    def __call__(self, feats: Tensor) -> Encoded: ...


class SpeakerNet(nn.Module):
    """An encoder and the classifier that it was trained with (None: trained without labels)."""

    encoder: Encoder

    def __init__(self, encoder: Encoder, head: MarginHead | None = None, speakers: Sequence[str] = ()) -> None:
        super().__init__()
        if head is not None and head.dim != encoder.dim:
            raise ValueError(f"a classifier of {head.dim}-d embeddings doesn't fit an encoder of {encoder.dim}-d ones")
        if head is not None and speakers and head.num_classes != len(speakers):
            raise ValueError(f"a classifier of {head.num_classes} classes doesn't fit {len(speakers)} speakers")
        self.encoder = encoder
        self.head = head
        self.speakers = tuple(speakers)
        self.info: dict[str, Any] = {}

    @property
    def dim(self) -> int:
        return self.encoder.dim

    @property
    def feat_dim(self) -> int:
        return self.encoder.feat_dim

    def forward(self, feats: Tensor) -> Encoded:
        return self.encoder(feats)  # (B, T, F)

    def logits(self, embedding: Tensor, labels: Tensor | None = None, ramp: float = 1.0) -> Tensor:
        if self.head is None:
            raise ValueError("this net has no classifier: it was trained without labels")
        return self.head(embedding, labels, ramp)


def models() -> dict[str, type[Encoder]]:
    from speakerkd.models import MODELS  # imported here, because its classes import this module

    return MODELS


def save_net(path: str | Path, net: SpeakerNet, conf: Mapping[str, Any] | None = None) -> None:
    """Writes the net. `conf` is stored as the checkpoint's info; its values must be JSON types."""
    if bad := not_finite(net.state_dict()):
        raise ValueError(f"{path}: not written, because weights are not finite: {first_few(bad)}")
    kind = type(net.encoder)
    (name,) = [each for each, cls in models().items() if cls is kind] or [""]
    if not name:
        raise ValueError(f"{path}: {kind.__name__} is not in MODELS (speakerkd/models/__init__.py), so can't be saved")
    record = {
        "format": FORMAT,
        "model": name,
        "conf": dataclasses.asdict(net.encoder.conf),
        "feat_dim": net.encoder.feat_dim,
        "head": None if net.head is None else dataclasses.asdict(net.head.conf),
        "num_classes": 0 if net.head is None else net.head.num_classes,
        "speakers": list(net.speakers),
        "info": json.loads(json.dumps(dict(net.info if conf is None else conf))),
        "weights": {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()},
    }
    with replacing(path, "wb") as file:
        torch.save(record, file)


def load_net(path: str | Path) -> SpeakerNet:
    """The net of a checkpoint, on the CPU, in eval mode."""
    record = read_checkpoint(path)
    table = models()
    if record["model"] not in table:
        raise ValueError(f"{path}: has a model '{record['model']}', which isn't known here (known: {' '.join(table)})")
    try:
        net = _empty_net(record, table[record["model"]], str(path))
    # What torch and json say of a size or a setting that makes no sense
    except (RuntimeError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path}: no model can be built of what it says ({reason}); the file is damaged, copy or train it again"
        ) from error
    check_weights(path, net, record["weights"])
    net.load_state_dict(record["weights"], assign=True)
    net.info = record["info"]
    return net.eval()


def _empty_net(record: Mapping[str, Any], kind: type[Encoder], path: str) -> SpeakerNet:
    """Without weights: on "meta" nothing is initialised, and the random state does not change."""
    with torch.device("meta"):
        encoder = kind(from_json(kind.Conf, json.dumps(record["conf"]), path), record["feat_dim"])
        head = None
        if record["head"] is not None:
            head_conf = from_json(MarginConf, json.dumps(record["head"]), path)
            head = MarginHead(head_conf, encoder.dim, record["num_classes"])
        try:
            return SpeakerNet(encoder, head, record["speakers"])
        except ValueError as error:
            raise ValueError(f"{path}: {error}; the file is damaged, copy or train it again") from error


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The record that save_net wrote."""
    try:
        file = Path(path).open("rb")  # noqa: SIM115 (only a failure to open is told apart; closed below)
    except OSError as error:
        raise ValueError(f"{path}: can't be read ({error.strerror}); give a final.pt of a training run") from error
    try:
        with file:
            record = read_torch_file(file)
    except UnreadableError as error:
        raise ValueError(
            f"{path}: not a checkpoint, or cut short (a full disk, an unfinished copy?). Copy it again; or, if it "
            "was trained here, remove it and start its training again, which makes it from last.pt in seconds"
        ) from error
    found = record.get("format") if isinstance(record, dict) else None
    if not isinstance(found, str) or found != FORMAT:
        what = f"format '{found}'" if isinstance(found, str) else "no such mark"
        raise ValueError(
            f"{path}: not a net of speakerkd ({what}, '{FORMAT}' is needed); a final.pt of a training run is one"
        )
    lacking = [name for name, kind in RECORDED.items() if not isinstance(record.get(name), kind)]
    if lacking or "head" not in record:
        raise ValueError(f"{path}: the checkpoint lacks {first_few(lacking or ['head'])}; copy or train it again")
    return record


def _alike(found: object, wanted: Tensor) -> bool:
    """A plain array of floating-point numbers where such are wanted, of integers where integers are."""
    return (
        isinstance(found, Tensor)
        and found.layout == torch.strided
        and found.is_floating_point() == wanted.is_floating_point()
        and not found.is_complex()
    )


def check_weights(path: str | Path, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Every weight of the net must be there, in its shape, finite, and no other."""
    wanted = net.state_dict()
    odd = [name for name in wanted if name in weights and not _alike(weights[name], wanted[name])]
    if odd:
        raise ValueError(f"{path}: no numbers as they are needed in {first_few(odd)}; copy or train it again")
    missing = sorted(set(wanted) - set(weights))
    left_over = sorted(set(weights) - set(wanted))
    shapes = [
        f"{name} {tuple(weights[name].shape)} for {tuple(wanted[name].shape)}"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    problems = [
        f"{what}: {first_few(names)}"
        for what, names in (("missing", missing), ("left over", left_over), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise ValueError(
            f"{path}: the weights don't fit the model that the checkpoint names ({'; '.join(problems)}); "
            "it is of another model or version: give the file that its own training run wrote"
        )
    if bad := not_finite({name: weights[name] for name in wanted}):
        raise ValueError(
            f"{path}: {len(bad)} weight(s) are not finite ({first_few(bad)}): the training diverged. "
            "Train it again with a lower --lr"
        )
