"""LDA and PLDA against what Kaldi's own binaries wrote (data/kaldi-golden-backend/COMMANDS) and against formulas."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import kaldi_native_io
import numpy as np
import pytest
from score_data import GOLDEN, golden_folder, text_archive

from speakerkd.files.backend import (
    read_arrays,
    read_matrix,
    read_num_utts,
    read_spk2utt,
    read_vector,
    write_matrix,
    write_num_utts,
    write_text_vector,
)
from speakerkd.files.vectors import Vectors, average
from speakerkd.score.cosine import length_normalise, score_trials
from speakerkd.score.plda import Plda, apply_transform, default_lda_dim, prepare, read_plda, train_lda, train_plda
from speakerkd.score.trials import read_scores, read_trials

SCORE_TOLERANCE = 1e-4  # of scores up to 31; Kaldi rounds to single precision between its programs, and prints 7 digits


@pytest.fixture(scope="module")
def train() -> tuple[np.ndarray, np.ndarray]:
    vectors = text_archive(GOLDEN / "train_xvector.txt")
    utt2spk = dict(line.split() for line in (GOLDEN / "train_utt2spk").read_text().splitlines())
    return np.stack(list(vectors.values())), np.unique([utt2spk[utt] for utt in vectors], return_inverse=True)[1]


@pytest.fixture(scope="module")
def tested() -> Vectors:
    vectors = text_archive(GOLDEN / "test_xvector.txt")
    return Vectors("test", list(vectors), np.stack(list(vectors.values())))


def same_up_to_sign(found: np.ndarray, kaldi: np.ndarray, tolerance: float) -> None:
    """Row by row: an eigenvector's sign is free."""
    signs = np.sign((found * kaldi).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found * signs, kaldi, atol=tolerance)


