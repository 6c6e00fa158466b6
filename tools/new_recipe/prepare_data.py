#!/usr/bin/env python3
"""Makes the data directories of @NAME@: recordings, speakers, and a test set with trials.

Usage: ./prepare_data.py [options] <corpus folder> <data-dir>
 e.g.: ./prepare_data.py /corpora/@NAME@ data

Only the function find_recordings() knows the corpus. It expects a folder with a folder for each speaker. These have .wav,
.flac or .m4a files, directly or in further folders: <corpus folder>/<speaker>/[...]/<name>.wav.

Some speakers (--test-share) are kept for testing. A hash of their names decides, so speakers added later change nothing.
It writes <data-dir>/{train,test}/{wav.scp,utt2spk,spk2utt}, and <data-dir>/test/trials: pairs of test utterances.
"""

import hashlib
import logging
import random
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from speakerkd.conf import first_few, opt, parse_args, run
from speakerkd.files.corpus import SpeakerRecordings, audio_names, names, write_corpus, write_trials

LOG = logging.getLogger("prepare_data")
FEW_SPEAKERS = 20  # with fewer test speakers, the error rate depends mostly on who they are


@dataclass
class Options:
    test_share: float = opt(0.1, "share of the speakers that are kept for testing; at least two speakers are")
    max_trials: int = opt(500000, "largest number of target and of nontarget trials; drawn at random if there are more")
    seed: int = opt(0, "random seed of this draw")


def find_recordings(corpus: Path) -> Iterator[tuple[str, str, Path]]:
    """(speaker, name of the recording, its file). FILL IN for a corpus with other folders.

    The name of a recording must be unique for its speaker. Names may have any characters: id_of() replaces those that ids
    can't have. Files are not opened here.
    """
    for speaker in names(corpus, folders=True):
        folders = [corpus / speaker]
        while folders:
            folder = folders.pop()
            folders += [folder / name for name in names(folder, folders=True)]
            for name in audio_names(folder):
                file = folder / name
                yield speaker, str(file.relative_to(corpus / speaker).with_suffix("")), file


def id_of(name: str) -> str:
    """The name as a part of an id. Only the hyphen separates the speaker from the rest. So utterances and speakers have
    the same order."""
    return re.sub(r"[^\w.]", "_", name)


def source_of(file: Path) -> str:
    """What wav.scp says: the file, or a command that writes it as WAV."""
    if file.suffix.lower() == ".m4a":
        return f"ffmpeg -v error -nostdin -i {shlex.quote(str(file))} -f wav -acodec pcm_s16le -ac 1 -ar 16000 - |"
    return str(file)


def gather(corpus: Path) -> dict[str, SpeakerRecordings]:
    """Speakers by id, sorted."""
    found: dict[str, dict[str, Path]] = {}
    called: dict[str, str] = {}
    for speaker, name, file in find_recordings(corpus):
        who = id_of(speaker)
        if called.setdefault(who, speaker) != speaker:
            raise ValueError(f"speakers {called[who]} and {speaker} would both be called {who}; rename one of them")
        utterance = f"{who}-{id_of(name)}"
        other = found.setdefault(who, {}).setdefault(utterance, file)
        if other != file:
            raise ValueError(f"{other} and {file} would both be called {utterance}; rename one of them")
    return {
        who: SpeakerRecordings(who, [(utterance, source_of(file.absolute())) for utterance, file in files.items()])
        for who, files in sorted(found.items())
    }


def choose_test(speakers: list[str], share: float) -> set[str]:
    """The speakers with the smallest hashes."""
    by_hash = sorted(speakers, key=lambda name: hashlib.sha256(name.encode()).digest())
    return set(by_hash[: max(2, round(share * len(speakers)))])


def draw_trials(speakers: list[SpeakerRecordings], options: Options) -> list[tuple[str, str, bool]]:
    """All pairs, or a random draw of --max-trials of each label."""
    draw = random.Random(options.seed)
    utterances = {each.speaker: sorted(utterance for utterance, _ in each.sources) for each in speakers}
    targets = [(a, b, True) for some in utterances.values() for a, b in combinations(some, 2)]
    if len(targets) > options.max_trials:
        targets = sorted(draw.sample(targets, options.max_trials))
    everyone = [(utterance, who) for who, some in utterances.items() for utterance in some]
    total = len(everyone) * (len(everyone) - 1) // 2 - sum(len(s) * (len(s) - 1) // 2 for s in utterances.values())
    if total <= options.max_trials:
        return targets + [(a, b, False) for (a, x), (b, y) in combinations(everyone, 2) if x != y]
    nontargets: set[tuple[str, str, bool]] = set()
    while len(nontargets) < options.max_trials:
        (a, x), (b, y) = sorted(draw.sample(everyone, 2))
        if x != y:
            nontargets.add((a, b, False))
    return targets + sorted(nontargets)


def main(argv: list[str]) -> None:
    options, (corpus, folder) = parse_args(Options, argv, __doc__, 2)
    if not 0 < options.test_share < 1 or options.max_trials < 1:
        raise ValueError("--test-share must be between 0 and 1, --max-trials positive")
    if not Path(corpus).is_dir():
        raise ValueError(f"{corpus}: no such folder; give the folder of the corpus")
    speakers = gather(Path(corpus))
    if len(speakers) < 4:
        raise ValueError(
            f"{corpus}: {len(speakers)} speakers ({first_few(speakers) or 'none'}), four at least are needed; a folder "
            "for each speaker is expected there, with .wav, .flac or .m4a files: see find_recordings in prepare_data.py"
        )
    data, test = Path(folder), choose_test(list(speakers), options.test_share)
    if len(test) < FEW_SPEAKERS:
        larger = round(min(0.5, FEW_SPEAKERS / len(speakers)), 2)
        LOG.warning(
            "%d of %d speakers are kept for testing. Error rates of fewer than %d speakers say little; %s",
            len(test), len(speakers), FEW_SPEAKERS,
            f"--test-share {larger} makes it {len(choose_test(list(speakers), larger))}"
            if larger > options.test_share
            else "more speakers are needed",
        )  # fmt: skip
    for part in ("train", "test"):
        mine = [each for name, each in speakers.items() if (name in test) == (part == "test")]
        LOG.info("%s/%s: %d speakers, %d utterances", data, part, *write_corpus(data / part, mine))
    trials = draw_trials([speakers[name] for name in sorted(test)], options)
    if not any(target for _, _, target in trials):
        raise ValueError(
            f"{', '.join(sorted(test))}: no test speaker has two recordings, so there are no target trials"
        )
    known = {utterance for name in test for utterance, _ in speakers[name].sources}
    LOG.info("%s", write_trials(data / "test" / "trials", trials, known))


if __name__ == "__main__":
    run(main)
