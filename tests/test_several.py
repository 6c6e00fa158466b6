"""Several teachers: the loss is the weighted mean of the losses by each alone; names, weights and what is refused."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_hearing import FRONT_ENDS, TOY, teacher_net
from test_wave_crops import make, twelve
from toy import command

from speakerkd.batches.dataset import Batch
from speakerkd.conf import update
from speakerkd.files.kaldi import ArkWriter
from speakerkd.kd import METHODS, Clock, Components
from speakerkd.kd.several import Several, make_method, named_teachers, weights_of
from speakerkd.kd.teacher import NetTeacher, Teacher, VectorTeacher, key_of
from speakerkd.losses.margin import MarginConf
from speakerkd.models import load_net, make_net, save_net

Run = Callable[..., subprocess.CompletedProcess[str]]
NAMES = ("a", "b", "c")


def teachers() -> dict[str, Teacher]:
    torch.manual_seed(5)
    net = make_net(TOY, 8, NAMES, MarginConf()).eval()
    everyone = torch.ones(3, dtype=torch.bool)
    face = VectorTeacher("face.scp", NAMES, torch.randn(3, 5), everyone, MarginConf(), key_of("face"))
    return {"voice": NetTeacher(net, "voice.pt", NAMES), "face": face}


def batch() -> Batch:
    torch.manual_seed(6)
    return Batch([torch.randn(6, 20, 8)], torch.arange(6) % 3, {key_of("face"): torch.randn(6, 5)})


@pytest.mark.parametrize("kd", ["cosine", "mse", "relation", "kld", "dkd", "mkd"])
@pytest.mark.parametrize("weights", ["", "voice=3,face=1"])
def test_the_loss_is_the_weighted_mean_and_all_that_is_trained_gets_gradient(kd: str, weights: str) -> None:
    kind = METHODS[kd]
    conf = update(kind.Conf(), {"warmup": "0", **({"margin_percentile": "50"} if kd == "mkd" else {})}, "test")
    named = teachers()
    shares = weights_of(weights, named)
    assert sum(shares.values()) == 1 and (weights == "" or shares["voice"] == 0.75)

    def student() -> Components:
        torch.manual_seed(7)
        return Components(make_net(TOY, 8, NAMES, MarginConf()), NAMES)

    both = make_method(kind, conf, student(), named, shares)
    assert isinstance(both, Several)
    both.train()
    before = {name: each.clone() for name, each in both.state_dict().items()}
    outcome = both(batch(), Clock(1.0, 4))
    assert set(outcome.losses) == {"ce", "kd_voice", "kd_face"}
    for name, teacher in named.items():
        alone = make_method(kind, conf, student(), {name: teacher}, {name: 1.0})
        alone.train()
        own = {key: value for key, value in before.items() if key.startswith(f"own.{name}.")}
        copied = {key.removeprefix(f"own.{name}."): value for key, value in own.items()}
        alone.load_state_dict({**alone.state_dict(), **copied})  # a projection is drawn at random
        fresh = alone(batch(), Clock(1.0, 4))
        torch.testing.assert_close(outcome.losses[f"kd_{name}"], shares[name] * fresh.losses["kd"])
    torch.stack(list(outcome.losses.values())).sum().backward()
    assert all(each.grad is not None for each in both.parameters() if each.requires_grad)
    assert all(not each.requires_grad for teacher in named.values() for each in teacher.parameters())


def test_names_and_weights() -> None:
    assert named_teachers("exp/a/final.pt") == {"": "exp/a/final.pt"}
    assert named_teachers("big=a.pt,face=b.scp") == {"big": "a.pt", "face": "b.scp"}
    for text, message in (
        ("a.pt,b.pt", "give each of several teachers a name"),
        ("x=a.pt,x=b.pt", "two teachers are called 'x'"),
        ("x y=a.pt,z=b.pt", "'x y' is not a name"),
    ):
        with pytest.raises(ValueError, match=message):
            named_teachers(text)
    for text, message in (
        ("deep=1", "there is no teacher 'deep'"), ("big=x", "'x' is not a number"), ("big=-1", "can't be negative"),
        ("big=0,face=0", "one must be positive"), ("big=nan", "can't be negative, and at least one must be positive"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            weights_of(text, {"big": 0, "face": 0})


def test_training_by_a_voice_that_hears_and_a_face_of_vectors(recipe: Path, data: Path, sh: Run) -> None:
    make(recipe / "data/train", twelve())
    (recipe / "exp/t").mkdir(parents=True)
    save_net(recipe / "exp/t/final.pt", teacher_net(FRONT_ENDS["kaldi"]))
    rng = np.random.default_rng(0)
    with ArkWriter(recipe / "face") as write:
        for name in sorted(twelve()):
            write(name, rng.standard_normal(5).astype(np.float32))
    words = ["--kd", "conf/kd/cosine.conf", "--valid-speakers", 0, "--num-frames", 20, "--source", "waves"]
    both = ["--teacher", "voice=exp/t/final.pt,face=face.scp"]
    sh(*command("exp/a", *words, *both, "--teacher-weights", "face=0.5"))
    header = (recipe / "exp/a/log.tsv").read_text().split("\n")[0].split("\t")
    assert {"ce", "kd_voice", "kd_face"} <= set(header)
    assert load_net(recipe / "exp/a/final.pt").head is not None
    done = sh(*command("exp/a", *words, *both), fails=True)
    assert "teacher_weights" in done.stderr
    done = sh(*command("exp/b", *words, *both, "--centroids", "face.scp"), fails=True)
    assert "give name=file, with the names of teachers: voice face" in done.stderr
