"""The features of a data directory as a model was trained to hear them: those on disk, or computed from the recordings."""

import dataclasses
import logging
import re
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from speakerkd.audio.recordings import AudioError
from speakerkd.audio.waves import Waves
from speakerkd.conf import build, read_conf, text_of
from speakerkd.feats.frontend import FrontEnd, KaldiConf, KaldiFrontEnd, Reading, front_end_type
from speakerkd.files.kaldi import Scp
from speakerkd.files.made import origin_in_archives, origin_in_recordings
from speakerkd.files.tables import read_lines


class FeatureSource(Protocol):
    """Iterates over utterances; called with one, gives its features (T, F), or raises an AudioError."""

    @property
    def folder(self) -> Path | None:
        """The data directory whose recordings are read; None: they are not."""
        ...

    def __iter__(self) -> Iterator[str]: ...

    def __call__(self, utterance: str) -> np.ndarray: ...

    def log_warnings(self) -> None: ...  # about the recordings, once they have been read

    def origin(self, settings: str) -> str: ...  # a digest of what the features are made of, and of the settings


class StoredFeatures:
    """Features that an scp names."""

    folder = None

    def __init__(self, listed: str | Path) -> None:
        self._listed, self._scp = listed, Scp(listed, pipes=True)

    def __iter__(self) -> Iterator[str]:
        return iter(self._scp)

    def __call__(self, utterance: str) -> np.ndarray:
        index = self._scp.find(utterance)
        if index < 0:
            raise AudioError(f"has no line in {self._listed}")
        return self._scp.read(index)

    def log_warnings(self) -> None:
        pass

    def origin(self, settings: str) -> str:
        return origin_in_archives(self._listed, settings)


class ComputedFeatures:
    """Features that a front end computes from the recordings, of the same channel as the features on disk."""

    def __init__(self, front_end: FrontEnd, folder: Path, listed: str | Path) -> None:
        check_copies(folder)
        self.front_end, self.folder = front_end, folder
        self._utterances = [line.split()[0] for _, line in read_lines(listed)]
        known = feature_conf(folder)
        channel = build(KaldiConf, read_conf(known), str(known)).channel if known else -1
        self._waves = Waves(folder, front_end.rate, channel, set(self._utterances))

    def __iter__(self) -> Iterator[str]:
        return iter(self._utterances)

    def __call__(self, utterance: str) -> np.ndarray:
        return features_of(self.wave(utterance), self.front_end, utterance)

    def wave(self, utterance: str) -> np.ndarray:
        return self._waves(utterance)

    def log_warnings(self) -> None:
        self._waves.log_warnings()

    def origin(self, settings: str) -> str:
        return origin_in_recordings(self.folder, self._utterances, settings)


def check_copies(folder: Path) -> None:
    """The recordings of augmented copies that lost their utt2aug are those of the originals."""
    script = Path(__file__).parents[2] / "utils/check_copies.sh"
    if not script.exists():  # the package alone is installed
        return
    done = subprocess.run([script, folder], capture_output=True, text=True)
    said = done.stderr.partition(": ")[2].strip()
    if done.returncode:
        raise ValueError(said or f"{script} {folder}: ended with status {done.returncode}")
    if said:
        logging.warning("%s", said)


def features_of(wave: np.ndarray, front_end: Callable[[np.ndarray, int], np.ndarray], utterance: str) -> np.ndarray:
    """(T, F), not empty and finite; the utterance's name seeds the dither."""
    features = front_end(wave, zlib.crc32(utterance.encode()))
    if len(features) == 0:
        raise AudioError(f"is shorter than a frame ({len(wave)} samples)")
    if not np.isfinite(features.sum(dtype=np.float64)):
        raise AudioError("gives features that are not finite")
    return features


def feature_conf(folder: str | Path) -> Path | None:
    """The conf file that the features of a data directory were made with; None: it is not recorded.

    local/make_fbank.sh writes it into the data directory and beside the archives. When Kaldi's own utils copy, combine or
    split a directory, they leave conf/ out. But they keep feats.scp, and its first line leads to the archives.
    """
    folder = Path(folder)
    if (folder / "conf/fbank.conf").exists():
        return folder / "conf/fbank.conf"
    if not (folder / "feats.scp").exists():
        return None
    _, line = next(read_lines(folder / "feats.scp"), (0, ""))
    archive = re.fullmatch(r"\S+\s+(.+)\.\d+\.ark(?::\d+)?(?:\[.*\])?", line.rstrip())
    return path if archive and (path := Path(f"{archive[1]}.conf")).exists() else None


def utterance_list_of(folder: str | Path) -> Path:
    """The file of a data directory that lists its utterances."""
    found = [path for name in ("feats.scp", "segments", "wav.scp") if (path := Path(folder) / name).exists()]
    if not found:
        raise ValueError(f"{folder} has neither feats.scp nor wav.scp; run stage 1 and 2")
    return found[0]


def feature_source(
    front_end: FrontEnd | None, folder: str | Path, listed: str | Path, model: str
) -> tuple[FeatureSource, str]:
    """The features of the listed utterances, and a note for the log, which is empty if they are those on disk.

    `listed` is utterance_list_of(folder) or a part of it. If the model records no front end, the features on disk are used.
    """
    folder = Path(folder)
    stored = (folder / "feats.scp").exists()
    if stored and (front_end is None or not (reason := departure(front_end, folder))):
        return StoredFeatures(listed), ""
    if front_end is None:
        raise ValueError(f"{folder}/feats.scp is missing, and {model} does not say how it is made; run stage 2")
    why = f"the features in {folder} are not those of {model} ({reason})" if stored else f"{folder} has no feats.scp"
    if not (folder / "wav.scp").exists():
        raise ValueError(
            f"{why}, and it has no wav.scp to compute them from: take a directory that has one (the parts of a combined "
            "one do), or make feats.scp with the model's options"
        )
    return ComputedFeatures(
        front_end, folder, listed
    ), f"{why}: they are computed from wav.scp with the model's front end"


def departure(front_end: FrontEnd, folder: str | Path) -> str:
    """How the features of a data directory differ from the front end's; '': they don't, or nothing is known."""
    path = feature_conf(folder)
    if not isinstance(front_end, KaldiFrontEnd):
        return f"they are Kaldi's fbank, not {front_end_type(front_end)}'s"
    if path is None:
        return ""
    theirs = decisive(build(KaldiConf, read_conf(path), str(path)))
    ours = decisive(front_end.conf)
    names = [field.name for field in dataclasses.fields(KaldiConf) if field.name not in NOT_COMPARED]
    return ", ".join(
        f"--{name.replace('_', '-')}={text_of(getattr(theirs, name))} for {text_of(getattr(ours, name))}"
        for name in names
        if getattr(theirs, name) != getattr(ours, name)
    )


# These options don't make different features: the choice of recordings, the dither, and what is done when reading.
NOT_COMPARED = {"channel", "min_duration", "dither", *(field.name for field in dataclasses.fields(Reading))}


def decisive(conf: KaldiConf) -> KaldiConf:
    """Options that have no effect at their defaults, so that confs of the same features are equal."""
    high = conf.high_freq if conf.high_freq > 0 else conf.sample_frequency / 2 + conf.high_freq
    conf = dataclasses.replace(conf, high_freq=high)
    if not conf.use_energy:
        conf = dataclasses.replace(conf, energy_floor=0.0, raw_energy=True)
    return conf if conf.window_type == "blackman" else dataclasses.replace(conf, blackman_coeff=0.42)
