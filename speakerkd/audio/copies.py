"""The augmented copies of a data directory's utterances, in the order of their names.

Millions of copies are never in memory at once. They are generated one after the other from utterances and variants.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from speakerkd.audio.augment import speed_prefix
from speakerkd.audio.sourcedir import SourceDir
from speakerkd.conf import first_few


class Variant(NamedTuple):
    """A way to copy an utterance."""

    prefix: str  # of the copy and its speaker; "" unless the speed changes
    suffix: str
    kind: str  # "" for a copy that only changes the speed
    speed: float

    def name(self, utterance: str) -> str:
        return self.prefix + utterance + self.suffix


class Copy(NamedTuple):
    name: str
    original: str  # utterance of the source
    variant: Variant


def list_variants(kinds: Sequence[str], speeds: Sequence[float]) -> list[Variant]:
    """All variants; first those that only change the speed."""
    plain = [Variant(speed_prefix(speed), "", "", speed) for speed in speeds]
    variants = list(plain)
    passes: Counter[str] = Counter()
    for kind in kinds:
        passes[kind] += 1
        suffix = f"-{kind}{passes[kind] if passes[kind] > 1 else ''}"
        variants.append(Variant("", suffix, kind, 1.0))
        variants += [variant._replace(suffix=suffix, kind=kind) for variant in plain]
    return variants


def check_names(source: SourceDir, variants: Sequence[Variant]) -> None:
    """No copy may have the name of an utterance of the source."""
    known = source.wav_scp if source.segments is None else source.segments
    taken = {name for utt in known for variant in variants if (name := variant.name(utt)) in known}
    if taken:
        raise ValueError(
            f"{source.folder}: has {first_few(sorted(taken))} already, which a copy would be called; "
            "augment the directory of the originals, or choose other --kinds or --speeds"
        )


def choose(
    utterances: Sequence[str], variants: Sequence[Variant], num_utts: int, seed: int
) -> Callable[[str, Variant], bool]:
    """Says whether a copy with this name is one of the num_utts (0: all) that are kept. Pure speed copies are always kept.

    A hash of the name decides. So the choice does not depend on the order. With a larger number, the copies of a smaller
    number are kept too.
    """

    def rank(name: str) -> bytes:
        return hashlib.sha256(f"{seed} {name}".encode()).digest()

    drawn = [variant for variant in variants if variant.kind]
    if not 0 < num_utts < len(utterances) * len(drawn):
        return lambda name, variant: True
    names = (variant.name(utt) for utt in utterances for variant in drawn)
    ranks = np.fromiter((int.from_bytes(rank(name)[:8], "big") for name in names), np.uint64)
    bound = np.partition(ranks, num_utts - 1)[num_utts - 1]
    # several hashes may begin with these eight bytes; then the whole hash decides
    alike = [divmod(int(place), len(drawn)) for place in np.flatnonzero(ranks == bound)]
    last = sorted((drawn[variant].name(utterances[utt]) for utt, variant in alike), key=rank)
    last = last[: num_utts - int((ranks < bound).sum())]
    least = int(bound).to_bytes(8, "big")
    return lambda name, variant: not variant.kind or rank(name)[:8] < least or name in last


def in_order(
    utterances: Sequence[str], variants: Sequence[Variant], chosen: Callable[[str, Variant], bool]
) -> Iterator[Copy]:
    """The copies in the order of their names.

    The utterances are sorted. So for each prefix, all names before that of the next utterance can be given out.
    """

    def with_prefix(prefix: str) -> Iterator[Copy]:
        own = [variant for variant in variants if variant.prefix == prefix]
        waiting: list[Copy] = []
        for utt in utterances:
            while waiting and waiting[0].name < prefix + utt:
                yield heapq.heappop(waiting)
            for variant in own:
                name = variant.name(utt)
                if chosen(name, variant):
                    heapq.heappush(waiting, Copy(name, utt, variant))
        while waiting:
            yield heapq.heappop(waiting)

    return heapq.merge(*map(with_prefix, sorted({variant.prefix for variant in variants})))
