"""Debian packages without root: takes a package from a folder or fetches it with `apt-get download`, then unpacks it.

apt compares what it fetches with the signed index of the archive. Unpacking checks every package once more, whatever its
source: its parts are compressed with checksums, so a truncated or damaged file does not unpack.
"""

import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

LOG = logging.getLogger(__name__)


class DamagedError(ValueError):
    """A package file that does not unpack."""


def unpack_packages(packages: Sequence[str], debs: Path | None, download: Path) -> dict[str, Path]:
    """package -> the folder (under `download`) where it is unpacked. `debs` is only read; without it, apt-get fetches."""
    source = debs or download
    if debs and not debs.is_dir():
        raise ValueError(
            f"{debs}: no such folder; --debs names the folder that holds the packages {' '.join(packages)}"
        )
    found = {package: deb for package in packages if (deb := _find(package, source))}
    if debs and len(found) < len(packages):
        missing = " ".join(package for package in packages if package not in found)
        raise ValueError(f"{debs}: lacks {missing}; remedy: (cd {debs} && apt-get download {missing}), or no --debs")
    folders: dict[str, Path] = {}
    for package in packages:
        try:
            deb = found.get(package) or _fetch(package, packages, download)
            folders[package] = _unpack(deb, download / "unpacked")
        except DamagedError as error:
            if debs or package not in found:
                raise ValueError(f"{error}; remedy: copy or fetch this package again") from error
            LOG.info("%s; fetching it again", error)
            found[package].unlink()
            folders[package] = _unpack(_fetch(package, packages, download), download / "unpacked")
    return folders


def _find(package: str, folder: Path) -> Path | None:
    """The package's file, name_version_architecture.deb. Package names have no underscore."""
    files = sorted(folder.glob(f"{package}_*.deb"))
    if len(files) > 1:
        names = " ".join(file.name for file in files)
        raise ValueError(f"{folder}: holds {package} {len(files)} times ({names}); remedy: keep one of them")
    return files[0] if files else None


def _unpack(deb: Path, folder: Path) -> Path:
    """Unpacks under a temporary name, so that an existing folder is complete. A changed file gets a new folder."""
    with deb.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    target = folder / f"{deb.stem}.{digest.hexdigest()[:12]}"
    if target.is_dir():
        return target
    LOG.info("unpacking %s", deb)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        if shutil.which("dpkg-deb"):
            _run(["dpkg-deb", "--extract", str(deb), str(temporary)])
        else:
            _unpack_with_tar(deb, temporary)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(temporary)
        raise DamagedError(f"{deb}: this package is damaged or incomplete ({_said(error)})") from error
    temporary.replace(target)
    return target


def _unpack_with_tar(deb: Path, folder: Path) -> None:
    """A .deb is an `ar` archive that holds data.tar, compressed."""
    if not shutil.which("ar") or not shutil.which("tar"):
        raise ValueError(f"{deb}: unpacking it takes dpkg-deb, or ar and tar; remedy: install dpkg or binutils")
    deb = deb.resolve()
    names = _run(["ar", "t", str(deb)]).split()
    with tempfile.TemporaryDirectory() as scratch:
        _run(["ar", "x", str(deb)], cwd=Path(scratch))
        data = [name for name in names if name.startswith("data.tar")]
        _run(["tar", "-xf", str(Path(scratch) / (data[0] if data else "data.tar")), "-C", str(folder)])


def _fetch(package: str, packages: Sequence[str], download: Path) -> Path:
    """Runs `apt-get download`. If the machine's package lists don't have the package, fetches own lists and tries again."""
    by_hand = (
        f"remedy: on a Debian machine, in an empty folder, apt-get update (as root) and "
        f"apt-get download {' '.join(packages)}; then give that folder as --debs"
    )
    if not shutil.which("apt-get"):
        raise ValueError(f"{package} can't be fetched: there is no apt-get here; {by_hand}")
    lists, cache = download.resolve() / "apt" / "lists", download.resolve() / "apt" / "cache"
    own = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}"]
    has_own = (lists / "complete").is_file()
    with tempfile.TemporaryDirectory(dir=_folder(download), prefix=".fetch.") as scratch:
        try:
            LOG.info("fetching %s", package)
            try:
                _apt(["download", package], Path(scratch), own if has_own else [])
            except subprocess.CalledProcessError as error:
                LOG.info("%s; fetching package lists into %s", _said(error), lists)
                _folder(lists / "partial"), _folder(cache / "archives" / "partial")
                _apt(["update"], Path(scratch), own)
                (lists / "complete").touch()
                _apt(["download", package], Path(scratch), own)
        except subprocess.CalledProcessError as error:
            raise ValueError(f"{package} can't be fetched: apt-get says: {_said(error)}; {by_hand}") from error
        deb = _find(package, Path(scratch))
        if deb is None:
            raise ValueError(f"{package} can't be fetched: apt-get download left no file; {by_hand}")
        return deb.replace(download / deb.name)


def _apt(arguments: list[str], folder: Path, options: list[str]) -> None:
    # If root runs apt, it warns that its own user can't write to the folder. So it fetches as the user who runs this.
    # Lists that could not be fetched are an error, not a warning.
    always = ["-o", "APT::Sandbox::User=root", "-o", "APT::Update::Error-Mode=any", "-o", "Acquire::Retries=2"]
    _run(["apt-get", "-q", *always, *options, *arguments], folder)


def _run(command: list[str], cwd: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    done.check_returncode()
    return done.stdout


def _said(error: subprocess.CalledProcessError) -> str:
    """The last line that the failed command wrote to stderr."""
    lines = [line.strip() for line in str(error.stderr).splitlines() if line.strip()]
    return lines[-1] if lines else f"{error.cmd[0]} ended with status {error.returncode}"


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
