"""The parts of an exported system's card that need no test set: its size, its speed, how it was trained."""

import json
import shlex
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speakerkd.feats.frontend import FrontEnd, front_end_info
from speakerkd.foreign.onnx_export import MIN_FRAMES
from speakerkd.models import SpeakerNet, load_net
from speakerkd.models.cost import count_macs, num_parameters
from speakerkd.verify.card import FORMAT, digest_of
from speakerkd.verify.onnxsession import open_session

SECONDS = 10.0  # of speech, for multiply-accumulates and the real-time factor


def about(net: SpeakerNet, front_end: FrontEnd, path: Path) -> dict[str, Any]:
    """The facts about a system that are known without scoring anything."""
    training = path.parent / "conf.json"
    run_of = json.loads(training.read_text()) if training.is_file() else {"run": {}, "options": {}}
    command = run_of["run"].get("command", "")
    words = command.split() if isinstance(command, str) else command
    given = words[words.index("--teacher") + 1] if "--teacher" in words[:-1] else ""
    named = [each.partition("=") for each in given.split(",") if each]  # name=file, or a file
    teachers = [path if equals and "/" not in name else name + equals + path for name, equals, path in named]
    encoder = net.encoder
    assert isinstance(encoder, torch.nn.Module)
    parameters = num_parameters(encoder)
    macs = count_macs(load_net(path).encoder, net.feat_dim, round(100 * SECONDS)) / SECONDS  # type: ignore[arg-type]
    return {
        "format": FORMAT,
        "name": path.resolve().parent.name,
        "model": type(encoder).__name__,
        "files": {},
        "front_end": front_end_info(front_end),
        "subtracts_mean": front_end.conf.mean == "utterance",
        "feat_dim": net.feat_dim,
        "dim": net.dim,
        "min_frames": MIN_FRAMES,
        "parameters": parameters,
        "macs_per_second": round(macs),
        "real_time_factor": {},
        "taught_by": ", ".join(teachers),
        "data": "",
        "licence": str(net.info.get("licence", "")),
        "eer": [],
        "conditions": [],
        "training_command": command if isinstance(command, str) else shlex.join(command),
        "training_commit": run_of["run"].get("commit", ""),
    }


def add_file(card: dict[str, Any], precision: str, path: Path, feat_dim: int) -> None:
    card["files"][precision] = {"name": path.name, "sha256": digest_of(path), "bytes": path.stat().st_size}
    session = open_session(path, 1)
    feats = np.random.default_rng(0).standard_normal((1, round(100 * SECONDS), feat_dim)).astype(np.float32)
    taken = []
    for _ in range(6):
        began = time.perf_counter()
        session.run(["embs"], {"feats": feats})
        taken.append(time.perf_counter() - began)
    card["real_time_factor"][precision] = round(statistics.median(taken[1:]) / SECONDS, 6)
