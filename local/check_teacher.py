#!/usr/bin/env python3
"""Describes a teacher, and says whether it can teach a student with a method. Called by check_teacher.sh.

Usage: local/check_teacher.py [options] <final.pt or xvector.scp> <train-dir>
  local/check_teacher.py --kd conf/kd/enskd.conf --model conf/model/xvector.conf exp/campplus/final.pt data/train_all
  local/check_teacher.py --kd conf/kd/cosine.conf big=exp/campplus/final.pt,face=data/train/face.scp data/train_all

Several teachers are given as name=file,...; they must serve together. If they can't, the exit status is 1, and the reason
and the remedy are printed.
"""

from dataclasses import dataclass

import numpy as np

from speakerkd.batches.attached import attach
from speakerkd.batches.utterances import Utterances
from speakerkd.conf import build, opt, parse_args, read_conf, run, text_of, typed_conf
from speakerkd.feats.frontend import front_end_of, front_end_type
from speakerkd.feats.source import departure
from speakerkd.kd import METHODS, Components
from speakerkd.kd.several import TeacherOptions, find_teachers, make_method, named_teachers, weights_of
from speakerkd.kd.teacher import NetTeacher, Teacher
from speakerkd.losses.margin import MarginConf
from speakerkd.models import load_net, make_net


@dataclass
class Options:
    kd: str = opt("conf/kd/enskd.conf", "conf file of the method")
    model: str = opt("conf/model/xvector.conf", "conf file of the student")
    head: str = opt("conf/head.conf", "conf file of the classifier")
    source: str = opt("feats", "what the student's crops are made of: feats or waves, as for local/train.py")
    hear: str = opt("", "what teacher models hear: crop, places or utterance, as for local/train.py")
    centroids: str = opt(
        "", "spk_xvector.scp with the training speakers' mean vectors, instead of a classifier; several: name=file,..."
    )
    missing: str = opt("error", "what to do with utterances without a vector: error or zero, as for local/train.py")


def describe_net(path: str, data: Utterances) -> list[tuple[str, str]]:
    net = load_net(path)
    size = sum(each.numel() for each in net.encoder.parameters())  # type: ignore[attr-defined]
    known = len(set(net.speakers) & set(data.speakers))
    front_end = front_end_of(net.info, path)
    same = "not on record"
    if front_end is not None:
        away = departure(front_end, data.folder)
        same = f"{front_end_type(front_end)}, " + (
            f"not that of {data.folder}: {away}" if away else f"that of {data.folder}"
        )
    count = net.head.num_classes if net.head is not None else 0
    classes = f"{count}, {known} of them among the {len(data.speakers)} training speakers" if count else "no classifier"
    return [
        ("model", f"{type(net.encoder).__name__}, {size / 1e6:.2f} M parameters, embeddings of {net.dim}"),
        ("classes", classes),
        ("features", f"{net.feat_dim} a frame"),
        ("front end", same),
        *[(name, text_of(net.info[name])) for name in ("licence", "source") if net.info.get(name)],
    ]


def describe_vectors(path: str, data: Utterances) -> list[tuple[str, str]]:
    table = attach("vector", path, data.scp.names, missing="zero")
    found = int((table.row_of >= 0).sum())
    return [("vectors", f"of {table.dim}, of {found} of the {len(data)} training utterances by their own names")]


def heard(teacher: Teacher) -> str:
    if not isinstance(teacher, NetTeacher):
        return "nothing: its vectors were made beforehand"
    return "the student's features" if teacher.reading is None else "the same samples by its own front end"


def main(argv: list[str]) -> None:
    options, (text, folder) = parse_args(Options, argv, __doc__, 2)
    name, kind, conf = typed_conf(options.kd, METHODS)
    if not kind.needs_of(conf).teacher:
        raise ValueError(f"{options.kd}: the method {name} has no teacher")
    data = Utterances(folder, source=options.source)
    files = named_teachers(text)
    for each, path in files.items():
        told = describe_vectors(path, data) if path.endswith(".scp") else describe_net(path, data)
        for what, about in [("teacher", each), *told] if each else told:
            print(f"{what:<10} {about}")
    head = build(MarginConf, read_conf(options.head), options.head)
    student = make_net(options.model, data.dim, data.speakers, head)
    given = TeacherOptions(text, options.hear, options.centroids, missing=options.missing)
    try:
        teachers = find_teachers(given, data, np.arange(len(data)), head)
        make_method(kind, conf, Components(student, data.speakers, None, {}), teachers, weights_of("", teachers))
        for each, teacher in teachers.items():
            print(f"{'hears':<10} {heard(teacher)}{f' ({each})' if each else ''}")
    except ValueError as error:
        print(f"can't serve a student {options.model} by {options.kd}: {error}")
        raise SystemExit(1) from None
    print(f"can serve a student {options.model} by {options.kd}")


if __name__ == "__main__":
    run(main)
