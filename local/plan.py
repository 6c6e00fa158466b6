#!/usr/bin/env python3
"""The plan of a run.sh for its stages 3 to 7: what it trains, and with what, as bash variables. Called by local/stages.sh.

Usage: local/plan.py [options]     in a recipe's folder
  local/plan.py --teacher resnet_tiny --student xvector_tiny --kd-type enskd

It prints assignments of these variables:
  needs            what the method needs, in the words of local/kd_info.py
  teacher_kinds    an array with a word for each teacher; empty for a method without a teacher.
                   trained: stage 3 trains it; imported: exp/<teacher>/final.pt, which has features of its own;
                   net: a final.pt; vectors: an scp
  teacher_dirs teacher_models                 arrays too: folders of exp, names of the models' conf files
  teacher_ears teacher_files                  what imported teachers hear (crop, places or utterance); final.pt or scp
  teacher_config   conf file of the teachers' training
  taught_by        the --teacher of train.sh; empty for a method without a teacher
  centroids        the --centroids of local/train.py
  crop_frames      frames of the student's crops
  student_dir student_config fine_tuned       folder of exp, conf file of the training, folder of the fine-tuned student
  vectors          the --vectors of train.sh
  systems          folders of exp for stages 5 and 6: an array
  teacher_chain student_chain                 these choices as text, one per line

A name that can't be found is an error before anything is computed. The message lists what exists.
"""

import re
import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from local.kd_info import Method, methods
from local.plan_teachers import chain, find_teachers, joined, made, told
from speakerkd.conf import first_few, opt, parse_args, read_conf, run

SAFE = re.compile(r"[A-Za-z0-9_./+=,:@%~-]*")
TRAINING = 3  # the stage of the teacher
MAPS = 7


@dataclass(frozen=True)
class Options:
    stage: int = opt(1, "first stage")
    stop_stage: int = opt(6, "last stage")
    teacher: str = opt(
        "", "models of conf/model, folders of exp, or files (final.pt, scp), joined by commas; name=file names a file"
    )
    student: str = opt("", "conf/model/<student>.conf")
    kd_type: str = opt("none", "conf/kd/<kd_type>.conf")
    vectors: str = opt("", "further vectors that the method takes: name=file,...")
    spare_vectors: str = opt("", "vectors that the recipe has, for a method that may have them")
    train_config: str = opt("", "optimisation of the student; default: conf/train_<kd_type>.conf or conf/train.conf")
    train_options: str = opt("", "more options of local/train.py")
    large_margin: bool = opt(False, "fine-tune the student with a larger margin as well")
    source: str = opt("feats", "what the student's crops are made of: feats or waves")
    hear: str = opt("", "what an imported teacher hears: crop, places or utterance")
    seed: int = opt(0, "random seed of the training")
    enroll_system: str = opt("", "stage 7: the system that enrols")
    test_system: str = opt("", "stage 7: the system that verifies")


def check_safe(text: str, option: str) -> None:
    """Names must be safe: the job runners pass them to bash, and replace JOB in them."""
    if not SAFE.fullmatch(text) or "JOB" in text:
        raise ValueError(
            f"{option} '{text}': names may hold only letters, digits and _./+=,:@%~-, and not the word JOB"
        )


def find_conf(folder: str, name: str, what: str) -> str:
    path = Path(folder) / f"{name}.conf"
    if not name or not path.is_file():
        there = first_few(sorted(each.stem for each in Path(folder).glob("*.conf")), 40)
        raise ValueError(f"{path}: no such {what}; there are: {there}")
    return str(path)


def num_frames(config: str, train_options: str) -> int:
    """The number of frames of the student's crops."""
    words = train_options.replace("=", " ").split()
    for option, value in pairwise(words):
        if option in ("--num-frames", "--num_frames") and value.isdigit():
            return int(value)
    return int(read_conf(config).get("num_frames", 200))


def train_config(kd_type: str) -> str:
    """One rule for all recipes: the method's own conf file if there is one, otherwise conf/train.conf."""
    own = Path(f"conf/train_{kd_type}.conf")
    return str(own) if own.is_file() else "conf/train.conf"


def check_vectors(vectors: str, spare: str, method: Method, conf: str) -> str:
    """The vectors that the method gets: from --vectors, or from the recipe."""
    given = dict(each.partition("=")[::2] for each in vectors.split(",") if each)
    wanted = [each.partition(":")[2] for each in method.words if each.startswith("vectors:")]
    possible = [each.partition(":")[2] for each in method.words if each.startswith("may-have:")]
    for name, file in (each.partition("=")[::2] for each in spare.split(",") if each):
        if name in [*wanted, *possible]:
            given.setdefault(name, file)
    if not set(wanted) <= set(given) <= {*wanted, *possible}:
        takes = [f"{each}=<file>" for each in wanted] + [f"{each}=<file> or not" for each in possible]
        raise ValueError(f"--vectors '{vectors}': {conf} takes {', '.join(takes) or 'none'}")
    return ",".join(f"{name}={file}" for name, file in given.items())


