#!/usr/bin/env python3
"""Plan augmented copies of a data directory, as text: compute_fbank.py applies it, no audio is written.

Usage: local/augment_data_dir.py [options] <src-data-dir> <dest-data-dir>
  local/augment_data_dir.py --musan /corpora/musan --rirs /corpora/RIRS_NOISES data/train data/train_aug
  local/augment_data_dir.py --speeds 0.9,1.1 --num-utts 100000 data/train data/train_aug
then  local/make_fbank.sh data/train_aug;  utils/combine_data.sh data/train_all data/train data/train_aug

Kinds of copies, as in Kaldi's egs/voxceleb/v2: reverb (a room), noise (noises one after the other, a second between),
music (behind the whole utterance), babble (several others talk behind it). telephone is a kind of its own: a land line's
band and mu-law. --kinds reverb,noise,noise,reverb+music makes of utterance a: a-reverb, a-noise, a-noise2 (another draw),
a-reverb+music (music behind the speech in its room).
--speeds makes new speakers: sp0.9-a of speaker sp0.9-s; the kinds are then made of these utterances too.

Without --musan noise and music are generated, each behind the whole utterance, and other speakers of the source
directory babble; without --rirs the rooms are simulated.

Written into <dest-data-dir>, copies only, without the originals:
  utt2aug    what is done to the wave of each copy (speakerkd/audio/augment.py says how to read it)
  aug.scp    the recordings that utt2aug names
  utt2uniq   the utterance of which each is a copy: one utterance, heard in several ways. A speed copy is its own (not
             so in Kaldi's perturb_data_dir_speed.sh): it counts as another speaker, and two views must be of one.
  wav.scp    the original recordings; utt2spk spk2utt segments utt2dur spk2gender where the source has them
An utt2aug of the source is kept, and what is new is applied after it. A copy's text depends on --seed, its id, its
duration and the list of noises, rooms or speakers, not on the other utterances.
"""

import hashlib
import logging
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from speakerkd.audio.augment import Noise, Reverb, Speed, number, parse
from speakerkd.audio.draws import KINDS, DrawConf, check_draws
from speakerkd.audio.sounds import Source, Sources, durations, gather_sources, read_source
from speakerkd.conf import first_few, opt, parse_args, run
from speakerkd.files.tables import remove_features, spk2utt, write_table


@dataclass(frozen=True)
class Options(DrawConf):
    kinds: tuple[str, ...] = opt(("reverb", "noise", "music", "babble"), "a copy of each utterance for each; '': none")
    num_utts: int = opt(0, "keep this many of these copies, drawn at random (speed copies are all kept); 0: all")
    speeds: tuple[float, ...] = opt((), "a copy of each utterance as a new speaker for each, for example 0.9,1.1")
    seed: int = opt(0, "seed of everything")


class Copy(NamedTuple):
    name: str
    original: str  # utterance of the source
    prefix: str  # of the utterance and its speaker; "" but for speed copies
    kind: str  # "" for a copy that only changes the speed
    speed: float


def main(argv: list[str]) -> None:
    options, (source_dir, dest_dir) = parse_args(Options, argv, __doc__, 2)
    check(options)
    if Path(source_dir).resolve() == Path(dest_dir).resolve():
        raise ValueError(f"{dest_dir}: the copies would replace their originals; name another destination")
    source = read_source(Path(source_dir))
    copies = list_copies(source, options)
    kinds = {part for copy in copies for part in copy.kind.split("+") if part}
    if kinds - {"reverb", "telephone"}:
        source.seconds = durations(source)
        lost = {copy.original for copy in copies if copy.original not in source.seconds}
        if lost:
            logging.warning("%d utterance(s) can't be read and get no copies: %s", len(lost), first_few(sorted(lost)))
            copies = [copy for copy in copies if copy.original not in lost]
    if not copies:
        raise ValueError(f"{dest_dir}: there would be no copies; give --kinds or --speeds")
    sources = gather_sources(source, kinds, options.musan, options.rirs, options.rooms)
    texts = {copy.name: plan(copy, source, sources, options) for copy in copies}
    write(Path(dest_dir), copies, texts, source, sources)
    for kind, count in Counter(copy.kind for copy in copies).items():
        said = "; ".join(sources.said[part] for part in kind.split("+") if part in sources.said)
        logging.info("%s: %d copies%s", kind or "speed only", count, said and f" ({said})")
    logging.info("%s: %d utterances in, %d copies in %s", source_dir, len(source.utterances), len(copies), dest_dir)


