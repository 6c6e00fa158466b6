#!/usr/bin/env python3
"""Data directories of VoxCeleb2 (training) and VoxCeleb1 (test) from the folders as they are distributed.

Usage: ./prepare_data.py [options] <VoxCeleb1 folder> <VoxCeleb2 folder> <data-dir>
 e.g.: ./prepare_data.py --nj 16 /corpora/VoxCeleb1 /corpora/VoxCeleb2 data

The VoxCeleb1 folder has idXXXXX/<video>/00001.wav in wav/, or in dev/wav/ and test/wav/. The VoxCeleb2 folder has
idXXXXX/<video>/00001.m4a in dev/aac/, or .wav or .flac in dev/wav/. If it has both, dev/wav/ is taken.
Recordings are only listed, not opened. In wav.scp, an m4a is a pipe through ffmpeg.
The lists of trials are VoxCeleb's own, in --lists, the VoxCeleb1 folder, or its meta/:
  trials_O trials_E trials_H     veri_test2.txt list_test_all2.txt list_test_hard2.txt, the cleaned ones
  trials_{O,E,H}_original        veri_test.txt list_test_all.txt list_test_hard.txt
The lists that exist are used. The utterances that they name are the test set.

Writes <data-dir>/{train,test}/{wav.scp,utt2spk,spk2utt}, with Kaldi's utterance ids (id10270-5r0dWxy17C8-00001),
<data-dir>/test/trials_* and lost_utts, <data-dir>/train/cohort_utts (some utterances of each speaker) and
<data-dir>/train/trials_calibration (pairs of these).
"""

import logging
import shlex
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

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
from speakerkd.files.tables import read_lines

LOG = logging.getLogger("prepare_data")
LISTS = {
    "trials_O": "veri_test2.txt",
    "trials_E": "list_test_all2.txt",
    "trials_H": "list_test_hard2.txt",
    "trials_O_original": "veri_test.txt",
    "trials_E_original": "list_test_all.txt",
    "trials_H_original": "list_test_hard.txt",
}
FFMPEG = "ffmpeg -v error -nostdin -i {} -f wav -acodec pcm_s16le -ac 1 -ar 16000 - |"


@dataclass
class Options:
    lists: str = opt("", "folder of the lists of trials; empty: the VoxCeleb1 folder and its meta/")
    cohort_utts: int = opt(20, "number of utterances of each training speaker in cohort_utts")
    seed: int = opt(0, "random seed of the choice of these utterances")
    nj: int = opt(8, "number of folders that are read at the same time; most of the time is waiting for the disk")


def utterance_of(name: str) -> str:
    """id10270/5r0dWxy17C8/00001.wav -> id10270-5r0dWxy17C8-00001."""
    return name.rsplit(".", 1)[0].replace("/", "-")


def video_of(utterance: str) -> str:
    return utterance.rsplit("-", 1)[0]


def source_of(path: str) -> str:
    if path.lower().endswith(".m4a"):
        return FFMPEG.format(shlex.quote(path))
    return path


def recordings_of(folder: Path) -> SpeakerRecordings:
    """The recordings of a speaker: a folder for each video, with a recording for each stretch of speech."""
    speaker = folder.name
    sources: list[tuple[str, str]] = []
    for video in names(folder, folders=True):
        where = f"{folder}/{video}"
        found: dict[str, str] = {}
        for name in audio_names(Path(where)):  # .m4a comes before .wav, which replaces it
            found[f"{speaker}-{video}-{name.rsplit('.', 1)[0]}"] = source_of(f"{where}/{name}")
        sources += found.items()
    return SpeakerRecordings(speaker, sources)


def all_speakers(places: Iterable[Path], nj: int) -> Iterator[SpeakerRecordings]:
    """All speakers in the order of their names; threads read the folders ahead."""
    folders: dict[str, Path] = {}
    for place in places:
        for name in names(place, folders=True):
            if name.startswith("id") and folders.setdefault(name, place.absolute() / name).parent != place.absolute():
                raise ValueError(f"{place}/{name}: is in {folders[name].parent} too; remedy: keep one of the folders")
    with ThreadPoolExecutor(nj) as pool:
        yield from pool.map(recordings_of, (folders[name] for name in sorted(folders)))


