"""Teachers. They are frozen, in eval mode, and no submodules of the method: optimiser, checkpoint and DDP ignore them.

NetTeacher     a model (final.pt). It hears the student's crop, with the student's features or with its own
VectorTeacher  vectors of the utterances, computed beforehand by any system

Class space. Logits come in the order of the student's speakers. The teacher's rows are picked by the speakers' names, so the
teacher may have another order and further speakers. A teacher without a classifier of these speakers classifies by their
mean vectors (centroids). If the teacher lacks a speaker, this is an error, or this speaker's utterances are left out.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from speakerkd.batches.dataset import Batch
from speakerkd.conf import first_few
from speakerkd.feats.frontend import Reading
from speakerkd.losses.margin import MarginConf, MarginHead
from speakerkd.models.base import Encoded, SpeakerNet
from speakerkd.models.frozen import Frozen
from speakerkd.models.hearing import hear

VECTORS = "teacher"  # name of a teacher's vectors in a batch


def key_of(name: str) -> str:
    """The name of a teacher's vectors in batches."""
    return f"{VECTORS}.{name}" if name else VECTORS


class Teacher(torch.nn.Module):
    """A teacher. `known`: the student's classes that have logits. The columns of the logits are these classes, in order."""

    dim: int
    known: Tensor  # (classes of the student,) bool
    compiled: bool = False  # a net goes through torch.compile

    def __init__(self, name: str, speakers: Sequence[str]) -> None:
        super().__init__()
        self.name = name
        self.speakers = tuple(speakers)
        self.head: MarginHead | None = None
        self.register_buffer("known", torch.ones(len(speakers), dtype=torch.bool))

    def embed(self, batch: Batch) -> Encoded:
        raise NotImplementedError

    def logits(self, embedding: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, D) [, (B,) in the student's classes] -> (B, known classes). With labels, the logits have the full margin."""
        if self.head is None:
            raise ValueError(
                f"{self.name} has no classifier, and label-level distillation needs one. Give --centroids with the mean "
                "vectors of the training speakers (spk_xvector.scp of extract_xvectors.sh), or distil embeddings"
            )
        return self.head(embedding, None if labels is None else self.columns[labels])

    def present(self, batch: Batch) -> Tensor | None:
        """(B,) bool: the samples that the teacher can teach; None: all."""
        return None

    @property
    def columns(self) -> Tensor:
        """(classes of the student,) -> the column of each class in the logits. That of an unknown class has no meaning."""
        return (self.known.cumsum(0) - 1).clamp(min=0)

    def judge_by(self, vectors: Tensor, known: Tensor, conf: MarginConf) -> None:
        """Classifies by these vectors, one for each known speaker: the centroids take the place of a classifier."""
        self.known = known
        one = replace(conf, sub_centers=1)
        if conf.type == "softmax":  # without a scale, the length of the teacher's embeddings would decide
            one = replace(one, type="am", margin=0.0)
        self.head = MarginHead(one, vectors.shape[1], len(vectors))
        self.head.weight.data.copy_(F.normalize(vectors))
        self.requires_grad_(False)

    def unknown(self) -> list[str]:
        return [speaker for speaker, known in zip(self.speakers, self.known.tolist(), strict=True) if not known]

    def train(self, mode: bool = True) -> "Teacher":
        return super().train(False)


class NetTeacher(Teacher):
    """A model. `reading`: how it reads features of its own front end, which batches then hold; None: the student's."""

    def __init__(self, net: SpeakerNet, name: str, speakers: Sequence[str], reading: Reading | None = None) -> None:
        super().__init__(name, speakers)
        self.net, self.dim, self.reading = net, net.dim, reading
        self._prepared: tuple[object, Frozen | None] = (None, None)
        if net.head is not None:
            self.known, self.head = classifier_of(net, speakers)
        self.requires_grad_(False)
        self.eval()

    def embed(self, batch: Batch) -> Encoded:
        with torch.no_grad():
            feats = batch.feats[0] if self.reading is None else batch.heard[self.name]
            net = self.prepared(feats)
            return net(feats) if self.reading is None else hear(net, feats, self.reading)

    def prepared(self, feats: Tensor) -> Frozen:
        """The net in the form that is applied. It is made once for this device and the precision of the training."""
        kind = feats.device.type
        half = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        made, net = self._prepared
        if net is None or made != (feats.device, half):
            net = Frozen(self.net, feats.device, half)
            if self.compiled:
                net.encoder.compile()
            self._prepared = (feats.device, half), net
        return net


class VectorTeacher(Teacher):
    """Vectors. Centroids are the means of the training utterances' vectors of length 1. `key`: their name in batches."""

    def __init__(
        self,
        name: str,
        speakers: Sequence[str],
        centroids: Tensor,
        known: Tensor,
        conf: MarginConf,
        key: str = VECTORS,
    ) -> None:
        super().__init__(name, speakers)
        self.key = key
        self.dim = centroids.shape[1]
        self.judge_by(centroids, known, conf)
        self.eval()

    def embed(self, batch: Batch) -> Encoded:
        return Encoded(batch.vectors[self.key])

    def present(self, batch: Batch) -> Tensor | None:
        return batch.vectors[self.key].any(1)


def classifier_of(net: SpeakerNet, speakers: Sequence[str]) -> tuple[Tensor, MarginHead | None]:
    """((speakers,) bool: whom it knows, the net's classifier of those in their order; None if it knows nobody)."""
    row = {speaker: index for index, speaker in enumerate(net.speakers)}
    known = torch.tensor([speaker in row for speaker in speakers])
    rows = [row[speaker] for speaker in speakers if speaker in row]
    return known, picked(net.head, rows) if net.head is not None and rows else None


def picked(head: MarginHead, rows: list[int]) -> MarginHead:
    """The classifier, with these classes only."""
    fresh = MarginHead(head.conf, head.dim, len(rows))
    subs = head.weight.unflatten(0, (-1, head.conf.sub_centers))
    fresh.weight.data.copy_(subs[rows].flatten(0, 1))
    if head.bias is not None and fresh.bias is not None:
        fresh.bias.data.copy_(head.bias[rows])
    return fresh


def require_known(teacher: Teacher, others: str) -> None:
    """others: what to do if the teacher lacks speakers: error, or skip, which leaves these speakers out."""
    if others not in ("error", "skip"):
        raise ValueError(f"--unknown-speakers={others} is not one of: error skip")
    missing = teacher.unknown()
    if len(missing) == len(teacher.speakers):
        raise ValueError(
            f"{teacher.name} knows none of the training speakers ({first_few(missing)}): give --centroids with their mean "
            "vectors (spk_xvector.scp of local/extract_xvectors.sh), or distil embeddings"
        )
    if len(teacher.speakers) - len(missing) == 1:
        raise ValueError(
            f"{teacher.name} knows only one of the training speakers, so its probabilities say nothing: train it on more "
            "of them, give --centroids with more of them, or distil embeddings"
        )
    if missing and others == "error":
        raise ValueError(
            f"{teacher.name} doesn't know {len(missing)} of the {len(teacher.speakers)} training speakers: "
            f"{first_few(missing)}. Train the teacher on this data directory. Or, if these are copies at another speed, "
            "train the student without them. Or leave them out of the distillation: --unknown-speakers=skip in the "
            "method's conf file. Or distil embeddings, which needs no speakers"
        )
