"""score_noise.sh: the noise has its SNR, ids stay, what is there is used again, the table says what the scores say."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, environment

from speakerkd.files.kaldi import Scp
from speakerkd.files.tables import read_table
from speakerkd.losses.margin import MarginConf, MarginHead
from speakerkd.models import MODELS, SpeakerNet, save_net

Run = Callable[..., subprocess.CompletedProcess[str]]
SYSTEMS = ("one", "two")


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up speakers with features, and two nets that were never trained, the second one the first with changes."""
    folder = tmp_path_factory.mktemp("noise")
    for name in ("local", "utils"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "conf").symlink_to(ROOT / "egs/mini/v1/conf")
    small = ["--num-train-speakers", "6", "--num-test-speakers", "4", "--utts-per-speaker", "9", "--sessions", "3"]
    for words in (
        [ROOT / "egs/synth/v1/prepare_data.py", *small, "--seconds", "2:3", "data"],
        ["local/make_fbank.sh", "--nj", "1", "data/test"],
    ):
        done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    for seed, name in enumerate(SYSTEMS):
        torch.manual_seed(0)
        kind = MODELS["xvector"]
        encoder = kind(kind.Conf(channels=8, stats_channels=12, embedding_dim=6), 80)
        with torch.no_grad():
            for weight in encoder.parameters() if seed else ():
                weight.add_(0.1 * weight.square().mean().sqrt() * torch.randn_like(weight))
        (folder / "exp" / name).mkdir(parents=True)
        save_net(folder / "exp" / name / "final.pt", SpeakerNet(encoder, MarginHead(MarginConf(), 6, 2), ("a", "b")))
    return folder


