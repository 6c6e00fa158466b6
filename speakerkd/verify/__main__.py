"""Do two recordings have the same speaker? Profiles, verification and identification with an exported model.

Usage: local/verify.py [options] <recording> <recording>
       local/verify.py [options] --enroll <name>=<recording>,<recording>...
       local/verify.py [options] --claim <name> <recording>
       local/verify.py [options] --identify <recording>
  local/verify.py --model exp/student/export a.wav b.wav
  local/verify.py --model exp/student/export --far 0.001 a.wav b.wav
  local/verify.py --model exp/student/export --profiles people --enroll anna=a1.wav,a2.wav
  local/verify.py --model exp/student/export --profiles people --identify x.wav

Also: python -m speakerkd.verify, and speakerkd-verify after pip install. It does not need PyTorch.

It prints the cosine score, the log likelihood ratio (natural logarithm; positive means: more likely the same speaker), and
the decision at the operating point. Thresholds come from the model's card. They were measured on other speakers, for
several lengths of speech and with noise. The output says which measurement was used.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speakerkd.conf import first_few, opt, parse_args, run
from speakerkd.verify.card import Condition, choose_condition, conditions_of
from speakerkd.verify.encoder import Encoder
from speakerkd.verify.profiles import Profile, check_name, read_profile, read_profiles, write_profile
from speakerkd.verify.recording import Recording, read_recording

PRETRAINED = Path(__file__).resolve().parents[2] / "egs/open/v1/pretrained"


@dataclass
class Options:
    model: str = opt("", "exported folder (local/export_onnx.py); default: egs/open/v1/pretrained")
    precision: str = opt("fp32", "fp32 or int8")
    far: float = opt(0.0, "decide at this false-acceptance rate, such as 0.01; 0: use --prior")
    prior: float = opt(0.5, "prior probability that the speakers are the same; both errors cost the same")
    condition: str = opt("auto", "thresholds of clean or noisy recordings: auto (estimated), clean or noise")
    profiles: str = opt("profiles", "folder of the profiles")
    enroll: str = opt("", "make a profile: name=a.wav,b.wav")
    claim: str = opt("", "verify that the recording is of this profile's speaker")
    identify: str = opt("", "rank the profiles by how well they fit this recording")
    top: int = opt(5, "profiles shown by --identify")
    threads: int = opt(1, "threads of ONNX Runtime")

    def __post_init__(self) -> None:
        if self.condition not in ("auto", "clean", "noise"):
            raise ValueError(f"--condition={self.condition} is not one of: auto clean noise")
        if self.far < 0 or self.far >= 1:
            raise ValueError(f"--far={self.far:g} is not between 0 and 1")
        if not 0 < self.prior < 1:
            raise ValueError(f"--prior={self.prior:g} is not between 0 and 1")


class Judge:
    """Turns scores into decisions, with the conditions of the card."""

    def __init__(self, encoder: Encoder, options: Options) -> None:
        self._conditions = conditions_of(encoder.card)
        self._split = float(encoder.card.get("snr_split", -math.inf))
        self._options = options

    def condition(self, seconds: float, snr: float) -> Condition:
        wanted = self._options.condition
        clean = snr >= self._split if wanted == "auto" else wanted == "clean"
        chosen = choose_condition(self._conditions, seconds, clean)
        if seconds < 0.8 * chosen.seconds:
            logging.warning(
                "%.1f s of speech are less than the shortest length that was measured (%.1f s); expect more errors",
                seconds, chosen.seconds,
            )  # fmt: skip
        return chosen

    def threshold(self, condition: Condition) -> tuple[float, str]:
        if self._options.far > 0:
            rate = self._options.far
            return condition.threshold_of_false_accepts(rate), f"a false-acceptance rate of {100 * rate:g} %"
        return condition.threshold_of_prior(self._options.prior), f"a prior of {self._options.prior:g}"


def print_decision(judge: Judge, score: float, seconds: float, snr: float) -> None:
    condition = judge.condition(seconds, snr)
    threshold, point = judge.threshold(condition)
    print(f"score     {score:+.3f}   cosine of the embeddings, from -1 to 1")
    print(f"LLR       {condition.ratio(score):+.2f}    natural log of the likelihood ratio")
    answer = "same speaker" if score >= threshold else "different speakers"
    print(f"decision  {answer}, at {point} (threshold {threshold:.3f})")
    length = condition.label if condition.label.startswith("whole") else f"{condition.label} of speech"
    noise = condition.noise if condition.clean else f"in noise at {condition.noise}"
    print(f"measured on {condition.speakers} other speakers, {length}, {noise}: equal error rate {condition.eer:.2f} %")


def enroll(encoder: Encoder, options: Options) -> None:
    name, equals, paths = options.enroll.partition("=")
    if not equals or not paths:
        raise ValueError(f"--enroll {options.enroll}: write --enroll name=a.wav,b.wav")
    name = check_name(name)
    recordings = [read_recording(path, encoder.rate) for path in paths.split(",") if path]
    if not recordings:
        raise ValueError(f"--enroll {options.enroll}: names no recording")
    vectors = np.stack([encoder(each.wave) for each in recordings])
    speech = sum(each.speech for each in recordings)
    agreement = float((vectors @ vectors.T).min())
    made = write_profile(options.profiles, Profile(name, encoder.digest, vectors, speech))
    print(f"{made}: {len(recordings)} recording(s), {speech:.1f} s of speech")
    if len(recordings) > 1:
        shortest = min(recordings, key=lambda each: each.speech)
        condition = choose_condition(conditions_of(encoder.card), shortest.speech, True)
        if agreement < condition.threshold_of_prior(0.5):
            logging.warning("recordings of %s are not similar (lowest score %.3f): one speaker?", name, agreement)


def verify(encoder: Encoder, options: Options, paths: list[str]) -> None:
    one, other = (read_recording(path, encoder.rate) for path in paths)
    score = float(encoder(one.wave) @ encoder(other.wave))
    print_decision(Judge(encoder, options), score, min(one.speech, other.speech), min(one.snr, other.snr))


def claim(encoder: Encoder, options: Options, path: str) -> None:
    file = Path(options.profiles) / f"{check_name(options.claim)}.json"
    if not file.is_file():
        others = sorted(each.stem for each in file.parent.glob("*.json"))
        raise ValueError(
            f"{options.profiles}: has no profile of {options.claim} (it has: {first_few(others) or 'none'})"
        )
    profile = read_profile(file, encoder.digest, encoder.dim)
    recording = read_recording(path, encoder.rate)
    score = float(profile.vector @ encoder(recording.wave))
    print_decision(Judge(encoder, options), score, min(recording.speech, profile.speech), recording.snr)


def identify(encoder: Encoder, options: Options) -> None:
    profiles = read_profiles(options.profiles, encoder.digest, encoder.dim)
    recording: Recording = read_recording(options.identify, encoder.rate)
    vector = encoder(recording.wave)
    judge = Judge(encoder, options)
    found = []
    for profile in profiles:  # a profile of little speech has another threshold
        condition = judge.condition(min(recording.speech, profile.speech), recording.snr)
        score = float(profile.vector @ vector)
        beyond = condition.ratio(score) - condition.ratio(judge.threshold(condition)[0])
        found.append((beyond, score, condition.ratio(score), profile.name))
    found.sort(key=lambda each: -each[0])
    width = max(len(each.name) for each in profiles)
    for beyond, score, ratio, name in found[: max(1, options.top)]:
        answer = "same speaker" if beyond >= 0 else "different speaker"
        print(f"{name:<{width}}  score {score:+.3f}  LLR {ratio:+.2f}  {answer}")
    if found[0][0] < 0:
        print("None of the profiles is accepted: the speaker may be unknown.")


def main(argv: list[str]) -> None:
    options, paths = parse_args(Options, argv, __doc__, None)
    modes = [bool(options.enroll), bool(options.identify), bool(options.claim)]
    if sum(modes) > 1:
        raise ValueError("give one of --enroll, --identify and --claim")
    wanted = 0 if options.enroll or options.identify else 1 if options.claim else 2
    if len(paths) != wanted:
        raise ValueError(f"{wanted} recording(s) are needed, {len(paths)} given: {' '.join(paths)} (see --help)")
    if not options.model and not PRETRAINED.is_dir():
        raise ValueError(
            "--model is needed: a folder that local/export_onnx.py wrote; none was installed with this program"
        )
    encoder = Encoder(options.model or PRETRAINED, options.precision, options.threads)
    if options.enroll:
        enroll(encoder, options)
    elif options.identify:
        identify(encoder, options)
    elif options.claim:
        claim(encoder, options, paths[0])
    else:
        verify(encoder, options, paths)


def command() -> None:
    """What `speakerkd-verify` runs."""
    run(main)


if __name__ == "__main__":
    run(main)
