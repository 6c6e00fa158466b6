"""The teacher that --teacher names: a final.pt or an xvector.scp. Errors say what doesn't match and what to do."""

from pathlib import Path

import numpy as np
import torch

from speakerkd.batches.utterances import Utterances
from speakerkd.conf import build, read_conf
from speakerkd.feats.frontend import FrontEnd, KaldiConf, KaldiFrontEnd, Reading, front_end_of
from speakerkd.feats.source import departure, feature_conf
from speakerkd.files.vectors import read_vectors
from speakerkd.kd.teacher import VECTORS, NetTeacher, Teacher, VectorTeacher, classifier_of
from speakerkd.losses.margin import MarginConf
from speakerkd.models.base import SpeakerNet, load_net

# --hear, and the folder beside a final.pt that holds its vectors of a data directory, with the script that makes them
HEARS = {
    "crop": ("", ""),
    "places": ("crops", "extract_crop_xvectors.sh"),
    "utterance": ("xvectors", "extract_xvectors.sh"),
}


def find_teacher(
    path: str,
    centroids: str,
    data: Utterances,
    entries: np.ndarray,
    head: MarginConf | None,
    missing: str = "error",
    key: str = VECTORS,
    hear: str = "",
) -> Teacher:
    """entries: the training utterances; head: margin of logits from centroids; key: name of its vectors, if any.

    hear: what a model hears. The default is the crop. For places and utterance, vectors that it made before are taken.
    """
    conf = head or MarginConf()
    if hear and hear not in HEARS:
        raise ValueError(f"--hear={hear} is not one of: {' '.join(HEARS)}")
    net = None if path.endswith(".scp") else load_net(path)
    teacher: Teacher
    if net is not None and hear in ("", "crop"):
        teacher = NetTeacher(net, path, data.speakers, listen(path, net, data))
    else:
        vectors = path if net is None else vectors_beside(path, data.folder, hear)
        data.attach(key, vectors, missing)
        teacher = VectorTeacher(vectors, data.speakers, *mean_vectors(data, entries, key), conf, key)
        if net is not None:
            judge_by_net(teacher, net)
    if centroids:
        judge_by_file(teacher, centroids, conf)
    return teacher


def vectors_beside(path: str, folder: str | Path, hear: str) -> str:
    """The vectors that a net made of a data directory, as run.sh and the READMEs name them."""
    kind, script = HEARS[hear]
    names = [f"{kind}_{name}" for name in (Path(folder).name, "train_originals")]
    found = [each for name in names if (each := Path(path).parent / name / "xvector.scp").is_file()]
    if not found:
        made = Path(path).parent / names[0]
        raise ValueError(
            f"--hear={hear}: {made}/xvector.scp is not there (nor {names[1]}): make it by local/{script} {path} {folder} "
            f"{made}"
        )
    return str(found[0])


def judge_by_net(teacher: Teacher, net: SpeakerNet) -> None:
    """Its own classifier in the place of mean vectors, if it has one of these speakers."""
    known, head = classifier_of(net, teacher.speakers)
    if head is not None:
        teacher.known, teacher.head = known, head
        teacher.requires_grad_(False)


def mean_vectors(data: Utterances, entries: np.ndarray, key: str = VECTORS) -> tuple[torch.Tensor, torch.Tensor]:
    """((known speakers, D), (speakers,) bool): mean of each speaker's vectors of length 1; without any: not known."""
    assert data.labels is not None
    if key in data.crop_vectors:
        sums = data.crop_vectors[key].means(entries, data.labels, len(data.speakers))
        known = sums.any(axis=1)
        return torch.from_numpy(sums[known].astype(np.float32)), torch.from_numpy(known)
    table = data.vectors[key]
    total = torch.zeros(len(data.speakers), table.dim, dtype=torch.float64)
    for part in np.array_split(entries, max(1, len(entries) // 100_000)):
        rows = table.of(part)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        total.index_add_(0, torch.from_numpy(data.labels[part].astype(np.int64)), torch.from_numpy(rows).double())
    heard = total.any(dim=1)
    return total[heard].float(), heard


def judge_by_file(teacher: Teacher, path: str, conf: MarginConf) -> None:
    vectors = read_vectors(path)
    if vectors.dim != teacher.dim:
        raise ValueError(
            f"{path}: has vectors of {vectors.dim} dimensions, the teacher {teacher.name} gives {teacher.dim}. Extract the "
            "mean vectors with the same teacher (local/extract_xvectors.sh, spk_xvector.scp)"
        )
    rows = vectors.rows_of(teacher.speakers)
    if (rows < 0).all():
        raise ValueError(f"{path}: has none of the training speakers; its first id is '{vectors.ids[0]}'")
    teacher.judge_by(torch.from_numpy(vectors.matrix[rows[rows >= 0]]), torch.from_numpy(rows >= 0), conf)


def listen(path: str, net: SpeakerNet, data: Utterances) -> Reading | None:
    """How the teacher reads features of its own front end; None: it hears the student's features.

    With features of its own, crops hold these too from now on. It hears the student's features if it was trained on such
    features, or if its file doesn't say what it was trained on.
    """
    front_end = front_end_of(net.info, path)
    if front_end is None or not (reason := stranger(front_end, data)):
        if net.feat_dim != data.dim:
            raise ValueError(
                f"{path}: takes {net.feat_dim} features per frame, {data.folder} has {data.dim}, and the file doesn't "
                "say how its features are made. Import or train it again, or give vectors that were made with it"
            )
        if not (data.crops.hear_clean or data.crops.hear_frames):
            return None
        # It has the student's features, but hears other samples than the student.
        front_end, reason = front_end or students_front_end(data), "other crops"
    try:
        data.crops.listen(path, front_end)
    except ValueError as error:
        raise ValueError(
            f"{path}: was trained on features of another kind than those of {data.folder} ({reason}). {error}"
        ) from error
    return front_end.conf


def students_front_end(data: Utterances) -> FrontEnd:
    conf = feature_conf(data.folder)
    return KaldiFrontEnd(build(KaldiConf, read_conf(conf) if conf else {}, str(conf)))


def stranger(front_end: FrontEnd, data: Utterances) -> str:
    """How the student's features differ from those of this front end; '': they don't."""
    conf = front_end.conf
    if conf.mean != "utterance" or conf.window_frames:
        windows = f"windows of {conf.window_frames} frames" if conf.window_frames else "whole crops"
        return f"students hear whole crops minus their mean; the teacher hears {windows}, mean subtracted: {conf.mean}"
    return departure(front_end, data.folder)
