#!/usr/bin/env python3
"""Train a model on a data directory: teachers, baselines and students alike. Called by train.sh, or by torchrun.

Usage: local/train.py [options] <data-dir> <exp-dir>
  local/train.py --model conf/model/xvector.conf --kd conf/kd/none.conf --config conf/train.conf data/train_all exp/xvector

The data directory has feats.scp, utt2num_frames, utt2spk and, where there are augmented copies, utt2uniq; methods without
audio need but utt2spk. <exp-dir>/final.pt is the result (of maps enroll.pt and test.pt); a run that was stopped goes on
when it is started again with the same options.
"""

import hashlib
import logging
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speakerkd.batches.dataset import Batches
from speakerkd.batches.utterances import Utterances, hold_out
from speakerkd.batches.wavecrops import set_up_waves
from speakerkd.conf import build, opt, parse_args, read_conf, run, typed_conf
from speakerkd.feats.source import feature_conf
from speakerkd.kd import METHODS, Components, Distiller, Needs
from speakerkd.kd.find_teacher import find_teacher
from speakerkd.kd.several import centroids_of, make_method, named_teachers, weights_of
from speakerkd.kd.teacher import Teacher, key_of
from speakerkd.losses.margin import MarginConf, require_margin_schedule
from speakerkd.models import SpeakerNet, make_net, read_model, save_net
from speakerkd.models.init import initialise
from speakerkd.models.vectormap import VectorMap, save_map, system_of
from speakerkd.parallel import World, start
from speakerkd.train.loop import LoopSettings, TrainConf, in_bf16, train
from speakerkd.train.runfolder import RunFolder
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


def main(argv: list[str]) -> None:
    options, (data_dir, exp_dir) = parse_args(Options, argv, __doc__, 2)
    if options.threads:
        torch.set_num_threads(options.threads)
    world = start(options.device)
    logging.getLogger().setLevel(logging.INFO if world.first else logging.ERROR)
    name, method_class, method_conf = typed_conf(options.kd, METHODS)
    needs = method_class.needs_of(method_conf)
    data = Utterances(data_dir, labels=needs.labels, audio=bool(needs.views), source=options.source)
    if augmented := set_up_waves(data.crops, options.augment, options.hear_clean, options.hear_frames):
        logging.info("augmentation: %s", augmented)
    entries, valid, valid_speakers = hold_out(data, options.valid_speakers, options.seed)
    check_speakers(data, entries)
    classifies = needs.labels and needs.classifier
    head = build(MarginConf, read_conf(options.head), options.head) if classifies else None
    if head is not None:
        require_margin_schedule(head)
    teachers = attach(options, name, needs, data, entries, head)
    if options.missing == "skip":
        whole = data.complete()
        kept, valid_speakers = whole[valid], valid_speakers[whole[valid]]
        entries, valid = entries[whole[entries]], valid[kept]
    batches = Batches(
        data,
        needs.views,
        options.num_frames,
        options.batch_size,
        options.seed,
        entries,
        world.rank,
        world.size,
        (options.mask_frames, options.mask_bins),
        needs.utts_per_speaker,
    )
    folder = RunFolder(exp_dir)
    if world.first:
        folder.open(recorded(options, name, method_conf, head, data, data_dir))
    world.barrier()
    if folder.complete:
        logging.info("%s is complete already; remove the folder to train it again", exp_dir)
        return
    torch.manual_seed(options.seed)
    net = fresh_net(options, data, head, data_dir) if needs.views else None
    for teacher in teachers.values():
        teacher.to(world.device)
    dims = {each: table.dim for each, table in data.vectors.items()}
    components = Components(net, data.speakers, None, dims)
    shares = weights_of(options.teacher_weights, teachers)
    method = make_method(method_class, method_conf, components, teachers, shares)
    if options.init and net is None:
        method.start_from(options.init)
    tell(data, entries, batches, method if net is None else net.encoder, world, options.amp)
    workers = options.workers if options.workers >= 0 else 4 if world.device.type == "cuda" else 0
    validator = Validation if needs.views else CrossValidation
    validation = validator(data, valid, valid_speakers, world.device) if options.valid_speakers else None
    seconds = train(
        method,
        batches,
        TrainConf(**{field.name: getattr(options, field.name) for field in fields(TrainConf)}),
        folder,
        world,
        LoopSettings(options.log_interval, options.save_minutes, workers),
        validation,
    )
    if world.first:
        folder.note(seconds=round(seconds))
        if data.speakers:
            (folder.path / "spk2id").write_text("".join(f"{speaker} {i}\n" for i, speaker in enumerate(data.speakers)))
        files = save(method, folder.path, options)
        logging.info("%s/%s is ready (%.0f s)", exp_dir, " and ".join(files), seconds)
    world.close()


def fresh_net(options: Options, data: Utterances, head: MarginConf | None, data_dir: str) -> SpeakerNet:
    net = make_net(options.model, data.dim, data.speakers, head)
    if options.init:
        logging.info("%s", initialise(net, options.init))
    net.info = front_end(Path(data_dir))
    return net


