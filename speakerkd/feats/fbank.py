"""Log mel filterbanks with Kaldi's arithmetic.

torchaudio.compliance.kaldi computes the same values. Here the window and the mel matrix are made once, not for each
utterance, and the power spectrum is summed inside the product with the mel matrix: several times as fast.

Measured against the output of Kaldi's compute-fbank-feats for speech (both in float32): 99 % of the values differ by less
than 1.4e-4. A filter 30 nepers below the frame's loudest one holds only rounding errors. There the difference is up to 0.2.
(From the value in float64, ours is at most 0.073 away, Kaldi's 0.130.)
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from speakerkd.conf import opt

LOG_FLOOR = float(np.finfo(np.float32).eps)  # Kaldi's floor of the energies before the logarithm
BLOCK = 256  # number of frames computed together


@dataclass(frozen=True)
class FbankConf:
    """Kaldi's options with Kaldi's names and defaults. compute-fbank-feats reads the same file."""

    sample_frequency: float = opt(16000.0, "rate of the features in Hz; recordings of other rates are resampled")
    frame_length: float = opt(25.0, "milliseconds")
    frame_shift: float = opt(10.0, "milliseconds")
    dither: float = opt(
        1.0, "standard deviation of the noise added to 16-bit samples, seeded by the utterance; 0: none"
    )
    preemphasis_coefficient: float = opt(0.97, "coefficient of the pre-emphasis")
    remove_dc_offset: bool = opt(True, "true: subtract each frame's mean")
    window_type: str = opt("povey", "window: povey, hamming, hanning, sine, rectangular or blackman")
    blackman_coeff: float = opt(0.42, "constant of the generalised Blackman window")
    round_to_power_of_two: bool = opt(True, "true: pad frames to a power of two")
    snip_edges: bool = opt(
        True, "true: only whole frames; false: one frame per shift, with the wave reflected at its ends"
    )
    num_mel_bins: int = opt(23, "number of filters")
    low_freq: float = opt(20.0, "lower edge of the lowest filter, Hz")
    high_freq: float = opt(0.0, "upper edge of the highest filter; 0 or less: relative to half the rate")
    use_energy: bool = opt(False, "true: add the frame's log energy as the first column")
    energy_floor: float = opt(0.0, "floor of this energy, absolute; 0: none")
    raw_energy: bool = opt(True, "true: compute this energy before pre-emphasis and window")
    htk_compat: bool = opt(False, "true: the energy is the last column")
    use_log_fbank: bool = opt(True, "true: take the logarithm")
    use_power: bool = opt(True, "true: power spectrum; false: magnitude")
    channel: int = opt(-1, "channel to take, counted from 0; -1: the first, with a warning if there are several")
    min_duration: float = opt(0.0, "shortest duration of an utterance in seconds; shorter ones are left out")


class Fbank:
    """wave -> (frames, bins). One object serves many utterances, but only one thread at a time."""

    def __init__(self, conf: FbankConf) -> None:
        self.conf = conf
        self.rate = round(conf.sample_frequency)
        self.length = int(conf.sample_frequency * 0.001 * conf.frame_length)
        self.shift = int(conf.sample_frequency * 0.001 * conf.frame_shift)
        if self.length < 2 or self.shift < 1:
            raise ValueError(
                f"frames of {conf.frame_length} ms every {conf.frame_shift} ms can't be made at {self.rate} Hz"
            )
        self.padded = 1 << (self.length - 1).bit_length() if conf.round_to_power_of_two else self.length
        if self.padded % 2:
            raise ValueError(f"--round-to-power-of-two=false needs an even frame; it has {self.length} samples")
        self.window = window(conf, self.length)
        # Each row occurs twice, for the squares of the real and of the imaginary part; the product sums them.
        self.mel = (
            mel_matrix(conf, self.padded).repeat_interleave(2, 0) if conf.use_power else mel_matrix(conf, self.padded)
        )
        self.dim = conf.num_mel_bins + conf.use_energy
        self._frame_buffer = torch.empty(BLOCK, self.length)
        self._padded_buffer = torch.zeros(BLOCK, self.padded)
        self._spectrum_buffer = torch.empty(BLOCK, self.padded // 2 + 1, dtype=torch.complex64)

    def num_frames(self, num_samples: int) -> int:
        if not self.conf.snip_edges:
            return (num_samples + self.shift // 2) // self.shift
        return 0 if num_samples < self.length else 1 + (num_samples - self.length) // self.shift

    @torch.inference_mode()
    def __call__(self, wave: np.ndarray, seed: int = 0) -> np.ndarray:
        """wave: (samples,) in [-1, 1) at self.rate, as soundfile reads it; scaled to 16-bit integers' range as in Kaldi."""
        features = torch.empty(self.num_frames(len(wave)), self.dim)
        for first, samples in self._blocks(wave, seed):
            self._compute(samples, features[first : first + BLOCK])
        return features.numpy()

    @torch.inference_mode()
    def raw_log_energy(self, wave: np.ndarray, seed: int = 0) -> np.ndarray:
        """(frames,): the energy that Kaldi's VAD uses by default: that of the frame before pre-emphasis and window.

        It is the first column of features with --use-energy=true --raw-energy=true and no floor, without the filters.
        """
        energy = torch.empty(self.num_frames(len(wave)))
        for first, samples in self._blocks(wave, seed):
            energy[first : first + BLOCK] = log_energy(self._scaled(samples), 0.0)
        return energy.numpy()

    def dithered(self, wave: np.ndarray, seed: int) -> torch.Tensor:
        """The samples with the noise that is added to them: to the wave, not to each frame as in Kaldi. It is the same
        noise, drawn 2.5 times less often.
        """
        samples = torch.from_numpy(wave)
        if not self.conf.dither:
            return samples
        noise = torch.randn(len(wave), generator=torch.Generator().manual_seed(seed))
        return samples + noise * (self.conf.dither / 32768)

    def _blocks(self, wave: np.ndarray, seed: int) -> Iterator[tuple[int, torch.Tensor]]:
        """(first frame, samples of at most BLOCK frames), with the dither."""
        samples = self.dithered(wave, seed)
        count = self.num_frames(len(wave))
        if count:
            frames = self._frames(samples, count)  # (T, length)
            for first in range(0, count, BLOCK):
                yield first, frames[first : first + BLOCK]

    def _scaled(self, samples: torch.Tensor) -> torch.Tensor:
        """The samples in the range of 16-bit integers, minus each frame's mean, in a buffer."""
        frames = torch.mul(samples, 32768, out=self._frame_buffer[: len(samples)])
        if self.conf.remove_dc_offset:
            frames -= frames.mean(1, keepdim=True)
        return frames

    def _compute(self, samples: torch.Tensor, features: torch.Tensor) -> None:
        """Computes at most BLOCK frames, in buffers that stay in the processor's cache. New memory would take longer."""
        conf, count = self.conf, len(samples)
        padded, spectrum = self._padded_buffer[:count], self._spectrum_buffer[:count]
        frames = self._scaled(samples)
        energy = log_energy(frames, conf.energy_floor) if conf.use_energy and conf.raw_energy else None
        emphasised = padded[:, : self.length]
        torch.sub(frames[:, 1:], frames[:, :-1], alpha=conf.preemphasis_coefficient, out=emphasised[:, 1:])
        torch.mul(frames[:, 0], 1 - conf.preemphasis_coefficient, out=emphasised[:, 0])
        emphasised *= self.window
        if conf.use_energy and not conf.raw_energy:
            energy = log_energy(emphasised, conf.energy_floor)
        torch.fft.rfft(padded, out=spectrum)
        if conf.use_power:
            bins = torch.view_as_real(spectrum).flatten(1).square_() @ self.mel
        else:
            bins = spectrum.abs() @ self.mel
        if conf.use_log_fbank:
            log_floored(bins)
        at = 1 if energy is not None and not conf.htk_compat else 0
        features[:, at : at + conf.num_mel_bins] = bins
        if energy is not None:
            features[:, -1 if conf.htk_compat else 0] = energy

    def _frames(self, samples: torch.Tensor, count: int) -> torch.Tensor:
        if self.conf.snip_edges:
            return samples.unfold(0, self.length, self.shift)
        # The middle of the first frame is half a shift into the wave. Outside, the wave is reflected, also repeatedly.
        before = self.length // 2 - self.shift // 2
        position = torch.arange(-before, (count - 1) * self.shift + self.length - before)
        position = position.remainder(2 * len(samples))
        position = torch.minimum(position, 2 * len(samples) - 1 - position)
        return samples[position].unfold(0, self.length, self.shift)


