#!/usr/bin/env python3
"""Fetches corpora from their publishers and unpacks them.

Usage: ./download.py [options] <folder> <corpus> ...
  ./download.py download speech_commands speechocean762
  ./download.py download librispeech/train-clean-100

  corpus                                     archive   unpacked   licence
  speech_commands                            2.4 GB    3.9 GB     CC BY 4.0
  speechocean762                             0.5 GB    0.7 GB     free for commercial and non-commercial use (its README)
  librispeech/dev-clean, dev-other, test-clean, test-other       0.3 GB each          CC BY 4.0
  librispeech/train-clean-100, train-clean-360, train-other-500  6.4, 23, 31 GB       CC BY 4.0

The results are <folder>/speech_commands, <folder>/speechocean762 and <folder>/librispeech/LibriSpeech/<subset>. If a
download was interrupted, it goes on from there. Size and SHA-256 of an archive are checked before it is unpacked. OpenSLR
publishes neither for speechocean762, so its archive is checked only by unpacking it. A corpus that is complete is not
fetched again. The free space on the disk is checked first.
"""

import hashlib
import logging
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from speakerkd.conf import opt, parse_args, run

LOG = logging.getLogger("download")
BLOCK = 1 << 20


class Archive(NamedTuple):
    url: str
    size: int  # bytes; 0: not known
    sha256: str  # "" if the publisher gives none
    unpacked: int  # bytes, about


def _libri(subset: str, size: int, sha256: str) -> Archive:
    return Archive(f"https://www.openslr.org/resources/12/{subset}.tar.gz", size, sha256, round(1.1 * size))


ARCHIVES = {
    "speech_commands": Archive(
        "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
        2428923189,
        "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
        3900000000,
    ),
    "speechocean762": Archive("https://www.openslr.org/resources/101/speechocean762.tar.gz", 0, "", 700000000),
    **{
        f"librispeech/{subset}": _libri(subset, size, sha256)
        for subset, size, sha256 in (
            ("dev-clean", 337926286, "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
            ("dev-other", 314305928, "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
            ("test-clean", 346663984, "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
            ("test-other", 328757843, "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"),
            ("train-clean-100", 6387309499, "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"),
            ("train-clean-360", 23049477885, "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"),
            ("train-other-500", 30593501606, "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"),
        )
    },
}


@dataclass
class Options:
    keep: bool = opt(False, "true: keep the archive after it is unpacked")


def main(argv: list[str]) -> None:
    options, rest = parse_args(Options, argv, __doc__, None)
    if len(rest) < 2:
        raise ValueError("a folder and at least one corpus are needed (see --help)")
    folder, *wanted = rest
    unknown = [corpus for corpus in wanted if corpus not in ARCHIVES]
    if unknown:
        raise ValueError(f"{unknown[0]}: no corpus that can be fetched (allowed: {' '.join(ARCHIVES)})")
    for corpus in wanted:
        fetch(corpus, ARCHIVES[corpus], Path(folder), options.keep)


def fetch(corpus: str, archive: Archive, folder: Path, keep: bool) -> None:
    """Leaves folder/corpus in place (librispeech's subsets below LibriSpeech), or raises a ValueError with the remedy."""
    target = folder / corpus.replace("librispeech/", "librispeech/LibriSpeech/")
    if target.is_dir():
        LOG.info("%s is in place", target)
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / archive.url.rsplit("/", 1)[1]
    part = file.with_name(f"{file.name}.part")
    there = file if file.is_file() else part
    needed = archive.unpacked + max(
        0, (archive.size or archive.unpacked) - (there.stat().st_size if there.exists() else 0)
    )
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(f"{folder}: {corpus} needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free on this disk")
    if not file.is_file():
        download(archive, part, file)
        part.replace(file)
    require_whole(archive, file)
    unpack(file, target, corpus)
    if not keep:
        file.unlink()
    LOG.info("%s is ready", target)


def download(archive: Archive, part: Path, file: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    if archive.size and have >= archive.size:
        return  # the check says whether it is right
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    by_hand = f"remedy: fetch {archive.url} by other means and put it to {file}, or run this again, which goes on"
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            if answer.status != 206:
                have = 0  # the server sends the file from its start
            total = have + int(answer.headers.get("Content-Length") or 0)
            LOG.info("fetching %s%s", archive.url, f", from {have / 1e6:.0f} MB on" if have else "")
            with (
                open(part, "ab" if have else "wb") as out,
                tqdm(total=total, initial=have, unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as bar,
            ):
                while block := answer.read(BLOCK):
                    out.write(block)
                    bar.update(len(block))
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing is left to fetch
            raise ValueError(f"{archive.url}: the server answers {error.code} {error.reason}; {by_hand}") from error
        return
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise ValueError(f"{archive.url} can't be reached ({reason}); is there a network? {by_hand}") from error
    size = part.stat().st_size
    if size < (archive.size or total):
        raise ValueError(f"{part}: the download was cut short at {size} of {archive.size or total} bytes; {by_hand}")


def require_whole(archive: Archive, file: Path) -> None:
    size = file.stat().st_size
    if archive.size and size != archive.size:
        file.unlink()
        raise ValueError(f"{file}: has {size} bytes, expected {archive.size}; it was removed; remedy: run this again")
    digest = hashlib.sha256()
    with open(file, "rb") as data:
        while block := data.read(BLOCK):
            digest.update(block)
    found = digest.hexdigest()
    if not archive.sha256:
        LOG.info("%s: %d bytes, SHA-256 %s (the publisher gives none to compare with)", file, size, found)
    elif found != archive.sha256:
        file.unlink()
        raise ValueError(
            f"{file}: has SHA-256 {found}, expected {archive.sha256}; it was removed; remedy: run this again"
        )


def unpack(file: Path, target: Path, corpus: str) -> None:
    """Unpacks under a temporary name, so that an existing folder is complete."""
    LOG.info("unpacking %s", file)
    temporary = target.parent / f".{target.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with tarfile.open(file) as tar:
            tar.extractall(temporary, filter="data")
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        shutil.rmtree(temporary)
        if isinstance(error, OSError) and error.errno:
            raise  # the disk, not the archive
        raise ValueError(f"{file}: is damaged ({error}); remedy: remove it and run this again") from error
    inside = temporary / target.name
    if corpus.startswith("librispeech/"):
        inside = temporary / "LibriSpeech" / target.name
    source = inside if inside.is_dir() else temporary
    source.replace(target)
    shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    run(main)
