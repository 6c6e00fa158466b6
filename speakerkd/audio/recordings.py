"""Read recordings as wav.scp names them: a file in any format that libsndfile knows, `wavs.ark:1234`, or a pipe `cmd |`."""

import io
import re
import struct
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile

STREAMED = 0x7FFFF000  # lengths from here on are those that programs write into a pipe, not knowing them


class AudioError(ValueError):
    """A recording that can't be used; the text is the reason, without the recording's name."""


def read_audio(source: str) -> tuple[np.ndarray, int]:
    """(samples x channels float32 in [-1, 1), rate)."""
    source = source.strip()
    if source.endswith("|"):
        data = _pipe_output(source[:-1])
        streamed = check_riff(io.BytesIO(data), len(data))
        return _decode(_with_length(data, streamed) if streamed else io.BytesIO(data))
    path, offset = Path(source), 0
    if not path.exists():
        archive = re.fullmatch(r"(.+):(\d+)", source)
        if not archive or not Path(archive[1]).is_file():
            raise AudioError(f"no such file: {source}")
        path, offset = Path(archive[1]), int(archive[2])
    if path.is_dir():
        raise AudioError(f"is a folder: {source}")
    try:
        with open(path, "rb") as file:
            if offset:
                file.seek(offset)
                return _decode(io.BytesIO(_riff_bytes(file)))
            streamed = check_riff(file, path.stat().st_size)
            file.seek(0)
            return _decode(_with_length(file.read(), streamed) if streamed else file)
    except OSError as error:
        raise AudioError(f"can't be read ({error.strerror or error})") from error


def mono(samples: np.ndarray, channel: int = -1) -> np.ndarray:
    """(samples,) of one channel; -1 is Kaldi's 'there is only one', for which it takes the first if there are more."""
    if channel >= samples.shape[1]:
        raise AudioError(f"has {samples.shape[1]} channel(s), --channel={channel} was asked for")
    return np.ascontiguousarray(samples[:, max(channel, 0)])


def resample(wave: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Band-limited; (samples,) float32."""
    if rate == new_rate:
        return wave
    if len(wave) == 0:
        return wave
    import torch  # here, since whoever reads at one rate need not wait seconds for it
    import torchaudio

    # An odd rate such as 44099 Hz would need a filter of gigabytes; a ratio of small numbers is within 1e-4 of it.
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


def _decode(file: Any) -> tuple[np.ndarray, int]:
    try:
        with soundfile.SoundFile(file) as audio:
            expected = audio.frames
            samples = audio.read(dtype="float32", always_2d=True)
            rate = int(audio.samplerate)
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        reason = getattr(error, "error_string", "").strip() or type(error).__name__
        raise AudioError(f"is not audio that libsndfile reads ({reason})") from error
    if not 1000 <= rate <= 1_000_000:
        raise AudioError(f"has a rate of {rate} Hz")
    if len(samples) < expected < STREAMED:
        raise AudioError(f"is truncated: {len(samples)} of {expected} samples")
    if len(samples) == 0:
        raise AudioError("holds no samples")
    # The sum is NaN or infinite when any sample is; it costs a tenth of looking at each.
    with np.errstate(invalid="ignore"):
        total = samples.sum(dtype=np.float64)
    if not np.isfinite(total):
        raise AudioError("holds NaN or infinite samples")
    return samples, rate


def _pipe_output(command: str) -> bytes:
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise AudioError(f"the pipe failed with status {done.returncode}" + (f" ({said[-1].strip()})" if said else ""))
    if not done.stdout:
        raise AudioError("the pipe gave nothing")
    return done.stdout


def check_riff(file: IO[bytes], size: int) -> int:
    """libsndfile reads what is there of a truncated WAV without a word; the header tells how much there should be.

    Returns where the length of the samples stands if whoever wrote it could not seek back to put it there; else 0.
    """
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return 0
    while len(chunk := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", chunk)
        if name == b"data":
            start = file.tell()
            if length == 0 or length >= STREAMED:
                return start - 4 if size > start else 0
            if start + length > size:
                raise AudioError(f"is truncated: {size - start} of {length} bytes of samples")
            return 0
        file.seek(length + length % 2, io.SEEK_CUR)
    return 0


def _with_length(data: bytes, place: int) -> IO[bytes]:
    """The WAV with the length that it has."""
    length = len(data) - place - 4
    return io.BytesIO(
        data[:4] + struct.pack("<I", len(data) - 8) + data[8:place] + struct.pack("<I", length) + data[place + 4 :]
    )


def _riff_bytes(file: Any) -> bytes:
    """One WAV out of an archive of them."""
    head = file.read(8)
    if head[:4] != b"RIFF":
        raise AudioError("no WAV stands at this offset of the archive")
    (length,) = struct.unpack("<I", head[4:])
    body = file.read(length)
    if len(body) < length:
        raise AudioError("the archive is truncated")
    return head + body
