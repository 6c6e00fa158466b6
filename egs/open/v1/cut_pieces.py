#!/usr/bin/env python3
"""Cut the utterances of a data directory into pieces of one length, as segments: each is a crop that the teacher hears too.

Usage: ./cut_pieces.py [options] <src-data-dir> <dest-data-dir>
  ./cut_pieces.py --seconds 1.5 --shift 0.75 data/train data/train_pieces
  ./cut_pieces.py --speeds 0.9,1.1 data/train data/train_pieces

A piece starts every --shift seconds, and the last one ends with the utterance. An utterance that is shorter than a piece is
one piece. 1.5 s have 150 frames. <dest-data-dir> has wav.scp, utt2spk, spk2utt, utt2dur and segments. A piece is
called <utterance>-<start in 1/100 s>. The source must have utt2dur, and no segments of its own.

--speeds adds pieces at other speeds, as new speakers: sp0.9-<utterance>-<start> of sp0.9-<speaker>. They are as long as the
others once their speed has changed, so at 1.1 a piece takes 1.1 times the seconds of the recording. utt2aug has their
speed; <start> is the place in the recording. A copy at another speed is its own original in utt2uniq.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from speakerkd.audio.augment import Speed, speed_prefix
from speakerkd.conf import opt, parse_args, run
from speakerkd.files.tables import Segment, read_table, read_utt2spk, write_data_dir

REST = 0.2  # share of a piece: a shorter rest after the last piece is left out
MARGIN = 0.002  # seconds by which utt2dur may exceed the recording, as it is rounded


@dataclass
class Options:
    seconds: float = opt(1.5, "length of a piece; 1.5 s are 150 frames")
    shift: float = opt(1.5, "seconds from the start of a piece to that of the next")
    speeds: tuple[float, ...] = opt((), "pieces at these speeds as well, as new speakers: 0.9,1.1")


def starts(duration: float, seconds: float, shift: float) -> list[float]:
    """Where the pieces of an utterance start."""
    last = duration - seconds - MARGIN
    if last <= 0:
        return [0.0]
    found = [count * shift for count in range(int(last / shift) + 1)]
    return [*found, last] if last - found[-1] > REST * seconds else found


def main(argv: list[str]) -> None:
    options, (source, dest) = parse_args(Options, argv, __doc__, 2)
    if options.seconds < 0.1 or options.shift <= 0:
        raise ValueError("--seconds must be 0.1 or more, --shift positive")
    for speed in options.speeds:
        if not 0.5 <= speed <= 2 or speed == 1 or round(speed, 2) != speed:
            raise ValueError(f"--speeds: {speed:g} must lie between 0.5 and 2, with two decimals at most, and not be 1")
    folder = Path(source)
    if (folder / "segments").exists():
        raise ValueError(f"{folder}: has segments already; cut the directory of the whole recordings")
    if not (folder / "utt2dur").exists():
        raise ValueError(f"{folder}/utt2dur is missing; run stage 1")
    recordings, owners = read_table(folder / "wav.scp"), read_utt2spk(folder / "utt2spk")
    segments: dict[str, Segment] = {}
    speakers: dict[str, str] = {}
    durations: dict[str, str] = {}
    changed: dict[str, str] = {}
    for speed in (1.0, *options.speeds):
        prefix = "" if speed == 1 else speed_prefix(speed)
        for utterance, text in read_table(folder / "utt2dur", 2).items():
            duration = float(text)
            for start in starts(duration, options.seconds * speed, options.shift * speed):
                name = f"{prefix}{utterance}-{round(100 * start):06d}"
                segments[name] = Segment(utterance, start, min(start + options.seconds * speed, duration))
                durations[name] = f"{(segments[name].end - start) / speed:.3f}"
                speakers[name] = prefix + owners[utterance]
                if prefix:
                    changed[name] = str(Speed(speed))
    write_data_dir(dest, recordings, speakers, segments, utt2dur=durations, utt2aug=changed)
    if not changed:
        (Path(dest) / "utt2aug").unlink()
    logging.info("%s: %d utterances in, %d pieces in %s", source, len(recordings), len(segments), dest)


if __name__ == "__main__":
    run(main)