def run(folder: Path, *words: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
    fast = ["--score-opts", "--num-bootstrap 100 --plots false", "--nj", "1"]
    whole = ["local/score_noise.sh", *fast, *words]
    done = subprocess.run(whole, cwd=folder, env=environment(), capture_output=True, text=True)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def energies(folder: Path) -> np.ndarray:
    """Of each utterance, summed over frames and filters: filters are linear, so energies add up."""
    feats = Scp(folder / "feats.scp")
    return np.array([np.exp(feats.read(index).astype(np.float64)).sum() for index in range(len(feats))])


def rows(folder: Path) -> list[dict[str, str]]:
    names, *lines = [line.split("\t") for line in (folder / "exp/noise/noise.tsv").read_text().splitlines()]
    return [dict(zip(names, line, strict=True)) for line in lines]


ARGUMENTS = ("data/test", "data/test/trials", "exp/noise")


@pytest.fixture(scope="module")
def scored(ready: Path) -> Path:
    done = run(ready, "--snrs", "10,0", *ARGUMENTS, "exp/one")
    assert done.stdout.splitlines()[-1] == (ready / "exp/noise/noise.md").read_text().splitlines()[-1]
    return ready


def test_noise_is_added_at_its_snr_under_the_same_ids(scored: Path) -> None:
    plans = {snr: read_table(scored / f"data/test_noise{snr}/utt2aug") for snr in (10, 0)}
    utterances = list(read_table(scored / "data/test/utt2spk"))
    for snr, plan in plans.items():
        folder = scored / f"data/test_noise{snr}"
        assert list(plan) == utterances == list(Scp(folder / "feats.scp"))
        for table in ("wav.scp", "utt2spk", "spk2utt", "conf/fbank.conf"):
            assert (folder / table).read_text() == (scored / "data/test" / table).read_text(), table
        assert all(re.findall(r":snr=(\S+)", text) == [str(snr)] for text in plan.values())
    assert {utt: text.replace(":snr=10", ":snr=0") for utt, text in plans[10].items()} == plans[0]
    assert len({text.split("@")[0] for text in plans[0].values()}) > 10  # not one noise for all
    clean = energies(scored / "data/test")
    added = [energies(scored / f"data/test_noise{snr}") - clean for snr in (10, 0)]
    assert np.median(10 * np.log10(added[1] / added[0])) == pytest.approx(10, abs=0.5)


def test_the_table_says_what_the_vectors_say(scored: Path) -> None:
    found = rows(scored)
    assert [(row["system"], row["noise"], row["snr"]) for row in found] == [
        ("one", "clean", "-"),
        ("one", "noise", "10"),
        ("one", "noise", "0"),
    ]
    for row, condition in zip(found, ("clean", "noise10", "noise0"), strict=True):
        vectors = Scp(scored / f"exp/noise/one/xvectors_{condition}/xvector.scp")
        of = {name: vectors.read(index).astype(np.float64) for index, name in enumerate(vectors)}
        of = {name: value / np.linalg.norm(value) for name, value in of.items()}
        trials = [line.split() for line in (scored / "data/test/trials").read_text().splitlines()]
        scores = np.array([of[one] @ of[two] for one, two, _ in trials])
        target = np.array([kind == "target" for _, _, kind in trials])
        # Where misses and false alarms meet, by trying every threshold.
        misses = np.array([(scores[target] < each).mean() for each in scores])
        alarms = np.array([(scores[~target] >= each).mean() for each in scores])
        nearest = np.abs(misses - alarms).argmin()
        assert float(row["eer"]) == pytest.approx(50 * (misses[nearest] + alarms[nearest]), abs=1.5)
        assert float(row["eer_low"]) <= float(row["eer"]) <= float(row["eer_high"])
    markdown = (scored / "exp/noise/noise.md").read_text().splitlines()
    assert len(markdown) == 5 and f"{float(found[2]['eer']):.2f} [" in markdown[4]
    vectors = [Scp(scored / f"exp/noise/one/xvectors_{name}/xvector.scp") for name in ("clean", "noise10", "noise0")]
    far = [np.linalg.norm(each.read(3) - vectors[0].read(3)) for each in vectors]
    assert 0 == far[0] < far[1] < far[2]


def test_what_is_there_is_used_again_and_another_system_joins(scored: Path) -> None:
    made = [
        scored / "data/test_noise10/feats.scp",
        scored / "data/test_noise10/data/raw_fbank_test_noise10.1.ark",
        scored / "exp/noise/one/xvectors_noise10/xvector.scp",
    ]
    before, table = [path.stat().st_mtime_ns for path in made], rows(scored)
    done = run(scored, "--snrs", "10", *ARGUMENTS, "exp/one", "exp/two")
    assert "data/test_noise10 has its features already" in done.stdout
    assert [path.stat().st_mtime_ns for path in made] == before
    found = rows(scored)
    assert [(row["system"], row["snr"]) for row in found] == [("one", "-"), ("one", "10"), ("two", "-"), ("two", "10")]
    assert found[:2] == table[:2] and found[2] | {"system": "one"} != found[0]


def test_what_was_made_of_other_things_is_made_again(scored: Path) -> None:
    feats, vectors = scored / "data/test_noise0/feats.scp", scored / "exp/noise/one/xvectors_noise0/xvector.scp"
    before = [path.stat().st_mtime_ns for path in (feats, vectors)]
    plan = read_table(scored / "data/test_noise0/utt2aug")
    clean = (scored / "exp/noise/one/xvectors_clean/xvector.scp").stat().st_mtime_ns
    run(scored, "--snrs", "0", "--seed", "1", *ARGUMENTS, "exp/one")
    assert read_table(scored / "data/test_noise0/utt2aug") != plan
    assert all(path.stat().st_mtime_ns > old for path, old in zip((feats, vectors), before, strict=True))
    assert (scored / "exp/noise/one/xvectors_clean/xvector.scp").stat().st_mtime_ns == clean


def test_babble_of_five_has_the_snr_together(ready: Path) -> None:
    run(ready, "--kinds", "babble", "--snrs", "5", *ARGUMENTS[:2], "exp/babble", "exp/one")
    plan = read_table(ready / "data/test_babble5/utt2aug")
    assert all(re.findall(r":snr=(\S+)", text) == ["11.99"] * 5 for text in plan.values())  # 5 + 10 log10 5


def test_what_has_no_snr_is_one_condition(scored: Path) -> None:
    run(scored, "--kinds", "telephone,noise", "--snrs", "10,0", "data/test", "data/test/trials", "exp/phone", "exp/one")
    texts = read_table(scored / "data/test_telephone/utt2aug")
    assert set(texts.values()) == {"telephone"} and list(texts) == list(read_table(scored / "data/test/utt2spk"))
    lines = [line.split("\t")[:3] for line in (scored / "exp/phone/noise.tsv").read_text().splitlines()[1:]]
    assert lines == [
        ["one", kind, snr] for kind, snr in (("clean", "-"), ("telephone", "-"), ("noise", "10"), ("noise", "0"))
    ]


def test_asnorm_with_a_clean_cohort(scored: Path) -> None:
    """Each system's own cohort vectors are made once, clean; the scores are those of score.py."""
    shutil.copytree(scored / "data/train", scored / "data/others")
    make = ["local/make_fbank.sh", "--nj", "1", "data/others"]
    subprocess.run(make, cwd=scored, env=environment(), capture_output=True, check=True)
    words = ("--snrs", "10", "--cohort", "data/others", *ARGUMENTS[:2], "exp/norm", "exp/one", "exp/two")
    run(scored, *words)
    table = [line.split("\t") for line in (scored / "exp/norm/noise.tsv").read_text().splitlines()]
    found = [dict(zip(table[0], line, strict=True)) for line in table[1:]]
    names = [(row["system"], row["noise"], row["scoring"]) for row in found]
    assert names == [(who, what, how) for who in SYSTEMS for what in ("clean", "noise") for how in ("asnorm", "cosine")]
    one, cohort = scored / "exp/norm/one", scored / "exp/norm/one/cohort_others/xvector.scp"
    noisy = str(one / "xvectors_noise10/xvector.scp")
    norm = ["--norm", "asnorm", "--top-n", "6", "--cohort", str(cohort), "--cohort-spk2utt", "data/others/spk2utt"]
    whole = ["local/score.py", *norm, "--num-bootstrap", "0", "--plots", "false"]
    done = [*whole, "data/test/trials", noisy, noisy, "exp/by_hand"]
    subprocess.run(done, cwd=scored, env=environment(), capture_output=True, check=True)
    by_hand = (scored / "exp/by_hand/metrics.tsv").read_text().splitlines()
    expected = dict(zip(by_hand[0].split("\t"), by_hand[1].split("\t"), strict=True))
    assert found[2]["eer"] == expected["eer"] and found[2]["eer"] != found[3]["eer"]
    text = (scored / "exp/norm/noise.md").read_text().splitlines()
    columns = [cell.strip() for cell in text[0].strip("|").split("|")]
    cells = [cell.strip() for cell in text[4].strip("|").split("|")]  # one, noise, asnorm
    assert cells[columns.index("scoring")] == "asnorm"
    assert cells[columns.index("EER : clean")] == f"{float(found[2]['eer']) / float(found[0]['eer']):.2f}"
    made = cohort.stat().st_mtime_ns
    run(scored, *words)
    assert cohort.stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kinds", "telephone,telephone", *ARGUMENTS, "exp/one"], "name telephone twice"),
        (["--snrs", "loud", *ARGUMENTS, "exp/one"], "'loud' is not a number of dB"),
        ([*ARGUMENTS, "exp/three"], "exp/three/final.pt: no such checkpoint"),
        ([*ARGUMENTS, "exp/one", "exp/one"], "two systems are called one"),
        (
            ["data/train", *ARGUMENTS[1:], "exp/one"],
            "data/train/feats.scp is missing or empty; run local/make_fbank.sh",
        ),
        (["--snrs", "7", *ARGUMENTS, "exp/one"], "data/test_noise7 is there and was not made by this script"),
        (
            ["--cohort", "data/test", "--score-opts", "--name mine", *ARGUMENTS, "exp/one"],
            "--score-opts can't have --name",
        ),
        (["--snrs", "5,5", *ARGUMENTS, "exp/one"], "name noise5 twice"),
        (["--cohort", "data/nobody", *ARGUMENTS, "exp/one"], "--cohort: data/nobody/feats.scp is missing"),
        (["--cohort", "data/test", "--top-n", "1", *ARGUMENTS, "exp/one"], "--top-n '1' is not a number from 2 on"),
    ],
)
def test_wrong_calls(ready: Path, words: list[str], message: str) -> None:
    (ready / "data/test_noise7").mkdir(exist_ok=True)
    (ready / "data/test_noise7/utt2aug").write_text("mine\n")
    assert message in run(ready, *words, fails=True).stderr
    assert (ready / "data/test_noise7/utt2aug").exists()
    assert not (ready / "exp/three").exists()
