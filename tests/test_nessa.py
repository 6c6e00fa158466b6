"""Maps between two systems' vectors: invariants, closed forms, training, files, and the whole of stage 7."""

import fcntl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from score_data import script, write_vectors
from toy import command, map_weights, same, write_sides

from speakerkd.batches.dataset import Batch
from speakerkd.files.backend import read_matrix, write_matrix
from speakerkd.files.kaldi import Scp
from speakerkd.files.tables import write_table
from speakerkd.kd.base import Clock, Components
from speakerkd.kd.nessa import MODES, NESSA, NESSAConf
from speakerkd.losses.margin import MarginConf
from speakerkd.models import make_net, save_net
from speakerkd.models.vectormap import VectorMap, load_map, save_map
from speakerkd.score.align import cca, centroids, in_fewer_dimensions, logits, procrustes, ridge
from speakerkd.score.cosine import length_normalise
from speakerkd.score.metrics import eer, roc

Run = Callable[..., subprocess.CompletedProcess[str]]
DIM = 12
SYSTEMS = {side: {"name": side, "digest": ""} for side in ("enroll", "test")}


def people(count: int, seed: int, utterances: int = 8, dim: int = DIM) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of length 1 and their speakers."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(rng.standard_normal((count, dim)), utterances, 0) + 0.5 * rng.standard_normal(
        (count * utterances, dim)
    )
    return length_normalise(rows), np.repeat(np.arange(count), utterances)


def rotation(dim: int = DIM, seed: int = 9) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]


def error_rate(enroll: np.ndarray, test: np.ndarray, who: np.ndarray) -> float:
    different = ~np.eye(len(who), dtype=bool)
    scores = length_normalise(enroll) @ length_normalise(test).T
    return eer(roc(scores[different], (who[:, None] == who)[different]))[0]


def method_of(dims: tuple[int, int] = (DIM, DIM), **changed: Any) -> NESSA:
    torch.manual_seed(0)
    conf = NESSAConf(**{"utts_per_speaker": 4, "hidden": 32, "dim": 16, **changed})
    return NESSA(conf, Components(None, (), vector_dims=dict(zip(("enroll", "test"), dims, strict=True))))


def batch_of(enroll: np.ndarray, test: np.ndarray) -> Batch:
    sides = {"enroll": enroll, "test": test}
    return Batch([], None, {side: torch.from_numpy(each).float() for side, each in sides.items()})


