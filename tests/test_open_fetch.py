"""egs/open/v1: corpora fetched from a server on this machine, and teachers out of wheels made here."""

import hashlib
import http.server
import importlib
import io
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT, environment

RECIPE = ROOT / "egs" / "open" / "v1"


class Server:
    """Serves one file, with ranges; `cut` ends each answer after so many bytes, as a line that breaks does."""

    def __init__(self, data: bytes) -> None:
        self.data, self.cut, self.asked = data, 0, list[str]()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range", "")
                outer.asked.append(asked)
                first = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
                body = outer.data[first:]
                self.send_response(206 if asked else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: outer.cut] if outer.cut else body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/corpus.tar.gz"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def archive() -> bytes:
    """A tar of a folder `corpus` with two files; what does not shrink makes it some 70 kB."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in (("corpus/README", b"hello"), ("corpus/a/b.wav", hashlib.shake_256(b"x").digest(70000))):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def download(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(RECIPE))
    sys.modules.pop("download", None)
    yield importlib.import_module("download")
    sys.modules.pop("download", None)


@pytest.fixture
def server(download: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    served = Server(archive())
    size, digest = len(served.data), hashlib.sha256(served.data).hexdigest()
    entry = download.Archive(served.url, size, digest, 100000)
    monkeypatch.setattr(download, "ARCHIVES", {"corpus": entry, "unknown": entry._replace(size=0, sha256="")})
    yield served
    served.server.shutdown()
    served.server.server_close()


def refused(download: ModuleType, folder: Path, corpus: str = "corpus") -> str:
    with pytest.raises(ValueError) as caught:
        download.main([str(folder), corpus])
    return str(caught.value)


def test_fetched_checked_unpacked_and_not_again(download: ModuleType, server: Server, tmp_path: Path) -> None:
    download.main([str(tmp_path), "corpus"])
    assert (tmp_path / "corpus/README").read_text() == "hello"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus"]  # neither the archive nor a temporary folder
    download.main([str(tmp_path), "corpus"])
    assert server.asked == [""]


def test_a_download_that_was_cut_short_goes_on(download: ModuleType, server: Server, tmp_path: Path) -> None:
    server.cut = 30000
    said = refused(download, tmp_path)
    assert "cut short at 30000" in said and "run this again" in said
    assert not (tmp_path / "corpus").exists() and not (tmp_path / "corpus.tar.gz").exists()
    server.cut = 0
    download.main([str(tmp_path), "corpus"])
    assert server.asked == ["", "bytes=30000-"]
    assert (tmp_path / "corpus/README").read_text() == "hello"


def test_another_file_than_the_publishers_is_removed(download: ModuleType, server: Server, tmp_path: Path) -> None:
    server.data = server.data[:-1] + bytes([server.data[-1] ^ 1])
    said = refused(download, tmp_path)
    assert "SHA-256" in said and "expected" in said and "it was removed" in said
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "corpus.tar.gz").write_bytes(b"half")  # put there by hand
    assert "has 4 bytes, expected" in refused(download, tmp_path)


def test_without_a_digest_the_archive_itself_tells(download: ModuleType, server: Server, tmp_path: Path) -> None:
    whole = server.data
    server.data = whole[: len(whole) // 2]
    said = refused(download, tmp_path, "unknown")
    assert "is damaged" in said and "remove it" in said
    assert not (tmp_path / "unknown").exists()
    (tmp_path / "corpus.tar.gz").unlink()
    server.data = whole
    download.main([str(tmp_path), "unknown"])
    assert any((tmp_path / "unknown").rglob("README"))


def test_no_network_and_no_such_file(
    download: ModuleType, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = download.ARCHIVES["corpus"]
    monkeypatch.setattr(download, "ARCHIVES", {"corpus": entry._replace(url="http://127.0.0.1:9/corpus.tar.gz")})
    said = refused(download, tmp_path)
    assert "can't be reached" in said and "is there a network?" in said and str(tmp_path / "corpus.tar.gz") in said
    assert "allowed: corpus" in refused(download, tmp_path, "voxceleb")


def test_no_room(download: ModuleType, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))  # type: ignore[attr-defined]
    assert "are free on this disk" in refused(download, tmp_path)
    assert server.asked == []


def test_publishers_addresses_and_digests_are_those_of_torchaudio(download: ModuleType) -> None:
    from torchaudio.datasets import librispeech, speechcommands

    known = {**speechcommands._CHECKSUMS, **librispeech._CHECKSUMS}
    checked = 0
    for archive in download.ARCHIVES.values():
        same = [digest for url, digest in known.items() if url.rsplit("/", 1)[1] == archive.url.rsplit("/", 1)[1]]
        if same:
            assert archive.sha256 == same[0] and archive.size > 10**8
            checked += 1
    assert checked == 8 and len(download.ARCHIVES) == 9


def fetch(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [str(RECIPE / "fetch_teacher.sh"), "--download", str(folder / "download"), *map(str, words)]
    return subprocess.run(command, cwd=RECIPE, env=environment(), capture_output=True, text=True, timeout=100)


def test_teachers(tmp_path: Path) -> None:
    done = fetch(tmp_path, "resnet", tmp_path / "exp")
    assert done.returncode == 1 and "(allowed: campplus ecapa dvector)" in done.stderr
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp/final.pt").write_bytes(b"x")
    assert "is there" in fetch(tmp_path, "campplus", tmp_path / "exp").stdout
    (tmp_path / "download").mkdir()
    wheel = tmp_path / "download/resemblyzer-0.1.4-py3-none-any.whl"
    wheel.write_bytes(b"half a wheel")
    done = fetch(tmp_path, "dvector", tmp_path / "new")
    assert done.returncode == 1 and "can't be read from this wheel" in done.stderr and f"remove {wheel}" in done.stderr
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("resemblyzer/pretrained.pt", b"another network")
    done = fetch(tmp_path, "dvector", tmp_path / "new")
    assert done.returncode == 1 and "has SHA-256" in done.stderr and "expected 39373b86" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "new").exists()
