"""Kaldi's energy rule for speech activity."""

from dataclasses import dataclass

import numpy as np

from speakerkd.conf import opt


@dataclass(frozen=True)
class VadConf:
    """Kaldi's options and defaults, so that compute-vad reads the same file."""

    vad_energy_threshold: float = opt(5.0, "constant part of the threshold on the log energy")
    vad_energy_mean_scale: float = opt(0.5, "plus this times the utterance's mean log energy")
    vad_frames_context: int = opt(0, "frames on either side that vote")
    vad_proportion_threshold: float = opt(
        0.6, "share of the voting frames above the threshold that makes a frame speech"
    )

    def __post_init__(self) -> None:
        if self.vad_energy_mean_scale < 0 or self.vad_frames_context < 0 or not 0 < self.vad_proportion_threshold < 1:
            raise ValueError("vad: mean scale and context can't be negative, the proportion lies between 0 and 1")


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


def log_energy_of_fbank(features: np.ndarray, padded: int) -> np.ndarray:
    """(T,) log energy of frames whose features are log mel powers without an energy column.

    Neighbouring triangles add up to about one, so the filters' sum is the power between the lowest and the highest
    filter; by Parseval half of `padded` times the energy of the emphasised, windowed frame.
    """
    top = features.max(1, keepdims=True)
    return top[:, 0] + np.log(np.exp(features - top).sum(1)) - np.log(padded / 2)
