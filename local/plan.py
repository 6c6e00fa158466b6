#!/usr/bin/env python3
"""The plan of a run.sh for its stages 3 to 7: what it trains, and with what, as bash variables. Called by local/stages.sh.

Usage: local/plan.py [options]     in a recipe's folder
  local/plan.py --teacher resnet_tiny --student xvector_tiny --kd-type enskd

It prints assignments of these variables:
  needs            what the method needs, in the words of local/kd_info.py
  teacher_kind     trained: stage 3 trains it; imported: exp/<teacher>/final.pt, which has features of its own;
                   net: a final.pt; vectors: an scp; none: the method has no teacher, or none was given
  teacher_dir teacher_model teacher_config    folder of exp, name of the conf file of the model, conf file of the training
  taught_by        the --teacher of train.sh; empty for a method without a teacher
  teacher_hears    what an imported teacher hears: crop, places or utterance; crop_frames: frames of the student's crops
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
from speakerkd.conf import first_few, opt, parse_args, read_conf, run

SAFE = re.compile(r"[A-Za-z0-9_./+=,:@%~-]*")
TRAINING = 3  # the stage of the teacher
MAPS = 7
HEARS = ("crop", "places", "utterance")


@dataclass(frozen=True)
class Options:
    stage: int = opt(1, "first stage")
    stop_stage: int = opt(6, "last stage")
    teacher: str = opt(
        "", "a model of conf/model, a folder of exp, or a file (final.pt, scp); name=file gives it a name"
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


@dataclass(frozen=True)
class Teacher:
    name: str  # its name in the folders of exp
    kind: str
    folder: str  # in exp, where stages 5 and 6 score it; empty if it is not a system of this recipe
    taught_by: str  # final.pt or an scp
    model: str = ""
    hears: str = ""  # only for an imported teacher: crop, places or utterance


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


def imported(name: str, folder: str, source: str, hear: str) -> Teacher:
    """It has a front end of its own. From waves it can hear the crop; else vectors are made beforehand: of fixed crops, from
    whose places the student's crops are drawn, or of whole utterances.
    """
    hears = hear or ("crop" if source == "waves" else "places")
    if hears not in HEARS or (hears == "crop" and source != "waves"):
        raise ValueError(f"--hear '{hear}' is not one of: crop (with --source waves), places, utterance")
    file = {"crop": "final.pt", "places": "crops_train_originals/xvector.scp"}.get(
        hears, "xvectors_train_originals/xvector.scp"
    )
    return Teacher(name, "imported", folder, f"{folder}/{file}", hears=hears)


def find_teacher(text: str, options: Options) -> Teacher:
    """The teacher of `--teacher name` or `--teacher name=file`."""
    seed = options.seed
    name, _, what = text.rpartition("=")
    path = Path(what)
    if path.suffix == ".scp":
        return Teacher(name or path.stem, "vectors", "", what)
    if path.suffix == ".pt":
        return Teacher(name or path.parent.name, "net", "", what)
    if Path(f"conf/model/{what}.conf").is_file():
        return Teacher(name or what, "trained", f"exp/{what}_s{seed}", f"exp/{what}_s{seed}/final.pt", what)
    if Path(f"exp/{what}/final.pt").is_file():
        return imported(name or what, f"exp/{what}", options.source, options.hear)
    models = first_few(sorted(each.stem for each in Path("conf/model").glob("*.conf")), 40)
    folders = first_few(sorted(each.parent.name for each in Path("exp").glob("*/final.pt")), 40)
    raise ValueError(
        f"--teacher '{what}' is neither a model of conf/model ({models}), nor a folder of exp with a final.pt "
        f"({folders or 'there is none yet'}), nor a file that ends in .pt or .scp"
    )


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


def chain(rows: dict[str, str]) -> str:
    return "\n".join(f"{name:<12} {text}" for name, text in rows.items() if text)


def make_plan(options: Options) -> dict[str, str | list[str]]:
    conf = find_conf("conf/kd", options.kd_type, "method")
    student_model = find_conf("conf/model", options.student, "model")
    teachers = [find_teacher(each, options) for each in options.teacher.split(",") if each]
    if len(teachers) > 1:
        raise ValueError(f"--teacher '{options.teacher}': a student has one teacher")
    teacher = teachers[0] if teachers else Teacher("", "none", "", "")
    (method,) = methods([conf])
    if "audio" not in method.words:
        raise ValueError(f"--kd_type {options.kd_type}: {conf} trains maps between two systems, which is stage 7")
    taught = "teacher" in method.words
    if taught and not teacher.name:
        raise ValueError(f"--kd_type {options.kd_type}: {conf} needs a teacher; give --teacher")
    if not taught and (options.kd_type != "none" or not teacher.folder):
        teacher = Teacher("", "none", "", "")  # no teacher for the method; one is trained for comparison
    config = options.train_config or train_config(options.kd_type)
    fine_tuning = ["conf/train_lm.conf", "conf/head_large.conf"] if options.large_margin else []
    for path in ("conf/head.conf", config, *fine_tuning):
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file")
    vectors = check_vectors(options.vectors, options.spare_vectors, method, conf)
    taught_by = teacher.taught_by if taught else ""
    if options.stage > TRAINING and options.stop_stage > TRAINING and taught_by and not Path(taught_by).is_file():
        raise ValueError(f"{taught_by}: no such teacher; run stage 3")
    check_pair(options)
    if options.source not in ("feats", "waves"):
        raise ValueError(f"--source '{options.source}' is not one of: feats waves")
    parts = [options.student, options.kd_type, *([teacher.name] if taught else [])]
    parts += [options.source] if options.source != "feats" else []
    name = "_".join(parts + ([options.hear] if options.hear and teacher.hears else []))
    student_dir, fine_tuned = f"exp/{name}_s{options.seed}", f"exp/{name}_lm_s{options.seed}"
    head = "conf/head.conf"
    extra = f" {options.train_options}" if options.train_options else ""
    imports = "imported, hears the crop" if teacher.hears == "crop" else f"made by {teacher.folder}/final.pt in stage 3"
    how = {"trained": "trained in stage 3", "imported": imports}
    teachers_rows = {
        "model": f"conf/model/{teacher.model}.conf",
        "training": f"{train_config('none')} --seed {options.seed}",
        "classifier": head,
        "folder": teacher.folder,
    }
    student_rows = {
        "kd_type": f"{options.kd_type}: {conf}, --type={method.type}, class {method.cls}",
        "model": student_model,
        "training": f"{config} --seed {options.seed}{extra}",
        "classifier": head if method.classifier else "none",
        "teacher": f"{taught_by} ({how.get(teacher.kind, 'given')})" if taught else "none",
        "vectors": vectors,
        "crops": f"of {options.source}",
        "folder": student_dir + (f", and {fine_tuned} with the larger margin" if options.large_margin else ""),
    }
    told = {
        "none": f"kd_type={options.kd_type} needs no teacher",
        "trained": chain(teachers_rows),
        "imported": f"{teacher.folder}/final.pt is there already",
    }
    return {
        "needs": " ".join(method.words),
        "teacher_kind": teacher.kind,
        "teacher_dir": teacher.folder,
        "teacher_model": teacher.model,
        "teacher_config": train_config("none"),
        "taught_by": taught_by,
        "teacher_hears": teacher.hears if taught else "",
        "crop_frames": str(num_frames(config, options.train_options)),
        "student_dir": student_dir,
        "student_config": config,
        "fine_tuned": fine_tuned,
        "vectors": vectors,
        "systems": [each for each in (teacher.folder, student_dir, fine_tuned if fine_tuning else "") if each],
        "teacher_chain": told.get(teacher.kind, f"the teacher is {taught_by}"),
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
