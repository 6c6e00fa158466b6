from pathlib import Path

import numpy as np
import pytest
from score_data import write_vectors

from speakerkd.files.vectors import Vectors, average, read_vectors
from speakerkd.score.asnorm import cohort_statistics, normalise_scores
from speakerkd.score.cosine import length_normalise, score_trials


@pytest.mark.parametrize("num_trials", [40, 20000])  # few of the pairs: row by row; many: by products
def test_score_trials_is_the_loop(num_trials: int) -> None:
    rng = np.random.default_rng(0)
    enroll, test = rng.normal(size=(150, 8)).astype(np.float32), rng.normal(size=(90, 8)).astype(np.float32)
    rows, columns = rng.integers(0, 150, num_trials), rng.integers(0, 90, num_trials).astype(np.int32)
    expected = [enroll[row] @ test[column] for row, column in zip(rows, columns, strict=True)]
    np.testing.assert_allclose(score_trials(enroll, test, rows, columns), expected, rtol=1e-5, atol=1e-6)
    assert score_trials(enroll, test, rows[:0], columns[:0]).shape == (0,)


def test_score_trials_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speakerkd.score.cosine._BLOCK", 500)
    for num_trials in (40, 20000):
        test_score_trials_is_the_loop(num_trials)


def test_length_normalise() -> None:
    matrix = np.array([[3.0, 4], [0, 0]], dtype=np.float32)
    np.testing.assert_allclose(length_normalise(matrix), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(length_normalise(matrix, scale_up=True)[0]), np.sqrt(2), rtol=1e-6)


def test_average_is_of_raw_vectors_that_are_there() -> None:
    vectors = Vectors("x", ["a", "b", "c"], np.array([[1, 0], [3, 2], [5, 5]], dtype=np.float32))
    means, counts, absent = average(vectors, {"m": ["a", "b"], "gone": ["z"], "n": ["c", "y"]})
    assert means.ids == ["m", "n"] and counts.tolist() == [2, 1] and absent == 2
    np.testing.assert_array_equal(means.matrix, [[2, 1], [5, 5]])
    with pytest.raises(ValueError, match="none of the utterances"):
        average(vectors, {"gone": ["z"]})


def test_read_vectors(tmp_path: Path) -> None:
    scp = write_vectors(tmp_path / "x", {"a": np.ones(3), "b": np.zeros(3)})
    assert read_vectors(scp).ids == ["a", "b"]
    chosen = read_vectors(scp, {"b", "z"})
    assert chosen.ids == ["b"] and chosen.rows_of(["z", "b"]).tolist() == [-1, 0]
    with pytest.raises(ValueError, match="none of the 1 ids that are wanted"):
        read_vectors(scp, {"z"})
    rows = write_vectors(tmp_path / "rows", {"a": np.ones((1, 3)), "b": np.ones((1, 3))})
    assert read_vectors(rows).matrix.shape == (2, 3)
    with pytest.raises(ValueError, match="matrix of 2 rows"):
        read_vectors(write_vectors(tmp_path / "matrix", {"a": np.ones((2, 3))}))


def test_vectors_of_two_systems(tmp_path: Path) -> None:
    write_vectors(tmp_path / "x", {"a": np.ones(3)})
    write_vectors(tmp_path / "y", {"b": np.ones(4)})
    both = tmp_path / "both.scp"
    both.write_text((tmp_path / "x.scp").read_text() + (tmp_path / "y.scp").read_text())
    with pytest.raises(ValueError, match=r"'b' has 4 dimensions, 'a' has 3; .* one system"):
        read_vectors(both)


def test_nan_vectors(tmp_path: Path) -> None:
    scp = write_vectors(tmp_path / "x", {"a": np.ones(3), "b": np.ones(3)})
    ark = tmp_path / "x.ark"
    ark.write_bytes(ark.read_bytes()[:-4] + np.float32(np.nan).tobytes())
    with pytest.raises(ValueError, match="1 of 2 vectors hold NaN or infinite values: b"):
        read_vectors(scp)


def test_asnorm_is_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speakerkd.score.asnorm._BLOCK", 200)  # several blocks
    rng = np.random.default_rng(1)
    enroll, test, cohort = (length_normalise(rng.normal(size=(size, 6))) for size in (12, 9, 40))
    rows, columns = np.repeat(np.arange(12), 9), np.tile(np.arange(9), 12)
    scores = score_trials(enroll, test, rows, columns)
    for top_n in (7, 0, 40):
        both = [cohort_statistics(side, cohort, top_n) for side in (enroll, test)]
        found = normalise_scores(scores, *both, rows, columns)
        for trial in range(0, 108, 5):
            total = 0.0
            for vector in (enroll[rows[trial]], test[columns[trial]]):
                best = sorted((float(vector @ other) for other in cohort), reverse=True)[: top_n or None]
                total += (scores[trial] - np.mean(best)) / np.std(best)
            assert found[trial] == pytest.approx(total / 2, rel=1e-4)


def test_asnorm_refuses() -> None:
    vectors = np.eye(3)
    with pytest.raises(ValueError, match="holds 3 vectors, fewer than --top-n 300"):
        cohort_statistics(vectors, vectors, 300)
    with pytest.raises(ValueError, match="cohort has 2 dimensions, the vectors of the trials 3"):
        cohort_statistics(vectors, np.ones((5, 2)), 2)
    with pytest.raises(ValueError, match="at least two scores"):
        cohort_statistics(vectors, vectors, 1)
    with pytest.raises(ValueError, match="all the same"):
        cohort_statistics(vectors, np.ones((5, 3)), 2)
