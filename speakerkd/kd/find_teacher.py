"""The teacher that --teacher names: a final.pt, or an xvector.scp; errors say what doesn't fit and what mends it."""

import numpy as np
import torch

from speakerkd.batches.utterances import Utterances
from speakerkd.feats.frontend import recorded
from speakerkd.feats.source import departure
from speakerkd.files.vectors import read_vectors
from speakerkd.kd.teacher import VECTORS, NetTeacher, Teacher, VectorTeacher
from speakerkd.losses.margin import MarginConf
from speakerkd.models.base import SpeakerNet, load_net


def find_teacher(
    path: str, centroids: str, data: Utterances, entries: np.ndarray, head: MarginConf | None, missing: str = "error"
) -> Teacher:
    """entries: those trained on; head: the margin of logits against centroids."""
    conf = head or MarginConf()
    if path.endswith(".scp"):
        data.attach(VECTORS, path, missing)
        teacher: Teacher = VectorTeacher(path, data.speakers, *mean_vectors(data, entries), conf)
    else:
        net = load_net(path)
        check_front_end(path, net, data)
        teacher = NetTeacher(net, path, data.speakers)
    if centroids:
        judge_by_file(teacher, centroids, conf)
    return teacher


def mean_vectors(data: Utterances, entries: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """((known speakers, D), (speakers,) bool): means of the utterances' vectors at length one; who has none isn't known."""
    assert data.labels is not None
    table = data.vectors[VECTORS]
    length = np.maximum(np.linalg.norm(table.rows, axis=1, keepdims=True), 1e-12)
    sums = np.zeros((len(data.speakers), table.dim))
    for part in np.array_split(entries, max(1, len(entries) // 100_000)):
        np.add.at(sums, data.labels[part], (table.rows / length)[table.row_of[part]])
    known = sums.any(axis=1)
    return torch.from_numpy(sums[known].astype(np.float32)), torch.from_numpy(known)


def judge_by_file(teacher: Teacher, path: str, conf: MarginConf) -> None:
    vectors = read_vectors(path)
    if vectors.dim != teacher.dim:
        raise ValueError(
            f"{path}: vectors of {vectors.dim} dimensions, the teacher {teacher.name} gives {teacher.dim}: extract the mean "
            "vectors with this very teacher (local/extract_xvectors.sh, spk_xvector.scp)"
        )
    rows = vectors.rows_of(teacher.speakers)
    if (rows < 0).all():
        raise ValueError(f"{path}: none of the training speakers is there; the first id there is '{vectors.ids[0]}'")
    teacher.judge_by(torch.from_numpy(vectors.matrix[rows[rows >= 0]]), torch.from_numpy(rows >= 0), conf)


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
    front_end = recorded(net.info, path)
    if front_end is None:
        return
    if front_end.conf.mean != "utterance" or front_end.conf.window_frames:
        raise ValueError(
            f"{path}: doesn't hear whole crops minus their mean, as students do (mean {front_end.conf.mean}, windows of "
            f"{front_end.conf.window_frames} frames); {remedy}"
        )
    different = departure(front_end, data.folder)
    if different:
        raise ValueError(
            f"{path}: was trained on features of another kind than those of {data.folder} ({different}); {remedy}"
        )
