"""Damaged .pt files: each reader names the file and raises ValueError, whatever torch makes of the bytes."""

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from speakerkd.foreign.checkpoint import read_weights
from speakerkd.models import load_net
from speakerkd.models.vectormap import load_map
from speakerkd.torchfile import UnreadableError, read_torch_file
from speakerkd.train.runfolder import RunFolder

READERS: list[Callable[[Path], Any]] = [
    load_net,
    load_map,
    read_weights,
    lambda path: RunFolder(path.parent).load(path.name),
]
STATE = {"format": "a", "weights": {"encoder.w": torch.arange(30.0)}}


def saved(as_zip: bool) -> bytes:
    file = io.BytesIO()
    torch.save(STATE, file, _use_new_zipfile_serialization=as_zip)
    return file.getvalue()


def noise() -> list[bytes]:
    return [random.Random(seed).randbytes(400) for seed in range(100)]


def cut() -> list[bytes]:
    whole = saved(as_zip=False)
    return [whole[: len(whole) * part // 100] for part in range(100)]


def one_wrong_byte() -> list[bytes]:
    files = []
    for seed in range(200):
        numbers = random.Random(seed)
        whole = bytearray(saved(as_zip=seed % 2 == 0))
        whole[numbers.randrange(len(whole))] ^= numbers.randrange(1, 256)
        files.append(bytes(whole))
    return files


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch, about old formats
@pytest.mark.parametrize("damaged", [noise, cut, one_wrong_byte])
def test_damage_is_a_value_error(tmp_path: Path, damaged: Callable[[], list[bytes]]) -> None:
    path, causes = tmp_path / "last.pt", set()
    for content in damaged():
        path.write_bytes(content)
        try:
            read_torch_file(path)
            continue  # the byte stands where it does no harm
        except UnreadableError as error:
            causes.add(type(error.__cause__))
        for reader in READERS:
            with pytest.raises(ValueError, match=r"/last\.pt: "):
                reader(path)
    assert causes & {IndexError, AssertionError}, "torch raises more than the errors of pickle"


def test_whole_files_are_read(tmp_path: Path) -> None:
    for as_zip in (True, False):
        (tmp_path / "last.pt").write_bytes(saved(as_zip))
        found = read_torch_file(tmp_path / "last.pt")
        assert found["format"] == "a" and torch.equal(found["weights"]["encoder.w"], STATE["weights"]["encoder.w"])


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (tmp_path / "harmed",)  # type: ignore[return-value]

    torch.save(Harm(), tmp_path / "last.pt")
    with pytest.raises(UnreadableError, match="UnpicklingError"):
        read_torch_file(tmp_path / "last.pt")
    assert not (tmp_path / "harmed").exists()


def test_used_up_memory_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(torch, "load", no_memory)
    (tmp_path / "last.pt").touch()
    with pytest.raises(MemoryError):
        RunFolder(tmp_path).load("last.pt")