def check_pair(options: Options) -> None:
    """The two systems of stage 7."""
    pair = {"--enroll_system": options.enroll_system, "--test_system": options.test_system}
    if options.stage == MAPS and not all(pair.values()):
        raise ValueError("stage 7 needs --enroll_system and --test_system, two folders of exp")
    for option, name in pair.items():
        if options.stage > TRAINING + 1 and name and not Path(f"exp/{name}").is_dir():
            there = first_few(sorted(each.parent.name for each in Path("exp").glob("*/final.pt")), 40)
            raise ValueError(f"{option} '{name}': exp/{name} is not there; there are: {there or 'none yet'}")


def make_plan(options: Options) -> dict[str, str | list[str]]:
    conf = find_conf("conf/kd", options.kd_type, "method")
    student_model = find_conf("conf/model", options.student, "model")
    teachers = find_teachers(options.teacher, options.seed, options.source, options.hear)
    (method,) = methods([conf])
    if "audio" not in method.words:
        raise ValueError(f"--kd_type {options.kd_type}: {conf} trains maps between two systems, which is stage 7")
    taught = "teacher" in method.words
    if taught and not teachers:
        raise ValueError(f"--kd_type {options.kd_type}: {conf} needs a teacher; give --teacher")
    if not taught:  # without a method, teachers are trained and scored for comparison
        teachers = [each for each in teachers if options.kd_type == "none" and each.folder]
    config = options.train_config or train_config(options.kd_type)
    fine_tuning = ["conf/train_lm.conf", "conf/head_large.conf"] if options.large_margin else []
    for path in ("conf/head.conf", config, *fine_tuning):
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file")
    vectors = check_vectors(options.vectors, options.spare_vectors, method, conf)
    for path in [each.taught_by for each in teachers if taught and options.stage > TRAINING]:
        if options.stop_stage > TRAINING and not Path(path).is_file():
            raise ValueError(f"{path}: no such teacher; run stage 3")
    check_pair(options)
    if options.source not in ("feats", "waves"):
        raise ValueError(f"--source '{options.source}' is not one of: feats waves")
    parts = [options.student, options.kd_type, *(["+".join(each.name for each in teachers)] if taught else [])]
    parts += [options.source] if options.source != "feats" else []
    name = "_".join(parts + ([options.hear] if options.hear and any(each.hears for each in teachers) else []))
    student_dir, fine_tuned = f"exp/{name}_s{options.seed}", f"exp/{name}_lm_s{options.seed}"
    head = "conf/head.conf"
    extra = f" {options.train_options}" if options.train_options else ""
    student_rows = {
        "kd_type": f"{options.kd_type}: {conf}, --type={method.type}, class {method.cls}",
        "model": student_model,
        "training": f"{config} --seed {options.seed}{extra}",
        "classifier": head if method.classifier else "none",
        "teacher": "; ".join(f"{each.taught_by} ({made(each)})" for each in teachers) if taught else "none",
        "vectors": vectors,
        "crops": f"of {options.source}",
        "folder": student_dir + (f", and {fine_tuned} with the larger margin" if options.large_margin else ""),
    }
    training = f"{train_config('none')} --seed {options.seed}"
    folders = [each.folder for each in teachers]
    return {
        "needs": " ".join(method.words),
        "teacher_kinds": [each.kind for each in teachers],
        "teacher_dirs": folders,
        "teacher_models": [each.model for each in teachers],
        "teacher_config": train_config("none"),
        "teacher_ears": [each.hears if taught else "" for each in teachers],
        "teacher_files": [each.taught_by if taught else "" for each in teachers],
        "taught_by": joined(teachers, "taught_by") if taught else "",
        "centroids": joined(teachers, "centroids") if taught else "",
        "crop_frames": str(num_frames(config, options.train_options)),
        "student_dir": student_dir,
        "student_config": config,
        "fine_tuned": fine_tuned,
        "vectors": vectors,
        "systems": [each for each in (*folders, student_dir, fine_tuned if fine_tuning else "") if each],
        "teacher_chain": "\n".join(told(each, training) for each in teachers)
        or f"kd_type={options.kd_type} needs no teacher",
        "student_chain": chain(student_rows),
    }


def main(argv: list[str]) -> None:
    options, _ = parse_args(Options, argv, __doc__, 0)
    for option in ("teacher", "student", "kd_type", "vectors", "train_config", "enroll_system", "test_system"):
        check_safe(getattr(options, option), f"--{option}")
    for word in options.train_options.split():
        check_safe(word, "--train_options")
    for name, value in make_plan(options).items():
        if isinstance(value, list):
            print(f"{name}=({' '.join(map(shlex.quote, value))})")
        else:
            print(f"{name}={shlex.quote(value)}")


if __name__ == "__main__":
    run(main)
