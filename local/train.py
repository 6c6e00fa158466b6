#!/usr/bin/env python3
"""Trains a model on a data directory: a teacher, a baseline or a student. Called by train.sh, or by torchrun.

Usage: local/train.py [options] <data-dir> <exp-dir>
  local/train.py --model conf/model/xvector.conf --kd conf/kd/none.conf --config conf/train.conf data/train_all exp/xvector

The data directory has feats.scp, utt2num_frames, utt2spk and, if it has augmented copies, utt2uniq. Methods without audio
need only utt2spk. The result is <exp-dir>/final.pt; methods that train maps write enroll.pt and test.pt. If a run was
stopped, start it again with the same options; it then goes on from there.
"""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from speakerkd.batches.dataset import Batches
from speakerkd.conf import parse_args, read_conf, run
from speakerkd.files.tables import write_table
from speakerkd.kd import Distiller
from speakerkd.kd.several import files_of
from speakerkd.models import read_model
from speakerkd.parallel import World, keep_memory, start
from speakerkd.train.assemble import (
    ChosenMethod,
    TrainData,
    build_method,
    load_data,
    load_teachers,
    make_batches,
    read_method,
)
from speakerkd.train.identity import describe_data, fingerprints, named_files, options_of, with_type
from speakerkd.train.loop import train
from speakerkd.train.memory import enough_memory
from speakerkd.train.options import LoopSettings, RunOptions, TrainConf
from speakerkd.train.results import require_loadable, save_results
from speakerkd.train.runfolder import RunFolder
from speakerkd.train.summary import log_summary
from speakerkd.train.validate import CrossValidation, Validation


def main(argv: list[str]) -> None:
    options, (data_dir, exp_dir) = parse_args(RunOptions, argv, __doc__, 2)
    if options.threads:
        torch.set_num_threads(options.threads)
    world = start(options.device)
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
            if world.device.type == "cpu":
                keep_memory()
            method = build_method(options, chosen, data, teachers, world, not (folder.path / "last.pt").exists())
            log_summary(method, data.utterances, data.entries, batches, world, options.amp)
            fit(options, method, data, batches, folder, world)
    world.close()


def fit(
    options: RunOptions, method: Distiller, data: TrainData, batches: Batches, folder: RunFolder, world: World
) -> None:
    """Step 4: runs the loop, from last.pt on if there is one, and writes the files of the result."""
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


def identity(options: RunOptions, chosen: ChosenMethod, data: TrainData) -> dict[str, Any]:
    """What identifies the run. If the folder has another run, it is refused."""
    model = read_model(options.model) if data.utterances.audio else ("none", None)
    files = [*files_of(options, data.utterances.folder), *named_files(options.vectors).values()]
    waves = ("augment", "hear_clean", "hear_frames")
    return {
        "train": options_of(options),
        "model": with_type(*model),
        "method": with_type(chosen.name, chosen.conf),
        "head": None if chosen.head is None else asdict(chosen.head),
        "init": fingerprints([options.init]) if Path(options.init).is_file() else options.init,  # a matrix, by its name
        **({"init_utts": options.init_utts} if options.init_utts else {}),  # older records don't have it
        "files": fingerprints(files),
        "teacher_weights": options.teacher_weights,
        "missing": options.missing,
        "data": describe_data(data.utterances),
        "waves": {name: getattr(options, name) for name in waves} if options.source == "waves" else None,
        "augmentation": read_conf(options.augment) if options.augment else None,
    }


if __name__ == "__main__":
    run(main)
