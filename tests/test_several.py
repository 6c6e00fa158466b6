"""Several teachers: the loss is the weighted mean of the losses by each alone; names, weights and what is refused."""

import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_hearing import FRONT_ENDS, TOY, teacher_net
from test_wave_crops import make, twelve
from toy import command

from speakerkd.batches.dataset import Batch, Batches, View
from speakerkd.batches.utterances import Utterances
from speakerkd.conf import update
from speakerkd.feats.frontend import KaldiConf, KaldiFrontEnd
from speakerkd.files.kaldi import ArkWriter, Scp
from speakerkd.kd import METHODS, Clock, Components
from speakerkd.kd.find_teacher import mean_vectors
from speakerkd.kd.several import (
    Several,
    TeacherOptions,
    centroids_of,
    files_of,
    find_teachers,
    make_method,
    named_teachers,
    weights_of,
)
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
    assert named_teachers("exp/lr=0.1/final.pt") == {"": "exp/lr=0.1/final.pt"}
    assert named_teachers("big=exp/lr=0.1/final.pt") == {"big": "exp/lr=0.1/final.pt"}
    means = "exp/lr=0.1/spk_xvector.scp"
    assert centroids_of(means, "big=exp/a.scp") == centroids_of(f"big={means}", "big=exp/a.scp") == {"big": means}
    for text, message in (
        ("a.pt,b.pt", "give each of several teachers a name"),
        ("x=a.pt,x=b.pt", "two teachers are called 'x'"),
        ("x y=a.pt,z=b.pt", "'x y' is not a name"),
        ("half=a.pt,z=b.pt", "a teacher can't be called 'half'"),
    ):
        with pytest.raises(ValueError, match=message):
            named_teachers(text)
    for text, message in (
        ("deep=1", "there is no teacher 'deep'"), ("big=x", "'x' is not a number"), ("big=-1", "can't be negative"),
        ("big=0,face=0", "one must be positive"), ("big=nan", "can't be negative, and at least one must be positive"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            weights_of(text, {"big": 0, "face": 0})


def vectors_of(folder: Path, names: Iterable[str], dim: int = 5) -> str:
    rng = np.random.default_rng(0)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with ArkWriter(folder) as write:
        for name in sorted(names):
            write(name, rng.standard_normal(dim).astype(np.float32))
    return f"{folder}.scp"


@pytest.mark.parametrize("hear", ["utterance", "places"])
def test_vectors_beside_a_net_are_judged_by_its_own_classifier(tmp_path: Path, hear: str) -> None:
    """--hear utterance, --hear places: the net's rows in the student's order; without a classifier, mean vectors."""
    data = Utterances(make(tmp_path / "d", twelve()), source="waves")
    net = teacher_net(FRONT_ENDS["kaldi"], ("s2", "other", "s0", "s1"))
    (tmp_path / "t").mkdir()
    save_net(tmp_path / "t/final.pt", net)
    options = TeacherOptions(str(tmp_path / "t/final.pt"), hear)
    everyone = np.arange(len(data))
    script = {"utterance": "extract_xvectors.sh", "places": "extract_crop_xvectors.sh"}[hear]
    with pytest.raises(ValueError, match=rf"--hear={hear}: .*_d/xvector.scp is not there .* by local/{script} "):
        find_teachers(options, data, everyone, MarginConf())
    names = list(data.scp) if hear == "utterance" else [f"{name}-00000000-00000020" for name in data.scp]
    scp = vectors_of(tmp_path / ("t/xvectors_d" if hear == "utterance" else "t/crops_d") / "xvector", names, net.dim)
    (teacher,) = find_teachers(options, data, everyone, MarginConf()).values()
    assert files_of(options, data.folder) == [options.teacher, scp]
    batch = Batches(data, [View()], 20, 4, 0)[0]
    assert isinstance(teacher, VectorTeacher) and not batch.heard
    said = teacher.embed(batch).embedding
    assert all(any(np.array_equal(Scp(scp).read(line), each.numpy()) for line in range(12)) for each in said)
    assert batch.labels is not None and net.head is not None
    rows = [net.speakers.index(name) for name in data.speakers]
    torch.testing.assert_close(teacher.logits(said), net.head(said)[:, rows])
    save_net(tmp_path / "t/final.pt", teacher_net(FRONT_ENDS["kaldi"]))
    (bare,) = find_teachers(options, data, everyone, MarginConf()).values()
    means, _ = mean_vectors(data, everyone)
    assert bare.head is not None
    torch.testing.assert_close(bare.head.weight, torch.nn.functional.normalize(means))
    with pytest.raises(ValueError, match="--hear=all is not one of: crop places utterance"):
        find_teachers(TeacherOptions(options.teacher, "all"), data, everyone, MarginConf())
    for wish in (False, True):
        options = TeacherOptions(options.teacher, compile_teachers=wish)
        (hearing,) = find_teachers(options, data, everyone, MarginConf()).values()
        assert isinstance(hearing, NetTeacher) and hearing.compiled == wish


def test_teachers_that_cannot_hear_are_refused_by_name(recipe: Path, data: Path, sh: Run) -> None:
    make(recipe / "data/train", twelve())
    slow = KaldiFrontEnd(KaldiConf(sample_frequency=8000, num_mel_bins=20, dither=0.0))
    for name, front_end in (("t", FRONT_ENDS["kaldi"]), ("slow", slow)):
        (recipe / f"exp/{name}").mkdir(parents=True)
        save_net(recipe / f"exp/{name}/final.pt", teacher_net(front_end))
    face = vectors_of(recipe / "face", twelve())
    words = ["--kd", "conf/kd/cosine.conf", "--valid-speakers", 0, "--num-frames", 20]
    for teachers, more, parts in (
        (f"a=exp/t/final.pt,a={face}", [], ["two teachers are called 'a'; give them different names"]),
        (f"a=exp/t/final.pt,face={face}", [], ["exp/t/final.pt", "--source=feats has only features", "--source waves"]),
        (f"a=exp/slow/final.pt,face={face}", ["--source", "waves"],
         ["exp/slow/final.pt hears 8000 Hz, and the waves of data/train have 16000 Hz", "local/extract_xvectors.sh"]),
        (f"a=exp/t/final.pt,face={face}", ["--source", "waves", "--hear", "utterance"],
         ["exp/t/xvectors_train/xvector.scp is not there", "local/extract_xvectors.sh exp/t/final.pt data/train"]),
    ):  # fmt: skip
        done = sh(*command("exp/a", *words, "--teacher", teachers, *more), fails=True)
        for part in parts:
            assert part in done.stderr, (teachers, done.stderr)
        assert not (recipe / "exp/a/final.pt").exists() and "Traceback" not in done.stderr
    check = ["local/check_teacher.sh", "--kd", "conf/kd/cosine.conf", "--source", "waves"]
    told = sh(*check, f"a=exp/t/final.pt,face={face}", "data/train").stdout
    assert "hears      the same samples by its own front end (a)" in told and told.splitlines()[-1].startswith(
        "can serve"
    )
    assert "hears      nothing: its vectors were made beforehand (face)" in told
    told = sh(*check, f"a=exp/slow/final.pt,face={face}", "data/train", fails=True).stdout
    assert "can't serve" in told and "hears 8000 Hz" in told
    assert "no such teacher" in sh(*check, f"a=exp/no/final.pt,face={face}", "data/train", fails=True).stderr


def test_a_face_and_a_voice_at_once_by_mkd(recipe: Path, data: Path, sh: Run) -> None:
    """With margins and quality weights; what was heard beforehand serves as well as the crop."""
    make(recipe / "data/train", twelve())
    (recipe / "exp/t").mkdir(parents=True)
    save_net(recipe / "exp/t/final.pt", teacher_net(FRONT_ENDS["kaldi"], ("s0", "s1", "s2")))
    both = f"voice=exp/t/final.pt,face={vectors_of(recipe / 'face', twelve())}"
    (recipe / "conf/kd/both.conf").write_text("--type=mkd\n--margin-percentile=50\n--quality=both\n")
    words = ["--kd", "conf/kd/both.conf", "--valid-speakers", 0, "--num-frames", 20, "--source", "waves"]
    sh(*command("exp/a", *words, "--teacher", both))
    log = np.genfromtxt(recipe / "exp/a/log.tsv", names=True)
    columns = {"ce", "kd_voice", "kd_face", "beyond_voice", "beyond_face"}
    assert columns <= set(log.dtype.names or ()) and all(np.isfinite(log[name]).all() for name in columns)
    assert log["kd_voice"].max() > 0 and log["kd_face"].max() > 0
    sh("local/extract_xvectors.sh", "exp/t/final.pt", "data/train", "exp/t/xvectors_train")
    sh(
        *command(
            "exp/b", *words[2:-2], "--kd", "conf/kd/kld.conf", "--hear", "utterance", "--teacher", "exp/t/final.pt"
        )
    )
    assert "exp/t/xvectors_train/xvector.scp" in (recipe / "exp/b/conf.json").read_text()


def test_training_by_a_voice_that_hears_and_a_face_of_vectors(recipe: Path, data: Path, sh: Run) -> None:
    make(recipe / "data/train", twelve())
    (recipe / "exp/t").mkdir(parents=True)
    save_net(recipe / "exp/t/final.pt", teacher_net(FRONT_ENDS["kaldi"]))
    vectors_of(recipe / "face", twelve())
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
