"""The small files of a Kaldi back-end: mean.vec, transform.mat, plda, num_utts.ark; text or binary, float or double.

Binary: \\0B, then a token: `FV ` `DV ` \\4<i4 dim>, `FM ` `DM ` \\4<i4 rows> \\4<i4 columns>, and the values.
Text: ` [ 1 2 3 ]` is a vector, ` [` newline `1 2` newline `3 4 ]` a matrix.
"""

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from speakerkd.files.objects import text_array
from speakerkd.files.tables import read_table, replacing


def read_arrays(path: str | Path) -> list[np.ndarray]:
    """All vectors and matrices of a file, in their order, as float64."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: can't be read ({error.strerror})") from error
    try:
        arrays = _binary(data) if data[:2] == b"\0B" else _text(data.decode())
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a Kaldi vector or matrix, or truncated ({error})") from error
    if not arrays:
        raise ValueError(f"{path}: holds no vector or matrix")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(f"{path}: holds NaN or infinite values")
    return arrays


def _binary(data: bytes) -> list[np.ndarray]:
    arrays, place = [], 2
    while place < len(data):
        end = data.index(b" ", place) + 1
        token = data[place:end].decode()
        place = end
        if token in ("FV ", "DV ", "FM ", "DM "):
            shape = []
            for _ in range(1 if token[1] == "V" else 2):
                size, length = struct.unpack_from("<bi", data, place)
                if size != 4 or length < 0:
                    raise ValueError("bad dimension")
                shape.append(length)
                place += 5
            kind = np.dtype("<f4" if token[0] == "F" else "<f8")
            values = np.frombuffer(data, kind, int(np.prod(shape)), place)
            arrays.append(values.astype(np.float64).reshape(shape))
            place += values.nbytes
        elif not token.startswith("<"):
            raise ValueError(f"unknown token '{token}'")
    return arrays


def _text(text: str) -> list[np.ndarray]:
    arrays = []
    for part in text.split("[")[1:]:
        inside, closed, _ = part.partition("]")
        if not closed:
            raise ValueError("no closing bracket")
        arrays.append(text_array(inside))
    return arrays


def read_vector(path: str | Path) -> np.ndarray:
    (array, *rest) = read_arrays(path)
    if rest or array.ndim != 1:
        raise ValueError(f"{path}: holds {len(rest) + 1} object(s) of {array.ndim} dimension(s), not one vector")
    return array


def read_matrix(path: str | Path) -> np.ndarray:
    (array, *rest) = read_arrays(path)
    if rest or array.ndim != 2:
        raise ValueError(f"{path}: holds {len(rest) + 1} object(s) of {array.ndim} dimension(s), not one matrix")
    return array


def binary_array(array: np.ndarray) -> bytes:
    """FV, DV, FM or DM without the leading \\0B."""
    token = {4: b"F", 8: b"D"}[array.dtype.itemsize] + {1: b"V ", 2: b"M "}[array.ndim]
    sizes = b"".join(struct.pack("<bi", 4, length) for length in array.shape)
    return token + sizes + array.astype(array.dtype.newbyteorder("<")).tobytes()


def write_text_vector(path: str | Path, vector: np.ndarray) -> None:
    """Writes a vector as text, as ivector-mean writes mean.vec."""
    with replacing(path) as file:
        file.write(" [ " + " ".join(f"{value:.7g}" for value in vector) + " ]\n")


def write_matrix(path: str | Path, matrix: np.ndarray) -> None:
    """Writes a matrix in binary float32, as ivector-compute-lda writes transform.mat."""
    with replacing(path, "wb") as file:
        file.write(b"\0B" + binary_array(matrix.astype(np.float32)))


def read_num_utts(path: str | Path) -> dict[str, int]:
    counts = {}
    for name, text in read_table(path, 2).items():
        if not text.isdigit() or int(text) == 0:
            raise ValueError(f"{path}: '{name} {text}': the number of utterances must be 1 or more")
        counts[name] = int(text)
    return counts


def write_num_utts(path: str | Path, counts: Mapping[str, int]) -> None:
    with replacing(path) as file:
        file.writelines(f"{name} {counts[name]}\n" for name in sorted(counts))


def read_spk2utt(path: str | Path) -> dict[str, list[str]]:
    return {name: text.split() for name, text in read_table(path).items()}
