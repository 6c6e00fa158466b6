#!/usr/bin/env python3
"""Plans augmented copies of a data directory as text. compute_fbank.py applies the plan; no audio is written.

Usage: local/augment_data_dir.py [options] <src-data-dir> <dest-data-dir>
  local/augment_data_dir.py --musan /corpora/musan --rirs /corpora/RIRS_NOISES data/train data/train_aug
  local/augment_data_dir.py --speeds 0.9,1.1 --num-utts 100000 data/train data/train_aug
then  local/make_fbank.sh data/train_aug;  utils/combine_data.sh data/train_all data/train data/train_aug

Kinds of copies, as in Kaldi's egs/voxceleb/v2: reverb (a room), noise (noises one after the other, with a second between
them), music (behind the whole utterance), babble (several other people talk behind it). Not in Kaldi: telephone (the band
and mu-law of a land line). --kinds reverb,noise,noise,reverb+music makes from utterance a: a-reverb, a-noise, a-noise2
(another draw), a-reverb+music (music behind the speech in its room).
--speeds makes new speakers: sp0.9-a of speaker sp0.9-s. The kinds are then also made from these utterances.

Without --musan, noise and music are generated, each behind the whole utterance, and other speakers of the source directory
babble. Without --rirs, the rooms are simulated.

It writes into <dest-data-dir>, only for the copies, without the originals:
  utt2aug    how the wave of each copy is changed (speakerkd/audio/augment.py describes the format)
  aug.scp    the recordings that utt2aug names
  utt2uniq   the original of each copy. A speed copy is its own original (not so in Kaldi's perturb_data_dir_speed.sh),
             because it counts as another speaker, and all copies of an original must have one speaker
  wav.scp    the original recordings; also utt2spk spk2utt segments utt2dur spk2gender if the source has them
If the source has an utt2aug, it is kept, and the new changes are applied after it. The text of a copy depends on --seed, its
id, its duration and the list of noises, rooms or speakers. It does not depend on the other utterances.
"""

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from speakerkd.audio.augment import Noise, Reverb, Speed, parse
from speakerkd.audio.copies import Copy, check_names, choose, in_order, list_variants
from speakerkd.audio.draws import KINDS, DrawConf, check_draws
from speakerkd.audio.sounds import SoundSources, gather_sounds
from speakerkd.audio.sourcedir import SourceDir, durations, read_source_dir
from speakerkd.conf import first_few, opt, parse_args, run
from speakerkd.files.tables import remove_features, replacing, write_table


@dataclass(frozen=True)
class Options(DrawConf):
    kinds: tuple[str, ...] = opt(
        ("reverb", "noise", "music", "babble"), "kinds of copies; each utterance gets one of each; '': none"
    )
    num_utts: int = opt(0, "number of these copies to keep, drawn at random (speed copies are all kept); 0: all")
    speeds: tuple[float, ...] = opt((), "speeds, such as 0.9,1.1; each utterance gets a copy at each, as a new speaker")
    seed: int = opt(0, "random seed of all draws")


def main(argv: list[str]) -> None:
    options, (source_dir, dest_dir) = parse_args(Options, argv, __doc__, 2)
    require_valid_options(options)
    if Path(source_dir).resolve() == Path(dest_dir).resolve():
        raise ValueError(f"{dest_dir}: the copies would replace their originals; name another destination")
    source = read_source_dir(Path(source_dir))
    variants = list_variants(options.kinds, options.speeds)
    kinds = {part for variant in variants for part in variant.kind.split("+") if part}
    utterances = source.utterances
    check_names(source, variants)
    chosen = choose(utterances, variants, options.num_utts, options.seed)
    if kinds - {"reverb", "telephone"}:
        source.seconds = durations(source)
        lost = [utt for utt in utterances if utt not in source.seconds]
        if lost:
            logging.warning("%d utterance(s) can't be read and get no copies: %s", len(lost), first_few(sorted(lost)))
            utterances = [utt for utt in utterances if utt in source.seconds]
    if not variants or not utterances:
        raise ValueError(f"{dest_dir}: there would be no copies; give --kinds or --speeds")
    sources = gather_sounds(source, kinds, options.musan, options.rirs, options.rooms)
    counts = write(Path(dest_dir), in_order(utterances, variants, chosen), source, sources, options)
    for kind, count in counts.items():
        said = "; ".join(sources.said[part] for part in kind.split("+") if part in sources.said)
        logging.info("%s: %d copies%s", kind or "speed only", count, said and f" ({said})")
    total = sum(counts.values())
    logging.info("%s: %d utterances in, %d copies in %s", source_dir, len(source.utterances), total, dest_dir)


