"""The messages before a run begins: the size of data and model, and warnings about them."""

import logging

import numpy as np

from speakerkd.batches.dataset import Batches
from speakerkd.batches.utterances import Utterances
from speakerkd.kd import Distiller
from speakerkd.parallel import World
from speakerkd.train.precision import autocast_dtype, dtype_name


def require_speakers(data: Utterances, entries: np.ndarray) -> None:
    """A classifier needs two speakers, and several recordings of each."""
    if data.labels is None:
        return
    if len(data.speakers) < 2:
        raise ValueError(f"{data.folder}: {len(data.speakers)} speaker to train on; a classifier needs two or more")
    alone = speakers_with_one_utterance(data.labels[entries], data.group_of[entries])
    if alone:
        logging.warning("%d speaker(s) have only one utterance; the model learns little about their variation", alone)


def speakers_with_one_utterance(labels: np.ndarray, groups: np.ndarray) -> int:
    """groups: for each entry, the number of the recording that it is a copy of."""
    if len(labels) == 0:
        return 0
    width = int(groups.max()) + 1
    pairs = np.unique(labels.astype(np.int64) * width + groups)  # each pair of speaker and recording once
    return int((np.bincount(pairs // width) == 1).sum())


def log_summary(
    method: Distiller, data: Utterances, entries: np.ndarray, batches: Batches, world: World, amp: str
) -> None:
    student = getattr(method, "student", method)
    net = getattr(student, "net", student)  # in methods without labels, the student is wrapped in a head
    size = sum(each.numel() for each in getattr(net, "encoder", net).parameters())
    labels = f"{len(data.speakers)} speakers" if data.speakers else "no labels"
    hours = f"{data.frames[entries].sum() / 360000:.1f} h; encoder" if data.audio else "no audio; maps"
    copies = f" in {len(entries)} versions" if len(entries) > batches.num_groups else ""  # the original is one of them
    logging.info(
        "%s, %d utterances%s, %s of %.2f M parameters; %d steps of %d an epoch; %s in %s x %d",
        labels, batches.num_groups, copies, hours, size / 1e6, batches.per_epoch, batches.batch_size,
        world.device, dtype_name(autocast_dtype(amp, world.device)), world.size,
    )  # fmt: skip
    if batches.short:
        logging.warning("%d utterances are shorter than a crop: they are repeated to fill it", batches.short)
