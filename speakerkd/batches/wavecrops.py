"""Crops of waves: the samples of a stretch of frames, and the features computed from them.

A crop of T frames takes exactly the samples of these frames. So its features equal the rows of feats.scp, up to the two-byte
rounding of the archive. Teachers with other front ends hear the same samples.

The waves are those of waves.scp (local/make_wave_ark.sh), or otherwise the WAV and FLAC files of wav.scp.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from speakerkd.audio.onthefly import AugmentConf, OnTheFly, check_not_twice
from speakerkd.audio.ranges import REMEDY, WaveRanges
from speakerkd.batches.crops import CropFeatures, Crops, Places
from speakerkd.batches.ondevice import OnDevice
from speakerkd.conf import build, read_conf
from speakerkd.feats.fbank import Fbank, FbankConf
from speakerkd.feats.frontend import FrontEnd, KaldiFrontEnd
from speakerkd.feats.source import feature_conf
from speakerkd.feats.stretch import FrameGrid
from speakerkd.files.columns import read_column, read_counts
from speakerkd.files.tables import without_speed


class WaveCrops:
    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        conf = feature_conf(self.folder)
        if conf is None:
            raise ValueError(
                f"{self.folder}/conf/fbank.conf is missing, which says what features the student takes; {REMEDY}, and "
                "writes it"
            )
        self.conf = build(FbankConf, read_conf(conf), str(conf))
        # The stretch has only whole frames, for any treatment of the ends of an utterance.
        self._fbank = Fbank(dataclasses.replace(self.conf, snip_edges=True))
        self._whole = Fbank(self.conf)
        self._grid = FrameGrid.of(self._whole)
        self.dim = self._fbank.dim
        self._waves = WaveRanges(self._list(), self._fbank.rate, self.conf.channel)
        self.scp = self._waves.scp
        self.samples = self._lengths()
        self.frames = np.fromiter(map(self._grid.num_frames, self.samples.tolist()), np.int32, len(self.scp))
        short = int((self.frames < 1).sum())
        if short:
            raise ValueError(
                f"{self.scp.path}: {short} utterance(s) are shorter than a frame, such as "
                f"{self.scp.key(int(np.argmax(self.frames < 1)))}; leave them out (utils/subset_data_dir.sh)"
            )
        self._front_ends: dict[str, FrontEnd] = {}
        self._augment: OnTheFly | None = None
        self._speakers: Sequence[str] = ()
        self._speaker_of: np.ndarray | range = range(0)  # entry -> the number of its speaker
        self.hear_clean = False  # true: teachers hear crops without augmentation
        self.hear_frames = 0  # >0: teachers hear longer crops of this many frames
        self.later: OnDevice | None = None  # makes the features on the device that trains

    def cut(self, places: Places) -> CropFeatures:
        length = places.length
        heard_length = max(length, self.hear_frames) if places.heard else length
        shape = (self._grid.samples(length),) if self.later else (length, self.dim)
        feats = np.empty((len(places.entries), *shape), np.float32)
        heard: dict[str, list[np.ndarray]] = {name: [] for name in self._front_ends if places.heard}
        for number, (entry, start) in enumerate(zip(places.entries.tolist(), places.starts.tolist(), strict=True)):
            seed = int(places.seeds[number] >> np.uint64(1))
            first = self._first(entry, start, length, heard_length)
            clean = self.wave(entry, first, heard_length)
            noisy = clean if places.clean else self._changed(clean, seed, entry)
            at = (start - first) * self._grid.shift
            self._say(noisy[at : at + self._grid.samples(length)], seed, feats[number])
            for name in heard:
                ear = self._ear(name)
                heard[name].append(ear(clean if self.hear_clean else noisy, seed))
        return CropFeatures(feats, {name: np.stack(each) for name, each in heard.items()})

    def _say(self, wave: np.ndarray, seed: int, out: np.ndarray) -> None:
        """What the student hears of these samples: features minus their mean, or the samples themselves."""
        if self.later:
            out[:] = self.later.samples(wave, seed)
        else:
            rows = self._fbank(wave, seed)
            np.subtract(rows, rows.mean(0), out=out)

    def _ear(self, name: str) -> Callable[[np.ndarray, int], np.ndarray]:
        front_end = self._front_ends[name]
        if self.later and self.later.makes(name):
            assert isinstance(front_end, KaldiFrontEnd)
            return front_end.samples
        return front_end

    def _first(self, entry: int, start: int, length: int, heard_length: int) -> int:
        """The start of the teacher's crop. The student's crop is in its middle if the utterance is long enough."""
        if heard_length == length:
            return start
        latest = max(int(self.frames[entry]) - heard_length, 0)
        return min(max(start - (heard_length - length) // 2, 0), latest)

    def _changed(self, wave: np.ndarray, seed: int, entry: int) -> np.ndarray:
        return self._augment(wave, seed, self.talker(entry)) if self._augment else wave

    def talker(self, entry: int) -> str:
        """The person who speaks: the speaker before any change of speed; without utt2spk, the utterance."""
        return without_speed(self._speakers[self._speaker_of[entry]])

    def augment(self, conf: AugmentConf) -> str:
        """Makes all crops augmented, except those of clean views. Says where the sounds come from."""
        check_not_twice(self.folder)
        self._augment = OnTheFly(conf, self.folder, self._fbank.rate)
        utt2spk = self.folder / "utt2spk"
        if utt2spk.exists():
            speakers = read_column(utt2spk, self.scp)
            self._speakers, self._speaker_of = speakers.names, speakers.number
        else:
            self._speakers, self._speaker_of = self.scp.names, range(len(self.scp))
        return self._augment.said

    def rows(self, entry: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        wave = self._waves(entry, 0, int(self.samples[entry]))
        return self._whole(wave)[start:stop]

    def listen(self, name: str, front_end: FrontEnd) -> None:
        if front_end.rate != self._fbank.rate:
            raise ValueError(
                f"{name} hears {front_end.rate} Hz, and the waves of {self.folder} have {self._fbank.rate} Hz. Make them "
                f"and the features at {front_end.rate} Hz, or make vectors with it (local/extract_xvectors.sh) and give "
                "their xvector.scp as --teacher"
            )
        self._front_ends[name] = front_end
        if self.later:
            self.later.listen(name, front_end)

    def wave(self, entry: int, start: int, length: int) -> np.ndarray:
        """The samples of `length` frames from frame `start` on."""
        return self._grid.crop(
            lambda first, last: self._waves(entry, first, last), int(self.samples[entry]), start, length
        )

    def _list(self) -> Path:
        """The file that names the waves."""
        if (self.folder / "waves.scp").exists():
            return self.folder / "waves.scp"
        for name in ("segments", "utt2aug"):
            if (self.folder / name).exists():
                raise ValueError(
                    f"{self.folder}/{name} changes the recordings of wav.scp, so crops need an archive; {REMEDY}"
                )
        if not (self.folder / "wav.scp").exists():
            raise ValueError(f"{self.folder} has neither waves.scp nor wav.scp; {REMEDY}")
        return self.folder / "wav.scp"

    def _lengths(self) -> np.ndarray:
        """(entries,) int64: samples."""
        table = self.folder / "utt2num_samples"
        if table.exists():
            return read_counts(table, self.scp, np.int64)
        began = time.monotonic()
        lengths = np.fromiter(map(self._waves.num_samples, range(len(self.scp))), np.int64, len(self.scp))
        logging.info(
            "%s: %d headers were read for the lengths (%.0f s)", self.scp.path, len(self.scp), time.monotonic() - began
        )
        return lengths


def set_up_waves(crops: Crops, augment: str, hear_clean: bool, hear_frames: int, features: str = "loader") -> str:
    """Sets the options of local/train.py for waves. Says where the sounds of an augmentation come from."""
    if features not in ("loader", "device"):
        raise ValueError(f"--features={features} is not one of: loader device")
    if not isinstance(crops, WaveCrops):
        if augment or hear_clean or hear_frames or features != "loader":
            raise ValueError(
                "--augment, --hear-clean, --hear-frames and --features are about waves: give --source waves as well "
                f"(local/make_wave_ark.sh {crops.folder})"
            )
        return ""
    if hear_frames < 0:
        raise ValueError(f"--hear-frames={hear_frames} can't be negative")
    crops.hear_clean, crops.hear_frames = hear_clean, hear_frames
    crops.later = OnDevice(crops.conf) if features == "device" else None
    if not augment:
        return ""
    try:
        return crops.augment(build(AugmentConf, read_conf(augment), augment)) or "nothing to draw from"
    except ValueError as error:
        raise ValueError(f"{augment}: {error}" if not str(error).startswith(augment) else str(error)) from error
