"""local/average_nets.py: the weights are means, and only nets that go together are averaged."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from speakerkd.losses.margin import MarginConf
from speakerkd.models import SpeakerNet, load_net, make_net, save_net

Run = Callable[..., subprocess.CompletedProcess[str]]
WORDS = ["local/average_nets.py"]


@pytest.fixture
def nets(recipe: Path) -> Path:
    """a and b, trained on from a; c, which was trained apart; d of another model; e without a classifier."""
    conf = "--type=xvector\n--channels=8\n--stats-channels=12\n--embedding-dim=6\n"
    (recipe / "model.conf").write_text(conf)
    (recipe / "wide.conf").write_text(conf.replace("=8", "=10"))

    def net(seed: int, model: str = "model.conf") -> SpeakerNet:
        torch.manual_seed(seed)
        made = make_net(recipe / model, 8, ("anna", "ben"), MarginConf())
        made.info = {"fbank": {"num_mel_bins": "8"}, "cmn": "utterance"}
        return made

    made = {"a": net(0), "b": net(0), "c": net(1), "d": net(0, "wide.conf"), "e": net(0)}
    with torch.no_grad():
        for value in made["b"].state_dict().values():
            value.add_(1 if not value.is_floating_point() else 0.01 * torch.randn_like(value).abs())
    made["e"].head, made["e"].speakers = None, ()
    for name, each in made.items():
        (recipe / "exp" / name).mkdir(parents=True)
        save_net(recipe / f"exp/{name}/final.pt", each)
    return recipe


def test_the_mean_of_all_weights(nets: Path, sh: Run) -> None:
    done = sh(*WORDS, "exp/a/final.pt", "exp/b/final.pt", "exp/half")
    assert "exp/half/final.pt is ready: 0.5 of exp/a/final.pt, 0.5 of exp/b/final.pt" in done.stderr
    assert "cosine" not in done.stderr
    sh(*WORDS, "--shares", "0.75,0.25", "exp/a/final.pt", "exp/b/final.pt", "exp/quarter")
    one, other = (load_net(nets / f"exp/{name}/final.pt").state_dict() for name in "ab")
    for folder, share in (("half", 0.5), ("quarter", 0.25)):
        found = load_net(nets / f"exp/{folder}/final.pt")
        assert found.speakers == ("anna", "ben") and found.info["cmn"] == "utterance"
        for name, value in found.state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(value, one[name] + share * (other[name] - one[name]))
            else:
                assert torch.equal(value, one[name])
    record = json.loads((nets / "exp/half/conf.json").read_text())["options"]["average"]["nets"]
    assert record["exp/a/final.pt"]["share"] == 0.5 and len(record["exp/b/final.pt"]["sha256"]) == 64


def test_a_classifier_that_not_all_have_is_left_out(nets: Path, sh: Run) -> None:
    done = sh(*WORDS, "exp/a/final.pt", "exp/e/final.pt", "exp/out")
    assert "the classifier is left out" in done.stderr
    assert load_net(nets / "exp/out/final.pt").head is None


def test_nets_that_do_not_go_together(nets: Path, sh: Run) -> None:
    assert "the nets' weights have a cosine of" in sh(*WORDS, "exp/a/final.pt", "exp/c/final.pt", "exp/apart").stderr
    done = sh(*WORDS, "exp/a/final.pt", "exp/d/final.pt", "exp/out", fails=True)
    assert "exp/a/final.pt and exp/d/final.pt differ: channels: 8 and 10" in done.stderr
    assert "needs two nets or more" in sh(*WORDS, "exp/a/final.pt", "exp/out", fails=True).stderr
    for shares in ("0.5", "0.5,0.6", "1.5,-0.5", "a,b"):
        done = sh(*WORDS, "--shares", shares, "exp/a/final.pt", "exp/b/final.pt", "exp/out", fails=True)
        assert f"--shares={shares}: 2 numbers from 0 to 1 are needed" in done.stderr
    assert not (nets / "exp/out").exists()
    sh(*WORDS, "exp/a/final.pt", "exp/b/final.pt", "exp/half")
    done = sh(*WORDS, "exp/b/final.pt", "exp/a/final.pt", "--shares", "0.1,0.9", "exp/half", fails=True)
    assert "exp/half holds a run with other options" in done.stderr
