"""Clustering against brute force and hand counts, and a student trained on the clusters as if they were speakers."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.tables import read_table, write_table
from speakerkd.models import load_net
from speakerkd.models.cluster import _table, agglomerate, kmeans, mutual_information, purity

Run = Callable[..., subprocess.CompletedProcess[str]]


def voices(count: int, each: int, noise: float, dim: int = 16) -> tuple[torch.Tensor, np.ndarray]:
    """(vectors, of whom): of any length, for lengths must not count."""
    rng = np.random.default_rng(0)
    who = rng.permutation(np.repeat(np.arange(count), each))
    vectors = rng.standard_normal((count, dim))[who] + noise * rng.standard_normal((len(who), dim))
    return torch.from_numpy(vectors * rng.uniform(0.1, 10, (len(who), 1))).float(), who


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(pairs) == len(np.unique(one)) == len(np.unique(other))


def test_voices_that_are_apart_are_found() -> None:
    vectors, who = voices(30, 20, 0.1)
    labels, cosine = kmeans(vectors, 30, seed=0, restarts=10)
    assert same_partition(labels.numpy(), who) and cosine > 0.98
    assert same_partition(agglomerate(vectors, 30).numpy(), who)
    cells, _ = kmeans(vectors, 90, seed=0)
    assert same_partition(agglomerate(vectors, 30, cells).numpy(), who)


def test_more_restarts_fit_no_worse_and_the_seed_decides() -> None:
    vectors, _ = voices(40, 10, 1.0)
    found = [kmeans(vectors, 40, 3, restarts)[1] for restarts in (1, 4, 16)]
    assert found == sorted(found) and found[0] < found[-1]
    one, again, other = (kmeans(vectors, 40, seed, 1)[0] for seed in (3, 3, 4))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_kmeans_has_come_to_rest() -> None:
    """Each vector is nearest to the mean direction of its own cluster: what no step can better."""
    vectors, _ = voices(10, 30, 1.0)
    labels, cosine = kmeans(vectors, 12, 0, 1, iterations=500)
    unit = torch.nn.functional.normalize(vectors)
    centres = torch.stack([unit[labels == cluster].mean(0) for cluster in range(12)])
    cosines = unit @ torch.nn.functional.normalize(centres).T
    assert torch.equal(cosines.argmax(1), labels)
    assert cosine == pytest.approx(float(cosines.amax(1).mean()), abs=1e-6)


@pytest.mark.parametrize("cells", [0, 25])
def test_average_linkage_against_brute_force(cells: int) -> None:
    vectors, _ = voices(12, 5, 1.0)
    start = kmeans(vectors, cells, 0, 1)[0] if cells else torch.arange(len(vectors))
    unit = torch.nn.functional.normalize(vectors).numpy().astype(np.float64)
    cosines = unit @ unit.T
    groups = [np.flatnonzero(start.numpy() == cell) for cell in range(int(start.max()) + 1)]
    while len(groups) > 7:
        pairs = [(cosines[np.ix_(groups[i], groups[j])].mean(), i, j) for i in range(len(groups)) for j in range(i)]
        _, i, j = max(pairs)
        groups[j] = np.concatenate([groups[j], groups.pop(i)])
    expected = np.zeros(len(unit), int)
    for number, members in enumerate(groups):
        expected[members] = number
    assert same_partition(agglomerate(vectors, 7, start).numpy(), expected)


def test_equal_vectors_and_few_of_them() -> None:
    vectors = torch.cat([torch.ones(30, 4), -torch.ones(3, 4)])
    assert sorted(np.bincount(agglomerate(vectors, 2).numpy()).tolist()) == [3, 30]
    assert sorted(np.bincount(kmeans(vectors, 2, 0)[0].numpy()).tolist()) == [3, 30]
    assert len(kmeans(vectors, 5, 0)[0]) == 33  # more clusters than different vectors: some stay empty
    assert len(torch.unique(kmeans(torch.eye(6), 6, 0)[0])) == 6


def test_the_table_of_clusters_and_speakers_is_counted() -> None:
    rng = np.random.default_rng(0)
    labels, truth = rng.integers(0, 9, 500) * 3, rng.integers(-2, 5, 500)
    table = _table(labels, truth)
    assert table.dtype == np.float64 and table.shape == (9, 7)
    for row, label in enumerate(np.unique(labels)):
        for column, speaker in enumerate(np.unique(truth)):
            assert table[row, column] == ((labels == label) & (truth == speaker)).sum()


def test_purity_and_information_by_hand() -> None:
    """The example of Manning, Raghavan and Schütze, Introduction to Information Retrieval, ch. 16.3: 0.71 and 0.36."""
    truth = np.array(list("xxxxxoxoooodxxddd"))
    labels = np.repeat([0, 1, 2], [6, 6, 5])
    assert purity(labels, truth) == pytest.approx(12 / 17)
    assert mutual_information(labels, truth) == pytest.approx(0.36, abs=0.005)
    assert mutual_information(truth, labels) == pytest.approx(mutual_information(labels, truth))
    assert purity(truth, truth) == 1 and mutual_information(truth, truth) == pytest.approx(1)
    assert mutual_information(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])) == pytest.approx(0)


@pytest.fixture
def data(recipe: Path) -> Path:
    """60 utterances of 6 voices, each with a noisy copy and one of another speed; vectors of the originals."""
    rng = np.random.default_rng(0)
    vectors, who = voices(6, 10, 0.1)
    names = {f"v{who[number]}-{number:02}": number for number in range(60)}
    folder = recipe / "data/train"
    copies = {name: (name, name) for name in names}
    copies |= {f"{name}-noise": (name, name) for name in names}
    copies |= {f"sp0.9-{name}": (f"sp0.9-{name}", name) for name in names}
    with ArkWriter(folder / "feats", compress=True) as write:
        for copy in sorted(copies):
            colour = np.abs(vectors[names[copies[copy][1]], :8].numpy())
            write(copy, (colour * rng.standard_normal((30, 8))).astype(np.float32))
    write_table(folder / "utt2num_frames", dict.fromkeys(copies, 30))
    write_table(folder / "utt2uniq", {copy: uniq for copy, (uniq, _) in copies.items()})
    write_table(folder / "utt2spk", {copy: uniq.rpartition("-")[0] for copy, (uniq, _) in copies.items()})
    with ArkWriter(recipe / "exp/xvector") as write:
        for name in sorted(names):
            write(name, vectors[names[name]].numpy())
    return folder


WORDS = ["local/cluster_xvectors.py", "--num-clusters", 6]


def test_empty_clusters_are_told(recipe: Path, data: Path, sh: Run) -> None:
    words = [*WORDS, "--follow", "true", "--method", "kmeans", "exp/xvector.scp", data, "data/pseudo"]
    assert "are empty" not in sh(*words).stderr
    with ArkWriter(recipe / "exp/xvector") as write:
        names = {name for name in read_table(data / "utt2uniq").values() if not name.startswith("sp0.9-")}
        for number, name in enumerate(sorted(names)):
            write(name, np.eye(4, dtype=np.float32)[number % 4])
    done = sh(*words)
    assert "6 clusters were asked for, 2 are empty: many vectors are alike" in done.stderr
    assert len(set(read_table(recipe / "data/pseudo/utt2spk").values())) == 8  # and as many at the other speed


def test_copies_follow_and_a_student_is_trained_on_the_clusters(recipe: Path, data: Path, sh: Run) -> None:
    done = sh(*WORDS, "--follow", "true", "exp/xvector.scp", data, "data/pseudo")
    assert "180 utterances in, 0 lost, 180 in data/pseudo" in done.stderr
    assert "12 true speakers, for information: purity 1.0000, normalised mutual information 1.0000" in done.stderr
    made = read_table(recipe / "data/pseudo/utt2spk", 2)
    plain = {name for name in made.values() if not name.startswith("sp0.9-")}
    assert plain == {f"cluster000{number}" for number in range(1, 7)} and len(set(made.values())) == 12
    for utterance, cluster in made.items():
        if not utterance.startswith("sp0.9-") and not utterance.endswith("-noise"):
            assert made[f"{utterance}-noise"] == cluster and made[f"sp0.9-{utterance}"] == f"sp0.9-{cluster}"
    for name in ("feats.scp", "utt2num_frames", "utt2uniq"):
        assert (recipe / "data/pseudo" / name).read_bytes() == (data / name).read_bytes()
    assert "is valid" in sh("utils/validate_data_dir.sh", "--no-wav", "--no-spk-sort", "data/pseudo").stdout
    first = (recipe / "data/pseudo/utt2spk").read_bytes()
    (data / "utt2spk").unlink()  # the true speakers are not needed, nor do they change anything
    done = sh(*WORDS, "--follow", "true", "exp/xvector.scp", data, "data/pseudo")
    assert (recipe / "data/pseudo/utt2spk").read_bytes() == first and "purity" not in done.stderr
    (recipe / "model.conf").write_text("--type=xvector\n--channels=8\n--stats-channels=12\n--embedding-dim=6\n")
    options = ["--num-epochs", 1, "--batch-size", 20, "--num-frames", 20, "--model", "model.conf"]
    sh("local/train.py", *options, "data/pseudo", "exp/student")
    assert load_net(recipe / "exp/student/final.pt").speakers == tuple(sorted(set(made.values())))


def test_what_has_no_vector(recipe: Path, data: Path, sh: Run) -> None:
    done = sh(*WORDS, "exp/xvector.scp", data, "data/pseudo", fails=True)
    assert "120 of 180 utterances" in done.stderr and "give --follow true" in done.stderr
    lines = (data / "feats.scp").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("sp") and "-noise" not in line]
    for name in ("feats.scp", "utt2num_frames", "utt2uniq", "utt2spk"):
        names = {line.split()[0] for line in kept}
        rows = [line for line in (data / name).read_text().splitlines(keepends=True) if line.split()[0] in names]
        (data / name).write_text("".join(rows))
    vectors = (recipe / "exp/xvector.scp").read_text().splitlines(keepends=True)
    (recipe / "exp/xvector.scp").write_text("".join(vectors[:-2]))
    done = sh(*WORDS, "--method", "agglomerative", "exp/xvector.scp", data, "data/pseudo")
    assert "60 utterances in, 2 lost, 58 in data/pseudo" in done.stderr
    gone = [line.split()[0] for line in vectors[-2:]]
    assert (recipe / "data/pseudo/lost_utts").read_text() == "".join(f"{name} has no vector\n" for name in gone)
    for name in ("feats.scp", "utt2num_frames", "utt2uniq", "utt2spk"):
        assert not set(gone) & {line.split()[0] for line in (recipe / "data/pseudo" / name).read_text().splitlines()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-clusters", 1], "--num-clusters: say how many speakers"),
        (["--num-clusters", 61, "--follow", "true"], "--num-clusters=61: there are only 60 vectors"),
        (["--num-clusters", 6, "--method", "ward"], "--method=ward is not one of: kmeans agglomerative"),
        (["--num-clusters", 6, "--cells", 4], "--cells=4 can't be fewer than --num-clusters=6"),
    ],
)
def test_impossible_options(recipe: Path, data: Path, sh: Run, options: list[object], message: str) -> None:
    done = sh("local/cluster_xvectors.py", *options, "exp/xvector.scp", data, "data/pseudo", fails=True)
    assert message in done.stderr and not (recipe / "data/pseudo").exists()
