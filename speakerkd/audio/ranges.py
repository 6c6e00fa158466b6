"""Samples of recordings by range, without reading the whole: wave archives by offset, WAV files and FLAC files by seeking.

A list of waves is an scp. Its lines name a file (`utt /corpus/a.flac`) or a place in a Kaldi wave archive
(`utt /data/wave.1.ark:17`), as Kaldi's wav-copy and local/make_wave_ark.sh write them. Kaldi puts a whole WAV file behind
each key. Here the files of an archive must be mono with 16 bits a sample, so that a range is one read.
"""

import os
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from speakerkd.audio.containers import STREAMED, begins_chunk
from speakerkd.audio.recordings import AudioError, mono
from speakerkd.files.kaldi import Scp

MOST_OPEN = 64  # files that a process keeps open
REMEDY = "local/make_wave_ark.sh makes a wave archive of the data directory"
EXACT = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "AIFF", "AU", "NIST")  # formats in which libsndfile seeks to the sample


class Layout(NamedTuple):
    """Where the samples of a WAV file with 16 bits stand."""

    first: int  # byte
    samples: int  # of a channel
    rate: int
    channels: int


class OpenWave(NamedTuple):
    descriptor: int
    size: int


class WaveRanges:
    """ranges(i, first, last): these samples of entry i, mono float32 in [-1, 1). A ValueError names the line."""

    def __init__(self, path: str | Path, rate: int, channel: int = -1) -> None:
        self.scp, self.rate, self.channel = Scp(path, keep=True), rate, channel
        self._open: OrderedDict[str, OpenWave] = OrderedDict()

    def __len__(self) -> int:
        return len(self.scp)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __del__(self) -> None:
        for each in self._open.values():
            os.close(each.descriptor)

    def __call__(self, index: int, first: int, last: int) -> np.ndarray:
        try:
            return self._read(*self.scp.place(index), first, last)
        except (AudioError, OSError) as error:
            raise ValueError(f"{self.scp.path}:{index + 1}: '{self.scp.key(index)}': {error}") from error

    def num_samples(self, index: int) -> int:
        try:
            source, offset = self.scp.place(index)
            layout = self._layout(source, offset)
            if layout is not None:
                return layout.samples
            with self._decoder(source) as decoder:
                return int(decoder.frames)
        except (AudioError, OSError) as error:
            raise ValueError(f"{self.scp.path}:{index + 1}: '{self.scp.key(index)}': {error}") from error

    def _read(self, source: str, offset: int, first: int, last: int) -> np.ndarray:
        layout = self._layout(source, offset)
        if layout is None:
            return self._decoded(source, first, last)
        self._check(source, layout.rate, layout.channels)
        if not 0 <= first <= last <= layout.samples:
            raise AudioError(f"samples {first} to {last} were asked for, there are {layout.samples}")
        width = 2 * layout.channels
        data = os.pread(self._file(source).descriptor, (last - first) * width, layout.first + first * width)
        samples = np.frombuffer(data, "<i2").reshape(-1, layout.channels)
        if len(samples) < last - first:
            raise AudioError(f"{source} is truncated")
        return samples[:, max(self.channel, 0)].astype(np.float32) * np.float32(1 / 32768)

    def _decoded(self, source: str, first: int, last: int) -> np.ndarray:
        with self._decoder(source) as decoder:
            self._check(source, decoder.samplerate, decoder.channels)
            decoder.seek(first)
            samples = mono(decoder.read(last - first, dtype="float32", always_2d=True), self.channel)
        if len(samples) < last - first:
            raise AudioError(f"{source} is truncated, or shorter than {last} samples")
        if not np.isfinite(samples.sum(dtype=np.float64)):
            raise AudioError(f"{source} holds NaN or infinite samples")
        return samples

    def _decoder(self, source: str) -> soundfile.SoundFile:
        try:
            decoder = soundfile.SoundFile(source)
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise AudioError(f"{source} is not audio that can be read by range; {REMEDY}") from error
        if decoder.format not in EXACT:
            kind = decoder.format
            decoder.close()
            raise AudioError(f"{source} is {kind}, in which no exact place can be found; {REMEDY}")
        return decoder

    def _check(self, source: str, rate: int, channels: int) -> None:
        if rate != self.rate:
            raise AudioError(
                f"{source} has {rate} Hz, the features are made at {self.rate} Hz; {REMEDY}, at the right rate"
            )
        if self.channel >= channels:
            raise AudioError(f"{source} has {channels} channel(s), --channel={self.channel} was asked for")

    def _layout(self, source: str, offset: int) -> Layout | None:
        """None for a file that is no WAV with 16 bits a sample. In an archive that is an error."""
        if source.endswith("|"):
            raise AudioError(f"is a pipe, and ranges are read from files; {REMEDY}")
        file = self._file(source)
        archived = offset >= 0
        layout = wav_layout(file, max(offset, 0), archived)
        if archived and (layout is None or layout.channels != 1):
            what = "no WAV of 16 bits" if layout is None else f"{layout.channels} channels"
            raise AudioError(f"{source}:{offset} holds {what}; a wave archive is mono with 16 bits: {REMEDY}")
        return layout

    def _file(self, source: str) -> OpenWave:
        if source in self._open:
            self._open.move_to_end(source)
            return self._open[source]
        if not Path(source).is_file():
            raise AudioError(f"there is no file {source}")
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        found = self._open[source] = OpenWave(descriptor, os.fstat(descriptor).st_size)
        while len(self._open) > MOST_OPEN:
            os.close(self._open.popitem(last=False)[1].descriptor)
        return found


def wav_layout(file: OpenWave, offset: int, archived: bool) -> Layout | None:
    """The layout of the WAV file at this offset. None: it is not a WAV file, or its samples don't have 16 bits."""
    head = os.pread(file.descriptor, 64, offset)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    place, form = 12, b""
    while True:
        chunk = head[place : place + 8] if place + 8 <= len(head) else os.pread(file.descriptor, 8, offset + place)
        if len(chunk) < 8:
            raise AudioError("its WAV header is truncated, or has no samples behind it")
        name, length = struct.unpack("<4sI", chunk)
        place += 8
        if name == b"fmt ":
            inside = place + 26 <= len(head)
            form = head[place : place + min(length, 40)] if inside else os.pread(file.descriptor, 40, offset + place)
        if name == b"data":
            break
        place += length + length % 2
    if len(form) < 16:
        raise AudioError("its WAV header has no description of the samples")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", form)
    if tag == 0xFFFE and len(form) >= 26:  # the extended header names the kind of samples again
        (tag,) = struct.unpack_from("<H", form, 24)
    if tag != 1 or bits != 16 or channels < 1:
        return None
    first = offset + place
    if length == 0 and not archived and file.size > first:
        with open(file.descriptor, "rb", closefd=False) as whole:
            if begins_chunk(whole, first):
                raise AudioError("holds no samples")
    if (length == 0 or length >= STREAMED) and not archived:  # its writer could not seek back
        length = file.size - first
    if first + length > file.size:
        raise AudioError(f"is truncated: {max(file.size - first, 0)} of {length} bytes of samples are there")
    if length < 2 * channels:
        raise AudioError("holds no samples")
    return Layout(first, length // (2 * channels), rate, channels)
