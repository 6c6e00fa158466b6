#!/usr/bin/env python3
"""Train a model on a data directory: teachers, baselines and students alike. Called by train.sh, or by torchrun.

Usage: local/train.py [options] <data-dir> <exp-dir>
  local/train.py --model conf/model/xvector.conf --kd conf/kd/none.conf --config conf/train.conf data/train_all exp/xvector

The data directory has feats.scp, utt2num_frames, utt2spk and, where there are augmented copies, utt2uniq; methods without
audio need but utt2spk. <exp-dir>/final.pt is the result (of maps enroll.pt and test.pt); a run that was stopped goes on
when it is started again with the same options.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speakerkd.batches.dataset import Batches
from speakerkd.batches.utterances import Utterances, hold_out
from speakerkd.batches.wavecrops import set_up_waves
from speakerkd.conf import build, opt, parse_args, read_conf, run, typed_conf
from speakerkd.feats.source import feature_conf
from speakerkd.files.tables import write_table
from speakerkd.kd import METHODS, Components, Distiller, Needs
from speakerkd.kd.find_teacher import find_teacher
from speakerkd.kd.several import centroids_of, make_method, named_teachers, weights_of
from speakerkd.kd.teacher import Teacher, key_of
from speakerkd.losses.margin import MarginConf, require_margin_schedule
from speakerkd.models import make_net, read_model
from speakerkd.models.init import initialise
from speakerkd.parallel import World, keep_memory, start
from speakerkd.train.identity import describe_data, fingerprints, named_files, options_of, with_type
from speakerkd.train.loop import train
from speakerkd.train.memory import enough_memory
from speakerkd.train.options import LoopSettings, TrainConf
from speakerkd.train.results import require_loadable, save_results
from speakerkd.train.runfolder import RunFolder
from speakerkd.train.summary import log_summary, require_speakers
from speakerkd.train.validate import CrossValidation, Validation


@dataclass(frozen=True)
class Options(TrainConf):
    model: str = opt("conf/model/xvector.conf", "conf file of the model")
    head: str = opt("conf/head.conf", "conf file of the classifier")
    kd: str = opt("conf/kd/none.conf", "conf file of the method")
    teacher: str = opt("", "final.pt, or xvector.scp of the training utterances; several: name=file,...")
    source: str = opt("feats", "what crops are made of: feats (rows of feats.scp) or waves (waves.scp, else wav.scp)")
    augment: str = opt("", "conf file of augmentation on the fly: noise, music, babble, rooms, telephone")
    hear_clean: bool = opt(False, "teachers hear crops of waves without what --augment adds")
    hear_frames: int = opt(
        0, "teachers hear longer crops of waves round the student's, of so many frames; 0: the student's"
    )
    centroids: str = opt(
        "", "spk_xvector.scp of the training speakers, by which the teacher judges them; or name=file,..."
    )
    teacher_weights: str = opt("", "weights of several teachers: name=number,...; without them all count the same")
    vectors: str = opt(
        "", "further inputs of the method: name=file,...; a file is an scp of vectors or a table of numbers"
    )
    missing: str = opt(
        "error",
        "utterances without a vector or figure: error, zero (the method leaves them out) or skip (not used at all)",
    )
    init: str = opt(
        "", "final.pt to start from: its encoder, the classifier's rows of speakers it knows; maps: a matrix"
    )
    device: str = opt("auto", "auto, cpu or cuda")
    threads: int = opt(0, "CPU threads of a process; 0: as PyTorch chooses")
    log_interval: int = opt(50, "steps between lines of the log")
    save_minutes: float = opt(10.0, "last.pt is written at least this often")
    workers: int = opt(-1, "processes that make batches beside this one; -1: 4 where a GPU trains, else none")


@dataclass(frozen=True)
class Chosen:
    """What the conf files of the method and the classifier say."""

    name: str
    kind: type[Distiller]
    conf: Any
    head: MarginConf | None  # None: the method has no classifier

    @property
    def needs(self) -> Needs:
        return self.kind.needs_of(self.conf)


@dataclass
class Data:
    """The training utterances, and the originals of speakers held out."""

    utterances: Utterances
    entries: np.ndarray
    valid: np.ndarray
    valid_speakers: np.ndarray


def main(argv: list[str]) -> None:
    options, (data_dir, exp_dir) = parse_args(Options, argv, __doc__, 2)
    if options.threads:
        torch.set_num_threads(options.threads)
    world = start(options.device)
    if world.device.type == "cpu":
        keep_memory()
    logging.getLogger().setLevel(logging.INFO if world.first else logging.ERROR)
    chosen = read_method(options)
    with enough_memory(options):
        data = load_data(options, chosen, data_dir)
        teachers = load_teachers(options, chosen, data)
        batches = make_batches(options, chosen, data, world)
        folder = RunFolder(exp_dir, chosen.kind.results)
        if world.first:
            folder.open(identity(options, chosen, data))
        world.barrier()
        if folder.complete:
            require_loadable(folder)
            logging.info("%s is complete already; remove the folder to train it again", exp_dir)
        else:
            method = build_method(options, chosen, data, teachers, world)
            log_summary(method, data.utterances, data.entries, batches, world, options.amp)
            fit(options, method, data, batches, folder, world)
    world.close()


def read_method(options: Options) -> Chosen:
    name, kind, conf = typed_conf(options.kd, METHODS)
    needs = kind.needs_of(conf)
    if not (needs.labels and needs.classifier):
        return Chosen(name, kind, conf, None)
    head = build(MarginConf, read_conf(options.head), options.head)
    require_margin_schedule(head)
    return Chosen(name, kind, conf, head)


def load_data(options: Options, chosen: Chosen, data_dir: str) -> Data:
    """Step 1: the utterances, what --vectors attaches to them, and speakers held out."""
    needs = chosen.needs
    utterances = Utterances(data_dir, labels=needs.labels, audio=bool(needs.views), source=options.source)
    if augmented := set_up_waves(utterances.crops, options.augment, options.hear_clean, options.hear_frames):
        logging.info("augmentation: %s", augmented)
    data = Data(utterances, *hold_out(utterances, options.valid_speakers, options.seed))
    require_speakers(utterances, data.entries)
    files = named_files(options.vectors)
    if not set(needs.vectors) <= set(files) <= {*needs.vectors, *needs.may_have}:
        named = [f"{each}=<file>" for each in needs.vectors] + [f"{each}=<file> or not" for each in needs.may_have]
        wanted = ", ".join(named) or "no --vectors"
        raise ValueError(f"--vectors={options.vectors}: the method {chosen.name} takes {wanted}")
    for name, path in files.items():
        utterances.attach(name, path, options.missing)
    return data


def load_teachers(options: Options, chosen: Chosen, data: Data) -> dict[str, Teacher]:
    """Step 2: the teachers by name, if the method learns from any. With --missing=skip, utterances without a vector go."""
    if bool(options.teacher) != chosen.needs.teacher:
        raise ValueError(
            f"the method {chosen.name} learns from a teacher: give --teacher exp/<teacher>/final.pt, or an xvector.scp"
            if chosen.needs.teacher
            else f"--teacher={options.teacher}: the method {chosen.name} has no teacher; leave it out"
        )
    teachers: dict[str, Teacher] = {}
    if chosen.needs.teacher:
        files, centroids = named_teachers(options.teacher), centroids_of(options.centroids, options.teacher)
        weights_of(options.teacher_weights, files)  # names are checked before anything is read
        for name, path in files.items():
            means = centroids.get(name, "")
            teachers[name] = find_teacher(
                path, means, data.utterances, data.entries, chosen.head, options.missing, key_of(name)
            )
    if options.missing == "skip":
        whole = data.utterances.complete()
        kept = whole[data.valid]
        data.entries = data.entries[whole[data.entries]]
        data.valid, data.valid_speakers = data.valid[kept], data.valid_speakers[kept]
    return teachers


def make_batches(options: Options, chosen: Chosen, data: Data, world: World) -> Batches:
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


def build_method(options: Options, chosen: Chosen, data: Data, teachers: dict[str, Teacher], world: World) -> Distiller:
    """Step 3: the net with its initial weights, and the method round it."""
    torch.manual_seed(options.seed)
    utterances = data.utterances
    net = None
    if chosen.needs.views:
        net = make_net(options.model, utterances.dim, utterances.speakers, chosen.head)
        if options.init:
            logging.info("%s", initialise(net, options.init))
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


def fit(options: Options, method: Distiller, data: Data, batches: Batches, folder: RunFolder, world: World) -> None:
    """Step 4: the loop, from last.pt on if there is one, and the files of the result."""
    workers = options.workers if options.workers >= 0 else 4 if world.device.type == "cuda" else 0
    validator = Validation if batches.views else CrossValidation
    validation = None
    if options.valid_speakers:
        validation = validator(data.utterances, data.valid, data.valid_speakers, world.device)
    conf = TrainConf(**options_of(options))
    settings = LoopSettings(options.log_interval, options.save_minutes, workers)
    seconds = train(method, batches, conf, folder, world, settings, validation)
    if world.first:
        folder.note(seconds=round(seconds))
        if speakers := data.utterances.speakers:
            write_table(folder.path / "spk2id", {speaker: index for index, speaker in enumerate(speakers)})
        save_results(method, folder, named_files(options.vectors))
        logging.info("%s/%s is ready (%.0f s)", folder.path, " and ".join(folder.results), seconds)


def learnt_from(options: Options) -> list[str]:
    """The files of --teacher, --centroids and --vectors."""
    centroids = centroids_of(options.centroids, options.teacher)
    tables = named_teachers(options.teacher), centroids, named_files(options.vectors)
    return [path for table in tables for path in table.values() if path]


def identity(options: Options, chosen: Chosen, data: Data) -> dict[str, Any]:
    """What makes the run what it is: a folder begun with something else is refused."""
    model = read_model(options.model) if data.utterances.audio else ("none", None)
    waves = ("augment", "hear_clean", "hear_frames")
    return {
        "train": options_of(options),
        "model": with_type(*model),
        "method": with_type(chosen.name, chosen.conf),
        "head": None if chosen.head is None else asdict(chosen.head),
        "init": options.init,
        "files": fingerprints(learnt_from(options)),
        "teacher_weights": options.teacher_weights,
        "data": describe_data(data.utterances),
        "waves": {name: getattr(options, name) for name in waves} if options.source == "waves" else None,
        "augmentation": read_conf(options.augment) if options.augment else None,
    }


if __name__ == "__main__":
    run(main)