def save(method: Distiller, folder: Path, options: Options) -> list[str]:
    """The files that were written."""
    exports = method.exports()
    for file, module in exports.items():
        if isinstance(module, VectorMap):
            systems = {name: system_of(path) for name, path in given(options.vectors).items()}
            save_map(folder / f"{file}.pt", module, file, systems)
        else:
            assert isinstance(module, SpeakerNet)
            save_net(folder / f"{file}.pt", module)
    return [f"{file}.pt" for file in exports]


def given(vectors: str) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in vectors.split(",") if part)


def attach(
    options: Options, name: str, needs: Needs, data: Utterances, entries: np.ndarray, head: MarginConf | None
) -> dict[str, Teacher]:
    """What the method must be given beside the crops; more or less than that is an error."""
    files = given(options.vectors)
    if not set(needs.vectors) <= set(files) <= {*needs.vectors, *needs.may_have}:
        named = [f"{each}=<file>" for each in needs.vectors] + [f"{each}=<file> or not" for each in needs.may_have]
        wanted = ", ".join(named) or "no --vectors"
        raise ValueError(f"--vectors={options.vectors}: the method {name} takes {wanted}")
    for each, path in files.items():
        data.attach(each, path, options.missing)
    if bool(options.teacher) != needs.teacher:
        raise ValueError(
            f"the method {name} learns from a teacher: give --teacher exp/<teacher>/final.pt, or an xvector.scp"
            if needs.teacher
            else f"--teacher={options.teacher}: the method {name} has no teacher; leave it out"
        )
    if not needs.teacher:
        return {}
    files, centroids = named_teachers(options.teacher), centroids_of(options.centroids, options.teacher)
    weights_of(options.teacher_weights, files)
    return {
        each: find_teacher(path, centroids.get(each, ""), data, entries, head, options.missing, key_of(each))
        for each, path in files.items()
    }


def check_speakers(data: Utterances, entries: np.ndarray) -> None:
    if data.labels is None:
        return
    counts = np.bincount(data.labels[entries], minlength=len(data.speakers))
    if len(data.speakers) < 2:
        raise ValueError(f"{data.folder}: {len(data.speakers)} speaker to train on; a classifier needs two or more")
    groups = [len(np.unique(data.group_of[entries][data.labels[entries] == i])) for i in np.flatnonzero(counts < 8)]
    if 1 in groups:
        logging.warning(
            "%d speaker(s) have one utterance only: little is learnt of what varies in them", groups.count(1)
        )


def recorded(options: Options, name: str, conf: Any, head: Any, data: Utterances, data_dir: str) -> dict[str, Any]:
    """What makes the run what it is: a folder begun with something else is refused."""
    chosen = {field.name: getattr(options, field.name) for field in fields(TrainConf)}
    model, model_conf = read_model(options.model) if data.audio else ("none", None)
    return {
        "train": chosen,
        "model": {"type": model, **(asdict(model_conf) if model_conf else {})},
        "method": {"type": name, **asdict(conf)},
        "head": None if head is None else asdict(head),
        "init": options.init,
        "files": {path: digest(path) for path in files(options)},
        **({"teacher_weights": options.teacher_weights} if options.teacher_weights else {}),
        "data": {
            "folder": str(Path(data_dir)), "utterances": len(data), "frames": int(data.frames.sum()),
            "speakers": len(data.speakers), "feat_dim": data.dim,
            **data.crops.recorded(),
        },
    }  # fmt: skip


def files(options: Options) -> list[str]:
    """What is learnt from beside the data directory."""
    teachers = named_teachers(options.teacher).values()
    return [
        path
        for path in (
            *teachers,
            *centroids_of(options.centroids, options.teacher).values(),
            *given(options.vectors).values(),
        )
        if path
    ]


def digest(path: str) -> str:
    """Another teacher under the same name is another run."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]


def front_end(data_dir: Path) -> dict[str, Any]:
    """How the features were made, for whoever uses the net on others."""
    path = feature_conf(data_dir)
    return {"fbank": read_conf(path) if path else {}, "cmn": "utterance"}


def tell(data: Utterances, entries: np.ndarray, batches: Batches, net: Any, world: World, amp: str) -> None:
    size = sum(each.numel() for each in net.parameters())
    labels = f"{len(data.speakers)} speakers" if data.speakers else "no labels"
    hours = f"{data.frames[entries].sum() / 360000:.1f} h; encoder" if data.audio else "no audio; maps"
    logging.info(
        "%s, %d utterances in %d copies, %s of %.2f M parameters; %d steps of %d an epoch; %s%s x %d",
        labels, batches.num_groups, len(entries), hours, size / 1e6, batches.per_epoch, batches.batch_size,
        world.device, " in bf16" if in_bf16(amp, world.device.type) else "", world.size,
    )  # fmt: skip
    if batches.short:
        logging.warning("%d utterances are shorter than a crop: they are repeated to fill it", batches.short)


if __name__ == "__main__":
    run(main)
