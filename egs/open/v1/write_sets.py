"""Writes the results of stage 1: data directories, their trials, and tables of speakers and of lost recordings."""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lists import against, hard_pairs, pairs, write_list  # type: ignore[import-not-found]
from speech import Speech  # type: ignore[import-not-found]

from speakerkd.files.corpus import enrolments
from speakerkd.files.tables import replacing, spk2utt, write_data_dir, write_table

PARTS = ("train", "dev", "test")


def write_sets(
    data: Path, speech: Mapping[str, Speech], parts: Mapping[str, str], corpora: Sequence[str], share: float, seed: int
) -> list[str]:
    """Writes data directories and trials; returns the lines of the summary. share: part of the nontarget pairs to draw."""
    lines = []
    people = {
        name: f"{parts[name]}\t{each.speaker.gender}\t{each.speaker.age if each.speaker.age >= 0 else ''}"
        for name, each in speech.items()
        if each.paths
    }
    with replacing(data / "speakers.tsv") as file:
        file.write("speaker\tset\tgender\tage\n")
        file.writelines(f"{name}\t{text}\n" for name, text in sorted(people.items()))
    for part in PARTS:
        mine = {name: each for name, each in speech.items() if parts[name] == part and each.paths}
        folder = data / part
        if not mine:
            shutil.rmtree(folder, ignore_errors=True)  # results of an earlier preparation
            if part == "train":
                raise ValueError(f"{data}: no speaker is left to train on; see the sizes of the corpora above")
            continue
        owners = {utterance: name for name, each in mine.items() for utterance in each.paths}
        paths = {utterance: path for each in mine.values() for utterance, path in each.paths.items()}
        seconds = {utterance: value for each in mine.values() for utterance, value in each.seconds.items()}
        write_data_dir(folder, paths, owners, utt2dur={utt: f"{value:.3f}" for utt, value in seconds.items()})
        write_if_known(folder / "spk2gender", {name: each.speaker.gender for name, each in mine.items()}, "")
        write_if_known(folder / "spk2age", {name: each.speaker.age for name, each in mine.items()}, -1)
        lines.append(f"{part}: {len(mine)} speakers, {len(owners)} utterances, {sum(seconds.values()) / 3600:.1f} h")
        for old in (*folder.glob("trials_*"), folder / "enroll3_spk2utt"):
            old.unlink(missing_ok=True)
        if part != "train":
            lines += write_all_trials(folder, mine, owners, corpora, share, seed)
    return lines


def write_if_known(path: Path, table: Mapping[str, object], unknown: object) -> None:
    """Writes a table only if it has all speakers: utils/validate_data_dir.sh, like Kaldi's, refuses an incomplete one."""
    if unknown in table.values():
        path.unlink(missing_ok=True)
    else:
        write_table(path, table)


def write_all_trials(
    folder: Path,
    mine: Mapping[str, Speech],
    owners: Mapping[str, str],
    corpora: Sequence[str],
    nontarget_share: float,
    seed: int,
) -> list[str]:
    lines = []
    by_corpus: dict[str, dict[str, str]] = defaultdict(dict)
    for utterance, name in owners.items():
        by_corpus[name.split("-", 1)[0]][utterance] = name
    models: dict[str, list[str]] = {}
    for corpus in corpora:
        own = by_corpus[corpus]
        if len(set(own.values())) < 2:
            continue
        share = 1.0 if len(own) < 1000 else nontarget_share
        lines.append(write_list(folder / f"trials_{corpus}", pairs(own, share)))
        if corpus == "ocean":
            genders = {name: each.speaker.gender for name, each in mine.items()}
            ages = {name: each.speaker.age for name, each in mine.items()}
            hard = hard_pairs(own, genders, ages, min(1.0, 5 * share))
            lines.append(write_list(folder / "trials_ocean_hard", hard))
        enrolled = enrolments(spk2utt(own), seed)
        models |= enrolled
        said = write_list(folder / f"trials_{corpus}_enroll3", against(enrolled, own, share))
        lines.append(f"{said}, {len(enrolled)} models")
    if models:
        write_table(folder / "enroll3_spk2utt", {model: " ".join(three) for model, three in models.items()})
    return lines


def write_lost(path: Path, speech: Iterable[Speech]) -> str:
    lost = {}
    used = 0
    for each in speech:
        used += each.clips
        corpus = each.speaker.name.split("-", 1)[0]
        for name, reason in each.lost.items():
            below = name.removeprefix(f"{each.speaker.root}/").replace(" ", "%20")
            lost[f"{corpus}:{below}"] = f"{each.speaker.name} {reason}"
    write_table(path, lost)
    kinds = Counter(reason.split()[1].rstrip(":") for reason in lost.values())
    return f"not used: {', '.join(f'{kind} {count}' for kind, count in sorted(kinds.items())) or 'nothing'} ({path})"
