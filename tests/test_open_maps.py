"""egs/open/v1/compare_maps.sh: what is trained on whom, what the maps learn from, and the tables. Nothing is trained."""

import fcntl
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
HEADER = "scoring\tmap\tcell\teer\teer_low\teer_high\tgain\tgain_low\tgain_high\n"
STUBS = {
    "train_and_score.sh": r"""for out; do :; done
mkdir -p "$out/xvectors_test" "$out/xvectors_dev"
[ -e "$out/final.pt" ] || touch "$out/final.pt"
echo "$@" >> calls
""",
    "extract_xvectors.sh": r"""for out; do :; done
mkdir -p "$out"
echo x > "$out/xvector.scp"
echo "extract $*" >> calls
""",
    "extract_vectors_onnx.py": r"""for out; do :; done
mkdir -p "$out"
echo x > "$out/xvector.scp"
echo "onnx $*" >> calls
""",
    "align.sh": r"""out= words="$*"
while [ $# -gt 5 ]; do [ "$1" != --out ] || out=$2; shift; done
mkdir -p "$out"
[ -e "$1/xvectors_$(basename "$3")/xvector.scp" ] && [ -e "$2/xvectors_$(basename "$3")/xvector.scp" ] || exit 1
cp table.tsv "$out/matrix.tsv"
sed 's/TS\t4/TS\t3/' table.tsv > "$out/matrix_trials_commands.tsv"
echo "align $words" >> calls
""",
}


@pytest.fixture
def folder(recipe: Path) -> Path:
    """The recipe with 50 speakers at two speeds, and scripts that only say how they were called."""
    replace_scripts(recipe, STUBS)
    for name in ("compare_maps.sh", "corpora.sh", "cmd.sh"):
        shutil.copy(ROOT / "egs/open/v1" / name, recipe)
    (recipe / "path.sh").write_text("")
    speakers = [f"commands-{number:02d}" for number in range(50)]
    utt2spk = {f"{copy}{name}-{take}": copy + name for name in speakers for copy in ("", "sp0.8-") for take in (1, 2)}
    for name, kept in (("train_pieces", utt2spk), ("cohort", dict(list(utt2spk.items())[::4]))):
        write_data_dir(recipe / "data" / name, dict.fromkeys(kept, "x"), kept)
        write_table(recipe / "data" / name / "feats.scp", {utt: f"x.ark:{number}" for number, utt in enumerate(kept)})
    for part in ("test", "dev"):
        (recipe / "data" / part).mkdir()
        for name in ("ocean", "commands"):
            (recipe / f"data/{part}/trials_{name}").write_text("a b target\n")
    (recipe / "exp/campplus/xvectors_train_originals").mkdir(parents=True)
    for name in ("xvectors_train_originals/xvector.scp", "final.pt"):
        (recipe / "exp/campplus" / name).write_text("x\n")
    rows = [("raw", "TT", "2 1 3 nan nan nan"), ("raw", "SS", "6 5 7 nan nan nan")]
    rows += [("ridge", "TS", "4 3 5 0.50 0.40 0.60"), ("ridge", "ST", "5 4 6 0.25 0.1 0.4")]
    lines = ["\t".join(("cosine", name, cell, *text.split())) + "\n" for name, cell, text in rows]
    (recipe / "table.tsv").write_text(HEADER + "".join(lines))
    return recipe


