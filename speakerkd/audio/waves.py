"""The waves of a data directory: recordings of wav.scp, cut by segments, changed by utt2aug, mono and at one rate."""

import logging
from collections import Counter
from collections.abc import Set
from pathlib import Path

import numpy as np

from speakerkd.audio.augment import Augmenter
from speakerkd.audio.recordings import AudioError, mono, read_audio, resample
from speakerkd.files.tables import Segment, read_segments, read_table


class Waves:
    """utterance -> (samples,) float32. If an utterance can't be used, it raises an AudioError.

    only: the utterances that will be needed. So a job does not hold the tables of a million others.
    """

    def __init__(self, folder: Path, rate: int, channel: int = -1, only: Set[str] | None = None) -> None:
        self.folder, self.rate = folder, rate
        self._recordings = RecordingReader(folder, rate, channel, only)
        self._texts = read_table(folder / "utt2aug", only=only) if (folder / "utt2aug").exists() else {}
        sources = read_table(folder / "aug.scp") if (folder / "aug.scp").exists() else {}
        self._augmenter = Augmenter(sources, rate)

    def __call__(self, utterance: str) -> np.ndarray:
        wave = self._recordings.wave(utterance)
        if utterance not in self._texts:
            return wave
        try:
            return self._augmenter(wave, self._texts[utterance])
        except AudioError:
            raise
        except ValueError as error:
            raise ValueError(f"{self.folder}/utt2aug: {utterance}: {error}") from error

    def log_warnings(self) -> None:
        """Warn of recordings that were resampled, or of which one channel was taken."""
        for note, count in self._recordings.notes.items():
            logging.warning("%d recording(s) have %s", count, note)


class RecordingReader:
    """Waves by utterance, mono and at one rate. The last recording stays in memory for its segments and copies."""

    def __init__(self, data_dir: Path, rate: int, channel: int, only: Set[str] | None = None) -> None:
        has_segments = (data_dir / "segments").exists()
        self._segments = read_segments(data_dir / "segments", only) if has_segments else None
        if only is not None and self._segments is not None:
            only = {segment.recording for segment in self._segments.values()}
        self._sources = read_table(data_dir / "wav.scp", only=only)
        self._rate, self._channel = rate, channel
        self._source, self._wave = "", np.zeros(0, np.float32)
        self.notes: Counter[str] = Counter()

    def wave(self, utterance: str) -> np.ndarray:
        if self._segments is None:
            return self._recording(utterance)
        segment = self._segments.get(utterance)
        if segment is None:
            raise AudioError("has no line in segments")
        return self._cut(self._recording(segment.recording), segment)

    def _recording(self, name: str) -> np.ndarray:
        source = self._sources.get(name)
        if source is None:
            raise AudioError(f"recording {name} has no line in wav.scp")
        if source != self._source:
            samples, rate = read_audio(source)
            if samples.shape[1] > 1 and self._channel < 0:
                self.notes[f"{samples.shape[1]} channels: the first is taken (--channel chooses)"] += 1
            if rate != self._rate:
                self.notes[f"{rate} Hz: resampled to {self._rate} Hz"] += 1
            self._wave, self._source = resample(mono(samples, self._channel), rate, self._rate), source
        return self._wave

    def _cut(self, wave: np.ndarray, segment: Segment) -> np.ndarray:
        seconds = len(wave) / self._rate
        if segment.start >= seconds:
            raise AudioError(f"its segment starts at {segment.start:.2f} s, the recording has {seconds:.2f} s")
        if segment.end > seconds + 0.5:  # Kaldi's tolerance for a segment that ends after the recording
            raise AudioError(f"its segment ends at {segment.end:.2f} s, the recording has {seconds:.2f} s")
        end = len(wave) if segment.end < 0 else round(segment.end * self._rate)
        return wave[round(segment.start * self._rate) : end]
