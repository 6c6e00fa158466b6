"""--init-utts: a speaker that the first net does not know starts at its mean embedding, others keep their rows."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from toy import SPEAKERS, UTTERANCES, command

from speakerkd.batches.utterances import Utterances
from speakerkd.models import load_net
from speakerkd.models.base import SpeakerNet
from speakerkd.models.extract import embed
from speakerkd.train.classrows import some_of_class

Run = Callable[..., subprocess.CompletedProcess[str]]
STILL = ["--lr", 1e-12, "--final-lr", 1e-12, "--num-epochs", 1, "--average", 1, "--weight-decay", 0]


def rows_of(net: SpeakerNet) -> torch.Tensor:
    assert net.head is not None
    return net.head.weight.detach()


def means(net: SpeakerNet, data: Utterances, most: int) -> torch.Tensor:
    """The mean of each speaker's embeddings of length 1, without any of the code under test."""
    assert data.labels is not None
    found = []
    for speaker in range(len(data.speakers)):
        entries = np.flatnonzero(data.labels == speaker)
        few = entries if len(entries) <= most else entries[[index * len(entries) // most for index in range(most)]]
        vectors = [embed(net, data.crops.rows(int(entry)), torch.device("cpu")) for entry in few]
        found.append(F.normalize(torch.from_numpy(np.stack(vectors))).mean(0))
    return F.normalize(torch.stack(found))


@pytest.mark.parametrize(("processes", "most"), [(1, UTTERANCES), (2, 2)])
def test_new_speakers_start_at_their_means(recipe: Path, data: Path, sh: Run, processes: int, most: int) -> None:
    sh(*command("exp/a", "--valid-speakers", 2))  # it knows two speakers less
    first = load_net(recipe / "exp/a/final.pt").eval()
    options = ["--init", "exp/a/final.pt", "--valid-speakers", 0, *STILL]
    if processes == 1:
        done = sh(*command("exp/b", *options, "--init-utts", most))
    else:
        words = command("exp/b", *options, "--init-utts", most)
        done = sh("local/launch.sh", 1, 1, processes, "exp", *words)
    after, all_of = load_net(recipe / "exp/b/final.pt"), Utterances(recipe / "data/train")
    new = [index for index, name in enumerate(after.speakers) if name not in first.speakers]
    assert len(new) == 2 and after.speakers == all_of.speakers
    assert f"the rows of 2 speakers are mean embeddings of {2 * most} utterances" in done.stderr
    expected = means(first, all_of, most)
    assert torch.allclose(F.normalize(rows_of(after)[new]), expected[new], atol=1e-5)
    for index, name in enumerate(after.speakers):
        if name in first.speakers:
            assert torch.allclose(rows_of(after)[index], rows_of(first)[first.speakers.index(name)], atol=1e-6)
    sh(*command("exp/c", *options))  # random rows
    random = rows_of(load_net(recipe / "exp/c/final.pt"))
    assert torch.allclose(random[new].norm(dim=1), rows_of(after)[new].norm(dim=1), atol=1e-6)
    assert (F.normalize(random[new]) * expected[new]).sum(1).max() < 0.999


def test_a_run_with_other_rows_is_another_run(recipe: Path, data: Path, sh: Run) -> None:
    sh(*command("exp/a", "--valid-speakers", 2))
    options = ["--init", "exp/a/final.pt", "--valid-speakers", 0, *STILL]
    sh(*command("exp/b", *options))
    refused = sh(*command("exp/b", *options, "--init-utts", 1), fails=True).stderr
    assert "init_utts: (none) -> 1" in refused


@pytest.mark.parametrize("words", [["--init-utts", 1], ["--init", "exp/a/final.pt", "--init-utts", -1]])
def test_bad_numbers(recipe: Path, data: Path, sh: Run, words: list[str]) -> None:
    assert "--init-utts=" in sh(*command("exp/b", *words), fails=True).stderr


def test_without_a_classifier_there_are_no_rows(recipe: Path, data: Path, sh: Run) -> None:
    sh(*command("exp/a", "--num-epochs", 1, "--average", 1))
    (recipe / "conf/kd/dino.conf").write_text("--type=dino\n--prototypes=4\n")
    words = ["--kd", "conf/kd/dino.conf", "--valid-speakers", 0, "--init", "exp/a/final.pt", "--init-utts", 2]
    assert "--init-utts=2: the method dino has no classifier" in sh(*command("exp/b", *words), fails=True).stderr


def test_sub_centres_are_near_the_mean_but_not_alike(recipe: Path, data: Path, sh: Run) -> None:
    sh(*command("exp/a", "--valid-speakers", 2))
    head = (recipe / "conf/head.conf").read_text()
    (recipe / "conf/head.conf").write_text(f"{head}\n--sub-centers=3\n")
    sh(*command("exp/b", "--init", "exp/a/final.pt", "--valid-speakers", 0, "--init-utts", UTTERANCES, *STILL))
    first, after = load_net(recipe / "exp/a/final.pt").eval(), load_net(recipe / "exp/b/final.pt")
    rows = F.normalize(rows_of(after)).unflatten(0, (SPEAKERS, 3))
    close = (rows * means(first, Utterances(recipe / "data/train"), UTTERANCES).unsqueeze(1)).sum(2)
    assert close.min() > 0.98
    assert (rows[:, 0] - rows[:, 1]).abs().max(dim=1).values.min() > 1e-3


def test_utterances_are_spread_over_all_that_a_speaker_has() -> None:
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 2, 0, 0])
    entries = np.array([0, 1, 2, 3, 4, 6, 8, 9])  # without 5 and 7
    chosen = some_of_class(labels, entries, np.array([True, True, True]), 3)
    assert chosen.tolist() == [0, 4, 8, 1, 3]
    assert some_of_class(labels, entries, np.array([False, True, True]), 3).tolist() == [1, 3]
    assert len(some_of_class(labels, entries, np.zeros(3, bool), 3)) == 0