def window(conf: FbankConf, length: int) -> torch.Tensor:
    phase = 2 * math.pi * torch.arange(length, dtype=torch.float64) / (length - 1)
    hann = 0.5 - 0.5 * torch.cos(phase)
    shapes = {
        "povey": hann**0.85,
        "hanning": hann,
        "hamming": 0.54 - 0.46 * torch.cos(phase),
        "sine": torch.sin(phase / 2),
        "rectangular": torch.ones(length, dtype=torch.float64),
        "blackman": conf.blackman_coeff - 0.5 * torch.cos(phase) + (0.5 - conf.blackman_coeff) * torch.cos(2 * phase),
    }
    if conf.window_type not in shapes:
        raise ValueError(f"--window-type={conf.window_type} is not one of: {' '.join(shapes)}")
    return shapes[conf.window_type].float()


def mel_matrix(conf: FbankConf, padded: int) -> torch.Tensor:
    """(frequency bins, filters); triangles on the mel scale 1127 ln(1 + f / 700); the bin of half the rate has weight 0."""
    nyquist = conf.sample_frequency / 2
    high = conf.high_freq if conf.high_freq > 0 else nyquist + conf.high_freq
    if not 0 <= conf.low_freq < high <= nyquist:
        raise ValueError(f"--low-freq={conf.low_freq} --high-freq={conf.high_freq} don't fit 0 to {nyquist} Hz")
    if conf.num_mel_bins < 3:
        raise ValueError(f"--num-mel-bins={conf.num_mel_bins}: at least 3 are needed")

    def mel(frequency: torch.Tensor) -> torch.Tensor:
        return 1127 * torch.log1p(frequency / 700)

    edge = torch.tensor([conf.low_freq, high], dtype=torch.float64)
    edges = mel(edge)[0] + torch.arange(conf.num_mel_bins + 2) * (mel(edge)[1] - mel(edge)[0]) / (conf.num_mel_bins + 1)
    at = mel(torch.arange(padded // 2, dtype=torch.float64) * conf.sample_frequency / padded)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    weights = torch.minimum((at - left) / (centre - left), (right - at) / (right - centre)).clamp_min(0)
    if conf.htk_compat:
        weights[0] = 0  # HTK leaves out the constant component
    empty = int((weights.sum(0) == 0).sum())
    if empty:
        raise ValueError(
            f"--num-mel-bins={conf.num_mel_bins} is too many here: {empty} filters would have no frequency bin"
        )
    return torch.nn.functional.pad(weights, (0, 0, 0, 1)).float()


def log_floored(bins: torch.Tensor) -> torch.Tensor:
    """The logarithm, with a floor, in the memory of its argument."""
    return bins.clamp_min_(LOG_FLOOR).log_()


def log_energy(frames: torch.Tensor, floor: float) -> torch.Tensor:
    energy = frames.square().sum(-1).clamp_min(LOG_FLOOR).log()
    return energy.clamp_min(math.log(floor)) if floor > 0 else energy
