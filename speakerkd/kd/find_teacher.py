"""The teacher that --teacher names: a final.pt, or an xvector.scp; errors say what doesn't fit and what mends it."""

from typing import Any

import numpy as np
import torch

from speakerkd.conf import build, read_conf
from speakerkd.data.dataset import Utterances
from speakerkd.data.fbank import FbankConf
from speakerkd.kd.teacher import VECTORS, NetTeacher, Teacher, VectorTeacher
from speakerkd.losses.margin import MarginConf
from speakerkd.models.base import SpeakerNet, load_net
from speakerkd.score.vectors import read_vectors

NOT_HEARD = {"dither", "channel", "min_duration"}  # these don't make features of another kind


def find_teacher(
    path: str, centroids: str, data: Utterances, entries: np.ndarray, head: MarginConf | None, missing: str = "error"
) -> Teacher:
    """entries: those trained on; head: the margin of logits against centroids."""
    conf = head or MarginConf()
    if path.endswith(".scp"):
        data.attach(VECTORS, path, missing)
        teacher: Teacher = VectorTeacher(path, data.speakers, mean_vectors(data, entries), conf)
    else:
        net = load_net(path)
        check_front_end(path, net, data)
        teacher = NetTeacher(net, path, data.speakers)
    if centroids:
        judge_by_file(teacher, centroids, conf)
    return teacher


def mean_vectors(data: Utterances, entries: np.ndarray) -> torch.Tensor:
    """(speakers, D): of the utterances' vectors at length one."""
    assert data.labels is not None
    table = data.vectors[VECTORS]
    length = np.maximum(np.linalg.norm(table.rows, axis=1, keepdims=True), 1e-12)
    sums = np.zeros((len(data.speakers), table.dim))
    for part in np.array_split(entries, max(1, len(entries) // 100_000)):
        np.add.at(sums, data.labels[part], (table.rows / length)[table.row_of[part]])
    if not np.linalg.norm(sums, axis=1).all():
        empty = [name for name, row in zip(data.speakers, sums, strict=True) if not row.any()]
        raise ValueError(f"{data.folder}: no utterance of speaker {empty[0]} has a teacher's vector")
    return torch.from_numpy(sums.astype(np.float32))


def judge_by_file(teacher: Teacher, path: str, conf: MarginConf) -> None:
    vectors = read_vectors(path)
    if vectors.dim != teacher.dim:
        raise ValueError(
            f"{path}: vectors of {vectors.dim} dimensions, the teacher {teacher.name} gives {teacher.dim}: extract the mean "
            "vectors with this very teacher (local/extract_xvectors.sh, spk_xvector.scp)"
        )
    rows = vectors.rows_of(teacher.speakers)
    teacher.known = torch.from_numpy(rows >= 0)
    if not teacher.known.any():
        raise ValueError(f"{path}: none of the training speakers is there; the first id there is '{vectors.ids[0]}'")
    teacher.judge_by(torch.from_numpy(vectors.matrix[rows[rows >= 0]]), conf)


def check_front_end(path: str, net: SpeakerNet, data: Utterances) -> None:
    """A teacher hears the student's crop, so it must have learnt from features of the same kind."""
    remedy = (
        f"make vectors of {data.folder} with it (local/extract_xvectors.sh {path} {data.folder} <dir>), and give their "
        "xvector.scp as --teacher"
    )
    if net.feat_dim != data.dim:
        raise ValueError(
            f"{path}: takes features of {net.feat_dim} a frame, {data.folder} has {data.dim}: it can't hear the student's "
            f"crops; {remedy}"
        )
    theirs, ours = net.info.get("fbank"), data.folder / "conf/fbank.conf"
    if theirs is None or not ours.exists():
        return
    different = differences(theirs, read_conf(ours), path, str(ours))
    if different:
        raise ValueError(
            f"{path}: was trained on features of another kind than {data.folder} ({', '.join(different)}); {remedy}"
        )


def differences(theirs: dict[str, Any], ours: dict[str, str], there: str, here: str) -> list[str]:
    """The options of two front ends that differ, with both values."""
    one, other = build(FbankConf, {k: str(v) for k, v in theirs.items()}, there), build(FbankConf, ours, here)
    found = []
    for name in [each for each in vars(one) if each not in NOT_HEARD]:
        values = [edge(conf) if name == "high_freq" else getattr(conf, name) for conf in (one, other)]
        if values[0] != values[1]:
            found.append(f"--{name.replace('_', '-')} {values[0]} there, {values[1]} here")
    return found


def edge(conf: FbankConf) -> float:
    """--high-freq in Hz."""
    return conf.high_freq if conf.high_freq > 0 else conf.sample_frequency / 2 + conf.high_freq