def test_mean(train: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    write_text_vector(tmp_path / "mean.vec", train[0].mean(axis=0, dtype=np.float64))
    assert (tmp_path / "mean.vec").read_bytes() == (GOLDEN / "mean.vec").read_bytes()


def test_lda(train: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    vectors, labels = train
    transform = train_lda(vectors - vectors.mean(axis=0), labels, 16)
    same_up_to_sign(transform, read_matrix(GOLDEN / "transform.mat"), 1e-5)
    write_matrix(tmp_path / "transform.mat", read_matrix(GOLDEN / "transform.mat"))
    assert (tmp_path / "transform.mat").read_bytes() == (GOLDEN / "transform.mat").read_bytes()
    read = kaldi_native_io.FloatMatrix.read(str(tmp_path / "transform.mat")).numpy()
    np.testing.assert_array_equal(read, read_matrix(GOLDEN / "transform.mat"))
    np.testing.assert_allclose(read_matrix(GOLDEN / "transform.txt"), read, atol=1e-6)


def test_plda_model(train: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    vectors, labels = train
    kaldi = read_plda(GOLDEN / "plda")
    prepared = prepare(vectors, vectors.mean(axis=0, dtype=np.float64), read_matrix(GOLDEN / "transform.mat"))
    found = train_plda(prepared, labels)
    np.testing.assert_allclose(found.mean, kaldi.mean, atol=1e-6)
    np.testing.assert_allclose(found.psi, kaldi.psi, atol=1e-5)
    same_up_to_sign(found.transform, kaldi.transform, 1e-4)
    kaldi.write(tmp_path / "plda")
    assert (tmp_path / "plda").read_bytes() == (GOLDEN / "plda").read_bytes()
    for text, binary in zip(read_arrays(GOLDEN / "plda.txt"), read_arrays(GOLDEN / "plda"), strict=True):
        np.testing.assert_allclose(text, binary, rtol=1e-6)


def enrolments(tested: Vectors) -> tuple[Vectors, np.ndarray]:
    means, counts, absent = average(tested, read_spk2utt(GOLDEN / "enroll_spk2utt"))
    assert absent == 0
    return means, counts


def test_enrolments(tested: Vectors, tmp_path: Path) -> None:
    means, counts = enrolments(tested)
    kaldi = text_archive(GOLDEN / "enroll_spk_xvector.txt")
    assert means.ids == list(kaldi)
    np.testing.assert_allclose(means.matrix, np.stack(list(kaldi.values())), atol=2e-6)
    write_num_utts(tmp_path / "num_utts.ark", dict(zip(means.ids, counts.tolist(), strict=True)))
    assert read_num_utts(tmp_path / "num_utts.ark") == read_num_utts(GOLDEN / "num_utts.txt")
    (tmp_path / "num_utts.ark").write_text("a 0\n")
    with pytest.raises(ValueError, match="must be 1 or more"):
        read_num_utts(tmp_path / "num_utts.ark")


@pytest.mark.parametrize("own_model", [False, True])
def test_plda_scores(train: tuple[np.ndarray, np.ndarray], tested: Vectors, own_model: bool) -> None:
    trials = read_trials(GOLDEN / "trials")
    means, counts = enrolments(tested)
    mean, transform, plda = (
        read_vector(GOLDEN / "mean.vec"),
        read_matrix(GOLDEN / "transform.mat"),
        read_plda(GOLDEN / "plda"),
    )
    if own_model:
        vectors, labels = train
        mean = vectors.mean(axis=0, dtype=np.float64)
        transform = train_lda(vectors - mean, labels, 16)
        plda = train_plda(prepare(vectors, mean, transform), labels)
    scores = plda.score(
        plda.project(prepare(means.matrix, mean, transform), counts),
        counts,
        plda.project(prepare(tested.matrix, mean, transform), np.ones(len(tested.ids))),
        means.rows_of(trials.enroll_ids)[trials.enroll],
        tested.rows_of(trials.test_ids)[trials.test],
    )
    np.testing.assert_allclose(scores, read_scores(GOLDEN / "scores_plda", trials)[0], atol=SCORE_TOLERANCE)


def test_cosine_scores(tested: Vectors) -> None:
    trials = read_trials(GOLDEN / "trials")
    means, _ = enrolments(tested)
    scores = score_trials(
        length_normalise(means.matrix),
        length_normalise(tested.matrix),
        means.rows_of(trials.enroll_ids)[trials.enroll],
        tested.rows_of(trials.test_ids)[trials.test],
    )
    np.testing.assert_allclose(scores, read_scores(GOLDEN / "scores_cosine", trials)[0], atol=1e-6)


def test_score_is_a_ratio_of_gaussians(rng: np.random.Generator) -> None:
    """Of the joint density of n enrolment vectors and a test vector, for one speaker against two."""

    def log_gaussian(x: np.ndarray, covariance: np.ndarray) -> float:
        return -0.5 * float(x @ np.linalg.solve(covariance, x) + np.linalg.slogdet(2 * np.pi * covariance)[1])

    psi = np.array([3.0, 0.5])
    plda = Plda(np.zeros(2), np.eye(2), psi)
    enroll, test = [rng.normal(size=(count, 2)) for count in (1, 3, 3)], rng.normal(size=(4, 2))
    means, counts = np.stack([each.mean(axis=0) for each in enroll]), np.array([1, 3, 3])
    rows, columns = np.repeat(np.arange(3), 4), np.tile(np.arange(4), 3)
    scores = plda.score(means, counts, test, rows, columns)
    for score, row, column in zip(scores, rows, columns, strict=True):
        expected = 0.0
        for axis in range(2):
            together = np.append(enroll[row][:, axis], test[column, axis])
            same = np.full((len(together),) * 2, psi[axis]) + np.eye(len(together))
            expected += log_gaussian(together, same) - log_gaussian(together[:-1], same[:-1, :-1])
            expected -= log_gaussian(together[-1:], same[-1:, -1:])
        assert score == pytest.approx(expected)


def test_training_finds_the_model_it_was_drawn_from(rng: np.random.Generator) -> None:
    psi = np.array([4.0, 1.0, 0.2])
    labels = np.repeat(np.arange(4000), rng.integers(2, 6, 4000))
    vectors = (np.sqrt(psi) * rng.normal(size=(4000, 3)))[labels] + rng.normal(size=(len(labels), 3)) + 7
    found = train_plda(vectors, labels, num_em_iters=30)
    np.testing.assert_allclose(found.psi, psi, rtol=0.1)
    np.testing.assert_allclose(found.mean, 7, atol=0.15)
    smooth = found.smoothed(0.5)
    np.testing.assert_allclose(smooth.psi, found.psi / (1 + 0.5 * found.psi))


def test_too_little_to_train_on(rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(6, 4))
    with pytest.raises(ValueError, match="--lda-dim 5: vectors of 4 dimensions and 6 training speakers allow 1 to 4"):
        train_lda(vectors, np.arange(6), 5)
    with pytest.raises(ValueError, match="vectors of 4 dimensions and 2 training speakers allow 1 to 1"):
        train_lda(vectors, np.array([0, 0, 0, 1, 1, 1]), 2)
    with pytest.raises(ValueError, match="tell speakers apart, but the training vectors are of 1 speaker"):
        train_lda(vectors, np.zeros(6, int), 1)
    with pytest.raises(ValueError, match="only one vector"):
        train_lda(vectors, np.arange(6), 2)
    with pytest.raises(ValueError, match="only one vector"):
        train_plda(vectors, np.arange(6))
    with pytest.raises(ValueError, match="needs at least as many training vectors"):
        train_lda(vectors[:3], np.array([0, 0, 1]), 1)
    with pytest.raises(ValueError, match="does not fit vectors of 4"):
        apply_transform(np.ones((2, 3)), vectors)


@pytest.mark.parametrize("name", ["mean.vec", "transform.mat", "plda"])
def test_truncated_files(tmp_path: Path, name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    for length in (0, 1, len(data) // 2):
        (tmp_path / name).write_bytes(data[:length])
        reader = {"mean.vec": read_vector, "transform.mat": read_matrix, "plda": read_plda}[name]
        with pytest.raises(ValueError, match=name):
            reader(tmp_path / name)


Sh = Callable[..., "object"]


@pytest.fixture
def golden(recipe: Path) -> Path:
    return golden_folder(recipe)


def words(*options: str) -> list[str]:
    test = "exp/sys/xvectors_test/xvector.scp"
    places = ["data/train", "exp/sys/xvectors_train", "data/test/trials", test, test, "exp/sys/scores"]
    fixed = ["--lda-dim", "16", "--enroll-spk2utt", "data/test/enroll_spk2utt"]
    return ["local/score_plda.sh", *fixed, "--score-opts", "--num-bootstrap 100 --plots false", *options, *places]


def test_score_plda_by_numpy(golden: Path, sh: Sh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALDI_ROOT", str(golden / "none"))  # a Kaldi that was never compiled
    assert "numpy instead" in sh(*words()).stdout  # type: ignore[attr-defined]
    monkeypatch.delenv("KALDI_ROOT")
    trials = read_trials(GOLDEN / "trials")
    expected = read_scores(GOLDEN / "scores_plda", trials)[0]
    scores = golden / "exp/sys/scores/trials.plda"
    np.testing.assert_allclose(read_scores(scores, trials)[0], expected, atol=SCORE_TOLERANCE)
    folder = golden / "exp/sys/xvectors_train"
    assert (folder / "mean.vec").read_bytes() == (GOLDEN / "mean.vec").read_bytes()
    # With Kaldi's own model in place, scoring alone.
    for name in ("transform.mat", "plda"):
        (folder / name).write_bytes((GOLDEN / name).read_bytes())
    done = sh(*words("--stage", "2", "--name", "kaldi_model"))
    assert "--stage 2 takes the LDA that is there; --lda-dim" in done.stdout  # type: ignore[attr-defined]
    np.testing.assert_allclose(
        read_scores(f"{scores.parent}/trials.kaldi_model", trials)[0], expected, atol=SCORE_TOLERANCE
    )
    rows = (scores.parent / "metrics.tsv").read_text().splitlines()
    assert [row.split("\t")[1] for row in rows] == ["scoring", "kaldi_model", "plda"]
    assert not list(scores.parent.glob(".score_plda*"))
    done = sh(*words("--lda-dim", "30"), fails=True)
    assert "--lda-dim 30: vectors of 24 dimensions and 60 training speakers allow 1 to 24" in done.stderr  # type: ignore[attr-defined]


def test_the_default_dimension_fits_the_data(golden: Path, sh: Sh) -> None:
    """The vectors have 24 dimensions; a default of 150 would be refused."""
    script = [word for word in words() if word not in ("--lda-dim", "16")]
    sh(*script)
    assert read_matrix(golden / "exp/sys/xvectors_train/transform.mat").shape == (23, 25)
    assert [default_lda_dim(512, 5994), default_lda_dim(128, 5994), default_lda_dim(512, 34)] == [150, 127, 33]


def test_score_plda_by_kaldi_has_its_commands(golden: Path, sh: Sh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for Kaldi's programs note their arguments; they must be those of the golden COMMANDS."""
    programs = golden / "kaldi/src/ivectorbin"
    programs.mkdir(parents=True)
    log = golden / "commands"
    golden_of = {"mean.vec": "mean.vec", "transform.mat": "transform.mat", "plda": "plda", "scores": "scores_plda"}
    copies = " ".join(f"*/{name}) cp {GOLDEN / file} $last;;" for name, file in golden_of.items())
    for name in (
        "mean",
        "subtract-global-mean",
        "compute-lda",
        "compute-plda",
        "normalize-length",
        "copy-plda",
        "plda-scoring",
    ):
        _program(
            programs / f"ivector-{name}",
            f'echo "$(basename $0) $*" >> {log}\nlast=${{!#}}\ncase $last in {copies} esac',
        )
    _program(programs / "transform-vec", "")
    monkeypatch.setenv("KALDI_ROOT", str(golden / "kaldi"))
    done = sh(*words("--lda-dim", "25"), fails=True)  # Kaldi itself would stop without a sentence
    assert "--lda-dim 25: vectors of 24 dimensions and 60 training speakers allow 1 to 24" in done.stderr  # type: ignore[attr-defined]
    log.unlink(missing_ok=True)
    sh(*words())
    scores = read_scores(golden / "exp/sys/scores/trials.plda", read_trials(GOLDEN / "trials"))[0]
    np.testing.assert_array_equal(scores, read_scores(GOLDEN / "scores_plda", read_trials(GOLDEN / "trials"))[0])
    text = log.read_text()
    plain = text.replace(f"{golden}/", "").split("\n")
    temporary = next(word for word in plain[0].split() if "mean.vec" in word).removesuffix("mean.vec")
    for name, place in (
        ("exp/sys/xvectors_train/", ""),
        (temporary, ""),
        ("data/train/", "train_"),
        ("data/test/", ""),
    ):
        plain = [line.replace(name, place) for line in plain]
    expected = (GOLDEN / "COMMANDS").read_text().replace("ark,t:train_xvector.txt", "scp:xvector.scp").replace('"', "")
    expected = expected.replace("ark,t:test_xvector.txt", "scp:exp/sys/xvectors_test/xvector.scp")
    expected = expected.replace("ark,t:enroll_spk_xvector.txt", "ark:enroll.ark").replace(
        "num_utts.txt", "num_utts.ark"
    )
    expected = expected.replace(" scores_plda\n", " scores\n")
    ran = [line for line in plain if line]
    assert len(ran) == 5
    for line in ran:
        assert line in expected.split("\n")


def _program(path: Path, body: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    assert os.access(path, os.X_OK)