def train(method: NESSA, enroll: np.ndarray, test: np.ndarray, steps: int, rate: float) -> None:
    """Batches of 20 speakers x 4 of 8 utterances."""
    optimizer = torch.optim.Adam(method.parameters(), rate)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        speakers = rng.permutation(len(enroll) // 8)[:20]
        rows = (8 * speakers[:, None] + np.argsort(rng.random((20, 8)), 1)[:, :4]).ravel()
        outcome = method(batch_of(enroll[rows], test[rows]), Clock(0, 1))
        optimizer.zero_grad()
        torch.stack(list(outcome.losses.values())).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("mode", MODES)
def test_at_the_start_nothing_is_changed(mode: str) -> None:
    """The same system on both sides: the cosine is the symmetric one."""
    rows, _ = people(5, 0)
    mapped = method_of(mode=mode).exports()
    enroll, test = (mapped[side](torch.from_numpy(rows).float()) for side in ("enroll", "test"))
    np.testing.assert_allclose((enroll @ test.T).detach().numpy(), rows @ rows.T, atol=1e-6)


def test_a_rotated_space_is_found_again() -> None:
    """Closed form exactly, trained maps nearly; raw cosines are at chance, least squares of no noise are the rotation."""
    known, _ = people(300, 1)
    strangers, who = people(20, 2)
    turn = rotation()
    best = error_rate(strangers, strangers, who)
    assert 0.01 < best < 0.2
    assert 0.3 < error_rate(strangers, strangers @ turn, who) < 0.7  # 20 speakers, 12 dimensions
    np.testing.assert_allclose(procrustes(known @ turn, known), turn, atol=1e-9)
    np.testing.assert_allclose(ridge(known @ turn, known, 0), turn, atol=1e-9)
    np.testing.assert_allclose(ridge(known @ turn, known, 1e-9), turn, atol=1e-6)
    for mode in MODES:
        method = method_of(mode=mode)
        train(method, known, known @ turn, 300, 1e-2 if mode == "linear" else 3e-3)
        mapped = method.exports()
        with torch.no_grad():
            enroll, test = (
                mapped[side](torch.from_numpy(each).float()).numpy()
                for side, each in (("enroll", strangers), ("test", strangers @ turn))
            )
        assert error_rate(enroll, test, who) < best + 0.03, mode
        assert method.scale.log_scale.exp().item() > 0


def test_procrustes_between_dimensions() -> None:
    """Orthonormal columns or rows; no other of these comes nearer."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 7)), rng.standard_normal((40, 4))
    for enroll, test in ((x, y), (y, x)):
        found = procrustes(test, enroll)
        product = found.T @ found if len(found) == 7 else found @ found.T
        np.testing.assert_allclose(product, np.eye(4), atol=1e-12)
        trace = np.trace(found @ test.T @ enroll)
        for seed in range(20):
            other = rotation(7, seed)[:, :4]
            assert np.trace((other if len(found) == 7 else other.T) @ test.T @ enroll) < trace


def test_ridge_solves_its_equation() -> None:
    """The gradient of the penalised squares is zero there."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 7)), rng.standard_normal((40, 4))
    found = ridge(y, x, 0.3)
    penalty = 0.3 * (y**2).sum() / 4
    np.testing.assert_allclose((found @ y.T - x.T) @ y + penalty * found, 0, atol=1e-10)


def test_cca_finds_what_both_sides_have() -> None:
    """The directions are uncorrelated within a side and across; across, each has its canonical correlation."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2000, 7)), rng.standard_normal((2000, 4))
    y[:, :2] += 2 * x[:, :2]  # two directions in common, with a correlation of 0.89
    one, other = cca(y, x, 1e-12)
    assert one.shape == (4, 7) and other.shape == (4, 4)
    correlations = np.diag(one @ x.T @ x @ one.T) / 2000
    for left, right, power in ((x @ one.T, x @ one.T, 1), (y @ other.T, y @ other.T, 1), (x @ one.T, y @ other.T, 2)):
        np.testing.assert_allclose(left.T @ right / 2000, np.diag(correlations**power), atol=1e-9)
    np.testing.assert_allclose(correlations[:2], 0.89, atol=0.03)
    assert correlations[2:].max() < 0.1
    # a turned space is found again, whatever the scale
    known, strangers = people(300, 1)[0], people(20, 2)
    enroll, test = cca(3 * known @ rotation(), known, 1e-3)
    turned = error_rate(strangers[0] @ enroll.T, strangers[0] @ rotation() @ test.T, strangers[1])
    assert turned == pytest.approx(error_rate(strangers[0] @ enroll.T, strangers[0] @ enroll.T, strangers[1]), abs=1e-9)


def test_training_starts_from_a_closed_form(tmp_path: Path) -> None:
    rows, _ = people(50, 1)
    one, other = cca(rows @ rotation(), rows, 0.1)
    for name, pair in (("cca", (one, other)), ("ridge", (np.eye(DIM), ridge(rows @ rotation(), rows, 0.1)))):
        (tmp_path / name).mkdir()
        for side, matrix in zip(("enroll", "test"), pair, strict=True):
            write_matrix(tmp_path / name / f"{side}.mat", matrix)
        method = method_of()
        method.start_from(str(tmp_path / name))
        x, y = rows @ pair[0].T, rows @ rotation() @ pair[1].T
        with torch.no_grad():
            enroll, test = (
                method.maps[side](torch.from_numpy(each).float()).numpy()
                for side, each in (("enroll", rows), ("test", rows @ rotation()))
            )
        np.testing.assert_allclose(enroll @ test.T, length_normalise(x) @ length_normalise(y).T, atol=1e-5)
    method_of(mode="linear").start_from(str(tmp_path / "ridge"))
    with pytest.raises(ValueError, match="needs --mode=two-sided"):
        method_of(mode="linear").start_from(str(tmp_path / "cca"))
    with pytest.raises(ValueError, match=r"enroll.mat takes vectors of 12 dimensions, but those here have 9"):
        method_of(dims=(9, DIM)).start_from(str(tmp_path / "ridge"))
    # a space that is too large is turned to fewer dimensions, the same for both sides
    small = method_of(dim=8)
    small.start_from(str(tmp_path / "ridge"))
    with torch.no_grad():
        enroll, test = (
            small.maps[side](torch.from_numpy(each).float())
            for side, each in (("enroll", rows), ("test", rows @ rotation()))
        )
    assert (enroll * test).sum(1).min() > 0.9


def test_logits_need_the_same_speakers_in_the_same_order() -> None:
    rows, who = people(30, 3)
    weights, turn = centroids(rows, who), rotation()
    same = error_rate(rows @ logits(weights).T, rows @ logits(weights).T, who)
    turned = error_rate(rows @ logits(weights).T, (rows @ turn) @ logits(weights @ turn).T, who)
    assert turned == pytest.approx(same, abs=1e-9)
    order = np.random.default_rng(0).permutation(30)
    one, both = logits(weights[order]), logits(weights)[order]
    assert error_rate(rows @ logits(weights).T, rows @ one.T, who) > 0.35
    assert error_rate(rows @ both.T, rows @ one.T, who) == pytest.approx(same, abs=1e-9)
    np.testing.assert_allclose((rows @ logits(weights, True).T).mean(1), 0, atol=1e-12)
    by_hand = length_normalise(np.stack([rows[who == speaker].mean(0) for speaker in range(30)]))
    np.testing.assert_allclose(weights, by_hand, atol=1e-12)


def test_logits_by_class_weights_or_centroids(tmp_path: Path) -> None:
    """A classifier's rows in the order of the speakers' names; a contrastive model has none, and vectors alone neither."""
    rows, who = people(3, 0, dim=6)
    torch.manual_seed(0)
    net = make_net(Path(__file__).parent / "data/xvector_toy.conf", 8, ("a", "b", "c", "d"), MarginConf())
    scp = str(tmp_path / "sys/xvectors_x/xvector.scp")
    (tmp_path / "sys").mkdir()
    class_rows = script("align_maps").class_rows
    assert class_rows(scp, rows, who, ("d", "a", "c"))[1] == "centroids"
    save_net(tmp_path / "sys/final.pt", net)
    found, told = class_rows(scp, rows, who, ("d", "a", "c"))
    assert told == "class weights" and net.head is not None
    np.testing.assert_array_equal(found, net.head.weight.detach().numpy()[[3, 0, 2]])
    for speakers, head in ((("d", "a", "x"), net.head), (("d", "a", "c"), None)):
        net.head = head
        save_net(tmp_path / "sys/final.pt", net)
        found, told = class_rows(scp, rows, who, speakers)
        assert told == "centroids"
        np.testing.assert_allclose(found, centroids(rows, who))


def test_only_the_maps_learn_and_both_do() -> None:
    rows, _ = people(20, 0)
    for conf in ({"mode": "two-sided"}, {"mode": "test-to-enroll"}, {"mode": "linear"}):
        method = method_of(**conf, both_ways=True, pair=0.5, within=0.5, loss="ge2e-xs")
        given = batch_of(rows, rows[:, ::-1].copy())
        before = {side: each.clone() for side, each in given.vectors.items()}
        outcome = method(given, Clock(0, 1))
        assert set(outcome.losses) == {"cross", "back", "pair", "within"}
        torch.stack(list(outcome.losses.values())).sum().backward()
        assert all(each.grad is not None for each in method.parameters())
        assert any(each.grad is not None and each.grad.any() for each in method.maps["test"].parameters())
        assert all(torch.equal(before[side], given.vectors[side]) for side in before)
        parameters = [len(list(method.maps[side].parameters())) for side in ("enroll", "test")]
        assert parameters == {"two-sided": [7, 7], "test-to-enroll": [0, 7], "linear": [0, 1]}[conf["mode"]]


def test_published_size() -> None:
    """Two sides of x-vectors of 128 dimensions stay below half a million parameters."""
    method = NESSA(NESSAConf(), Components(None, (), vector_dims={"enroll": 128, "test": 128}))
    one = 128 * 512 + 512 + 2 * 512 + 512 * 256 + 256 + 128 * 256
    assert sum(each.numel() for each in method.maps.parameters()) == 2 * one < 500_000


def test_maps_are_saved_and_the_wrong_side_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    map_vectors = script("map_vectors")
    rng = np.random.default_rng(0)
    rows = {side: {f"u{i}": rng.standard_normal(dim) for i in range(6)} for side, dim in (("enroll", 5), ("test", 5))}
    scps = {side: str(write_vectors(tmp_path / side / "xvectors_x/xvector", each)) for side, each in rows.items()}
    torch.manual_seed(0)
    linear = VectorMap("linear", 5, 4)
    save_map(tmp_path / "test.pt", linear, "test", SYSTEMS)
    map_vectors.main([str(tmp_path / "test.pt"), scps["test"], str(tmp_path / "out")])
    mapped = Scp(tmp_path / "out/xvector.scp")
    assert list(mapped) == sorted(rows["test"])
    # what transform-vec makes of it: the matrix times the vector, of whatever length
    matrix = read_matrix(tmp_path / "transform.mat")
    assert matrix.shape == (4, 5)
    for index, key in enumerate(mapped):
        expected = matrix @ rows["test"][key]
        np.testing.assert_allclose(mapped.read(index), expected / np.linalg.norm(expected), atol=1e-6)
    with pytest.raises(ValueError, match=r"test map, for vectors of test; .* is of enroll: that is the enroll side"):
        map_vectors.main([str(tmp_path / "test.pt"), scps["enroll"], str(tmp_path / "no")])
    other = str(write_vectors(tmp_path / "third/xvectors_x/xvector", rows["test"]))
    with pytest.raises(ValueError, match="but these are of third"):
        map_vectors.main([str(tmp_path / "test.pt"), other, str(tmp_path / "no")])
    map_vectors.main(["--any-system", "true", str(tmp_path / "test.pt"), other, str(tmp_path / "third/out")])
    (tmp_path / "test/final.pt").write_bytes(b"now trained")
    trained = {**SYSTEMS, "test": {"name": "test", "digest": "0" * 16}}
    save_map(tmp_path / "old.pt", linear, "test", trained)
    with pytest.raises(ValueError, match="trained again since"):
        map_vectors.main([str(tmp_path / "old.pt"), scps["test"], str(tmp_path / "no")])
    wide = {f"u{i}": rng.standard_normal(7) for i in range(6)}
    wide_scp = str(write_vectors(tmp_path / "test/xvectors_wide/xvector", wide))
    (tmp_path / "test/final.pt").unlink()
    for name in ("test.pt", "transform.mat"):
        with pytest.raises(
            ValueError, match=r"of 5 dimensions; those of .* have 7|does not fit vectors of 7 dimensions"
        ):
            map_vectors.main([str(tmp_path / name), wide_scp, str(tmp_path / "no")])
    assert not (tmp_path / "no").exists()
    (tmp_path / "odd.pt").write_bytes(b"odd")
    with pytest.raises(ValueError, match="can't be read, or is not a checkpoint"):
        load_map(tmp_path / "odd.pt")
    record = torch.load(tmp_path / "test.pt", weights_only=True)
    for change, message in (
        ({"other": None}, "the checkpoint lacks other;"),
        ({"system": {"name": "test"}}, "the checkpoint lacks system's digest;"),
    ):
        torch.save({**record, **change}, tmp_path / "odd.pt")
        with pytest.raises(ValueError, match=message):
            load_map(tmp_path / "odd.pt")


def test_profiles_are_averaged_in_the_mapped_space(tmp_path: Path) -> None:
    """Each utterance counts alike, however long its vector; the mean is normalised again."""
    rng = np.random.default_rng(0)
    rows = {f"s{who}-{take}": rng.uniform(0.1, 9) * rng.standard_normal(5) for who in range(4) for take in range(4)}
    scp = str(write_vectors(tmp_path / "test/xvectors_x/xvector", rows))
    torch.manual_seed(0)
    net = VectorMap("mlp", 5, 3, 8)
    torch.nn.init.normal_(net.layers[3].weight)
    save_map(tmp_path / "test.pt", net, "test", SYSTEMS)
    script("map_vectors").main([str(tmp_path / "test.pt"), scp, str(tmp_path / "out")])
    (tmp_path / "models").write_text("".join(f"m{who} s{who}-0 s{who}-1 s{who}-2\n" for who in range(4)))
    pairs = [(one, other) for one in range(4) for other in range(4)]
    (tmp_path / "trials").write_text("".join(f"m{a} s{b}-3 {'target' if a == b else 'nontarget'}\n" for a, b in pairs))
    words = ["--num-bootstrap", "0", "--plots", "false", "--enroll-spk2utt", str(tmp_path / "models")]
    write_table(tmp_path / "utt2spk", {name: name[:2] for name in rows})
    mapped = str(tmp_path / "out/xvector.scp")
    script("score").main([*words, str(tmp_path / "trials"), mapped, mapped, str(tmp_path / "scores")])
    found = [float(line.split()[2]) for line in (tmp_path / "scores/trials.cosine").read_text().splitlines()]

    def g(name: str) -> np.ndarray:
        return net(torch.from_numpy(rows[name]).float()).detach().numpy()

    for (one, other), score in zip(pairs, found, strict=True):
        profile = np.mean([g(f"s{one}-{take}") for take in range(3)], 0)
        assert score == pytest.approx(profile @ g(f"s{other}-3") / np.linalg.norm(profile), abs=1e-6)


def small(recipe: Path, *more: str) -> str:
    """A conf of NESSA for the toy's eight utterances a speaker."""
    (recipe / "conf/kd/small.conf").write_text(
        "".join(f"{line}\n" for line in ("--type=nessa", "--utts-per-speaker=4", *more))
    )
    return "conf/kd/small.conf"


SIDES = "enroll=exp/enroll/v/xvector.scp,test=exp/test/v/xvector.scp"


def test_without_audio_and_the_best_epoch_is_kept(recipe: Path, data: Path, sh: Run) -> None:
    write_sides(recipe)
    for name in ("feats.scp", "utt2num_frames", "wav.scp"):
        (data / name).unlink()
    words = [
        "--kd",
        small(recipe),
        "--vectors",
        SIDES,
        "--average",
        1,
        "--select",
        "true",
        "--num-epochs",
        9,
        "--lr",
        0.3,
    ]
    done = sh(*command("exp/a", *words))
    assert "exp/a/enroll.pt and test.pt is ready" in done.stderr and "maps of" in done.stderr
    lines = [line.split("\t") for line in (recipe / "exp/a/log.tsv").read_text().splitlines()]
    place = {name: lines[0].index(name) for name in ("epoch", "valid_eer_percent")}
    judged = [
        (float(row[place["valid_eer_percent"]]), int(float(row[place["epoch"]])))
        for row in lines[1:]
        if row[place["valid_eer_percent"]]
    ]
    assert len(judged) == 9
    best = min(judged)[1]
    assert [path.name for path in (recipe / "exp/a").glob("epoch.*")] == [f"epoch.{best}.pt"]
    state = torch.load(recipe / f"exp/a/epoch.{best}.pt", weights_only=True)
    for side in ("enroll", "test"):
        for name, value in map_weights(recipe / f"exp/a/{side}.pt").items():
            assert torch.equal(value, state[f"maps.{side}.{name}"])
    record = load_map(recipe / "exp/a/test.pt").record
    assert record["side"] == "test" and record["system"]["name"] == "test" and record["other"]["name"] == "enroll"
    assert "is complete already" in sh(*command("exp/a", *words)).stderr
    assert (
        "--select=true needs --valid-speakers"
        in sh(*command("exp/b", *words, "--valid-speakers", 0), fails=True).stderr
    )


def test_two_processes_learn_the_same_map(recipe: Path, data: Path, sh: Run) -> None:
    """The loss is over the speakers of both."""
    write_sides(recipe)
    words = ["--kd", small(recipe, "--mode=test-to-enroll"), "--vectors", SIDES, "--batch-size", 16]
    words += ["--valid-speakers", 0, "--threads", 1, "--optimizer", "sgd", "--momentum", 0.9]
    sh(
        "local/launch.sh",
        1,
        1,
        1,
        "exp/one",
        "local/train.py",
        "--config",
        "conf/train.conf",
        *words,
        "data/train",
        "exp/one",
    )
    sh(
        "local/launch.sh",
        1,
        1,
        2,
        "exp/two",
        "local/train.py",
        "--config",
        "conf/train.conf",
        *words,
        "data/train",
        "exp/two",
    )
    one, two = (map_weights(recipe / out / "test.pt") for out in ("exp/one", "exp/two"))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
    assert not torch.equal(one["linear.weight"], torch.eye(7, 5))


def test_missing_vectors_and_bad_input(recipe: Path, data: Path, sh: Run) -> None:
    write_sides(recipe)
    few = (recipe / "exp/test/v/xvector.scp").read_text().splitlines()
    (recipe / "exp/test/v/few.scp").write_text("".join(f"{line}\n" for line in few if not line.startswith("s0-0 ")))
    words = ["--kd", small(recipe), "--num-epochs", 1, "--average", 1, "--valid-speakers", 0]
    sides = SIDES.replace("test/v/xvector", "test/v/few")
    done = sh(*command("exp/a", *words, "--vectors", sides), fails=True)
    assert "few.scp: 1 of 48 utterances have no test: s0-0" in done.stderr and "--missing zero or skip" in done.stderr
    done = sh(*command("exp/a", *words, "--vectors", sides, "--missing", "skip"))
    assert "they are left out" in done.stderr and "47 utterances" in done.stderr
    done = sh(*command("exp/b", *words, "--vectors", "enroll=exp/enroll/v/xvector.scp"), fails=True)
    assert "the method nessa takes enroll=<file>, test=<file>" in done.stderr
    write_vectors(recipe / "odd", {"a": np.ones(3)})
    conf = small(recipe, "--utts-per-speaker=9").replace("small", "many")
    (recipe / conf).write_text("--type=nessa\n--utts-per-speaker=9\n")
    done = sh(*command("exp/c", "--vectors", SIDES, "--kd", conf, "--batch-size", 18), fails=True)
    assert "0 speakers have --utts-per-speaker=9 utterances: too few for a batch" in done.stderr


def test_logits_in_fewer_dimensions_have_the_same_cosines() -> None:
    rng = np.random.default_rng(5)
    one, other = (logits(rng.standard_normal((40, dim)), centred=True) for dim in (7, 5))
    few = in_fewer_dimensions(one, other)
    assert [each.shape for each in few] == [(12, 7), (12, 5)]
    x, y = rng.standard_normal((9, 7)), rng.standard_normal((9, 5))
    for a, b, left, right in ((one, other, x, y), (one, one, x, x), (other, other, y, y)):
        whole = length_normalise(left @ a.T) @ length_normalise(right @ b.T).T
        fewer = [few[0] if each is one else few[1] for each in (a, b)]
        found = length_normalise(left @ fewer[0].T) @ length_normalise(right @ fewer[1].T).T
        np.testing.assert_allclose(found, whole, atol=1e-12)
    assert in_fewer_dimensions(one[:12], other[:12])[0].shape == (12, 7)


def test_stage_7(recipe: Path, data: Path, sh: Run) -> None:
    """Two made-up systems, the test's a rotation of the enrolment's with a dimension less: maps, matrix, refusals."""
    rng, turn = np.random.default_rng(4), rotation()
    for name, speakers in (("maps", 30), ("test", 8)):
        rows = {}
        for who in range(speakers):
            centre = rng.standard_normal(DIM)
            rows |= {f"{name}{who:02d}-{take}": centre + 0.4 * rng.standard_normal(DIM) for take in range(8)}
        (recipe / f"data/{name}").mkdir(exist_ok=True)
        write_table(recipe / f"data/{name}/utt2spk", {key: key.split("-")[0] for key in rows})
        write_vectors(recipe / f"exp/old/xvectors_{name}/xvector", rows)
        noisy = {key: ((row + 0.1 * rng.standard_normal(DIM)) @ turn)[:-1] for key, row in rows.items()}
        if name == "maps":
            noisy.pop("maps03-2")
        write_vectors(recipe / f"exp/new/xvectors_{name}/xvector", noisy)
    names = sorted(rows)
    pairs = [(one, other) for one in names for other in names if one < other]
    kind = {True: "target", False: "nontarget"}
    (recipe / "trials").write_text("".join(f"{a} {b} {kind[a.split('-')[0] == b.split('-')[0]]}\n" for a, b in pairs))
    (recipe / "conf/train_align.conf").write_text(
        "--num-epochs=3\n--batch-size=40\n--optimizer=adamw\n--lr=1e-3\n--valid-speakers=5\n--select=true\n"
    )
    (recipe / "conf/kd/small.conf").write_text("--type=nessa\n--mode=linear\n--utts-per-speaker=4\n")
    files = [path for name in ("old", "new") for path in (recipe / f"exp/{name}").rglob("*.ark")]
    before = [path.read_bytes() for path in files]
    words = [
        "local/align.sh",
        "--num-bootstrap",
        50,
        "--kd-types",
        "small",
        "--closed-forms",
        "procrustes",
        "--top-n",
        20,
    ]
    done = sh(*words, "exp/old", "exp/new", "data/maps", "data/test", "trials")
    assert (
        "199 utterances of 25 speakers have both vectors, of 240; 12 dimensions (enroll), 11 (test)" in done.stderr
        or ("200 utterances of 25 speakers have both vectors, of 240" in done.stderr)
    )
    out = recipe / "exp/old_new_nessa"
    table = [line.split("\t") for line in (out / "matrix.tsv").read_text().splitlines()]
    assert table[0] == ["scoring", "map", "cell", "eer", "eer_low", "eer_high", "gain", "gain_low", "gain_high"]
    rates = {tuple(row[:3]): float(row[3]) for row in table[1:]}
    assert ("cosine", "raw", "TT") in rates and ("cosine", "raw", "TS") not in rates, "their dimensions differ"
    assert len(rates) == 2 * (2 + 4 + 4)
    gains = {tuple(row[:3]): float(row[6]) for row in table[1:]}
    for scoring in ("cosine", "asnorm"):
        new, old = rates[scoring, "raw", "TT"], rates[scoring, "raw", "SS"]
        for name in ("procrustes", "small"):
            for cell in ("TS", "ST"):
                assert rates[scoring, name, cell] < old + 5
                if new != old:
                    expected = (old - rates[scoring, name, cell]) / (old - new)
                    assert gains[scoring, name, cell] == pytest.approx(expected, rel=1e-3)
    assert (out / "matrix.md").read_text() in done.stdout
    assert len(files) == 4 and [path.read_bytes() for path in files] == before
    assert (out / "small/transform.mat").exists() and read_matrix(out / "procrustes/test.mat").shape == (12, 11)
    # by hand: one cell from the files
    scores = [float(line.split()[2]) for line in (out / "small/scores/trials.enroll-test").read_text().splitlines()]
    one, other = Scp(out / "small/enroll_test/xvector.scp"), Scp(out / "small/test_test/xvector.scp")
    a, b = pairs[17]
    assert scores[17] == pytest.approx(float(one.read(one.find(a)) @ other.read(other.find(b))), abs=1e-5)

    # Two lists: the maps are those of before, each list has its table, and the second is that of the list by itself.
    weights, first = map_weights(out / "small/test.pt"), (out / "matrix.tsv").read_text()
    (recipe / "few").write_text("".join((recipe / "trials").read_text().splitlines(keepends=True)[::3]))
    ends = ["exp/old", "exp/new", "data/maps", "data/test"]
    sh(*words, *ends, "trials,few")
    assert same(weights, map_weights(out / "small/test.pt")) and (out / "matrix.tsv").read_text() == first
    sh(*words, "--out", "exp/few", *ends, "few")
    second = (out / "matrix_few.tsv").read_text()
    assert second == (recipe / "exp/few/matrix.tsv").read_text() != first
    done = sh("local/collect_maps.py", "--table", "matrix_few", "--maps", "small", f"one={out}")
    assert f"{float(second.splitlines()[1].split()[3]):.2f}" in done.stdout

    # Tables of several pairs: the same figures, and no gain where there is nothing to gain.
    done = sh("local/collect_maps.py", "--maps", "small", f"one={out}", f"two={out}")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["one", "small"], ["two", "small"]] and rows[0][2:] == rows[1][2:]
    own = [
        rates["cosine", name, cell]
        for name, cell in zip(("raw", "raw", "small", "small"), ("SS", "TT", "TS", "ST"), strict=True)
    ]
    assert [float(cell.split()[0]) for cell in rows[0][2:6]] == pytest.approx(own, abs=0.006)
    assert (rows[0][6] != "-") == (own[0] > own[1])
    done = sh("local/collect_maps.py", "exp/old", fails=True)
    assert "'exp/old' is not <label>=<folder>" in done.stderr
    done = sh("local/collect_maps.py", "one=exp/old", fails=True)
    assert "exp/old/matrix.tsv is not there; local/align.sh writes it" in done.stderr

    done = sh(*words, "exp/old", "exp/old", "data/maps", "data/test", "trials", fails=True)
    assert "exp/old is given twice" in done.stderr
    done = sh(*words, "exp/old", "exp/new", "data/test", "data/test", "trials", fails=True)
    assert "speakers of data/test are in data/test too (test00" in done.stderr
    done = sh(*words, "exp/old", "exp/none", "data/maps", "data/test", "trials", fails=True)
    assert "exp/none: no such folder" in done.stderr


