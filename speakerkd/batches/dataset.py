"""Crops for training from a data directory. The seed alone decides which utterance, which copy and which frames are taken.

The utterances of an epoch are the groups of utt2uniq: an original and its augmented copies. Without utt2uniq, each utterance
is a group. A view is a random crop of a random copy. The data's Crops (speakerkd/batches/crops.py) read it. Every random
choice depends only on (seed, epoch, utterance), not on workers, processes or earlier choices. So batch number `step` can be
made at any time, and a run can go on where another one stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from speakerkd.batches.batch import Batch
from speakerkd.batches.crops import Places
from speakerkd.batches.ondevice import hide
from speakerkd.batches.speakerorder import SpeakerOrder
from speakerkd.batches.utterances import Utterances
from speakerkd.files.numbering import by_number, starts, taken

CROP_STREAM = 1 << 20  # of random numbers; views have 6 each, from 0 on


@dataclass(frozen=True)
class View:
    """One crop of each utterance of a batch."""

    length: float = 1.0  # of --num-frames
    clean: bool = False  # true: from the original recording, not from an augmented copy


class Batches(torch.utils.data.Dataset[Batch]):
    """batches[step] is this process's share of the step's batch. An epoch has `per_epoch` steps."""

    def __init__(
        self,
        utterances: Utterances,
        views: Sequence[View],
        num_frames: int,
        batch_size: int,
        seed: int,
        entries: np.ndarray | None = None,
        rank: int = 0,
        world_size: int = 1,
        mask: tuple[int, int] = (0, 0),
        utts_per_speaker: int = 0,
    ) -> None:
        if batch_size % world_size:
            raise ValueError(f"--batch-size={batch_size} can't be shared by {world_size} processes; take a multiple")
        self.data, self.views, self.seed, self.mask = utterances, views, seed, mask
        self.lengths = [max(1, round(view.length * num_frames)) for view in views]
        # Entries by group: group g has order[first[g] : first[g + 1]]. The same for the originals only.
        entries = np.arange(len(utterances), dtype=np.int32) if entries is None else entries
        self._all = self._clean = _grouped(utterances.group_of, entries)
        if any(view.clean for view in views) and not utterances.original.all():
            self._clean = _grouped(utterances.group_of, entries[utterances.original[entries]])
            if len(self._clean[1]) != len(self._all[1]):
                raise ValueError(
                    f"{utterances.folder}/utt2uniq: some copies have no original here, but the method needs a clean view"
                )
        for name, each in utterances.crop_vectors.items():
            if each.frames < self.lengths[0]:
                raise ValueError(
                    f"{each.scp.path}: the vectors of {name} are of crops of {each.frames} frames, and the student's have "
                    f"{self.lengths[0]}; give --num-frames={each.frames} or less, or make vectors of longer crops "
                    "(local/extract_crop_xvectors.sh --crop-frames)"
                )
        self.num_groups = len(self._all[1]) - 1
        self.batch_size = min(batch_size, self.num_groups // world_size * world_size)
        if self.batch_size < 2:
            raise ValueError(f"{utterances.folder}: {self.num_groups} utterance(s) are too few to train on")
        self.per_epoch = self.num_groups // self.batch_size
        self._order: SpeakerOrder | None = None
        if utts_per_speaker:
            assert utterances.labels is not None, "train.py reads the speakers of methods that need batches of them"
            speaker_of = utterances.labels[self._all[0][self._all[1][:-1]]]
            self._order = SpeakerOrder(speaker_of, utts_per_speaker, batch_size, seed, world_size)
            self.batch_size, self.per_epoch = self._order.batch_size, self._order.per_epoch
        self._share = slice(rank * self.batch_size // world_size, (rank + 1) * self.batch_size // world_size)
        self._epoch = -1
        self._permutation: np.ndarray = np.zeros(0, np.int64)
        self.short = int((taken(utterances.frames, entries) < max(self.lengths, default=0)).sum())

    def __getitem__(self, step: int) -> Batch:
        epoch, groups = self._groups_of(step)
        feats: list[Tensor] = []
        hidden: list[Tensor] = []
        heard: dict[str, Tensor] = {}
        crops = np.zeros(0, np.int64)
        for number in range(len(self.views)):
            chosen = self._copies(number, epoch, groups)
            places = self._places(chosen, number, epoch, groups)
            if number == 0 and self.data.crop_vectors:
                places, crops = self._taught(places, epoch, groups)
            cut = self.data.crops.cut(places)
            bounds = torch.from_numpy(self._hidden(places, number, epoch, groups))
            feats.append(torch.from_numpy(cut.feats))
            if self.data.crops.later is None:
                hide(feats[-1], bounds)
            else:
                hidden.append(bounds)
            heard |= {name: torch.from_numpy(each) for name, each in cut.heard.items()}
        first_view = self._copies(0, epoch, groups)
        labels = None if self.data.labels is None else torch.from_numpy(self.data.labels[first_view].astype(np.int64))
        vectors = {name: torch.from_numpy(each.of(first_view)) for name, each in self.data.vectors.items()}
        vectors |= {name: torch.from_numpy(each.of(crops)) for name, each in self.data.crop_vectors.items()}
        return Batch(feats, labels, vectors, heard, hidden)

    def finish(self, batch: Batch) -> Batch:
        """What is left to do on the device that trains."""
        return batch if self.data.crops.later is None else self.data.crops.later(batch)

    def __len__(self) -> int:
        return self.per_epoch

    def entries_of(self, step: int) -> np.ndarray:
        """The entries in the first view of a step. The batch has their labels and vectors."""
        return self._copies(0, *self._groups_of(step))

    def _groups_of(self, step: int) -> tuple[int, np.ndarray]:
        """The epoch of a step, and the groups of this process's share of it."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            if self._order:
                self._permutation = self._order(epoch)
            else:  # as permutation() draws it, in half the memory
                self._permutation = np.arange(self.num_groups, dtype=np.int32)
                np.random.default_rng([self.seed, epoch]).shuffle(self._permutation)
            self._epoch = epoch
        return epoch, self._permutation[position * self.batch_size :][self._share]

    def _copies(self, number: int, epoch: int, groups: np.ndarray) -> np.ndarray:
        """A random entry of each group for view `number`; if there are no views, for the vectors."""
        clean = bool(self.views) and self.views[number].clean
        order, first = self._clean if clean else self._all
        part = uniform(self.seed, epoch, groups, 6 * number)
        return order[first[groups] + (part * (first[groups + 1] - first[groups])).astype(np.int64)]

    def _places(self, entries: np.ndarray, number: int, epoch: int, groups: np.ndarray) -> Places:
        """The places of the crops of view `number`: anywhere in the utterance, or at 0 if it is shorter than a crop."""
        length, view = self.lengths[number], self.views[number]
        starts = uniform(self.seed, epoch, groups, 6 * number + 1) * (self.data.frames[entries] - length + 1)
        seeds = hashed(self.seed, epoch, groups, 6 * number + 1)
        return Places(entries, starts.clip(0).astype(np.int64), length, seeds, view.clean, number == 0)

    def _taught(self, places: Places, epoch: int, groups: np.ndarray) -> tuple[Places, np.ndarray]:
        """Places inside crops that teachers have heard, and the numbers of these crops (-1: an entry has none)."""
        vectors = next(iter(self.data.crop_vectors.values()))
        crops = vectors.choose(places.entries, uniform(self.seed, epoch, groups, CROP_STREAM))
        within = np.minimum(vectors.frames, self.data.frames[places.entries]) - places.length
        part = uniform(self.seed, epoch, groups, 1)
        starts = vectors.starts[crops] + (part * (within + 1)).clip(0).astype(np.int64)
        return replace(places, starts=np.where(crops >= 0, starts, places.starts)), crops

    def _hidden(self, places: Places, number: int, epoch: int, groups: np.ndarray) -> np.ndarray:
        """(B, 4), or (B, 0) if nothing is hidden: SpecAugment's stretch of frames and of bins, of random width and place."""
        if places.clean or not any(self.mask):
            return np.zeros((len(groups), 0), np.int64)
        draws = [uniform(self.seed, epoch, groups, 6 * number + 2 + each) for each in range(4)]
        bounds = []
        for axis, (most, size) in enumerate(zip(self.mask, (places.length, self.data.dim), strict=True)):
            width = (draws[2 * axis] * (min(most, size) + 1)).astype(np.int64)
            first = (draws[2 * axis + 1] * (size - width + 1)).astype(np.int64)
            bounds += [first, first + width] if most else [first * 0, first * 0]
        return np.stack(bounds, 1)


def _grouped(group_of: np.ndarray, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(entries sorted by group, the start of each group and the end). Groups are renumbered without gaps."""
    groups = taken(group_of, entries)
    if (groups[1:] >= groups[:-1]).all():
        return entries, starts(groups)
    del groups
    places, first = by_number(taken(group_of, entries))
    return taken(entries, places), first


def uniform(seed: int, epoch: int, numbers: np.ndarray, stream: int) -> np.ndarray:
    """One number in [0, 1) for each of `numbers`. It is a hash (splitmix64), so it does not depend on the others."""
    return (hashed(seed, epoch, numbers, stream) >> np.uint64(11)).astype(np.float64) / 2**53


def hashed(seed: int, epoch: int, numbers: np.ndarray, stream: int) -> np.ndarray:
    """64 random bits for each of `numbers`, as uint64."""
    mixed = numbers.astype(np.uint64)
    for salt in (seed, epoch, stream):
        mixed = _mix(mixed ^ _mix(np.array([salt], np.uint64)))
    return mixed


def _mix(value: np.ndarray) -> np.ndarray:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
