"""Names that reach bash through the job runners, and names that awk might take for an assignment."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, environment, noise, write_wav

Run = Callable[..., subprocess.CompletedProcess[str]]
BAD = (
    "a $(touch ran)",
    "a;touch ran",
    "`touch ran`",
    "a'b",
    "a b",
    "aJOBb",
    "exp/JOB.1",
    "$HOME/a",
    "a&",
    "a|b",
    "zo\u00eb",
)
GOOD = ("", "exp/xvector_none_s0", "a=b,c=d", "--lr=1e-3", "/corpora/A~1@x%y:z+,.-_")


@pytest.mark.parametrize("word", BAD)
def test_words_that_bash_might_act_on(word: str) -> None:
    script = 'shift; . local/lib.sh; check_words good "$@"'
    done = subprocess.run(["bash", "-euc", script, "x.sh", "x", word], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and f"x.sh: '{word}' h" in done.stderr


def test_words_that_bash_leaves_as_they_are() -> None:
    for word in GOOD:
        script = '. local/lib.sh; check_words "$@"; echo "$@" > /dev/null; [ "$(eval "echo $1")" = "$1" ]'
        done = subprocess.run(["bash", "-euc", script, "x.sh", word], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, (word, done.stderr)


def test_stage_scripts_refuse_them(recipe: Path, sh: Run) -> None:
    """Before the runner is called, whatever else is missing."""
    bad = "x $(touch ran)"
    for words in (
        ("local/make_fbank.sh", bad),
        ("local/make_fbank.sh", "data/train", bad),
        ("local/make_wave_ark.sh", bad),
        ("local/compute_vad.sh", bad),
        ("local/extract_xvectors.sh", "exp/a/final.pt", "data/test", bad),
        ("local/extract_xvectors.sh", bad, "data/test", "exp/a"),
        ("local/train.sh", "data/train", bad),
        ("local/train.sh", "--teacher", bad, "data/train", "exp/a"),
        ("local/train.sh", "--train-options", "--seed 0;touch ran", "data/train", "exp/a"),
        ("local/compare_kd.sh", "--seeds", "0;touch ran", "a", "b", "c", "d"),
        ("local/compare_kd.sh", "--teachers", "own=a;touch", "a", "b", "c", "d"),
        ("local/compare_kd.sh", "a", "b", "c", "d$(touch ran)"),
        ("local/score_noise.sh", "data/test", "data/test/trials", bad, "exp/a"),
        ("local/score_noise.sh", "data/test", "data/test/trials", "exp/n", bad),
        ("local/align.sh", "--out", bad, "a", "b", "c", "d", "e"),
        ("local/align.sh", "--kd-types", "nessa;touch ran", "a", "b", "c", "d", "e"),
        ("local/score_plda.sh", "data/train", bad, "t", "e", "f", "out"),
    ):
        done = sh(*words, fails=True)
        assert "has a character that bash may act on" in done.stderr, (words, done.stderr)
    assert sorted(path.name for path in recipe.iterdir()) == ["conf", "local", "utils"]


def test_a_data_directory_that_looks_like_an_assignment(recipe: Path, sh: Run) -> None:
    """awk '...' snr=10/wav.scp would set a variable, and then wait for its standard input."""
    path = write_wav(recipe / "a.wav", noise(0.5))
    folder = recipe / "snr=10"
    folder.mkdir()
    (folder / "wav.scp").write_text(f"a {path}\n")
    (folder / "utt2spk").write_text("a a\n")
    (folder / "spk2utt").write_text("a a\n")
    done = subprocess.run(
        ["local/make_fbank.sh", "--nj", "1", "snr=10"],
        cwd=recipe, env=environment(), capture_output=True, text=True, timeout=60, stdin=subprocess.PIPE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len((folder / "feats.scp").read_text().splitlines()) == 1


def test_no_path_is_a_format_of_printf() -> None:
    """printf "$out/%s\\n" reads a % in the name of the folder as a directive."""
    formats = re.compile(r"""printf (?:-v \S+ )?(?:-- )?"[^"]*\$(?!\()""")
    scripts = [path for path in ROOT.rglob("*.sh") if "venv" not in path.parts and not path.is_symlink()]
    assert len(scripts) > 30
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in scripts
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if formats.search(line)
    ]
    assert not found
