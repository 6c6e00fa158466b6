"""Reads recordings as wav.scp names them: a file in any format of libsndfile, `wavs.ark:1234`, or a pipe `cmd |`."""

import io
import os
import re
import struct
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np
import soundfile

from speakerkd.audio.containers import declared, with_length
from speakerkd.files.opened import open_regular, pipe_output

BLOCK = 1 << 24  # samples that are decoded at once
UNKNOWN = (1 << 63) - 1  # libsndfile's number of frames of a FLAC whose writer could not seek back


class AudioError(ValueError):
    """A recording that can't be used; the text is the reason, without the recording's name."""


def read_audio(source: str) -> tuple[np.ndarray, int]:
    """What a line of wav.scp names, a pipe too: (samples x channels float32 in [-1, 1), rate)."""
    source = source.strip()
    if source.endswith("|"):
        try:
            data = pipe_output(source[:-1])
        except ValueError as error:
            raise AudioError(str(error)) from error
        return _decode(io.BytesIO(data), len(data))
    path, offset = source, 0
    if not Path(source).exists():
        archive = re.fullmatch(r"(.+):(\d+)", source)
        if not archive or not Path(archive[1]).exists():
            raise AudioError(f"no such file: {source}")
        path, offset = archive[1], int(archive[2])
    return read_file(path, offset)


def read_file(path: str, offset: int = 0) -> tuple[np.ndarray, int]:
    """A file, whatever its name: nothing in it is a command. With an offset: a WAV file within an archive."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            if offset:
                file.seek(offset)
                data = _riff_bytes(file)
                return _decode(io.BytesIO(data), len(data))
            return _decode(file, os.fstat(file.fileno()).st_size)
    except (OSError, OverflowError) as error:
        raise AudioError(f"can't be read ({getattr(error, 'strerror', None) or error})") from error
    except ValueError as error:
        raise error if isinstance(error, AudioError) else AudioError(f"{error}: {path}") from error


def mono(samples: np.ndarray, channel: int = -1) -> np.ndarray:
    """(samples,) of one channel. -1 is Kaldi's 'there is only one'; if there are more, it takes the first."""
    if channel >= samples.shape[1]:
        raise AudioError(f"has {samples.shape[1]} channel(s), --channel={channel} was asked for")
    return np.ascontiguousarray(samples[:, max(channel, 0)])


def resample(wave: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Band-limited; (samples,) float32."""
    if rate == new_rate:
        return wave
    if len(wave) == 0:
        return wave
    import torch  # imported here: it takes seconds, and is needed only for other rates
    import torchaudio

    # A rate such as 44099 Hz would need a filter of gigabytes. A ratio of small numbers is within 1e-4 of it.
    ratio = Fraction(new_rate, rate).limit_denominator(1000)
    resampled = torchaudio.functional.resample(
        torch.from_numpy(wave),
        ratio.denominator,
        ratio.numerator,
        lowpass_filter_width=32,
        rolloff=0.95,
        resampling_method="sinc_interp_kaiser",
    )
    return resampled.numpy()


def _decode(file: IO[bytes], size: int) -> tuple[np.ndarray, int]:
    """Decodes the sound file of `size` bytes that begins at the current position."""
    streamed = check_length(file, size)
    file.seek(0)
    if streamed and file.read(4) == b"RIFF":
        file.seek(0)
        file = with_length(file.read(), streamed)
    file.seek(0)
    try:
        with soundfile.SoundFile(file) as audio:
            expected = audio.frames
            samples = _all_of(audio)
            rate = int(audio.samplerate)
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        reason = getattr(error, "error_string", "").strip() or type(error).__name__
        raise AudioError(f"is not audio that libsndfile reads ({reason})") from error
    except (MemoryError, OverflowError) as error:
        raise AudioError("needs more memory than there is: it is damaged") from error
    if not 1000 <= rate <= 1_000_000:
        raise AudioError(f"has a rate of {rate} Hz")
    if len(samples) < expected < UNKNOWN and not streamed:
        raise AudioError(f"is truncated: {len(samples)} of {expected} samples")
    if len(samples) == 0:
        raise AudioError("holds no samples")
    # The sum is NaN or infinite if any sample is. This takes a tenth of the time of checking each sample.
    with np.errstate(invalid="ignore"):
        total = samples.sum(dtype=np.float64)
    if not np.isfinite(total):
        raise AudioError("holds NaN or infinite samples")
    return samples, rate


def check_length(file: IO[bytes], size: int) -> int:
    """Compares the header's length of the samples with the file's size. A truncated file is an AudioError.

    Returns where the samples start if the writer could not seek back to write the length; otherwise 0.
    """
    found = declared(file)
    if found is None:
        return 0
    if found.length > size - found.start:
        raise AudioError(f"is truncated: {max(size - found.start, 0)} of {found.length} bytes of samples")
    return found.start if found.length < 0 and size > found.start else 0


def _all_of(audio: soundfile.SoundFile) -> np.ndarray:
    """Reads in blocks, because a damaged header may announce a terabyte."""
    block = max(1, BLOCK // audio.channels)
    parts = [audio.read(min(audio.frames, block), dtype="float32", always_2d=True)]
    while len(parts[-1]) == block:
        parts.append(audio.read(block, dtype="float32", always_2d=True))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _riff_bytes(file: IO[bytes]) -> bytes:
    """One WAV file of an archive."""
    head = file.read(8)
    if head[:4] != b"RIFF":
        raise AudioError("there is no WAV at this offset of the archive")
    (length,) = struct.unpack("<I", head[4:])
    body = file.read(min(length, os.fstat(file.fileno()).st_size))
    if len(body) < length:
        raise AudioError("the archive is truncated")
    return head + body
