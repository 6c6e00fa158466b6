"""egs/open/v1/compare.sh: whom the students are trained on, and what is handed to the comparison. Nothing is trained."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, calls, replace_scripts

from speakerkd.files.tables import read_utt2spk, write_data_dir, write_table

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(recipe: Path) -> Path:
    """The recipe with pieces of nine speakers of Speech Commands and two of speechocean762, at two speeds."""
    replace_scripts(recipe, {"compare_kd.sh": 'printf "%s\\n" "$@" | paste -sd "|" >> calls\n'})
    for name in ("compare.sh", "corpora.sh", "cmd.sh"):
        shutil.copy(ROOT / "egs/open/v1" / name, recipe)
    (recipe / "path.sh").write_text("")
    speakers = [f"commands-{number}" for number in range(9)] + ["ocean-1", "ocean-2"]
    utt2spk = {
        f"{speed}{name}-{take}": f"{speed}{name}" for name in speakers for speed in ("", "sp0.8-") for take in "12"
    }
    write_data_dir(recipe / "data/train_pieces", dict.fromkeys(utt2spk, "x"), utt2spk)
    write_table(recipe / "data/train_pieces/feats.scp", {utt: f"x.ark:{number}" for number, utt in enumerate(utt2spk)})
    for part in ("test", "dev"):
        (recipe / "data" / part).mkdir()
        for name in ("ocean", "commands", "mini"):
            (recipe / f"data/{part}/trials_{name}").write_text("a b target\n")
    return recipe


def handed_on(folder: Path, sh: Run, *words: object) -> list[str]:
    sh("./compare.sh", *words)
    (words,) = calls(folder)
    return " ".join(words).split("|")


def speakers_of(folder: Path, name: str) -> set[str]:
    return set(read_utt2spk(folder / "data" / name / "utt2spk").values())


def test_who_is_trained_on(folder: Path, sh: Run) -> None:
    words = handed_on(
        folder, sh, "--kd_types", "none cosine", "--seeds", "0 4", "--train_options", "--lr 1e-3 --clip 1"
    )
    everyone = {f"commands-{number}" for number in range(9)}
    assert speakers_of(folder, "compare_no_ocean") == everyone  # at their own speed
    lists = "data/test/trials_commands,data/test/trials_ocean"
    assert words[-4:] == ["data/compare_no_ocean", "data/test", lists, "exp/compare/no_ocean"]
    given = dict(zip(words[:-4:2], words[1:-4:2], strict=True))
    assert given["--kd-types"] == "none cosine" and given["--seeds"] == "0 4"
    assert given["--train-options"] == "--lr 1e-3 --clip 1" and given["--train-config"] == "conf/train_compare.conf"
    assert given["--teachers"] == "campplus=exp/campplus/xvectors_train_originals/xvector.scp"

    words = handed_on(folder, sh, "--leave_out", "", "--dev", "true", "--out", "exp/mine")
    assert speakers_of(folder, "compare_all") == everyone | {"ocean-1", "ocean-2"}
    assert words[-3:] == ["data/dev", lists.replace("test", "dev"), "exp/mine"]

    # fewer speakers are some of those of a larger number, and the same each time
    handed_on(folder, sh, "--speakers", 3)
    three = speakers_of(folder, "compare_no_ocean_3")
    handed_on(folder, sh, "--speakers", 6)
    assert len(three) == 3 and three < speakers_of(folder, "compare_no_ocean_6") < everyone


def test_a_set_of_older_pieces_is_made_again(folder: Path, sh: Run) -> None:
    handed_on(folder, sh)
    made, pieces = folder / "data/compare_no_ocean/feats.scp", folder / "data/train_pieces/feats.scp"
    before = made.stat().st_mtime_ns
    handed_on(folder, sh)
    assert made.stat().st_mtime_ns == before
    pieces.write_text(pieces.read_text().replace("x.ark", "y.ark"))
    os.utime(pieces, (time.time() + 5,) * 2)
    handed_on(folder, sh)
    assert "y.ark" in made.read_text()
    assert not list((folder / "data").glob(".*.own")), "temporary files are removed"


def test_what_is_refused(folder: Path, sh: Run) -> None:
    for words, message in (
        (("--speakers", -3), "--speakers '-3' is not a number"),
        (("--speakers", 10), "--speakers 10: there are only 9"),
        (("--leave_out", "ocean+commands"), "--leave_out ocean+commands: nothing is left"),
        (("--leave_out", "ocaen"), "no corpus 'ocaen'"),
        (("more",), "unexpected argument 'more'"),
    ):
        assert message in sh("./compare.sh", *words, fails=True).stderr
    (folder / "data/train_pieces/feats.scp").unlink()
    assert "run ./run.sh --stop_stage 3 first" in sh("./compare.sh", fails=True).stderr
