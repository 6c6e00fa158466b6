"""Trials (`enrol test target|nontarget`, or `enrol test`) and scores (`enrol test score`) as flat arrays, read fast."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np

from speakerkd.conf import first_few
from speakerkd.files.tables import replacing

LABELS = {"target": True, "nontarget": False}


@dataclass(frozen=True)
class Trials:
    """Trial i compares enroll_ids[enroll[i]] with test_ids[test[i]]; the ids are unique."""

    path: str
    enroll_ids: list[str]
    test_ids: list[str]
    enroll: np.ndarray  # (N,) int
    test: np.ndarray  # (N,) int
    target: np.ndarray  # (N,) bool
    labelled: bool = True  # False: the labels are unknown, and target is False everywhere

    def __len__(self) -> int:
        return len(self.enroll)

    def keys(self) -> np.ndarray:
        """A number for each trial. Equal pairs have equal numbers."""
        return self.enroll.astype(np.int64) * len(self.test_ids) + self.test

    def select(self, keep: np.ndarray) -> "Trials":
        return replace(self, enroll=self.enroll[keep], test=self.test[keep], target=self.target[keep])

    def pair(self, index: int) -> str:
        return f"{self.enroll_ids[self.enroll[index]]} {self.test_ids[self.test[index]]}"


def _columns(path: str | Path, third: str, maybe_two: bool = False) -> list[Sequence[str]]:
    """The three columns of a file, or the two if maybe_two and its first line has two."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: can't be read ({error.strerror})") from error
    if data.startswith(b"\x1f\x8b"):
        raise ValueError(f"{path}: is compressed; remedy: gunzip it")
    if data.startswith(b"\xef\xbb\xbf"):
        raise ValueError(f"{path}: starts with a byte order mark; remedy: sed -i '1s/^\\xEF\\xBB\\xBF//' {path}")
    if b"\r" in data:
        raise ValueError(f"{path}: lines end in CR LF; remedy: sed -i 's/\\r$//' {path}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8; remedy: iconv the file to UTF-8") from error
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise ValueError(f"{path}: is empty")
    if maybe_two and len(lines[0].split()) == 2:
        return _rows(path, lines, 2, "")
    words = text.split()
    if len(words) == 3 * len(lines) and set(map(str.count, lines, repeat(" "))) == {2} and "\t" not in text:
        return [words[0::3], words[1::3], words[2::3]]  # two blanks a line leave three words at most, so all have three
    return _rows(path, lines, 3, third)


def _rows(path: str | Path, lines: Sequence[str], count: int, third: str) -> list[Sequence[str]]:
    rows = [line.split() for line in lines]
    if set(map(len, rows)) != {count}:
        number = next(number for number, row in enumerate(rows) if len(row) != count)
        wanted = f"'enrol test {third}', three fields" if third else "'enrol test', two fields as in the first line"
        raise ValueError(f"{path}:{number + 1}: '{lines[number]}' is not {wanted}")
    return list(zip(*rows, strict=True))


def _numbered(ids: Sequence[str]) -> tuple[list[str], np.ndarray]:
    unique = list(dict.fromkeys(ids))
    number = {name: index for index, name in enumerate(unique)}
    return unique, np.fromiter(map(number.__getitem__, ids), np.int32, len(ids))


def _convert(path: str | Path, column: Sequence[str], kind: Callable[[str], float], wanted: str) -> list[float]:
    try:
        return list(map(kind, column))
    except (KeyError, ValueError):
        for number, text in enumerate(column, 1):
            try:
                kind(text)
            except (KeyError, ValueError):
                raise ValueError(f"{path}:{number}: the third field is '{text}', not {wanted}") from None
        raise


def read_trials(path: str | Path, need_labels: bool = True) -> Trials:
    """Reads trials. Without need_labels, the file may also have no labels.

    A pair may occur twice, as in the protocols of some corpora: both trials are kept. A pair with both labels is an error.
    """
    enroll, test, *rest = _columns(path, "target|nontarget", maybe_two=True)
    if not rest:
        if need_labels:
            raise ValueError(f"{path}: the lines have two fields, without target or nontarget; error rates need labels")
        sides = _mixed(_numbered(enroll), _numbered(test))
        return Trials(str(path), *sides, np.zeros(len(enroll), dtype=bool), labelled=False)
    (labels,) = rest
    target = np.array(_convert(path, labels, LABELS.__getitem__, "target or nontarget"), dtype=bool)
    trials = Trials(str(path), *_mixed(_numbered(enroll), _numbered(test)), target)
    keys = trials.keys()
    both = np.intersect1d(keys[target], keys[~target])
    if len(both):
        index = int(np.flatnonzero(keys == both[0])[0])
        raise ValueError(f"{path}: {len(both)} pairs are both target and nontarget, for example '{trials.pair(index)}'")
    if target.all() or not target.any():
        which = "target" if target.all() else "nontarget"
        raise ValueError(f"{path}: all {len(trials)} trials are {which} trials; error rates need both kinds")
    return trials


