#!/usr/bin/env python3
"""Data directories train, dev and test of free speech corpora, with the trials of each corpus.

Usage: ./prepare_data.py [options] <data-dir>
  ./prepare_data.py --speech-commands /corpora/speech_commands_v0.02 --speechocean /corpora/speechocean762 data
  ./prepare_data.py --librispeech /corpora/LibriSpeech --folder /corpora/mine data

At least one corpus must be named. A speaker's name is <corpus>-<name in the corpus>, for example ocean-0003. A hash of that
name decides whether the speaker is train, dev or test, so that a part of a corpus divides its speakers as the whole does.
speechocean762 and egs/mini keep the test speakers of their publishers; 25 training speakers of speechocean762 are dev.

  corpus            what an utterance is                                       trials (in dev and test)
  Speech Commands   words of a contributor, pauses cut, joined to 3 s or more  trials_commands: 200 test speakers
  speechocean762    a sentence                                                 trials_ocean, trials_ocean_hard
  LibriSpeech       a sentence                                                 trials_libri
  Common Voice      a sentence                                                 trials_voice
  folder            a recording                                                trials_folder
  egs/mini          a piece                                                    trials_mini (test only)

Trials are `utterance utterance target|nontarget`: all target pairs, and of the nontarget pairs all (fewer than 1,000
utterances) or a drawn share. The nontargets of trials_ocean_hard are of two speakers of one gender with at most five years
between them. trials_<corpus>_enroll3 enrols with three utterances, which enroll3_spk2utt lists.

Each <data-dir>/{train,dev,test} has wav.scp, utt2spk, spk2utt, utt2dur, and spk2gender, spk2age if they are known of all
its speakers. <data-dir>/speakers.tsv has each speaker's set, gender (m, f) and age as far as they are known.
<data-dir>/lost_utts names each recording that is not used, with the reason: unreadable, short, silent, clipped, copy, few
(the speaker has too few recordings), over (more than needed). If more than 5 % can't be read, that is an error.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from corpora import OPTIONS, Speaker, find  # type: ignore[import-not-found]
from lists import divide, first_by_place  # type: ignore[import-not-found]
from speech import Speech, all_speech, stamp  # type: ignore[import-not-found]
from write_sets import PARTS, write_lost, write_sets  # type: ignore[import-not-found]

from speakerkd.conf import first_few, opt, parse_args, run
from speakerkd.files.tables import read_lines, replacing

LOG = logging.getLogger("prepare_data")
VERSION = 1  # of what is written here; a new number prepares again


@dataclass
class Options:
    speech_commands: str = opt("", "folder of Speech Commands v0.02, whole or a part")
    speechocean: str = opt("", "folder of speechocean762")
    librispeech: str = opt("", "folder that holds subsets of LibriSpeech")
    common_voice: str = opt("", "folder of one language of Common Voice")
    folder: str = opt("", "any folder that holds a folder of recordings for each speaker")
    mini: str = opt("", "data folder of egs/mini/v1 after its stage 1")
    piece_seconds: float = opt(3.0, "least length of a piece of joined words, in seconds")
    min_seconds: float = opt(0.5, "shorter recordings are not used, in seconds")
    min_clips: int = opt(8, "dev and test speakers with fewer recordings are not used")
    max_train_utts: int = opt(200, "most utterances of a training speaker")
    max_test_utts: int = opt(30, "most utterances of a dev or test speaker")
    commands_test: int = opt(200, "most test speakers of Speech Commands")
    nontarget_share: float = opt(0.1, "share of the nontarget pairs that become trials")
    seed: int = opt(0, "random seed for the choice of pieces and of enrolments")
    nj: int = opt(2, "processes")


def main(argv: list[str]) -> None:
    options, (name,) = parse_args(Options, argv, __doc__, 1)
    require_valid_options(options)
    data = Path(name).resolve()
    corpora = {corpus: find(corpus, path) for corpus in OPTIONS if (path := getattr(options, field_of(corpus)))}
    key = key_of(options, corpora, data)
    if summary := in_place(data, key):
        LOG.info("%s is in place (to prepare it again, remove %s/prepared.json)\n%s", name, name, "\n".join(summary))
        return
    check_room(corpora, data)
    (data / "prepared.json").unlink(missing_ok=True)
    parts: dict[str, str] = {}
    speech: dict[str, Speech] = {}
    for corpus, speakers in corpora.items():
        parts |= divide(corpus, speakers)
        LOG.info("%s: reading %d recordings of %d speakers", corpus, count_files(speakers), len(speakers))
        limit(speakers, parts, options)
        found = all_speech(
            speakers, data / "pieces", options.nj, options.min_seconds, options.piece_seconds,
            options.max_train_utts, options.seed,
        )  # fmt: skip
        check_readable(corpus, found)
        choose(corpus, found, parts, options)
        speech |= {each.speaker.name: each for each in found}
    summary = write_sets(data, speech, parts, list(corpora), options.nontarget_share, options.seed)
    summary.append(write_lost(data / "lost_utts", speech.values()))
    with replacing(data / "prepared.json") as file:
        json.dump({"key": key, "summary": summary}, file, indent=1)
    LOG.info("done\n%s", "\n".join(summary))


def field_of(corpus: str) -> str:
    return str(OPTIONS[corpus]).replace("-", "_")


def require_valid_options(options: Options) -> None:
    if not any(getattr(options, field_of(corpus)) for corpus in OPTIONS):
        raise ValueError(
            f"no corpus is named: give at least one of {' '.join('--' + each for each in OPTIONS.values())}"
        )
    least = min(options.nj, options.min_clips, options.max_train_utts, options.max_test_utts, options.commands_test)
    if least < 1 or options.piece_seconds <= 0 or options.min_seconds <= 0 or not 0 < options.nontarget_share <= 1:
        raise ValueError(
            "--nj, --min-clips, --max-train-utts, --max-test-utts, --commands-test, --piece-seconds and --min-seconds must "
            "be positive, --nontarget-share above 0 and at most 1"
        )


def count_files(speakers: Sequence[Speaker]) -> int:
    return sum(len(each.files) for each in speakers)


def key_of(options: Options, corpora: Mapping[str, Sequence[Speaker]], data: Path) -> str:
    """Changes with the options, with the recordings and with what is made of them; not with --nj."""
    try:
        stamps = [stamp(each.root, each.files) for speakers in corpora.values() for each in speakers]
    except FileNotFoundError as error:
        raise ValueError(
            f"{error.filename}: a list of the corpus names this recording; unpack the corpus again"
        ) from error
    wanted = {name: value for name, value in asdict(options).items() if name != "nj"}
    return hashlib.sha256(f"{VERSION} {data} {wanted} {stamps}".encode()).hexdigest()


def in_place(data: Path, key: str) -> list[str]:
    """The summary of the run that made what is there, if it is what is wanted and complete; else nothing."""
    try:
        saved = json.loads((data / "prepared.json").read_text(encoding="utf-8"))
        folders = [data / part for part in PARTS if (data / part).is_dir()]
        wavs = [line.split(" ", 1)[1] for folder in folders for _, line in read_lines(folder / "wav.scp")]
    except (OSError, ValueError):
        return []
    return saved["summary"] if saved["key"] == key and all(map(Path.is_file, map(Path, wavs))) else []


def check_room(corpora: Mapping[str, Sequence[Speaker]], data: Path) -> None:
    """FLAC pieces take at most the room of the words that they are made of."""
    words = [each for speakers in corpora.values() for each in speakers if each.words]
    needed = sum((each.root / name).stat().st_size for each in words for name in each.files)
    data.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(data).free
    if needed > free:
        raise ValueError(
            f"{data}: the pieces need up to {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free on this disk"
        )


def limit(speakers: Sequence[Speaker], parts: Mapping[str, str], options: Options) -> None:
    """If a speaker has very many sentences, only as many as needed (and some more) are read. Words are all read."""
    for speaker in speakers:
        most = options.max_train_utts if parts[speaker.name] == "train" else options.max_test_utts
        if not speaker.words and len(speaker.files) > 2 * most:
            speaker.files = {name: speaker.files[name] for name in first_by_place(speaker.files, 2 * most)}


def check_readable(corpus: str, found: Sequence[Speech]) -> None:
    bad = [name for each in found for name, reason in each.lost.items() if reason.startswith("unreadable")]
    total = count_files([each.speaker for each in found])
    if len(bad) > 0.05 * total:
        raise ValueError(
            f"{corpus}: {len(bad)} of {total} recordings can't be read, more than 5 %: {first_few(bad)}; is it half a "
            "download? Unpack the corpus again"
        )


def choose(corpus: str, found: Sequence[Speech], parts: dict[str, str], options: Options) -> None:
    """Leave out dev and test speakers with too few recordings, and utterances that are more than needed."""
    for each in found:
        if parts[each.speaker.name] != "train" and (each.clips < options.min_clips or len(each.paths) < 2):
            leave_out(
                each, f"few: the speaker has {each.clips} recordings in {len(each.paths)} utterances", set(each.paths)
            )
    if corpus == "commands":
        test = [each.speaker.name for each in found if parts[each.speaker.name] == "test" and each.paths]
        keep = set(first_by_place(test, options.commands_test))
        for each in found:
            if each.speaker.name in set(test) - keep:
                leave_out(
                    each, f"over: {options.commands_test} test speakers are there without this one", set(each.paths)
                )
    for each in found:
        most = options.max_train_utts if parts[each.speaker.name] == "train" else options.max_test_utts
        if len(each.paths) > most:
            keep = set(first_by_place(each.paths, most))
            leave_out(each, f"over: the speaker has more than {most} utterances", set(each.paths) - keep)


def leave_out(speech: Speech, reason: str, utterances: set[str]) -> None:
    for utterance in utterances:
        speech.lost[speech.paths.pop(utterance)] = reason
        del speech.seconds[utterance]


if __name__ == "__main__":
    run(main)