def value(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_every_pair(folder: Path, sh: Run) -> None:
    done = sh("./compare_maps.sh", "--sizes", "20 0")
    made = calls(folder)
    models = {words[-1]: words for words in made if words[0] not in ("align", "extract", "onnx")}
    methods = {
        name.removeprefix("exp/maps/"): (Path(value(words, "--model")).stem, Path(value(words, "--kd")).stem, words[-4])
        for name, words in models.items()
    }
    assert methods == {
        "old_none": ("xvector", "none", "exp/maps/train"),
        "new_cosine": ("ecapa_small", "cosine", "exp/maps/train"),
        "old_ge2e": ("xvector", "ge2e", "exp/maps/train"),
        "new_ge2e": ("ecapa_small", "ge2e", "exp/maps/train"),
        "old_half": ("xvector", "none", "exp/maps/train_half0"),
        "new_half": ("ecapa_small", "cosine", "exp/maps/train_half1"),
    }
    for name, words in models.items():
        taught = "exp/campplus/xvectors_train_originals/xvector.scp" in words
        assert taught == (methods[name.removeprefix("exp/maps/")][1] == "cosine")
        assert words[-3:-1] == ["data/test", "data/test/trials_ocean,data/test/trials_commands"]

    # who is in a set: pieces at their own speed, halves without a common speaker, nested sizes
    sets = {path.parent.name: read_utt2spk(path) for path in (folder / "exp/maps").glob("*/utt2spk")}
    assert not any(name.startswith("sp") for each in sets.values() for name in each)
    halves = [set(sets[f"train_half{half}"].values()) for half in (0, 1)]
    assert not halves[0] & halves[1] and halves[0] | halves[1] == set(sets["train"].values())
    assert len(halves[0]) == 25 and len(sets["train"]) == 100
    assert len(set(sets["pieces_20"].values())) == 20 and sets["pieces_0"] == sets["train"]

    # the maps: who enrols, who verifies, what they learn from
    aligned = [words for words in made if words[0] == "align"]
    sides = [(Path(words[-5]).name, Path(words[-4]).name, Path(words[-3]).name) for words in aligned]
    two = [("old_none", "new_cosine"), ("old_none", "pretrained"), ("old_ge2e", "new_ge2e"), ("old_half", "new_half")]
    two.append(("old_none", "campplus"))
    assert sides == [(*pair, name) for pair in two for name in ("pieces_20", "pieces_0")]
    assert all(f"--valid-speakers {size}" in " ".join(words) for words, size in zip(aligned, (2, 5) * 5, strict=True))
    assert [words[-3:] for words in made if words[0] == "onnx"] == [
        ["pretrained/model.onnx", source, f"exp/maps/pretrained/xvectors_{name}"]
        for source, name in (("exp/maps/train", "pieces"), ("data/test", "test"))
    ]
    vectors = folder / "exp/maps/campplus/xvectors_pieces_20"
    assert vectors.resolve() == folder / "exp/campplus/xvectors_train_originals"
    assert not [words for words in made if words[0] == "extract" and "campplus" in words[-1]]
    for name, rate in (("ocean", "4.00"), ("commands", "3.00")):
        table = (folder / f"exp/maps/table_trials_{name}.md").read_text()
        assert table in done.stdout and table.count(f"| {rate} [3.00, 5.00] | 5.00") == 10
        assert "| halves 50" in table and "| campplus 20" in table

    # finished maps are not made again; another setting stands beside them
    sh("./compare_maps.sh", "--sizes", "20 0")
    assert [words for words in calls(folder) if words[0] in ("align", "extract", "onnx")] == []
    sh("./compare_maps.sh", "--pairs", "own", "--sizes", "20", "--label", "slow", "--align_options", "--lr 1e-5")
    (again,) = [words for words in calls(folder) if words[0] == "align"]
    assert value(again, "--out") == "exp/maps/maps/own_20_slow" and again[again.index("--lr") + 1] == "1e-5"

    # more methods are added where the others are; other scores of the models, or other data, are not passed over
    sh("./compare_maps.sh", "--pairs", "own", "--sizes", "20", "--kd_types", "nessa")
    (more,) = [words for words in calls(folder) if words[0] == "align"]
    assert value(more, "--out") == "exp/maps/maps/own_20" and value(more, "--kd-types") == "nessa"
    newer(folder / "exp/maps/old_none/final.pt")
    sh("./compare_maps.sh", "--pairs", "own", "--sizes", "20", "--kd_types", "nessa")
    made = [words for words in calls(folder) if words[0] in ("align", "extract")]
    assert [words[0] for words in made] == ["extract", "align"] and made[0][-1] == "exp/maps/old_none/xvectors_pieces"
    feats = folder / "data/train_pieces/feats.scp"
    feats.write_text(feats.read_text().replace("x.ark", "y.ark"))
    newer(feats)
    sh("./compare_maps.sh", "--pairs", "own", "--sizes", "20", "--kd_types", "nessa")
    assert "y.ark" in (folder / "exp/maps/train/feats.scp").read_text()
    (folder / "data/train_pieces/utt2spk").write_text("commands-01-1 commands-01\n")
    done = sh("./compare_maps.sh", "--pairs", "own", "--sizes", "20", fails=True)
    assert "give another --out for other models" in done.stderr


def test_one_comparison_at_a_time(folder: Path, sh: Run) -> None:
    (folder / "exp/maps").mkdir(parents=True)
    with open(folder / "exp/maps/.compare.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another comparison is at work in exp/maps" in sh("./compare_maps.sh", fails=True).stderr
    sh("./compare_maps.sh", "--pairs", "own", "--sizes", "0")


def newer(path: Path) -> None:
    """As if it had been written in a moment from now."""
    os.utime(path, (time.time() + 5,) * 2)


def test_dev_and_other_speech(folder: Path, sh: Run) -> None:
    sh("./compare_maps.sh", "--pairs", "own", "--sizes", "20", "--dev", "true", "--learn", "speeds")
    made = calls(folder)
    assert [words[-2:] for words in made if words[0] == "align"] == [
        ["data/dev", "data/dev/trials_ocean,data/dev/trials_commands"]
    ]
    learnt = set(read_utt2spk(folder / "exp/maps/speeds_20/utt2spk").values())
    own = {name for name in learnt if not name.startswith("sp")}
    assert len(own) == 20 and learnt == own | {f"sp0.8-{name}" for name in own}
    assert (folder / "exp/maps/table_trials_ocean_dev_speeds.md").exists()
    assert [words[-2] for words in made if words[0] == "extract"] == ["data/train_pieces"] * 2
    # CAM++ has no vectors of whole utterances yet
    sh("./compare_maps.sh", "--pairs", "campplus", "--sizes", "0", "--learn", "whole")
    made = [words for words in calls(folder) if words[0] == "extract"]
    assert [words[-3:] for words in made] == [
        [f"exp/maps/{name}/final.pt", "data/cohort", f"exp/maps/{name}/xvectors_whole"]
        for name in ("old_none", "campplus")
    ]


def test_speakers_whom_the_models_have_met_or_not(folder: Path, sh: Run) -> None:
    sh("./compare_maps.sh", "--pairs", "met unmet", "--sizes", "20 0")
    made = calls(folder)
    trained = {Path(words[-1]).name: Path(words[-4]).name for words in made if words[0] not in ("align", "extract")}
    assert trained == {"old_half": "train_half0", "new_same_half": "train_half0"}
    aligned = [words for words in made if words[0] == "align"]
    assert [(Path(words[-5]).name, Path(words[-4]).name, Path(words[-3]).name) for words in aligned] == [
        ("old_half", "new_same_half", f"pieces_{size}_half{half}") for half in (0, 1) for size in (20, 0)
    ]
    sets = {path.parent.name: set(read_utt2spk(path).values()) for path in (folder / "exp/maps").glob("*/utt2spk")}
    assert sets["pieces_0_half0"] == sets["train_half0"] and sets["pieces_0_half1"] == sets["train_half1"]
    assert all(sets[f"pieces_20_half{half}"] < sets[f"train_half{half}"] for half in (0, 1))
    assert len(sets["pieces_20_half0"]) == len(sets["pieces_20_half1"]) == 20
    assert (folder / "exp/maps/old_half/xvectors_pieces_20_half1").resolve().name == "xvectors_pieces"


def test_maps_learn_from_other_corpora_than_the_models(folder: Path, sh: Run) -> None:
    pieces = folder / "data/train_pieces"
    both = {**read_utt2spk(pieces / "utt2spk"), **{f"ocean-{number}-1": f"ocean-{number}" for number in range(21)}}
    write_data_dir(pieces, dict.fromkeys(both, "x"), both)
    write_table(pieces / "feats.scp", {utt: f"x.ark:{number}" for number, utt in enumerate(both)})
    words = ["./compare_maps.sh", "--pairs", "own", "--sizes", "0", "--leave_out", "ocean"]
    sh(*words, "--learn_without", "commands")
    made = calls(folder)
    own = folder / "exp/maps"
    assert len(set(read_utt2spk(own / "train/utt2spk").values())) == 50
    learnt = next(words for words in made if words[0] == "align")
    assert set(read_utt2spk(folder / learnt[-3] / "utt2spk").values()) == {f"ocean-{number}" for number in range(21)}
    assert value(learnt, "--out") == "exp/maps/maps/own_0_without_commands"
    assert (own / "table_trials_ocean_without_commands.md").exists()
    # beside it, maps from the speakers of the models
    sh(*words)
    (again,) = [words for words in calls(folder) if words[0] == "align"]
    assert Path(again[-3]).name == "pieces_0" and value(again, "--out") == "exp/maps/maps/own_0"
    assert len(set(read_utt2spk(own / "pieces_0/utt2spk").values())) == 50
    assert "exp/maps was made with --leave_out 'ocean' --old xvector --new" in sh(*words[:-2], fails=True).stderr
    assert (
        "--seed 1 --train_config conf/train_compare.conf, data/train_pieces/utt2spk"
        in sh(*words, "--seed", 1, fails=True).stderr
    )
    done = sh(*words[:-1], "ocaen", "--out", "exp/other", fails=True)
    assert "--leave_out 'ocaen': no corpus 'ocaen'; known: commands ocean libri voice mini folder" in done.stderr
    done = sh(*words[:2], "met", *words[3:], "--learn_without", "", fails=True)
    assert "the pairs met and unmet need the corpora of the models" in done.stderr


def test_what_is_refused(folder: Path, sh: Run) -> None:
    for words, message in (
        (("--pairs", "old_new"), "--pairs: no 'old_new'"),
        (("--sizes", "51"), "--sizes 51: there are only 50 speakers"),
        (("--sizes", "26", "--pairs", "unmet"), "--sizes 26: there are only 25 speakers"),
        (("--sizes", "0 19"), "--sizes 19: a tenth is held out, and that must be two speakers at least"),
        (("--sizes", "some"), "--sizes: 'some' is not a number"),
        (("--learn", "crops"), "--learn 'crops'"),
        (("extra",), "unexpected argument 'extra'"),
    ):
        assert message in sh("./compare_maps.sh", *words, fails=True).stderr
    (folder / "data/train_pieces/feats.scp").unlink()
    assert "run ./run.sh --stop_stage 3 first" in sh("./compare_maps.sh", fails=True).stderr
