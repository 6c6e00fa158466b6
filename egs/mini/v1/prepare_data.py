#!/usr/bin/env python3
"""Data directories train and test of the recorded speech that speakers.tsv lists, from Debian packages.

Usage: ./prepare_data.py [options] <data-dir>
 e.g.: ./prepare_data.py --nj 2 data

It makes <data-dir>/train and <data-dir>/test with wav.scp, utt2spk, spk2utt and utt2dur. The test set also has trials
(`enrol test target|nontarget`, all pairs), enroll3_spk2utt (a model and its 3 pieces) and trials_enroll3
(`model test target|nontarget`). The recordings come from eight Debian packages (365 MB). apt-get fetches them into
--download (no root needed), or they are taken from the folder --debs. Pauses are cut. Short recordings of a speaker are
joined to pieces of --piece-seconds or more. <data-dir>/lost_utts lists the recordings in no piece, and why.
After an interruption, run it again: it goes on where it was. If everything is in place, it only says so.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import torch
from debs import unpack_packages  # type: ignore[import-not-found]

from speakerkd.audio.pieces import VERSION, Job, SpeakerPieces, make_pieces
from speakerkd.conf import first_few, opt, parse_args, run
from speakerkd.files.corpus import enrolments
from speakerkd.files.tables import check_id, read_lines, replacing, spk2utt, write_data_dir, write_table
from speakerkd.processes import in_processes

LOG = logging.getLogger("prepare_data")


@dataclass
class Options:
    debs: str = opt("", "folder of the .deb files; empty: fetch them")
    download: str = opt("download", "folder to fetch and unpack into")
    speakers: str = opt(str(Path(__file__).resolve().parent / "speakers.tsv"), "table of speakers")
    seed: int = opt(0, "random seed of the choice of pieces and enrolments")
    piece_seconds: float = opt(4.0, "shortest piece in seconds")
    max_train_pieces: int = opt(100, "most pieces of a training speaker")
    max_test_pieces: int = opt(30, "most pieces of a test speaker")
    nj: int = opt(2, "number of processes")


class Speaker(NamedTuple):
    """A line of speakers.tsv."""

    name: str
    part: str  # train or test
    package: str
    globs: str
    files: int


def read_speakers(path: str) -> list[Speaker]:
    speakers = []
    for number, line in read_lines(path):
        fields = line.split("\t")
        if line.startswith("#"):
            continue
        if len(fields) < 5 or fields[1] not in ("train", "test") or not fields[4].isdigit():
            raise ValueError(f"{path}:{number}: must be speaker, train|test, package, globs, files, with tabs between")
        speakers.append(Speaker(check_id(fields[0], path), fields[1], fields[2], fields[3], int(fields[4])))
    twice = [name for name, count in Counter(speaker.name for speaker in speakers).items() if count > 1]
    if twice or {speaker.part for speaker in speakers} != {"train", "test"}:
        raise ValueError(
            f"{path}: " + (f"speaker {twice[0]} is there twice" if twice else "needs train and test lines")
        )
    return sorted(speakers)


def find_files(speaker: Speaker, root: Path) -> list[str]:
    """The files of a speaker, sorted by name. If their number differs from the table's, a warning says so."""
    found: set[Path] = set()
    for glob in speaker.globs.split():
        matching = {path for path in root.glob(glob.removeprefix("!")) if path.is_file()}
        found = found - matching if glob.startswith("!") else found | matching
    if not found:
        raise ValueError(
            f"{speaker.name}: package {speaker.package} (unpacked in {root}) has no file {speaker.globs}; remedy: "
            "another version of it, or take the speaker out of a copy of speakers.tsv and give that as --speakers"
        )
    if len(found) != speaker.files:
        LOG.warning("%s: expected %d files, found %d (in %s)", speaker.name, speaker.files, len(found), root)
    return sorted(path.relative_to(root).as_posix() for path in found)


