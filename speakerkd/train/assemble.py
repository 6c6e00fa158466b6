"""Builds what local/train.py trains from its options: the data, the teachers, the batches and the method."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speakerkd.batches.dataset import Batches
from speakerkd.batches.utterances import Utterances, hold_out
from speakerkd.batches.wavecrops import set_up_waves
from speakerkd.conf import build, first_few, read_conf, typed_conf
from speakerkd.feats.source import feature_conf
from speakerkd.kd import METHODS, Components, Distiller, Needs
from speakerkd.kd.several import find_teachers, make_method, weights_of
from speakerkd.kd.teacher import Teacher
from speakerkd.losses.margin import MarginConf, require_margin_schedule
from speakerkd.models import make_net
from speakerkd.models.init import initialise
from speakerkd.parallel import World
from speakerkd.train.classrows import set_class_rows
from speakerkd.train.identity import named_files
from speakerkd.train.options import RunOptions
from speakerkd.train.summary import require_speakers


@dataclass(frozen=True)
class ChosenMethod:
    """The contents of the conf files of the method and the classifier."""

    name: str
    kind: type[Distiller]
    conf: Any
    head: MarginConf | None  # None: the method has no classifier

    @property
    def needs(self) -> Needs:
        return self.kind.needs_of(self.conf)


@dataclass
class TrainData:
    """The training utterances, and the originals of the held-out speakers."""

    utterances: Utterances
    entries: np.ndarray
    valid: np.ndarray
    valid_speakers: np.ndarray


def read_method(options: RunOptions) -> ChosenMethod:
    name, kind, conf = typed_conf(options.kd, METHODS)
    needs = kind.needs_of(conf)
    if not (needs.labels and needs.classifier):
        return ChosenMethod(name, kind, conf, None)
    head = build(MarginConf, read_conf(options.head), options.head)
    require_margin_schedule(head)
    return ChosenMethod(name, kind, conf, head)


def load_data(options: RunOptions, chosen: ChosenMethod, data_dir: str) -> TrainData:
    """Step 1: the utterances, the vectors that --vectors attaches to them, and the held-out speakers."""
    needs = chosen.needs
    utterances = Utterances(data_dir, labels=needs.labels, audio=bool(needs.views), source=options.source)
    if augmented := set_up_waves(
        utterances.crops, options.augment, options.hear_clean, options.hear_frames, options.features
    ):
        logging.info("augmentation: %s", augmented)
    data = TrainData(utterances, *hold_out(utterances, options.valid_speakers, options.seed))
    require_speakers(utterances, data.entries)
    files = named_files(options.vectors)
    if not set(needs.vectors) <= set(files) <= {*needs.vectors, *needs.may_have}:
        named = [f"{each}=<file>" for each in needs.vectors] + [f"{each}=<file> or not" for each in needs.may_have]
        wanted = ", ".join(named) or "no --vectors"
        raise ValueError(f"--vectors={options.vectors}: the method {chosen.name} takes {wanted}")
    for name, path in files.items():
        utterances.attach(name, path, options.missing)
    return data


def load_teachers(options: RunOptions, chosen: ChosenMethod, data: TrainData) -> dict[str, Teacher]:
    """Step 2: the teachers by name, if the method has any. With --missing=skip, utterances without a vector are removed."""
    if chosen.needs.teacher_net and options.hear_frames > options.num_frames:
        raise ValueError(
            f"--hear-frames={options.hear_frames}: the method {chosen.name} compares stages point by point, so teacher and "
            "student must hear the same frames"
        )
    if bool(options.teacher) != chosen.needs.teacher:
        raise ValueError(
            f"the method {chosen.name} learns from a teacher: give --teacher exp/<teacher>/final.pt, or an xvector.scp"
            if chosen.needs.teacher
            else f"--teacher={options.teacher}: the method {chosen.name} has no teacher; leave it out"
        )
    teachers = find_teachers(options, data.utterances, data.entries, chosen.head) if options.teacher else {}
    if options.missing == "skip":
        whole = data.utterances.complete()
        kept = whole[data.valid]
        data.entries = data.entries[whole[data.entries]]
        data.valid, data.valid_speakers = data.valid[kept], data.valid_speakers[kept]
        warn_of_empty_classes(data)
    return teachers


def warn_of_empty_classes(data: TrainData) -> None:
    utterances = data.utterances
    if utterances.labels is None:
        return
    there = np.isin(np.arange(len(utterances.speakers)), utterances.labels[data.entries])
    if not there.all():
        missing = first_few([name for name, here in zip(utterances.speakers, there, strict=True) if not here])
        logging.warning(
            "--missing=skip leaves %d of %d speakers without utterances; they stay in the classifier: %s",
            np.sum(~there), len(there), missing,
        )  # fmt: skip


def make_batches(options: RunOptions, chosen: ChosenMethod, data: TrainData, world: World) -> Batches:
    needs = chosen.needs
    return Batches(
        data.utterances,
        needs.views,
        options.num_frames,
        options.batch_size,
        options.seed,
        data.entries,
        world.rank,
        world.size,
        (options.mask_frames, options.mask_bins),
        needs.utts_per_speaker,
    )


def build_method(
    options: RunOptions, chosen: ChosenMethod, data: TrainData, teachers: dict[str, Teacher], world: World,
    fresh: bool = True,
) -> Distiller:  # fmt: skip
    """Step 3: the net with its initial weights, and the method around it. fresh: there is no checkpoint to go on from."""
    torch.manual_seed(options.seed)
    utterances = data.utterances
    net = None
    if chosen.needs.views:
        net = make_net(options.model, utterances.dim, utterances.speakers, chosen.head)
        if options.init:
            start = initialise(net, options.init)
            logging.info("%s", start.said)
            if options.init_utts and net.head is None:
                raise ValueError(f"--init-utts={options.init_utts}: the method {chosen.name} has no classifier here")
            if options.init_utts and fresh:
                with_rows = set_class_rows(net, utterances, data.entries, start.known, options.init_utts, world.device)
                logging.info("%s", with_rows)
        front_end = feature_conf(Path(utterances.folder))
        net.info = {"fbank": read_conf(front_end) if front_end else {}, "cmn": "utterance"}
    for teacher in teachers.values():
        teacher.to(world.device)
    dims = {each: table.dim for each, table in utterances.vectors.items()}
    components = Components(net, utterances.speakers, None, dims)
    shares = weights_of(options.teacher_weights, teachers)
    method = make_method(chosen.kind, chosen.conf, components, teachers, shares)
    if options.init and net is None:
        method.start_from(options.init)
    return method
