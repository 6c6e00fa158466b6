import gzip
import subprocess
from pathlib import Path

import numpy as np
import pytest

from speakerkd.score.trials import (
    num_duplicates,
    num_identical,
    read_scores,
    read_trials,
    speakers_of,
    write_scores,
)

GOOD = "a-1 b-1 nontarget\na-1 a-2 target\nb-1 a-2 nontarget\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "trials"
    path.write_bytes(text.encode())
    return path


def test_reads_ids_once_and_labels(tmp_path: Path) -> None:
    trials = read_trials(write(tmp_path, GOOD))
    assert trials.enroll_ids == ["a-1", "b-1"] and trials.test_ids == ["b-1", "a-2"]
    assert [trials.pair(index) for index in range(3)] == ["a-1 b-1", "a-1 a-2", "b-1 a-2"]
    assert trials.target.tolist() == [False, True, False]
    assert trials.select(trials.target).pair(0) == "a-1 a-2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (GOOD + "a-1 c-1 maybe\n", r"trials:4: the third field is 'maybe', not target or nontarget"),
        ("1 a-1 b-1\n", "third field is 'b-1'"),
        (GOOD.replace("\n", "\r\n"), r"CR LF.*sed -i"),
        ("a-1 a-2 target\n", "all 1 trials are target trials"),
        ("a-1 b-2 nontarget\na-1 b-3 nontarget\n", "all 2 trials are nontarget trials"),
        (GOOD + "a-1 b-1\n", r"trials:4: .*three fields"),
        (GOOD + "\n" + GOOD, r"trials:4: '' is not"),
        (GOOD + "a-1 a-2 nontarget\n", "1 pairs are both target and nontarget, for example 'a-1 a-2'"),
    ],
)
def test_bad_trials(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_trials(write(tmp_path, text))


def test_no_file_and_no_utf8(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can't be read"):
        read_trials(tmp_path / "none")
    (tmp_path / "latin").write_bytes("é b target\n".encode("latin-1"))
    with pytest.raises(ValueError, match="UTF-8"):
        read_trials(tmp_path / "latin")


def test_archives_and_byte_order_marks(tmp_path: Path) -> None:
    (tmp_path / "trials.gz").write_bytes(gzip.compress(b"a b target\r\n"))
    with pytest.raises(ValueError, match=r"trials\.gz: is compressed; remedy: gunzip it"):
        read_trials(tmp_path / "trials.gz")
    (tmp_path / "trials").write_bytes("\ufeffa b target\na c nontarget\n".encode())
    with pytest.raises(ValueError, match="starts with a byte order mark; remedy: sed") as error:
        read_trials(tmp_path / "trials")
    subprocess.run(["bash", "-c", str(error.value).split("remedy: ")[1]], check=True)
    assert read_trials(tmp_path / "trials").enroll_ids == ["a"]


def test_duplicates_are_kept_and_counted(tmp_path: Path) -> None:
    trials = read_trials(write(tmp_path, GOOD + GOOD + "a-2 a-2 target\n"))
    assert len(trials) == 7 and num_duplicates(trials) == 3 and num_identical(trials, {}) == 1


def test_scores_come_back_the_same(tmp_path: Path) -> None:
    trials = read_trials(write(tmp_path, GOOD))
    scores = np.random.default_rng(0).normal(size=3).astype(np.float32)
    write_scores(tmp_path / "scores", trials, scores)
    assert all(len(line.split(" ")) == 3 for line in (tmp_path / "scores").read_text().splitlines())
    back, others = read_scores(tmp_path / "scores", trials)
    assert back.tolist() == scores.tolist() and others == 0


def test_scores_in_another_order_with_gaps_and_strangers(tmp_path: Path) -> None:
    trials = read_trials(write(tmp_path, GOOD))
    (tmp_path / "scores").write_text("b-1 a-2 3\nx y 7\nb-1 b-1 8\na-1 b-1 1\n")
    scores, others = read_scores(tmp_path / "scores", trials)
    assert others == 2
    np.testing.assert_array_equal(scores, np.float32([1, np.nan, 3]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b c\n", "'c', not a number"),
        ("a-1 b-1 nan\n", "scores:1: the score is nan"),
        ("a b 1 2\n", "three fields"),
        ("a-1 b-1 1\na-1 b-1 2\n", "twice with different scores"),
    ],
)
def test_bad_scores(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "scores").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_scores(tmp_path / "scores", read_trials(write(tmp_path, GOOD)))


def test_speakers(tmp_path: Path) -> None:
    utt2spk = {"a-1": "a", "a-2": "a", "b-1": "b", "c-1": "c"}
    trials = read_trials(write(tmp_path, GOOD))
    speakers = speakers_of(trials, utt2spk, {}, "utt2spk")
    assert speakers.count == 2
    assert (speakers.enroll == speakers.test).tolist() == trials.target.tolist()
    models = read_trials(write(tmp_path, "m1 a-2 target\na a-2 target\nm2 a-2 nontarget\n"))
    speakers = speakers_of(models, utt2spk, {"m1": ["a-1"], "m2": ["b-1"]}, "utt2spk")
    assert (speakers.enroll == speakers.test).tolist() == [True, True, False]
    partly = speakers_of(
        models, utt2spk, {"m1": ["a-0", "a-1"], "m2": ["b-0", "b-1"]}, "utt2spk"
    )  # a-0, b-0: lost before
    assert (partly.enroll == partly.test).tolist() == [True, True, False]


def test_speakers_that_do_not_fit(tmp_path: Path) -> None:
    trials = read_trials(write(tmp_path, GOOD))
    with pytest.raises(ValueError, match=r"1 of the trials' ids have no speaker there: a-2; .*--utt2spk"):
        speakers_of(trials, {"a-1": "a", "b-1": "b"}, {}, "utt2spk")
    with pytest.raises(ValueError, match="2 labels disagree with utt2spk, for example 'a-1 b-1 nontarget'"):
        speakers_of(trials, {"a-1": "a", "b-1": "a", "a-2": "a"}, {}, "utt2spk")