def require_valid_options(options: Options) -> None:
    check_draws(options, options.kinds)
    for speed in options.speeds:
        if not 0.5 <= speed <= 2 or speed == 1 or abs(speed * 100 - round(speed * 100)) > 1e-6:
            raise ValueError(f"--speeds: {speed:g} must lie between 0.5 and 2, with two decimals at most, and not be 1")
    if len(set(options.speeds)) < len(options.speeds):
        raise ValueError("--speeds: a speed is given twice")
    if options.num_utts < 0:
        raise ValueError("--num-utts must be 0 or more")


def plan(copy: Copy, source: SourceDir, sources: SoundSources, options: Options) -> str:
    """The text of a copy's line in utt2aug, without the id."""
    words = [source.utt2aug[copy.original]] if copy.original in source.utt2aug else []
    if copy.variant.speed != 1:
        words.append(str(Speed(copy.variant.speed)))
    draw = random.Random(f"{options.seed} {copy.name}")
    seconds = source.seconds.get(copy.original, 0.0) / copy.variant.speed
    for kind in copy.variant.kind.split("+") if copy.variant.kind else []:
        words += KINDS[kind](draw, seconds, source.talker(copy.original), sources, options)
    return " ".join(words)


def write(
    folder: Path, copies: Iterator[Copy], source: SourceDir, sources: SoundSources, options: Options
) -> Counter[str]:
    """Writes the tables line by line, and removes those that the source lacks. Returns the number of copies of each kind."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder}: can't make this folder ({error.strerror})") from error
    lines: dict[str, Callable[[Copy], str]] = {
        "utt2aug": lambda copy: plan(copy, source, sources, options),
        "utt2uniq": lambda copy: copy.variant.prefix + source.utt2uniq.get(copy.original, copy.original),
    }
    segments, utt2spk, utt2dur = source.segments, source.utt2spk, source.utt2dur
    if segments is None:
        lines["wav.scp"] = lambda copy: source.wav_scp[copy.original]
    else:
        lines["segments"] = lambda copy: segments[copy.original]
    if utt2spk is not None:
        lines["utt2spk"] = lambda copy: copy.variant.prefix + utt2spk[copy.original]
    if utt2dur is not None:
        lines["utt2dur"] = lambda copy: f"{utt2dur[copy.original] / copy.variant.speed:.3f}"
    counts: Counter[str] = Counter()
    recordings: set[str] = set()
    used: set[str] = set()
    spk2utt: dict[str, bytearray] = {}  # a speaker's utterances, as one text: 9 million strings would fill the memory
    people: dict[str, str] = {}  # speaker of the copies -> speaker of the source
    remove_features(folder)
    with ExitStack() as stack:
        files = {name: stack.enter_context(replacing(folder / name)) for name in lines}
        for copy in copies:
            counts[copy.variant.kind] += 1
            for name, line in lines.items():
                text = line(copy)
                files[name].write(f"{copy.name} {text}\n")
                if name == "utt2aug":
                    used.update(each.source for each in parse(text) if isinstance(each, Reverb | Noise))
                elif name == "utt2spk" and utt2spk is not None:
                    spk2utt.setdefault(text, bytearray()).extend(f" {copy.name}".encode())
                    people[text] = utt2spk[copy.original]
            if segments is not None:
                recordings.add(source.recording(copy.original))
        if not counts:
            raise ValueError(f"{folder}: there would be no copies; give --kinds or --speeds")
    tables: dict[str, Mapping[str, object] | None] = dict.fromkeys(("segments", "utt2spk", "utt2dur"))
    tables["aug.scp"] = {name: sources.files[name] for name in used if name in sources.files} or None
    if utt2spk is None:
        tables["spk2utt"] = None
    else:
        with replacing(folder / "spk2utt", "wb") as file:
            for speaker in sorted(spk2utt):
                file.write(speaker.encode() + spk2utt.pop(speaker) + b"\n")
    tables["spk2gender"] = None
    if source.spk2gender is not None and utt2spk is not None:
        genders = source.spk2gender
        tables["spk2gender"] = {new: genders[old] for new, old in people.items() if old in genders}
    if segments is not None:
        tables["wav.scp"] = {recording: source.wav_scp[recording] for recording in recordings}
    for name, table in tables.items():
        if table is not None:
            write_table(folder / name, table)
        elif name not in lines:
            (folder / name).unlink(missing_ok=True)
    return counts


if __name__ == "__main__":
    run(main)
