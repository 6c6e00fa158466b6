"""tools/new_recipe.sh: a recipe for a corpus of one's own runs at once on a folder with a folder for each speaker."""

import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, environment, noise, write_wav

from speakerkd.files.tables import read_table
from tools.new_recipe import prepare_data


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository to start recipes in."""
    folder = tmp_path / "root"
    (folder / "egs").mkdir(parents=True)
    for part in ("local", "utils", "tools", "speakerkd", "egs/mini"):
        (folder / part).symlink_to(ROOT / part)
    return folder


def start(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([root / "tools/new_recipe.sh", *words], env=environment(), capture_output=True, text=True)


def make_wavs(folder: Path, speakers: tuple[str, ...]) -> Path:
    for number, speaker in enumerate(speakers):
        for name in ("a", "b-2", "talk 1/c"):
            write_wav(folder / speaker / f"{name}.wav", noise(0.3, seed=number))
    return folder


def test_a_new_recipe_runs_its_first_stage(root: Path, tmp_path: Path) -> None:
    done = start(root, "mycorpus")
    assert done.returncode == 0, done.stderr
    recipe = root / "egs/mycorpus/v1"
    bare = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run([recipe / "run.sh", "--help"], env=bare, capture_output=True, text=True)
    for text in ("--corpus /corpora/mycorpus", "--test_share 0.1", "--train_config", "--train_options"):
        assert text in done.stdout
    for name in ("run.sh", "cmd.sh", "path.sh", "README.md", "RESULTS.md", "conf/train.conf", "conf/kd/enskd.conf"):
        assert "@NAME@" not in (recipe / name).read_text(), name
    # Its settings are its own: changing one changes no other recipe.
    assert [path.name for path in recipe.rglob("*") if path.is_symlink()] == ["local", "utils"]
    before = (ROOT / "egs/mini/v1/conf/model/xvector_tiny.conf").read_text()
    (recipe / "conf/model/xvector_tiny.conf").write_text("")
    assert (ROOT / "egs/mini/v1/conf/model/xvector_tiny.conf").read_text() == before
    # Names that would make bad ids: spaces, hyphens, one that is the start of another.
    corpus = make_wavs(tmp_path / "wavs", ("Ann", "Ann-Marie", "Bo", "von Otto", "Zoë", "x"))
    command = [recipe / "run.sh", "--corpus", corpus, "--stop_stage", "1"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    wavs = {**read_table(recipe / "data/train/wav.scp"), **read_table(recipe / "data/test/wav.scp")}
    assert len(wavs) == 18 and "data/test is valid: 6 utterances of 2 speakers" in done.stdout
    assert "data/train is valid: 12 utterances of 4 speakers" in done.stdout
    assert wavs["Ann_Marie-talk_1_c"] == f"{corpus}/Ann-Marie/talk 1/c.wav"
    # 6 test utterances: 15 pairs, 3 of each speaker.
    labels = [line.split()[2] for line in (recipe / "data/test/trials").read_text().splitlines()]
    assert labels.count("target") == 6 and labels.count("nontarget") == 9
    # Two speeds of 12, and a room and a noise for each of the 36.
    assert len(read_table(recipe / "data/train_aug/utt2aug")) == 24 + 72
    assert "2 of 6 speakers are kept for testing" in done.stderr and "--test-share 0.5 makes it 3" in done.stderr
    done = subprocess.run(
        [*command, "--test_share", "0.5"], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert "data/test is valid: 9 utterances of 3 speakers" in done.stdout, done.stderr
    assert "more speakers are needed" in done.stderr


def test_bad_names_are_refused(root: Path) -> None:
    for name in ("My corpus", "mini", "../x", "9x"):
        done = start(root, name)
        assert done.returncode == 1 and "new_recipe.sh: " in done.stderr, name
    assert sorted(path.name for path in (root / "egs").iterdir()) == ["mini"]
    assert start(root).returncode == 1


def test_speakers_that_would_get_one_id(tmp_path: Path) -> None:
    corpus = make_wavs(tmp_path / "wavs", ("a b", "a_b", "c", "d"))
    with pytest.raises(ValueError, match="speakers a b and a_b would both be called a_b"):
        prepare_data.main([str(corpus), str(tmp_path / "data")])
    with pytest.raises(ValueError, match=r"c: 1 speakers \(talk_1\), four at least are needed"):
        prepare_data.main([str(corpus / "c"), str(tmp_path / "data")])


def test_trials_are_drawn_where_there_are_too_many(tmp_path: Path) -> None:
    corpus = tmp_path / "wavs"
    for speaker in "abcd":
        (corpus / speaker).mkdir(parents=True)
        for number in range(20):
            (corpus / speaker / f"{number}.wav").touch()  # never opened
    prepare_data.main(["--max-trials", "50", "--test-share", "0.5", str(corpus), str(tmp_path / "data")])
    trials = [line.split() for line in (tmp_path / "data/test/trials").read_text().splitlines()]
    assert len({(a, b) for a, b, _ in trials}) == 100
    assert sum(label == "target" for *_, label in trials) == 50
    assert all((a[0] == b[0]) == (label == "target") and a != b for a, b, label in trials)
