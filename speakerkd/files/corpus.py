"""Data directories of large corpora, written one speaker at a time: only the names of a million utterances are in memory.

One read of a folder gives its names and tells which are folders, without asking the disk about each file.
"""

import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from speakerkd.files.datadir import made_by
from speakerkd.files.tables import check_id, remove_features, replacing, write_table

AUDIO = (".wav", ".flac", ".m4a")


class SpeakerRecordings(NamedTuple):
    """A speaker; and for each utterance its name and its entry in wav.scp, in any order."""

    speaker: str
    sources: list[tuple[str, str]]


def names(folder: Path, folders: bool) -> list[str]:
    """The sorted names of the folders in this folder, or of its files. Hidden ones are left out."""
    try:
        with os.scandir(folder) as entries:
            found = [entry.name for entry in entries if entry.is_dir() == folders]
    except OSError as error:
        raise ValueError(f"{folder}: this folder can't be read ({error.strerror})") from error
    return sorted(name for name in found if not name.startswith("."))


def audio_names(folder: Path) -> list[str]:
    return [name for name in names(folder, folders=False) if name.lower().endswith(AUDIO)]


def write_corpus(folder: Path, speakers: Iterable[SpeakerRecordings]) -> tuple[int, int]:
    """Writes wav.scp, utt2spk and spk2utt together. Speakers must be sorted. Returns the numbers of both."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder}: can't make this folder ({error.strerror})") from error
    remove_features(folder)
    for name in set(made_by("data")) - {"wav.scp", "utt2spk", "spk2utt", "conf"}:
        (folder / name).unlink(missing_ok=True)  # of another preparation
    num_speakers = num_utterances = 0
    last_speaker = last = ""
    with ExitStack() as stack:
        wav_scp, utt2spk, spk2utt = (
            stack.enter_context(replacing(folder / name)) for name in ("wav.scp", "utt2spk", "spk2utt")
        )
        for speaker, sources in speakers:
            if not sources:
                continue
            for utterance, source in sorted(sources):
                if utterance <= last or speaker <= last_speaker or not utterance.startswith(speaker):
                    raise ValueError(
                        f"{folder}: {utterance} of {speaker} comes after {last}: utterances must be named "
                        "speaker-..., each once, and their order must be that of the speakers"
                    )
                wav_scp.write(f"{check_id(utterance, source)} {source}\n")
                utt2spk.write(f"{utterance} {speaker}\n")
                last = utterance
            spk2utt.write(f"{speaker} {' '.join(sorted(utterance for utterance, _ in sources))}\n")
            num_speakers, num_utterances, last_speaker = num_speakers + 1, num_utterances + len(sources), speaker
        if not num_utterances:
            raise ValueError(f"{folder}: there would be no utterance in this data directory")
    return num_speakers, num_utterances


class Cohort:
    """Some utterances of each speaker, from as many sessions as possible, for score normalisation and calibration."""

    def __init__(self, per_speaker: int, session: Callable[[str], str], seed: int = 0) -> None:
        self.per_speaker, self.session, self.seed = per_speaker, session, seed
        self.chosen: dict[str, list[str]] = {}

    def passing(self, speakers: Iterable[SpeakerRecordings]) -> Iterator[SpeakerRecordings]:
        """Passes the speakers on unchanged, and chooses utterances of each."""
        for each in speakers:
            draw = random.Random(f"{self.seed} cohort {each.speaker}")
            utterances = [utterance for utterance, _ in sorted(each.sources)]
            draw.shuffle(utterances)
            turn: dict[str, int] = {}
            rank = {}
            for utterance in utterances:
                session = self.session(utterance)
                rank[utterance] = turn[session] = turn.get(session, 0) + 1
            self.chosen[each.speaker] = sorted(utterances, key=rank.__getitem__)[: self.per_speaker]
            yield each

    def write(self, folder: Path) -> None:
        """cohort_utts, for subset_data_dir.sh --utt-list, and trials_calibration: pairs of the speakers' first four.

        A target pair is from two sessions. There are as many nontarget pairs, each with an utterance of another speaker.
        """
        with replacing(folder / "cohort_utts") as file:
            file.writelines(f"{utterance}\n" for utterance in sorted(u for some in self.chosen.values() for u in some))
        draw = random.Random(f"{self.seed} calibration")
        speakers = [speaker for speaker, some in self.chosen.items() if some]
        with replacing(folder / "trials_calibration") as file:
            for speaker in speakers if len(speakers) > 1 else []:
                first = self.chosen[speaker][:4]
                for number, one in enumerate(first):
                    for other in first[number + 1 :]:
                        if self.session(one) == self.session(other):
                            continue
                        stranger = speaker
                        while stranger == speaker:
                            stranger = speakers[int(draw.random() * len(speakers))]
                        file.write(f"{one} {other} target\n{one} {self.chosen[stranger][0]} nontarget\n")


def write_trials(path: Path, trials: Iterable[tuple[str, str, bool]], known: set[str]) -> str:
    """Writes the trials whose test utterance and enrolment are known, and says how many. Memory does not grow with them."""
    count = targets = left_out = 0
    with replacing(path) as file:
        for enrol, test, target in trials:
            if enrol not in known or test not in known:
                left_out += 1
                continue
            file.write(f"{enrol} {test} {'target' if target else 'nontarget'}\n")
            count, targets = count + 1, targets + target
    without = f", {left_out} left out, because a recording is missing" if left_out else ""
    return f"{path}: {count} trials, {100 * targets / max(count, 1):.1f} % target{without}"


def enrolments(utts: Mapping[str, Sequence[str]], seed: int) -> dict[str, list[str]]:
    """model -> its 3 utterances, drawn at random. An utterance is in at most one model. Each model has a target trial."""
    models: dict[str, list[str]] = {}
    for speaker, own in utts.items():
        order = random.Random(f"{seed} enrol {speaker}").sample(own, len(own))
        count = len(order) // 3 if len(order) > 3 else 0
        models.update({f"{speaker}-e{k}": sorted(order[3 * k : 3 * k + 3]) for k in range(count)})
    return dict(sorted(models.items()))


def note_lost(path: Path, lost: Mapping[str, str], total: int, max_lost: float = 5.0) -> None:
    """Writes lost_utts. More than 5 % lost is an error."""
    write_table(path, lost)
    if len(lost) * 100 > total * max_lost:
        name, reason = next(iter(lost.items()))
        raise ValueError(
            f"{len(lost)} of {total} are lost, more than {max_lost:g} %: see {path}, such as {name}: {reason}"
        )


def place_of(root: str, places: Sequence[str], speaker: str = "id[0-9]*") -> list[Path]:
    """The place under the root that has the folders of speakers."""
    if not Path(root).is_dir():
        raise ValueError(
            f"{root or 'the folder of the corpus'}: no such folder; give the folder of the unpacked corpus"
        )
    found = [Path(root, place) for place in places if any(Path(root, place).glob(f"{speaker}/"))]
    if not found:
        raise ValueError(f"{root}: no folders {speaker} in it, nor in its {', '.join(places)}; is it unpacked?")
    return found
