#!/usr/bin/env python3
"""Data directories of CN-Celeb from the folders as they are distributed: CN-Celeb_flac and CN-Celeb2_flac.

Usage: ./prepare_data.py [options] <CN-Celeb_flac> <CN-Celeb2_flac or ''> <data-dir>
 e.g.: ./prepare_data.py --nj 16 /corpora/CN-Celeb_flac /corpora/CN-Celeb2_flac data

Training speakers are those of CN-Celeb_flac/dev/dev.lst (in data/idXXXXX/<genre>-01-001.flac) and all of
CN-Celeb2_flac/data. Many recordings have one or two seconds. Neighbours of one speaker and genre are joined until they
have --join-seconds. They are written as FLAC into <data-dir>/joined. A shorter rest joins the recording before it. With
0 nothing is joined. The test set is CN-Celeb_flac/eval, whose lists have the trials:
  trials_avg      an enrolment is the mean over the recordings of lists/enroll.map (in enroll_spk2utt; data/ has them)
  trials_concat   an enrolment is the recording of eval/enroll, in which they follow each other

Writes <data-dir>/{train,test}/{wav.scp,utt2spk,spk2utt}, with utterance ids such as id00012-interview-01-003,
<data-dir>/train/utt2dur where recordings are joined, <data-dir>/test/{trials_avg,trials_concat,enroll_spk2utt},
<data-dir>/train/cohort_utts (some utterances of each speaker) and trials_calibration (pairs of these).
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from joining import Job, Joined, join_short  # type: ignore[import-not-found]

from speakerkd.conf import first_few, opt, parse_args, run
from speakerkd.files.corpus import (
    Cohort,
    SpeakerRecordings,
    audio_names,
    names,
    note_lost,
    place_of,
    write_corpus,
    write_trials,
)
from speakerkd.files.tables import read_lines, write_table
from speakerkd.processes import in_processes

LOG = logging.getLogger("prepare_data")


@dataclass
class Options:
    join_seconds: float = opt(5.0, "shortest training utterance in seconds, if a speaker has that much in a genre")
    cohort_utts: int = opt(20, "number of utterances of each training speaker in cohort_utts")
    seed: int = opt(0, "random seed of the choice of these utterances")
    nj: int = opt(4, "number of processes")


class Model(NamedTuple):
    """An enrolment, as a line of the lists describes it."""

    name: str  # id00800-enroll
    recordings: list[str]  # id00800/singing-01-002.flac


def stem_of(name: str) -> str:
    """The name without its suffix: the lists have .wav, the files are .flac."""
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def genre_of(utterance: str) -> str:
    """id00012-interview-01-003 -> id00012-interview-01: speaker, genre and session."""
    return utterance.rsplit("-", 1)[0]


def listed_speakers(root: Path, listing: str, data: Path, last_dev: str = "") -> list[str]:
    """The speakers of the list if it exists; otherwise the folders of data (in CN-Celeb1 those before the test's)."""
    there = names(data, folders=True)
    if (root / listing).is_file():
        wanted = {line.split()[0] for _, line in read_lines(root / listing)}
        absent = sorted(wanted - set(there))
        if absent:
            LOG.warning("%s/%s names %d speakers without a folder: %s", root, listing, len(absent), first_few(absent))
        return [name for name in there if name in wanted]
    LOG.info("%s/%s does not exist, so the folders of %s are taken", root, listing, data)
    return [name for name in there if not last_dev or name < last_dev]


def training_jobs(cnceleb1: str, cnceleb2: str, seconds: float, out: Path) -> list[Job]:
    jobs: dict[str, Job] = {}
    for root, listing, last_dev in ((cnceleb1, "dev/dev.lst", "id00800"), (cnceleb2, "spk.lst", "")):
        if not root:
            continue
        (place,) = place_of(root, ("data",))
        for speaker in listed_speakers(Path(root), listing, place, last_dev):
            if speaker in jobs:
                raise ValueError(f"{root}: {speaker} is a speaker of {cnceleb1} too; are they the same corpus?")
            jobs[speaker] = Job(speaker, str(place.absolute() / speaker), str(out.absolute() / speaker), seconds)
    return [jobs[speaker] for speaker in sorted(jobs)]


def prepare_train(options: Options, jobs: list[Job], data: Path) -> None:
    joined: list[Joined] = in_processes(join_short, jobs, options.nj)
    cohort = Cohort(options.cohort_utts, genre_of, options.seed)
    speakers = (SpeakerRecordings(each.speaker, each.sources) for each in joined)
    counts = write_corpus(data, cohort.passing(speakers))
    cohort.write(data)
    if options.join_seconds > 0:
        write_table(data / "utt2dur", {u: f"{s:.3f}" for each in joined for u, s in each.seconds.items()})
    read = sum(each.recordings for each in joined)
    LOG.info("%s: %d recordings of %d speakers are %d utterances", data, read, *counts)
    note_lost(data / "lost_utts", {name: why for each in joined for name, why in each.lost.items()}, read)


def read_models(lists: Path) -> list[Model]:
    """enroll.map: `id00800-enroll id00800/singing-01-002.wav ...`."""
    path = lists / "enroll.map"
    if not path.is_file():
        LOG.warning("%s does not exist, so there is no trials_avg, only trials_concat", path)
        return []
    models = []
    for number, line in read_lines(path):
        name, *recordings = line.split()
        if not recordings or not all("/" in each for each in recordings):
            raise ValueError(f"{path}:{number}: '{line[:60]}' is not 'model speaker/recording ...'; unpack it again")
        models.append(Model(name, recordings))
    return models


def read_trials(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Lines `id00800-enroll test/id00800-singing-01-005.wav 1`."""
    for number, line in read_lines(path):
        words = line.split()
        if len(words) != 3 or words[2] not in ("0", "1"):
            raise ValueError(f"{path}:{number}: '{line}' is not 'enrolment test 0|1'; unpack the corpus again")
        yield words[0], stem_of(words[1]), words[2] == "1"


def test_sources(root: Path, models: list[Model]) -> tuple[dict[str, str], dict[str, str]]:
    """The paths of all test utterances; the reasons for those that models name but that do not exist."""
    sources: dict[str, str] = {}
    lost: dict[str, str] = {}
    for folder in (root / "eval/enroll", root / "eval/test"):
        sources.update({stem_of(name): f"{folder.absolute()}/{name}" for name in audio_names(folder)})
    by_speaker = sorted((name.split("/")[-2], stem_of(name)) for model in models for name in model.recordings)
    for speaker, group in groupby(by_speaker, lambda each: each[0]):
        folder = root.absolute() / "data" / speaker
        there = {stem_of(name): name for name in audio_names(folder)} if folder.is_dir() else {}
        for _, stem in group:
            utterance = f"{speaker}-{stem}"
            if stem in there:
                sources.setdefault(utterance, f"{folder}/{there[stem]}")
            elif utterance not in sources:
                lost[utterance] = f"no recording in {folder}"
    return sources, lost


def prepare_test(root: Path, data: Path) -> set[str]:
    """Returns its speakers."""
    lists = root / "eval/lists"
    if not (lists / "trials.lst").is_file():
        raise ValueError(f"{lists}/trials.lst does not exist; {root} must be the unpacked CN-Celeb_flac")
    models = read_models(lists)
    sources, lost = test_sources(root, models)
    groups = groupby(sorted(sources), lambda utterance: utterance.split("-", 1)[0])
    counts = write_corpus(data, (SpeakerRecordings(name, [(u, sources[u]) for u in group]) for name, group in groups))
    LOG.info("%s: %d speakers, %d utterances", data, *counts)
    for _, test, _ in read_trials(lists / "trials.lst"):
        if test not in sources:
            lost[test] = f"no recording in {root}/eval/test"
    note_lost(data / "lost_utts", lost, len(sources) + len(lost))
    enrolments = {
        model.name: [u for u in (f"{name.split('/')[-2]}-{stem_of(name)}" for name in model.recordings) if u in sources]
        for model in models
    }
    for name in ("trials_avg", "enroll_spk2utt"):
        (data / name).unlink(missing_ok=True)
    if models:
        write_table(data / "enroll_spk2utt", {name: " ".join(utts) for name, utts in enrolments.items() if utts})
        known = set(sources) | {name for name, utts in enrolments.items() if utts}
        LOG.info("%s", write_trials(data / "trials_avg", read_trials(lists / "trials.lst"), known))
    LOG.info("%s", write_trials(data / "trials_concat", read_trials(lists / "trials.lst"), set(sources)))
    return {utterance.split("-", 1)[0] for utterance in sources}


def main(argv: list[str]) -> None:
    options, (cnceleb1, cnceleb2, folder) = parse_args(Options, argv, __doc__, 3)
    if options.nj < 1 or options.cohort_utts < 4 or options.join_seconds < 0:
        raise ValueError("--nj must be 1 or more, --cohort-utts 4 or more, --join-seconds not negative")
    data = Path(folder)
    jobs = training_jobs(cnceleb1, cnceleb2, options.join_seconds, data / "joined")
    speakers = prepare_test(Path(cnceleb1), data / "test")
    both = sorted(speakers & {job.speaker for job in jobs})
    if both:
        raise ValueError(f"{first_few(both)}: in the training and in the test set; is {cnceleb2 or cnceleb1} right?")
    prepare_train(options, jobs, data / "train")


if __name__ == "__main__":
    run(main)
