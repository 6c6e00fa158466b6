"""Kaldi's energy rule for speech activity, and the log energies that it is applied to.

Kaldi's compute-vad reads the first column of the features. In Kaldi's recipes that is the raw log energy of MFCCs: the
energy of a frame before pre-emphasis and window. Filterbank features have such a column only with --use-energy=true. The
filters can't replace it: they have the energy after pre-emphasis. So the energy is computed from the recordings.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from speakerkd.audio.recordings import AudioError
from speakerkd.audio.waves import Waves
from speakerkd.conf import build, opt, read_conf
from speakerkd.feats.fbank import Fbank, FbankConf
from speakerkd.feats.source import feature_conf
from speakerkd.files.kaldi import Scp
from speakerkd.files.tables import read_lines, read_table


@dataclass(frozen=True)
class VadConf:
    """Kaldi's options and defaults. compute-vad reads the same file."""

    vad_energy_threshold: float = opt(5.0, "constant part of the threshold on the log energy")
    vad_energy_mean_scale: float = opt(
        0.5, "factor on the utterance's mean log energy, which is added to the threshold"
    )
    vad_frames_context: int = opt(0, "number of frames on each side that vote")
    vad_proportion_threshold: float = opt(
        0.6, "share of the voting frames above the threshold that makes a frame speech"
    )

    def __post_init__(self) -> None:
        if self.vad_energy_mean_scale < 0 or self.vad_frames_context < 0 or not 0 < self.vad_proportion_threshold < 1:
            raise ValueError(
                "--vad-energy-mean-scale and --vad-frames-context can't be negative, "
                "--vad-proportion-threshold must be between 0 and 1"
            )


def energy_vad(log_energy: np.ndarray, conf: VadConf) -> np.ndarray:
    """(T,) log energies -> (T,) float32 of 1 (speech) and 0."""
    energy = log_energy.astype(np.float32)
    mean = energy.sum(dtype=np.float32) / np.float32(len(energy))
    threshold = np.float32(conf.vad_energy_threshold) + np.float32(conf.vad_energy_mean_scale) * mean
    above = np.concatenate([[0], np.cumsum(energy > threshold)])
    frame = np.arange(len(energy))
    first = np.maximum(frame - conf.vad_frames_context, 0)
    end = np.minimum(frame + conf.vad_frames_context + 1, len(energy))
    share = np.float32(conf.vad_proportion_threshold)
    return (above[end] - above[first] >= (end - first).astype(np.float32) * share).astype(np.float32)


class Energy(Protocol):
    """Iterates over utterances; called with one, gives its log energies (T,). `what` says where they come from."""

    what: str

    def __iter__(self) -> Iterator[str]: ...

    def __call__(self, utterance: str) -> np.ndarray: ...


class ColumnEnergy:
    """A column of the features."""

    def __init__(self, listed: str | Path, column: int, what: str) -> None:
        self.what = what
        self._scp, self._column = Scp(listed, pipes=True), column

    def __iter__(self) -> Iterator[str]:
        return iter(self._scp)

    def __call__(self, utterance: str) -> np.ndarray:
        features = self._scp.read(self._scp.find(utterance))
        if features.ndim != 2:
            raise ValueError(f"{self._scp.path}: '{utterance}' is a vector, not a matrix of features")
        return features[:, self._column]


class RecordedEnergy:
    """The raw log energy of the recordings, one value for each frame of the features."""

    what = "the raw energy of the recordings (wav.scp)"

    def __init__(self, folder: Path, listed: str | Path, conf: FbankConf) -> None:
        self._folder, self._fbank, self._scp = folder, Fbank(conf), Scp(listed, pipes=True)
        names = {line.split()[0] for _, line in read_lines(listed)}
        counts = folder / "utt2num_frames"
        self._frames = read_table(counts, 2, only=names) if counts.exists() else {}
        self._waves = Waves(folder, self._fbank.rate, conf.channel, names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._scp)

    def __call__(self, utterance: str) -> np.ndarray:
        try:
            wave = self._waves(utterance)
        except AudioError as error:
            raise ValueError(
                f"{self._folder}: '{utterance}' has features, but its recording {error}; bring the recording back, or take "
                "the utterance out (utils/fix_data_dir.sh)"
            ) from error
        energy = self._fbank.raw_log_energy(wave, zlib.crc32(utterance.encode()))  # the seed of its features
        if len(energy) != (expected := self._rows(utterance)):
            raise ValueError(
                f"{self._folder}: '{utterance}' has features of {expected} frames, its recording gives {len(energy)}: "
                "wav.scp, segments or utt2aug are not those the features were made from; run local/make_fbank.sh "
                f"{self._folder} again"
            )
        return energy

    def _rows(self, utterance: str) -> int:
        if utterance in self._frames:
            return int(self._frames[utterance])
        return len(self._scp.read(self._scp.find(utterance)))


def energy_of(folder: str | Path, listed: str | Path) -> Energy:
    """The source of the log energies for the utterances of feats.scp, or of a part of it."""
    folder = Path(folder)
    path = feature_conf(folder)
    if path is None:
        _, line = next(read_lines(listed))
        archive = Path(line.split(None, 1)[-1].strip()).name
        if archive.startswith("raw_fbank_"):
            raise ValueError(
                f"{folder}: the features are filterbanks ({archive}), and conf/fbank.conf, which says how they were made, "
                "is missing (Kaldi's utils leave it out when they copy a data directory). Copy conf/ from the directory "
                "that the features were made in; without it the first filter would be taken for the energy"
            )
        return ColumnEnergy(listed, 0, "column 0 of the features, as in Kaldi (there is no conf/fbank.conf)")
    conf = build(FbankConf, read_conf(path), str(path))
    if conf.use_energy:
        column = -1 if conf.htk_compat else 0
        return ColumnEnergy(listed, column, f"column {column} of the features (--use-energy=true in {path})")
    if not (folder / "wav.scp").exists():
        raise ValueError(
            f"{folder}: the features have no energy column, and there is no wav.scp to compute the energy from; take a "
            "directory that has one, or make the features with --use-energy=true"
        )
    return RecordedEnergy(folder, listed, conf)