def _mixed(
    enroll: tuple[list[str], np.ndarray], test: tuple[list[str], np.ndarray]
) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    return enroll[0], test[0], enroll[1], test[1]


def num_duplicates(trials: Trials) -> int:
    return len(trials) - len(np.unique(trials.keys()))


def num_identical(trials: Trials, models: Mapping[str, Sequence[str]]) -> int:
    """The number of trials of an utterance with itself, or with a model that was made of it."""
    row = {name: index for index, name in enumerate(trials.test_ids)}
    own = [
        number * len(trials.test_ids) + row[each]
        for number, name in enumerate(trials.enroll_ids)
        for each in models.get(name, (name,))
        if each in row
    ]
    return int(np.isin(trials.keys(), own).sum())


def write_scores(path: str | Path, trials: Trials, scores: np.ndarray) -> None:
    """With nine digits, so that reading gives the same float32."""
    enroll = map(trials.enroll_ids.__getitem__, trials.enroll.tolist())
    test = map(trials.test_ids.__getitem__, trials.test.tolist())
    with replacing(path) as file:
        file.writelines(map("%s %s %.9g\n".__mod__, zip(enroll, test, scores.tolist(), strict=True)))


def read_scores(path: str | Path, trials: Trials) -> tuple[np.ndarray, int]:
    """The scores of the trials (NaN: the file has none), and how many of its lines belong to no trial."""
    enroll, test, texts = _columns(path, "score")
    values = np.array(_convert(path, texts, float, "a number"), dtype=np.float32)
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"{path}:{bad + 1}: the score is {texts[bad]}")
    enroll_number = {name: index for index, name in enumerate(trials.enroll_ids)}
    test_number = {name: index for index, name in enumerate(trials.test_ids)}
    rows = np.fromiter((enroll_number.get(name, -1) for name in enroll), np.int64, len(enroll))
    columns = np.fromiter((test_number.get(name, -1) for name in test), np.int64, len(test))
    known = (rows >= 0) & (columns >= 0)
    keys, values = (rows * len(trials.test_ids) + columns)[known], values[known]
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    if np.any((keys[1:] == keys[:-1]) & (values[1:] != values[:-1])):
        raise ValueError(f"{path}: a pair occurs twice with different scores")
    wanted = trials.keys()
    place = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    if not len(keys):
        return np.full(len(trials), np.nan, np.float32), len(texts)
    others = int((~np.isin(keys, wanted)).sum()) + int((~known).sum())
    return np.where(keys[place] == wanted, values[place], np.float32(np.nan)), others


@dataclass(frozen=True)
class Speakers:
    """The speakers of the two sides of each trial, numbered from 0."""

    enroll: np.ndarray
    test: np.ndarray
    count: int

    def select(self, keep: np.ndarray) -> "Speakers":
        """The speakers of some trials, numbered again without the speakers that are in none of them."""
        used, numbers = np.unique(np.concatenate([self.enroll[keep], self.test[keep]]), return_inverse=True)
        return Speakers(numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :], len(used))


def speakers_of(
    trials: Trials, utt2spk: Mapping[str, str], models: Mapping[str, Sequence[str]], where: str
) -> Speakers:
    """An id is an utterance, a model (its utterances tell the speaker) or the name of a speaker."""
    names = set(utt2spk.values())
    mixed = [name for name, each in models.items() if len({utt2spk[utt] for utt in each if utt in utt2spk}) > 1]
    if mixed:
        raise ValueError(
            f"{len(mixed)} enrolment models have utterances of several speakers, by {where}: {first_few(mixed)}"
        )

    def speaker(name: str) -> str:
        heard = (utt2spk[utt] for utt in models.get(name) or (name,) if utt in utt2spk)  # some may have been lost
        return next(heard, name if name in names else "")

    sides = [[speaker(name) for name in ids] for ids in (trials.enroll_ids, trials.test_ids)]
    ids = trials.enroll_ids + trials.test_ids
    unknown = [name for name, who in zip(ids, sides[0] + sides[1], strict=True) if not who]
    if unknown:
        raise ValueError(
            f"{where}: {len(unknown)} of the trials' ids have no speaker there: {first_few(unknown)}; "
            "give the right file with --utt2spk (and --enroll-spk2utt for models)"
        )
    _, numbers = _numbered(sides[0] + sides[1])
    enroll, test = numbers[: len(sides[0])][trials.enroll], numbers[len(sides[0]) :][trials.test]
    wrong = np.flatnonzero((enroll == test) != trials.target)
    if len(wrong):
        label = "target" if trials.target[wrong[0]] else "nontarget"
        raise ValueError(
            f"{trials.path}: {len(wrong)} labels disagree with {where}, for example '{trials.pair(wrong[0])} {label}'"
        )
    return Speakers(enroll, test, len(names)).select(np.ones(len(trials), dtype=bool))
