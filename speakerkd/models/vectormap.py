"""Maps of embeddings, for systems whose vectors can't be compared directly; and their checkpoints.

A map takes vectors of any length and gives vectors of length 1: normalise, g, normalise. By its kind, g is
    identity   e; the space is that of this system
    linear     A e without an offset, so the matrix A is the map; it is also written as Kaldi's transform.mat
    mlp        A e + W2 relu(layer_norm(W1 e)); it starts as A, since W2 starts at zero
If A is square or adds dimensions, it starts as the identity, otherwise with orthonormal rows.

A checkpoint is a plain dict that torch.load reads with weights_only=True:
    format   "speakerkd-map-1"      kind, in_dim, out_dim, hidden   see above      weights   state_dict
    side     enroll or test         system    name and digest of the system whose vectors it takes
    other    of the system that it was trained with
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speakerkd.conf import first_few
from speakerkd.files.backend import write_matrix
from speakerkd.files.tables import replacing
from speakerkd.models.base import check_weights
from speakerkd.torchfile import UnreadableError, read_torch_file

FORMAT = "speakerkd-map-1"
KINDS = ("identity", "linear", "mlp")
System = dict[str, str]  # name, digest ("": there is no checkpoint)
RECORDED = {
    "kind": str, "in_dim": int, "out_dim": int, "hidden": int, "side": str, "system": dict, "other": dict, "weights": dict
}  # fmt: skip


class VectorMap(nn.Module):
    def __init__(self, kind: str, in_dim: int, out_dim: int, hidden: int = 512) -> None:
        super().__init__()
        if kind not in KINDS or min(in_dim, out_dim, hidden) < 1:
            raise ValueError(f"a map '{kind}' from {in_dim} to {out_dim} dimensions (hidden: {hidden}) can't be made")
        if kind == "identity" and in_dim != out_dim:
            raise ValueError(f"a map that changes nothing can't go from {in_dim} to {out_dim} dimensions")
        self.kind, self.in_dim, self.out_dim, self.hidden = kind, in_dim, out_dim, hidden
        self.record: dict[str, Any] = {}  # of a loaded map: side, system and other
        if kind != "identity":
            self.linear = nn.Linear(in_dim, out_dim, bias=False)
            (nn.init.eye_ if out_dim >= in_dim else nn.init.orthogonal_)(self.linear.weight)
        if kind == "mlp":
            last = nn.Linear(hidden, out_dim)
            self.layers = nn.Sequential(nn.Linear(in_dim, hidden), nn.LayerNorm(hidden), nn.ReLU(), last)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., in_dim) -> (..., out_dim), in float32."""
        with torch.autocast(vectors.device.type, enabled=False):
            unit = F.normalize(vectors.float(), dim=-1)
            mapped = unit if self.kind == "identity" else self.linear(unit)
            return F.normalize(mapped + self.layers(unit) if self.kind == "mlp" else mapped, dim=-1)


def system_of(path: str | Path) -> System:
    """The system of <system>/xvectors_x/xvector.scp: the folder's name, and the digest of its final.pt if there is one."""
    folder = Path(path).resolve().parent.parent
    net = folder / "final.pt"
    return {"name": folder.name, "digest": hashlib.sha256(net.read_bytes()).hexdigest()[:16] if net.exists() else ""}


def same_system(one: System, other: System) -> bool:
    """Compares the checkpoints if both have one. A copy is the same system; a system that was trained again is not."""
    if one["digest"] and other["digest"]:
        return one["digest"] == other["digest"]
    return one["name"] == other["name"]


def save_map(path: str | Path, net: VectorMap, side: str, systems: Mapping[str, System]) -> None:
    """systems: by side."""
    path = Path(path)
    record = {
        "format": FORMAT, "kind": net.kind, "in_dim": net.in_dim, "out_dim": net.out_dim, "hidden": net.hidden,
        "side": side, "system": systems[side], "other": next(each for key, each in systems.items() if key != side),
        "weights": {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()},
    }  # fmt: skip
    if net.kind == "linear":
        write_matrix(path.with_name("transform.mat"), net.linear.weight.detach().cpu().numpy())
    with replacing(path, "wb") as file:
        torch.save(record, file)


def load_map(path: str | Path) -> VectorMap:
    try:
        record = read_torch_file(path)
    except UnreadableError as error:
        raise ValueError(
            f"{path}: can't be read, or is not a checkpoint; give enroll.pt or test.pt of stage 7"
        ) from error
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path}: not a map (format '{found}', '{FORMAT}' is needed); give enroll.pt or test.pt")
    lacking = [name for name, kind in RECORDED.items() if not isinstance(record.get(name), kind)]
    for name in {"system", "other"} - set(lacking):
        lacking += [f"{name}'s {word}" for word in ("name", "digest") if not isinstance(record[name].get(word), str)]
    if lacking:
        raise ValueError(f"{path}: the checkpoint lacks {first_few(lacking)}; copy or train it again")
    net = VectorMap(record["kind"], record["in_dim"], record["out_dim"], record["hidden"])
    check_weights(path, net, record["weights"])
    net.load_state_dict(record["weights"])
    net.record = {name: record[name] for name in ("side", "system", "other")}
    return net.eval()