def drop_copies(files: dict[str, list[str]], roots: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Take copies out of `files`: a speaker keeps the first, and none that another has too. -> speaker: lost files."""
    owners: dict[bytes, list[tuple[str, str]]] = {}
    for speaker, paths in files.items():
        for path in paths:
            owners.setdefault(hashlib.sha256((roots[speaker] / path).read_bytes()).digest(), []).append((speaker, path))
    lost: dict[str, dict[str, str]] = {speaker: {} for speaker in files}
    for same in owners.values():
        others = len({speaker for speaker, _ in same}) > 1  # whose voice is it?
        for speaker, path in same if others else same[1:]:
            other = next(each for each in same if not others or each[0] != speaker)
            lost[speaker][path] = "copy: same file as " + other[1] + (f" of {other[0]}" if others else "")
    for speaker, paths in files.items():
        files[speaker] = [path for path in paths if path not in lost[speaker]]
    return lost


def check_pieces(results: Sequence[SpeakerPieces]) -> None:
    """Every speaker has some, none shares a recording with another, and nearly all recordings can be read."""
    owners: dict[str, tuple[str, str]] = {}
    for result in results:
        if not result.durations:
            raise ValueError(
                f"{result.speaker}: no piece; its recordings are lost, e.g.: {next(iter(result.lost.items()))}"
            )
        for name, digest in result.digests.items():
            speaker, other = owners.setdefault(digest, (result.speaker, name))
            if speaker != result.speaker:
                raise ValueError(
                    f"{name} of {result.speaker} has the samples of {other} of {speaker}; remedy: take one of them "
                    "away with a glob in a copy of speakers.tsv and give that as --speakers"
                )
    bad = [name for result in results for name, reason in result.lost.items() if reason.startswith("unreadable")]
    if len(bad) > 0.05 * len(owners):
        raise ValueError(f"{len(bad)} recordings of {len(owners)} can't be read: {first_few(bad)}; remedy: fetch again")


def write_trials(path: Path, trials: Iterable[tuple[str, str, bool]]) -> str:
    count = targets = 0
    with replacing(path) as file:
        for enrol, test, target in trials:
            file.write(f"{enrol} {test} {'target' if target else 'nontarget'}\n")
            count, targets = count + 1, targets + target
    return f"{path.name}: {count} trials, {100 * targets / max(count, 1):.1f} % target"


def write_sets(data: Path, parts: Mapping[str, str], results: Sequence[SpeakerPieces], seed: int) -> list[str]:
    """Data directories and trials; returns the lines of the summary."""
    lines = []
    for part in ("train", "test"):
        mine = [result for result in results if parts[result.speaker] == part]
        durations = {utt: seconds for result in mine for utt, seconds in result.durations.items()}
        speakers = {utt: result.speaker for result in mine for utt in result.durations}
        paths = {utt: f"{data}/flac/{speaker}/{utt}.flac" for utt, speaker in speakers.items()}
        write_data_dir(data / part, paths, speakers, utt2dur={u: f"{s:.3f}" for u, s in durations.items()})
        minutes = sum(durations.values()) / 60
        lines.append(f"{part}: {len(mine)} speakers, {len(durations)} pieces, {minutes:.1f} minutes")
    models = enrolments(spk2utt(speakers), seed)
    write_table(data / "test" / "enroll3_spk2utt", {model: " ".join(pieces) for model, pieces in models.items()})
    pairs = ((a, b, speakers[a] == speakers[b]) for a, b in combinations(sorted(speakers), 2))
    lines.append(write_trials(data / "test" / "trials", pairs))
    against = (
        (m, u, speakers[own[0]] == speakers[u]) for m, own in models.items() for u in sorted(speakers) if u not in own
    )
    lines.append(write_trials(data / "test" / "trials_enroll3", against) + f", {len(models)} models")
    return lines


def write_lost(path: Path, speakers: Sequence[Speaker], results: Sequence[SpeakerPieces]) -> str:
    packages = {speaker.name: speaker.package for speaker in speakers}
    lost = {
        f"{packages[r.speaker]}:{name}".replace(" ", "%20"): f"{r.speaker} {why}"
        for r in results
        for name, why in r.lost.items()
    }
    write_table(path, lost)
    kinds = Counter(reason.split()[1] for reason in lost.values())
    total = len(lost) + sum(len(result.digests.keys() - result.lost.keys()) for result in results)
    reasons = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    return f"recordings: {total}, of which {total - len(lost)} in pieces; left out: {reasons or 'none'} ({path})"


def in_place(data: Path, key: str) -> list[str]:
    """The summary of the run that made what is there, if that is what is wanted and all of it; else nothing."""
    try:
        saved = json.loads((data / "prepared.json").read_text(encoding="utf-8"))
        wavs = [line.split(" ", 1)[1] for part in ("train", "test") for _, line in read_lines(data / part / "wav.scp")]
    except (OSError, ValueError):
        return []
    tables = [data / "lost_utts", *(data / "test" / name for name in ("trials", "trials_enroll3", "enroll3_spk2utt"))]
    whole = saved["key"] == key and all(path.is_file() for path in [*map(Path, wavs), *tables])
    return saved["summary"] if whole else []


def make_pieces_on_one_thread(job: Job) -> SpeakerPieces:
    torch.set_num_threads(1)  # the jobs are the parallelism, and sums come out the same whatever their number
    return make_pieces(job)


def main(argv: list[str]) -> None:
    options, (name,) = parse_args(Options, argv, __doc__, 1)
    if min(options.nj, options.max_train_pieces, options.max_test_pieces) < 1 or options.piece_seconds <= 0:
        raise ValueError("--nj, --max-train-pieces, --max-test-pieces and --piece-seconds must be above 0")
    data = Path(name).resolve()
    speakers = read_speakers(options.speakers)
    most = {"train": options.max_train_pieces, "test": options.max_test_pieces}
    wanted = (options.seed, options.piece_seconds, most)
    key = hashlib.sha256(f"{VERSION} {data} {wanted} {speakers}".encode()).hexdigest()
    if summary := in_place(data, key):
        LOG.info("%s is in place (remove %s/prepared.json to have it checked)\n%s", name, name, "\n".join(summary))
        return
    packages = sorted({speaker.package for speaker in speakers})
    debs = Path(options.debs) if options.debs else None
    folders: dict[str, Path] = unpack_packages(packages, debs, Path(options.download))
    roots = {speaker.name: folders[speaker.package] for speaker in speakers}
    files = {speaker.name: find_files(speaker, roots[speaker.name]) for speaker in speakers}
    copies = drop_copies(files, roots)
    seconds, seed = options.piece_seconds, options.seed
    jobs = [
        Job(s.name, f"{data}/flac/{s.name}", str(roots[s.name]), files[s.name], seconds, most[s.part], seed)
        for s in speakers
    ]
    LOG.info("making the pieces of %d speakers from %d recordings", len(jobs), sum(map(len, files.values())))
    (data / "prepared.json").unlink(missing_ok=True)
    results = in_processes(make_pieces_on_one_thread, jobs, options.nj)
    check_pieces(results)
    results = [result._replace(lost={**copies[result.speaker], **result.lost}) for result in results]
    summary = write_sets(data, {speaker.name: speaker.part for speaker in speakers}, results, options.seed)
    summary.append(write_lost(data / "lost_utts", speakers, results))
    with replacing(data / "prepared.json") as file:
        json.dump({"key": key, "summary": summary, "packages": [str(f.name) for f in folders.values()]}, file, indent=1)
    LOG.info("done\n%s", "\n".join(summary))


if __name__ == "__main__":
    run(main)
