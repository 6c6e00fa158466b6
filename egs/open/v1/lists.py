"""Divides the speakers into train, dev and test, and makes the trials of each corpus."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from corpora import Speaker  # type: ignore[import-not-found]

from speakerkd.files.tables import replacing

# Shares of the speakers, if the publisher does not divide them. Only the names decide, so a part of a corpus, or a later
# version, divides its speakers in the same way.
TEST = {"commands": 0.16, "libri": 0.1, "voice": 0.1, "folder": 0.1}
DEV = {"commands": 0.05, "libri": 0.05, "voice": 0.05, "folder": 0.05}
OCEAN_DEV = 25  # speakers, out of speechocean762's 125 training speakers


def place(name: str) -> float:
    """A number in [0, 1) that depends only on the name."""
    return int.from_bytes(hashlib.sha256(f"open {name}".encode()).digest()[:7], "big") / 2**56


def divide(corpus: str, speakers: Sequence[Speaker]) -> dict[str, str]:
    """speaker -> train, dev or test."""
    ranked = sorted((each for each in speakers if each.part == "train"), key=lambda each: place(each.name))
    dev = {each.name for each in ranked[:OCEAN_DEV]} if corpus == "ocean" else set()
    parts = {}
    for speaker in speakers:
        at = place(speaker.name)
        if speaker.part:
            parts[speaker.name] = "dev" if speaker.name in dev else speaker.part
        elif at < TEST[corpus]:
            parts[speaker.name] = "test"
        else:
            parts[speaker.name] = "dev" if at < TEST[corpus] + DEV[corpus] else "train"
    return parts


def first_by_place(items: Iterable[str], most: int) -> list[str]:
    """The `most` items with the lowest place, sorted."""
    return sorted(sorted(items, key=place)[:most])


def drawn(one: str, other: str, share: float) -> bool:
    """Says whether a nontarget pair is used. Only its names decide, as for the speakers."""
    digest = hashlib.blake2b(f"{one} {other}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") < share * 2**32


def pairs(owners: Mapping[str, str], share: float) -> Iterator[tuple[str, str, bool]]:
    """All target pairs of the utterances, and a share of the nontarget pairs."""
    for one, other in combinations(sorted(owners), 2):
        target = owners[one] == owners[other]
        if target or drawn(one, other, share):
            yield one, other, target


def hard_pairs(
    owners: Mapping[str, str], genders: Mapping[str, str], ages: Mapping[str, int], share: float
) -> Iterator[tuple[str, str, bool]]:
    """All target pairs, and a share of the pairs of two speakers of one gender with at most five years between them."""
    for one, other in combinations(sorted(owners), 2):
        first, second = owners[one], owners[other]
        if first == second:
            yield one, other, True
        elif (
            genders[first]
            and genders[first] == genders[second]
            and min(ages[first], ages[second]) >= 0
            and abs(ages[first] - ages[second]) <= 5
            and drawn(one, other, share)
        ):
            yield one, other, False


def against(
    models: Mapping[str, Sequence[str]], owners: Mapping[str, str], share: float
) -> Iterator[tuple[str, str, bool]]:
    """Each model of some utterances against its speaker's other utterances, and a share of other speakers'."""
    for model, own in models.items():
        for utterance in sorted(owners):
            target = owners[own[0]] == owners[utterance]
            if utterance not in own and (target or drawn(model, utterance, share)):
                yield model, utterance, target


def write_list(path: Path, trials: Iterable[tuple[str, str, bool]]) -> str:
    """Writes a list and logs its size. Without target or without nontarget trials it can't be scored, and is left out."""
    counts = {True: 0, False: 0}
    with replacing(path) as file:
        for enrol, test, target in trials:
            file.write(f"{enrol} {test} {'target' if target else 'nontarget'}\n")
            counts[target] += 1
    total = sum(counts.values())
    if min(counts.values()) == 0:
        path.unlink()
        return f"{path}: left out, because it would have {counts[True]} target trials of {total}"
    return f"{path}: {total} trials, {100 * counts[True] / total:.1f} % target"