def test_maps_from_pieces_of_the_utterances(recipe: Path, data: Path, sh: Run) -> None:
    """They are read where they are, under the length's name; the whole utterances' vectors are not needed then."""
    rng = np.random.default_rng(6)
    for name in ("maps", "test"):
        (recipe / f"data/{name}").mkdir(exist_ok=True)
        keys = [f"{name}{who}-{take}" for who in range(9) for take in range(4)]
        write_table(recipe / f"data/{name}/utt2spk", {key: key.split("-")[0] for key in keys})
        for system in ("old", "new"):
            folder, pieces = recipe / f"exp/{system}/xvectors_{name}", keys
            if name == "maps":
                folder = folder.with_name(f"{folder.name}_c30")
                pieces = [f"{key}-{start:08d}-{start + 30:08d}" for key in keys for start in (0, 30)]
                (folder).mkdir(parents=True)
                write_table(folder / "utt2spk", {piece: piece.split("-")[0] for piece in pieces})
            write_vectors(folder / "xvector", {key: rng.standard_normal(DIM) for key in pieces})
    (recipe / "trials").write_text("test0-0 test0-1 target\ntest0-0 test1-0 nontarget\n")
    (recipe / "conf/train_align.conf").write_text("--num-epochs=1\n--batch-size=16\n--valid-speakers=2\n")
    (recipe / "conf/kd/small.conf").write_text("--type=nessa\n--mode=linear\n--utts-per-speaker=4\n")
    words = ["local/align.sh", "--kd-types", "small", "--closed-forms", "ridge", "--num-bootstrap", 0]
    done = sh(*words, "--chunk-frames", 30, "exp/old", "exp/new", "data/maps", "data/test", "trials")
    assert "56 utterances of 7 speakers have both vectors, of 72" in done.stderr
    assert "small" in done.stdout and (recipe / "exp/old_new_nessa/small/transform.mat").exists()
    assert "beyond chance" not in done.stdout  # it was not asked
    with open(recipe / "exp/old_new_nessa/.align.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        pieces = ("--chunk-frames", 30, "exp/old", "exp/new", "data/maps", "data/test", "trials")
        assert "another run makes maps in exp/old_new_nessa" in sh(*words, *pieces, fails=True).stderr
    done = sh(*words, "exp/old", "exp/new", "data/maps", "data/test", "trials", fails=True)
    assert "exp/old/xvectors_maps/xvector.scp is missing" in done.stderr


def test_centroids_are_those_of_a_loop(rng: np.random.Generator) -> None:
    labels = rng.permutation(np.arange(40) % 7)
    rows = rng.standard_normal((40, 5)).astype(np.float32)
    sums = np.stack([rows[labels == speaker].astype(float).sum(0) for speaker in range(7)])
    np.testing.assert_allclose(centroids(rows, labels), sums / np.linalg.norm(sums, axis=1, keepdims=True), rtol=1e-6)
