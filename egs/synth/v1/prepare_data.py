#!/usr/bin/env python3
"""Makes up speakers: their voices, their faces, a training set, a test set and trials. Nothing is downloaded.

Usage: ./prepare_data.py [options] <data-dir>
 e.g.: ./prepare_data.py --num-train-speakers 200 --nj 4 data

Writes <data-dir>/wav/<speaker>/*.wav (16 kHz, 16 bits) and
  <data-dir>/{train,test}/{wav.scp,utt2spk,spk2utt,utt2dur,spk2gender}
  <data-dir>/{train,test}/{face.ark,face.scp}     a vector per utterance: a made-up face of its speaker
  <data-dir>/{train,test}/utt2quality             how good that face is, 0 to 1
  <data-dir>/{train,test}/utt2face                whose face it is (another name if it is the wrong one)
  <data-dir>/test/trials                          <utterance> <utterance> target|nontarget
  <data-dir>/test/{trials_enroll3,enroll3_spk2utt}  models of three utterances against utterances
README.md says how voices and faces are made.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import soundfile

from egs.synth.v1.face import Faces, draw_face
from egs.synth.v1.voice import RATE, SESSION, SPEECH, draw_session, generator, person_of, speak, voice_of
from speakerkd.conf import opt, parse_args, run
from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.tables import replacing, spk2utt, write_data_dir, write_table
from speakerkd.processes import in_processes

FIRST_TEST_SPEAKER = 9001  # so that the test set is the same for any number of training speakers
ENROLL = 3  # utterances of a model


@dataclass
class Options:
    num_train_speakers: int = opt(60, "training speakers")
    num_test_speakers: int = opt(20, "test speakers")
    utts_per_speaker: int = opt(25, "number of utterances of each speaker")
    sessions: int = opt(5, "number of recording sessions of each speaker; utterances go to the sessions in turn")
    seconds: tuple[float, ...] = opt((3.0, 6.0), "shortest:longest utterance")
    snr: tuple[float, ...] = opt((12.0, 28.0), "lowest:highest signal-to-noise ratio of a session, in dB")
    face_dim: int = opt(64, "dimension of the face vectors")
    face_voice_share: float = opt(0.5, "part of the face's identity that follows from the voice's traits, 0 to 1")
    bad_face_share: float = opt(0.0, "share of the faces that are a stranger's or of low quality, half each, 0 to 1")
    seed: int = opt(0, "random seed of voices, faces, sessions and utterances")
    nj: int = opt(2, "number of processes; the result does not depend on it")


class Utterance(NamedTuple):
    name: str
    speaker: int
    session: int
    number: int  # within the session


def require_valid_options(options: Options) -> None:
    def need(holds: bool, name: str, text: str) -> None:
        if not holds:
            value = getattr(options, name)
            shown = ":".join(f"{each:g}" for each in value) if isinstance(value, tuple) else value
            raise ValueError(f"--{name.replace('_', '-')}={shown}: {text}")

    need(1 <= options.num_train_speakers < FIRST_TEST_SPEAKER, "num_train_speakers", "give 1 to 9000")
    need(2 <= options.num_test_speakers <= 999, "num_test_speakers", "give 2 to 999; trials need two speakers")
    need(1 <= options.sessions <= 99, "sessions", "give 1 to 99")
    per_session = options.utts_per_speaker / options.sessions
    need(per_session <= 99, "utts_per_speaker", "give at most 99 for each of the --sessions")
    enough = f"give at least {ENROLL} for each of the --sessions={options.sessions}; a model is enrolled with {ENROLL}"
    need(per_session >= ENROLL, "utts_per_speaker", enough)
    pair = len(options.seconds) == 2 and 0.5 <= options.seconds[0] <= options.seconds[1] <= 600
    need(pair, "seconds", "give shortest:longest, between 0.5 and 600 seconds, as in 3:6")
    pair = len(options.snr) == 2 and -20 <= options.snr[0] <= options.snr[1] <= 100
    need(pair, "snr", "give lowest:highest, between -20 and 100 dB, as in 12:28")
    need(options.face_dim >= 4, "face_dim", "give 4 or more")
    need(0 <= options.face_voice_share <= 1, "face_voice_share", "give a number from 0 to 1")
    need(0 <= options.bad_face_share <= 1, "bad_face_share", "give a number from 0 to 1")
    need(options.seed >= 0, "seed", "give 0 or more")
    need(options.nj >= 1, "nj", "give 1 or more")


def speaker_name(speaker: int) -> str:
    return f"syn{speaker:04d}"


def utterances(speaker: int, options: Options) -> list[Utterance]:
    """The sessions take turns, so that a larger number of utterances does not change the first ones."""
    listed = []
    for index in range(options.utts_per_speaker):
        session, number = index % options.sessions + 1, index // options.sessions + 1
        listed.append(Utterance(f"{speaker_name(speaker)}-s{session}-{number:02d}", speaker, session, number))
    return sorted(listed)


def make_speech(speaker: int, options: Options, wav_dir: Path) -> dict[str, tuple[str, float]]:
    """Writes the speaker's recordings. Returns utterance -> path, seconds."""
    voice = voice_of(options.seed, speaker)
    folder = wav_dir / speaker_name(speaker)
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for utt in utterances(speaker, options):
        session = draw_session(options.snr, generator(options.seed, SESSION, speaker, utt.session))
        rng = generator(options.seed, SPEECH, speaker, utt.session, utt.number)
        samples = speak(voice, session, rng.uniform(options.seconds[0], options.seconds[1]), rng)
        path = folder / f"{utt.name}.wav"
        with replacing(path, "wb") as file:
            soundfile.write(file, samples, RATE, format="WAV", subtype="PCM_16")
        made[utt.name] = (str(path), len(samples) / RATE)
    return made