def find_lists(options: Options, voxceleb1: str) -> dict[str, Path]:
    """name of the trials -> the list, if it exists."""
    places = [Path(options.lists)] if options.lists else [Path(voxceleb1), Path(voxceleb1, "meta")]
    there = {}
    for name, file in LISTS.items():
        found = [place / file for place in places if (place / file).is_file()]
        if found:
            there[name] = found[0]
    if not there:
        raise ValueError(
            f"{' and '.join(map(str, places))}: none of {' '.join(LISTS.values())} is there; fetch the lists of trials "
            "from VoxCeleb's page (meta/veri_test2.txt, ...) and name their folder with --lists"
        )
    absent = [LISTS[name] for name in LISTS if name not in there]
    if absent:
        LOG.info("lists of trials that do not exist and are not prepared: %s", " ".join(absent))
    return there


def read_list(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Lines `1 id10270/5r0dWxy17C8/00001.wav id10270/8jEAjG6SegY/00008.wav`; 1: the same speaker."""
    for number, line in read_lines(path):
        words = line.split()
        if len(words) != 3 or words[0] not in ("0", "1"):
            raise ValueError(f"{path}:{number}: '{line}' is not '0|1 recording recording'; fetch the list again")
        yield utterance_of(words[1]), utterance_of(words[2]), words[0] == "1"


def only(wanted: set[str], speakers: Iterable[SpeakerRecordings], seen: set[str]) -> Iterator[SpeakerRecordings]:
    """The wanted utterances; those that exist are added to `seen`."""
    for speaker, sources in speakers:
        kept = [(utterance, source) for utterance, source in sources if utterance in wanted]
        seen.update(utterance for utterance, _ in kept)
        yield SpeakerRecordings(speaker, kept)


def prepare_test(options: Options, voxceleb1: str, data: Path) -> None:
    lists = find_lists(options, voxceleb1)
    wanted = {utterance for path in lists.values() for one, other, _ in read_list(path) for utterance in (one, other)}
    there: set[str] = set()
    places = place_of(voxceleb1, ("wav", "dev/wav", "test/wav", "dev", "test", "."))
    counts = write_corpus(data, only(wanted, all_speakers(places, options.nj), there))
    LOG.info("%s: %d speakers, %d utterances in trials", data, *counts)
    lost = {utterance: f"no recording in {' '.join(map(str, places))}" for utterance in sorted(wanted - there)}
    note_lost(data / "lost_utts", lost, len(wanted))
    for name in LISTS:
        (data / name).unlink(missing_ok=True)
    for name, path in lists.items():
        LOG.info("%s", write_trials(data / name, read_list(path), there))


def prepare_train(options: Options, voxceleb2: str, data: Path) -> set[str]:
    places = place_of(voxceleb2, ("dev/wav", "dev/aac", "dev/m4a", "wav", "aac", "dev", "."))
    if len(places) > 1:
        LOG.info("%s is taken, not %s", places[0], first_few(map(str, places[1:])))
    cohort = Cohort(options.cohort_utts, video_of, options.seed)
    counts = write_corpus(data, cohort.passing(all_speakers(places[:1], options.nj)))
    cohort.write(data)
    LOG.info("%s: %d speakers, %d utterances from %s", data, *counts, places[0])
    with open(data / "wav.scp", encoding="utf-8") as file:
        piped = any(line.endswith("|\n") for line in file)
    if piped and not shutil.which("ffmpeg"):
        raise ValueError(
            f"{data}/wav.scp names m4a files, and ffmpeg, which reads them, is not on the PATH; install it"
        )
    return set(cohort.chosen)


def main(argv: list[str]) -> None:
    options, (voxceleb1, voxceleb2, folder) = parse_args(Options, argv, __doc__, 3)
    if options.nj < 1 or options.cohort_utts < 4:
        raise ValueError("--nj must be 1 or more, --cohort-utts 4 or more")
    data = Path(folder)
    prepare_test(options, voxceleb1, data / "test")
    speakers = prepare_train(options, voxceleb2, data / "train")
    with open(data / "test" / "spk2utt", encoding="utf-8") as file:
        both = sorted(speakers & {line.split()[0] for line in file})
    if both:
        raise ValueError(f"{first_few(both)}: in the training and in the test set; is {voxceleb2} VoxCeleb2?")


if __name__ == "__main__":
    run(main)
