"""Contrastive losses by hand, batches of speakers x utterances, and models trained so."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import UTTERANCES, command

from speakerkd.batches.dataset import Batches, View
from speakerkd.batches.speakerorder import SpeakerOrder, turns
from speakerkd.batches.utterances import Utterances
from speakerkd.losses.contrastive import Scale, cross_cosines, ge2e, ge2e_xs, own_cosines, prototype_cosines
from speakerkd.models import load_net

Run = Callable[..., subprocess.CompletedProcess[str]]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def rows_of(seed: int, speakers: int = 4, utterances: int = 5) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((speakers, utterances, 6)))


def test_cosines_by_hand() -> None:
    x, y = rows_of(0), rows_of(1)
    found = cross_cosines(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    own = own_cosines(torch.from_numpy(x)).numpy()
    first = prototype_cosines(torch.from_numpy(x)).numpy()
    assert found.shape == own.shape == (4, 5, 4) and first.shape == (4, 1, 4)
    for j in range(4):
        for k in range(4):
            for r in range(5):
                profile = x[k, 2:] if r < 2 else x[k, :2]  # the other half
                assert found[j, r, k] == pytest.approx(y[j, r] @ unit(profile.mean(0)))
                others = x[k][np.arange(5) != r] if j == k else x[k]
                assert own[j, r, k] == pytest.approx(x[j, r] @ unit(others.mean(0)))
            assert first[j, 0, k] == pytest.approx(x[j, 0] @ unit(x[k, 1:].mean(0)))


def test_losses_by_hand() -> None:
    scores = 3 * np.random.default_rng(0).standard_normal((4, 5, 4))
    softmax, extended = (loss(torch.from_numpy(scores)).numpy() for loss in (ge2e, ge2e_xs))
    for j in range(4):
        for r in range(5):
            target = np.exp(scores[j, r, j])
            assert softmax[j, r] == pytest.approx(-np.log(target / np.exp(scores[j, r]).sum()))
            false = sum(np.exp(scores[i, r, k]) for i in range(4) for k in range(4) if i != k)  # 4 x 3 of them
            assert extended[j, r] == pytest.approx(-np.log(target / (target + false)))


def test_the_scale_stays_positive() -> None:
    scale = Scale(10.0, -5.0)
    assert scale(torch.tensor(0.5)).item() == pytest.approx(0.0, abs=1e-5)
    optimizer = torch.optim.SGD(scale.parameters(), 1.0)
    for _ in range(50):
        optimizer.zero_grad()
        scale(torch.tensor(1.0)).backward()
        optimizer.step()
    assert 0 < scale.log_scale.exp().item() < 1
    with pytest.raises(ValueError, match=r"--scale=0\.0 must be positive"):
        Scale(0.0, 0.0)


def test_turns() -> None:
    assert turns(np.array([3, 5, 3, 3, 0, 5])).tolist() == [0, 0, 1, 2, 0, 1]


def test_batches_of_speakers(caplog: pytest.LogCaptureFixture) -> None:
    """No speaker and no utterance twice in a batch; all are heard; too small ones are left out and counted."""
    sizes = [3, 12, 7, 9, 20, 5, 6, 11]
    who = np.random.default_rng(0).permutation(np.repeat(np.arange(8), sizes))
    order = SpeakerOrder(who, 4, 14, seed=3)
    assert "1 speakers with fewer than --utts-per-speaker=4 utterances are left out" in caplog.text
    assert (order.batch_size, order.per_epoch) == (12, 70 // 12)
    heard = np.zeros(len(who), int)
    for epoch in range(40):
        batches = order(epoch).reshape(order.per_epoch, 3, 4)
        np.testing.assert_array_equal(batches, order(epoch).reshape(batches.shape))
        for batch in batches:
            speakers = who[batch]
            assert (speakers == speakers[:, :1]).all() and len(set(speakers[:, 0])) == 3 and 0 not in speakers
            assert len(np.unique(batch)) == 12
            heard[batch.ravel()] += 1
    assert (heard[who > 0] > 0).all() and not heard[who == 0].any()
    by_speaker = np.bincount(who, heard)[1:]
    assert by_speaker.max() < 1.4 * by_speaker.min()
    assert not np.array_equal(order(0), order(1)) and not np.array_equal(order(0), SpeakerOrder(who, 4, 14, 4)(0))
    with pytest.raises(ValueError, match="a batch must hold 2 speakers or more"):
        SpeakerOrder(who, 4, 7, 0)


def test_shares_and_any_step_at_any_time(data: Path) -> None:
    utterances = Utterances(data)

    def batches(rank: int = 0, size: int = 1) -> Batches:
        return Batches(utterances, [View()], 24, 16, 0, rank=rank, world_size=size, utts_per_speaker=4)

    whole, halves = batches(), [batches(rank, 2) for rank in range(2)]
    assert whole.batch_size == 16 and whole.per_epoch == 6 * UTTERANCES // 16
    for step in (7, 2, 7, 0):
        assert whole.entries_of(step).tolist() == [entry for half in halves for entry in half.entries_of(step)]
        assert torch.equal(whole[step].feats[0], torch.cat([half[step].feats[0] for half in halves]))
        labels = whole[step].labels
        assert labels is not None and (labels.view(4, 4) == labels.view(4, 4)[:, :1]).all()


@pytest.mark.parametrize("loss", ["ge2e", "ge2e-xs", "angular"])
def test_a_contrastive_model(recipe: Path, data: Path, sh: Run, loss: str) -> None:
    """It learns, and has no classifier unless one is asked for."""
    (recipe / "conf/kd/ge2e.conf").write_text(f"--type=ge2e\n--loss={loss}\n--utts-per-speaker=4\n")
    sh(*command("exp/a", "--kd", "conf/kd/ge2e.conf", "--num-epochs", 20, "--batch-size", 16, "--valid-interval", 20))
    net = load_net(recipe / "exp/a/final.pt")
    assert net.head is None and len(net.speakers) == 4
    rows = [line.split("\t") for line in (recipe / "exp/a/log.tsv").read_text().splitlines()]
    column = [float(row[rows[0].index(loss)]) for row in rows[1:] if row[rows[0].index(loss)]]
    assert column[-1] < 0.7 * column[0]
    if loss == "ge2e":
        (recipe / "conf/kd/ge2e.conf").write_text("--type=ge2e\n--utts-per-speaker=4\n--classify=0.5\n")
        sh(*command("exp/b", "--kd", "conf/kd/ge2e.conf", "--num-epochs", 2, "--batch-size", 16))
        assert load_net(recipe / "exp/b/final.pt").head is not None
