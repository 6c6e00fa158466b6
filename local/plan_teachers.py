"""The teachers that a run.sh is given by --teacher: where each is, who makes it, what it hears. A part of local/plan.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from speakerkd.conf import first_few

HEARS = ("crop", "places", "utterance")
VECTORS = "xvectors_train_originals"  # the folder of an imported teacher's vectors; stage 3 makes them


@dataclass(frozen=True)
class PlannedTeacher:
    name: str  # its name in the folders of exp
    kind: str
    folder: str  # in exp, where stages 5 and 6 score it; empty if it is not a system of this recipe
    taught_by: str  # final.pt or an scp
    model: str = ""
    hears: str = ""  # only for an imported teacher: crop, places or utterance
    centroids: str = ""  # the speakers' mean vectors, if it hears crops and has no classifier of its own


def imported(name: str, folder: str, source: str, hear: str) -> PlannedTeacher:
    """It has a front end of its own. From waves it can hear the crop; else vectors are made beforehand: of fixed crops, from
    whose places the student's crops are drawn, or of whole utterances.
    """
    hears = hear or ("crop" if source == "waves" else "places")
    if hears not in HEARS or (hears == "crop" and source != "waves"):
        raise ValueError(f"--hear '{hear}' is not one of: crop (with --source waves), places, utterance")
    file = {"crop": "final.pt", "places": "crops_train_originals/xvector.scp"}.get(hears, f"{VECTORS}/xvector.scp")
    judges = hears == "crop" and not Path(folder, "spk2id").is_file()  # which lists the speakers of its classifier
    means = f"{folder}/{VECTORS}/spk_xvector.scp" if judges else ""
    return PlannedTeacher(name, "imported", folder, f"{folder}/{file}", hears=hears, centroids=means)


def find_teacher(text: str, seed: int, source: str, hear: str) -> PlannedTeacher:
    """The teacher of `--teacher name` or `--teacher name=file`."""
    name, _, what = text.rpartition("=")
    path = Path(what)
    if path.suffix == ".scp":
        return PlannedTeacher(name or path.stem, "vectors", "", what)
    if path.suffix == ".pt":
        return PlannedTeacher(name or path.parent.name, "net", "", what)
    if Path(f"conf/model/{what}.conf").is_file():
        return PlannedTeacher(name or what, "trained", f"exp/{what}_s{seed}", f"exp/{what}_s{seed}/final.pt", what)
    if Path(f"exp/{what}/final.pt").is_file():
        return imported(name or what, f"exp/{what}", source, hear)
    models = first_few(sorted(each.stem for each in Path("conf/model").glob("*.conf")), 40)
    folders = first_few(sorted(each.parent.name for each in Path("exp").glob("*/final.pt")), 40)
    raise ValueError(
        f"--teacher '{what}' is neither a model of conf/model ({models}), nor a folder of exp with a final.pt "
        f"({folders or 'there is none yet'}), nor a file that ends in .pt or .scp"
    )


def find_teachers(text: str, seed: int, source: str, hear: str) -> list[PlannedTeacher]:
    """The teachers of --teacher: none, one, or several joined by commas. Each of several needs its own name."""
    teachers = [find_teacher(each, seed, source, hear) for each in text.split(",") if each]
    names = [each.name for each in teachers]
    for name in names if len(names) > 1 else ():
        if names.count(name) > 1:
            raise ValueError(
                f"--teacher '{text}': two teachers are called '{name}'; name them: big=exp/a/final.pt,old=exp/b/final.pt"
            )
        if not name.isidentifier():
            raise ValueError(
                f"--teacher '{text}': of several teachers, each has a name of letters, digits and _, and '{name}' is "
                f"none; name it: teacher1={name}"
            )
    return teachers


def joined(teachers: Sequence[PlannedTeacher], field: str) -> str:
    """What local/train.py is given: the file of one teacher, or name=file,... of several; '' if none has such a file."""
    files = {each.name: getattr(each, field) for each in teachers if getattr(each, field)}
    if len(teachers) < 2:
        return "".join(files.values())
    return ",".join(f"{name}={file}" for name, file in files.items())


def chain(rows: dict[str, str]) -> str:
    """A text of several lines."""
    return "\n".join(f"{name:<12} {text}" for name, text in rows.items() if text)


def told(teacher: PlannedTeacher, training: str) -> str:
    """What stage 3 says of a teacher."""
    rows = {
        "model": f"conf/model/{teacher.model}.conf",
        "training": training,
        "classifier": "conf/head.conf",
        "folder": teacher.folder,
    }
    if teacher.kind == "trained":
        return chain(rows)
    if teacher.kind == "imported":
        return f"{teacher.folder}/final.pt is there already"
    return f"the teacher is {teacher.taught_by}"


def made(teacher: PlannedTeacher) -> str:
    """How a teacher that teaches came to be."""
    if teacher.kind == "trained":
        return "trained in stage 3"
    if teacher.kind != "imported":
        return "given"
    if teacher.hears != "crop":
        return f"made by {teacher.folder}/final.pt in stage 3"
    return "imported, hears the crop" + (", judges by the speakers' mean vectors" if teacher.centroids else "")
