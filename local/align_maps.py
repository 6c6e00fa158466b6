#!/usr/bin/env python3
"""Closed-form maps between two systems' vectors: the baselines of the trained maps. Called by align.sh.

Usage: local/align_maps.py [options] <data-dir> <enroll xvector.scp> <test xvector.scp> <out-dir>
  local/align_maps.py --train-config conf/train_align.conf data/train exp/old/xvectors_train/xvector.scp \\
    exp/new/xvectors_train/xvector.scp exp/old_new_nessa

It writes <out-dir>/<name>/enroll.mat and test.mat in Kaldi's format. speakerkd/score/align.py describes the maps:
  raw            no map; only if both systems have the same dimension
  leastsquares, ridge, procrustes    map the test's vectors only
  cca            maps both sides to the directions in which they agree
  logits, logits_centred    class weights of the speakers that both classifiers have; without classifiers, centroids
ridge and cca have the penalty with the lowest EER of the speakers held out. If none are held out, it is the middle one of
--penalties, and a warning says so.
All maps learn from the training speakers, except those held out. The EER of the held-out speakers is logged, with one
system for the enrolment and the other for the test. local/train.py holds out the same speakers if it gets the same conf
file and options.
"""

import logging
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from speakerkd.batches.utterances import Utterances, hold_out
from speakerkd.conf import build, opt, parse_args, read_conf, run
from speakerkd.files.backend import write_matrix
from speakerkd.models.base import load_net
from speakerkd.models.vectormap import VectorMap
from speakerkd.score.align import cca, centroids, in_fewer_dimensions, logits, procrustes, ridge
from speakerkd.score.cosine import length_normalise
from speakerkd.train.validate import CrossValidation

SIDES = ("enroll", "test")
Maps = tuple[np.ndarray, np.ndarray]  # for the enrolment's side, for the test's side


@dataclass
class Options:
    train_config: str = opt("", "conf file of local/train.py; only its --valid-speakers and --seed are used")
    train_options: str = opt("", "options of local/train.py that override those of the conf file")
    penalties: tuple[float, ...] = opt((1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0), "penalties of ridge and cca to try")
    missing: str = opt("skip", "what to do with utterances that only one system has a vector of: skip or error")


@dataclass
class HeldOut:
    """The options of local/train.py that say who is held out."""

    valid_speakers: int = 0
    seed: int = 0


def held_out(config: str, words: str) -> HeldOut:
    pairs = read_conf(config) if config else {}
    queue = words.split()
    while queue:
        name, equals, value = queue.pop(0).removeprefix("--").partition("=")
        pairs[name.replace("-", "_")] = value if equals or not queue else queue.pop(0)
    mine = {field.name for field in fields(HeldOut)}
    return build(HeldOut, {name: value for name, value in pairs.items() if name in mine}, f"{config} {words}".strip())


def class_rows(scp: str, vectors: np.ndarray, labels: np.ndarray, speakers: tuple[str, ...]) -> tuple[np.ndarray, str]:
    """A row for each speaker: from the classifier if it has one row for each of them, otherwise the centroid."""
    checkpoint = Path(scp).resolve().parent.parent / "final.pt"
    if checkpoint.exists():
        net = load_net(checkpoint)
        number = {name: index for index, name in enumerate(net.speakers)}
        if net.head is not None and net.head.conf.sub_centers == 1 and all(name in number for name in speakers):
            return net.head.weight.detach().numpy()[[number[name] for name in speakers]], "class weights"
    return centroids(vectors, labels), "centroids"


def as_net(matrix: np.ndarray) -> VectorMap:
    net = VectorMap("linear", matrix.shape[1], matrix.shape[0])
    net.linear.weight.data = torch.from_numpy(matrix.astype(np.float32))
    return net


def all_maps(
    enroll: np.ndarray, test: np.ndarray, rows: list[np.ndarray], penalties: tuple[float, ...]
) -> dict[str, Maps]:
    same = np.eye(enroll.shape[1])
    maps = {"raw": (same, same)} if enroll.shape[1] == test.shape[1] else {}
    maps["leastsquares"] = (same, ridge(test, enroll, 0))
    maps |= {f"ridge {penalty:g}": (same, ridge(test, enroll, penalty)) for penalty in penalties}
    maps |= {f"cca {penalty:g}": cca(test, enroll, penalty) for penalty in penalties}
    maps["procrustes"] = (same, procrustes(test, enroll))
    for name, centred in (("logits", False), ("logits_centred", True)):
        maps[name] = in_fewer_dimensions(logits(rows[0], centred), logits(rows[1], centred))
    return maps


def main(argv: list[str]) -> None:
    options, (data_dir, *paths, out) = parse_args(Options, argv, __doc__, 4)
    if options.missing not in ("skip", "error") or not options.penalties or min(options.penalties) <= 0:
        raise ValueError("--missing must be skip or error, --penalties one or more positive numbers")
    data = Utterances(data_dir, audio=False)
    held = held_out(options.train_config, options.train_options)
    entries, valid, valid_speakers = hold_out(data, held.valid_speakers, held.seed)
    for side, path in zip(SIDES, paths, strict=True):
        data.attach(side, path, options.missing)
    whole = data.complete()
    entries, valid, valid_speakers = entries[whole[entries]], valid[whole[valid]], valid_speakers[whole[valid]]
    if len(entries) < 2:
        raise ValueError(f"{data_dir}: {len(entries)} utterances have vectors of both systems ({' and '.join(paths)})")
    enroll, test = (length_normalise(data.vectors[side].of(entries)) for side in SIDES)
    for path, vectors in zip(paths, (enroll, test), strict=True):
        if not vectors.any():
            raise ValueError(f"{path}: all vectors of these utterances are zero")
    assert data.labels is not None
    present, labels = np.unique(data.labels[entries], return_inverse=True)
    speakers = tuple(data.speakers[index] for index in present)
    told = [class_rows(path, x, labels, speakers) for path, x in zip(paths, (enroll, test), strict=True)]
    logging.info(
        "%d utterances of %d speakers have both vectors, of %d; %d dimensions (enroll), %d (test); logits by %s, %s",
        len(entries), len(speakers), len(whole), enroll.shape[1], test.shape[1], told[0][1], told[1][1],
    )  # fmt: skip
    penalties = options.penalties
    if not held.valid_speakers and len(penalties) > 1:
        penalties = (sorted(penalties)[(len(penalties) - 1) // 2],)
        logging.warning(
            "no speakers are held out (--valid-speakers) to choose the penalty of ridge and cca: %g", penalties[0]
        )
    validation = CrossValidation(data, valid, valid_speakers, torch.device("cpu")) if held.valid_speakers else None
    best: dict[str, tuple[float, Maps]] = {}
    for name, pair in all_maps(enroll, test, [rows for rows, _ in told], penalties).items():
        rate = validation(dict(zip(SIDES, map(as_net, pair), strict=True))) if validation else 0.0
        logging.info("%s: %s", name, f"EER of the speakers held out {100 * rate:.2f} %" if validation else "ready")
        name = name.split()[0]
        if name not in best or rate < best[name][0]:
            best[name] = rate, pair
    for name, (_, pair) in best.items():
        (Path(out) / name).mkdir(parents=True, exist_ok=True)
        for side, matrix in zip(SIDES, pair, strict=True):
            write_matrix(Path(out) / name / f"{side}.mat", matrix)


if __name__ == "__main__":
    run(main)
