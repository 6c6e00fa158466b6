"""Batches of speakers x utterances: the order of an epoch. It depends only on (seed, epoch).

A speaker occurs only once in a batch, and an utterance only once with its speaker. Otherwise a contrastive loss would push a
speaker away from itself, or find the test in the profile. All utterances of a speaker are used before one is used again.
"""

import logging

import numpy as np


class SpeakerOrder:
    """order(epoch) is (per_epoch * batch_size,) utterances: batch after batch, and in a batch speaker after speaker."""

    def __init__(self, speaker_of: np.ndarray, utts: int, batch_size: int, seed: int, world_size: int = 1) -> None:
        """speaker_of: the speaker of each utterance. The number of speakers in a batch is a multiple of world_size."""
        if utts < 2 or batch_size < 2 * utts:
            raise ValueError(
                f"--batch-size={batch_size}: a batch must hold 2 speakers or more, "
                f"with --utts-per-speaker={utts} each, which must be 2 or more"
            )
        counts = np.bincount(speaker_of)
        self.speakers = np.flatnonzero(counts >= utts)
        few = int(((counts > 0) & (counts < utts)).sum())
        if few:
            logging.warning("%d speakers with fewer than --utts-per-speaker=%d utterances are left out", few, utts)
        number = min(batch_size // utts, len(self.speakers)) // world_size * world_size
        if number < 2:
            raise ValueError(
                f"{len(self.speakers)} speakers have --utts-per-speaker={utts} utterances: too few for a batch; "
                "take fewer utterances a speaker, or more data"
            )
        self.speaker_of, self.counts, self.utts, self.seed = speaker_of, counts, utts, seed
        self.num_speakers, self.batch_size = number, number * utts
        self.per_epoch = max(1, int(counts[self.speakers].sum()) // self.batch_size)

    def __call__(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        by_speaker = np.lexsort((rng.random(len(self.speaker_of)), self.speaker_of))  # shuffled within each speaker
        first = np.cumsum(self.counts) - self.counts
        in_round = len(self.speakers) // self.num_speakers
        rounds = -(-self.per_epoch // in_round)
        drawn = [rng.permutation(self.speakers)[: in_round * self.num_speakers] for _ in range(rounds)]
        chosen = np.concatenate(drawn)[: self.per_epoch * self.num_speakers]
        turn = turns(chosen)[:, None] * self.utts + np.arange(self.utts)
        return by_speaker[first[chosen][:, None] + turn % self.counts[chosen][:, None]].ravel()


def turns(values: np.ndarray) -> np.ndarray:
    """How often each value has occurred before: 3 5 3 3 -> 0 0 1 2."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-1))
    before = np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))
    result = np.empty(len(values), np.int64)
    result[order] = before
    return result