def check(options: Options) -> None:
    check_draws(options, options.kinds)
    for speed in options.speeds:
        if not 0.5 <= speed <= 2 or speed == 1 or abs(speed * 100 - round(speed * 100)) > 1e-6:
            raise ValueError(f"--speeds: {speed:g} must lie between 0.5 and 2, with two decimals at most, and not be 1")
    if len(set(options.speeds)) < len(options.speeds):
        raise ValueError("--speeds: a speed is given twice")
    if options.num_utts < 0:
        raise ValueError("--num-utts must be 0 or more")


def list_copies(source: Source, options: Options) -> list[Copy]:
    speeds = [
        Copy(f"sp{number(s)}-{u}", u, f"sp{number(s)}-", "", s) for s in options.speeds for u in source.utterances
    ]
    originals = [Copy(utt, utt, "", "", 1.0) for utt in source.utterances]
    copies = []
    passes: Counter[str] = Counter()
    for kind in options.kinds:
        passes[kind] += 1
        suffix = f"-{kind}{passes[kind] if passes[kind] > 1 else ''}"
        copies += [copy._replace(name=copy.name + suffix, kind=kind) for copy in originals + speeds]
    if 0 < options.num_utts < len(copies):
        # By a hash of the id: which ones are kept depends neither on the order nor, but for the last, on the number.
        copies = sorted(copies, key=lambda copy: hashlib.sha256(f"{options.seed} {copy.name}".encode()).digest())
        copies = copies[: options.num_utts]
    copies = sorted(speeds + copies)
    taken = set(source.utterances) & {copy.name for copy in copies}
    if taken:
        raise ValueError(
            f"{source.folder}: has {first_few(sorted(taken))} already, which a copy would be called; "
            "augment the directory of the originals, or choose other --kinds or --speeds"
        )
    return copies


def plan(copy: Copy, source: Source, sources: Sources, options: Options) -> str:
    """The line of utt2aug, without the id."""
    words = [source.utt2aug[copy.original]] if copy.original in source.utt2aug else []
    if copy.speed != 1:
        words.append(str(Speed(copy.speed)))
    draw = random.Random(f"{options.seed} {copy.name}")
    seconds = source.seconds.get(copy.original, 0.0) / copy.speed
    for kind in copy.kind.split("+") if copy.kind else []:
        words += KINDS[kind](draw, seconds, source.talker(copy.original), sources, options)
    return " ".join(words)


def write(folder: Path, copies: list[Copy], texts: dict[str, str], source: Source, sources: Sources) -> None:
    """A table that the source does not have is removed, for an earlier run may have left it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder}: can't make this folder ({error.strerror})") from error
    recordings = {source.recording(copy.original) for copy in copies}
    parsed = (each for text in texts.values() for each in parse(text) if isinstance(each, Reverb | Noise))
    tables: dict[str, Mapping[str, object] | None] = dict.fromkeys(
        ("segments", "utt2spk", "spk2utt", "utt2dur", "spk2gender")
    )
    tables["aug.scp"] = {
        each.source: sources.files[each.source] for each in parsed if each.source in sources.files
    } or None
    tables["utt2aug"] = texts
    tables["utt2uniq"] = {copy.name: copy.prefix + source.utt2uniq.get(copy.original, copy.original) for copy in copies}
    if source.segments is None:
        tables["wav.scp"] = {copy.name: source.wav_scp[copy.original] for copy in copies}
    else:
        tables["wav.scp"] = {recording: source.wav_scp[recording] for recording in recordings}
        tables["segments"] = {copy.name: source.segments[copy.original] for copy in copies}
    if source.utt2spk is not None:
        speakers = {copy.name: copy.prefix + source.utt2spk[copy.original] for copy in copies}
        tables["utt2spk"] = speakers
        tables["spk2utt"] = {speaker: " ".join(utts) for speaker, utts in spk2utt(speakers).items()}
        if source.spk2gender is not None:
            names = {copy.prefix + source.utt2spk[copy.original]: source.utt2spk[copy.original] for copy in copies}
            tables["spk2gender"] = {
                new: source.spk2gender[old] for new, old in names.items() if old in source.spk2gender
            }
    if source.utt2dur is not None:
        tables["utt2dur"] = {copy.name: f"{source.utt2dur[copy.original] / copy.speed:.3f}" for copy in copies}
    remove_features(folder)
    for name, table in tables.items():
        if table is None:
            (folder / name).unlink(missing_ok=True)
        else:
            write_table(folder / name, table)


if __name__ == "__main__":
    run(main)