def make_all_speech(speakers: Iterable[int], options: Options, wav_dir: Path) -> dict[str, tuple[str, float]]:
    make = partial(make_speech, options=options, wav_dir=wav_dir)
    return {name: value for made in in_processes(make, speakers, options.nj) for name, value in made.items()}


def pair_trials(utt2spk: dict[str, str]) -> Iterator[tuple[str, str, bool]]:
    """Each pair once, without pairs from one session, because these share channel and noise."""
    for enroll, test in combinations(sorted(utt2spk), 2):
        if enroll.rpartition("-")[0] != test.rpartition("-")[0]:
            yield enroll, test, utt2spk[enroll] == utt2spk[test]


def enroll_models(utt2spk: dict[str, str]) -> dict[str, list[str]]:
    """A model per session: its first three utterances."""
    sessions = spk2utt({utt: utt.rpartition("-")[0] for utt in utt2spk})
    return {session: utts[:ENROLL] for session, utts in sessions.items()}


def model_trials(models: dict[str, list[str]], utt2spk: dict[str, str]) -> Iterator[tuple[str, str, bool]]:
    """Each model against all utterances but its own."""
    for model, enrolled in models.items():
        for utt in sorted(utt2spk):
            if utt not in enrolled:
                yield model, utt, utt2spk[utt] == utt2spk[enrolled[0]]


def write_trials(path: Path, trials: Iterable[tuple[str, str, bool]]) -> None:
    counts = {True: 0, False: 0}
    with replacing(path) as file:
        for enroll, test, same in trials:
            file.write(f"{enroll} {test} {'target' if same else 'nontarget'}\n")
            counts[same] += 1
    logging.info("%s: %d target and %d nontarget trials", path, counts[True], counts[False])


def write_set(folder: Path, speakers: range, options: Options, speech: dict[str, tuple[str, float]]) -> dict[str, str]:
    """One data directory. Returns its utt2spk."""
    utts = [utt for speaker in speakers for utt in utterances(speaker, options)]
    utt2spk = {utt.name: speaker_name(utt.speaker) for utt in utts}
    how = Faces(options.seed, options.face_dim, options.face_voice_share, options.bad_face_share)
    faces = {utt.name: draw_face(utt.speaker, utt.session, utt.number, how) for utt in utts}
    with ArkWriter(folder / "face") as write:
        for name, face in faces.items():
            write(name, face.vector)
    write_data_dir(
        folder,
        {name: speech[name][0] for name in utt2spk},
        utt2spk,
        utt2dur={name: f"{speech[name][1]:.3f}" for name in utt2spk},
        spk2gender={speaker_name(speaker): person_of(options.seed, speaker).sex for speaker in speakers},
        utt2quality={name: f"{face.quality:.3f}" for name, face in faces.items()},
        utt2face={name: f"stranger-{name}" if face.is_stranger else utt2spk[name] for name, face in faces.items()},
    )
    minutes = sum(speech[name][1] for name in utt2spk) / 60
    logging.info("%s: %d speakers, %d utterances, %.1f minutes", folder, len(speakers), len(utts), minutes)
    return utt2spk


def main(argv: list[str]) -> None:
    options, (folder,) = parse_args(Options, argv, __doc__, 1)
    require_valid_options(options)
    data_dir = Path(folder).resolve()
    if str(data_dir).split() != [str(data_dir)]:
        raise ValueError(f"{data_dir}: this path holds white space, which an scp can't; choose another data directory")
    train = range(1, options.num_train_speakers + 1)
    test = range(FIRST_TEST_SPEAKER, FIRST_TEST_SPEAKER + options.num_test_speakers)
    for name in ("train", "test"):  # so that tables of an earlier run never stand beside recordings of this one
        (data_dir / name / "wav.scp").unlink(missing_ok=True)
    speech = make_all_speech([*train, *test], options, data_dir / "wav")
    write_set(data_dir / "train", train, options, speech)
    utt2spk = write_set(data_dir / "test", test, options, speech)
    models = enroll_models(utt2spk)
    write_table(data_dir / "test" / "enroll3_spk2utt", {name: " ".join(utts) for name, utts in models.items()})
    write_trials(data_dir / "test" / "trials", pair_trials(utt2spk))
    write_trials(data_dir / "test" / "trials_enroll3", model_trials(models, utt2spk))


if __name__ == "__main__":
    run(main)
