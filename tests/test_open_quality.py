"""egs/open's bad teachers: which vectors are spoilt and how, and what compare_quality.sh hands to the comparison."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, environment

from egs.open.v1 import spoil_vectors as spoil
from speakerkd.conf import typed_conf
from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.tables import read_table, write_data_dir
from speakerkd.files.vectors import Vectors, read_vectors
from speakerkd.kd import METHODS

NAMES = [f"commands-{speaker:03d}-{number}" for speaker in range(100) for number in range(5)]
UTT2SPK = {name: name.rsplit("-", 1)[0] for name in NAMES}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data_dir(tmp_path / "data", dict.fromkeys(NAMES, "x"), UTT2SPK)
    rng = np.random.default_rng(0)
    with ArkWriter(tmp_path / "xvector") as write:
        for name in [*NAMES, "other"]:
            write(name, rng.standard_normal(64).astype(np.float32))
    return tmp_path


def spoilt(folder: Path, share: float, *more: str) -> tuple[Vectors, dict[str, str]]:
    out = folder / f"spoilt{share}"
    spoil.main(["--share", str(share), *more, str(folder / "data/utt2spk"), str(folder / "xvector.scp"), str(out)])
    return read_vectors(out / "xvector.scp"), read_table(out / "utt2spoilt")


def test_half_are_a_stranger_s_and_half_are_noisy(folder: Path) -> None:
    before = read_vectors(folder / "xvector.scp", NAMES)
    after, how = spoilt(folder, 0.2)
    assert after.ids == NAMES == list(how)
    counts = {kind: list(how.values()).count(kind) for kind in ("no", "stranger", "noise")}
    assert 60 < counts["stranger"] + counts["noise"] < 140 and min(counts["stranger"], counts["noise"]) > 25
    for name, old, new in zip(NAMES, before.matrix, after.matrix, strict=True):
        if how[name] == "no":
            assert np.array_equal(old, new)
        elif how[name] == "noise":
            assert np.linalg.norm(new - old) == pytest.approx(2 * np.linalg.norm(old), rel=1e-4)
        else:
            (owner,) = np.flatnonzero((before.matrix == new).all(1))
            assert UTT2SPK[NAMES[owner]] != UTT2SPK[name]


def test_names_decide_and_a_larger_share_keeps_the_bad_of_a_smaller_one(folder: Path) -> None:
    few, how_few = spoilt(folder, 0.1)
    again, _ = spoilt(folder, 0.1)
    many, how_many = spoilt(folder, 0.3)
    assert np.array_equal(few.matrix, again.matrix)
    bad = [name for name in NAMES if how_few[name] != "no"]
    assert 20 < len(bad) < sum(kind != "no" for kind in how_many.values())
    rows = few.rows_of(bad)
    assert np.array_equal(few.matrix[rows], many.matrix[rows]) and all(how_few[each] == how_many[each] for each in bad)
    untouched, how = spoilt(folder, 0)
    assert set(how.values()) == {"no"} and np.array_equal(
        untouched.matrix, read_vectors(folder / "xvector.scp", NAMES).matrix
    )


def test_what_cannot_be_spoilt_is_an_error(folder: Path) -> None:
    with pytest.raises(ValueError, match="--share is from 0 to 1"):
        spoilt(folder, 1.5)
    (folder / "data/utt2spk").write_text("commands-000-0 commands-000\nnobody-1 nobody\n")
    with pytest.raises(ValueError, match=r"1 utterances of .* have no vector"):
        spoilt(folder, 0.1)
    (folder / "data/utt2spk").write_text("".join(f"{name} commands-000\n" for name in NAMES[:5]))
    with pytest.raises(ValueError, match="there is no stranger"):
        spoilt(folder, 1)


def test_base_and_parts_have_one_weight() -> None:
    """The rows of the table differ in margin and weights of samples only."""
    folder = ROOT / "egs/open/v1/conf/kd"
    found = {path.stem: typed_conf(path, METHODS)[2] for path in sorted(folder.glob("mkd_*.conf"))}
    assert {f"mkd_{base}{part}" for base in ("", "kld_") for part in ("margin", "quality", "both")} <= found.keys()
    for name, conf in found.items():
        base = "kld" if "_kld_" in name else "cosine"
        weight = typed_conf(folder / f"{base}.conf", METHODS)[2].weight
        assert (conf.base, conf.weight, conf.warmup) == (base, weight, 0.0)
        margin = name.endswith(("_margin", "_both"))
        assert (conf.margin_percentile > 0, conf.margin) == ((True, 0.25) if margin else (False, 0))
        assert (conf.quality == "teacher") == (not name.endswith("_margin"))


def test_the_comparison_gets_vectors_and_figures(tmp_path: Path) -> None:
    """compare.sh is replaced by one that prints its options."""
    recipe = tmp_path / "egs/open/v1"
    recipe.mkdir(parents=True)
    for name in ("local", "utils", "tools", "speakerkd"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("local", "utils"):
        (recipe / name).symlink_to(f"../../../{name}")
    for name in ("compare_quality.sh", "corpora.sh", "spoil_vectors.py", "path.sh", "cmd.sh"):
        shutil.copy(ROOT / "egs/open/v1" / name, recipe)
    (recipe / "conf").symlink_to(ROOT / "egs/open/v1/conf")
    (recipe / "compare.sh").write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    (recipe / "compare.sh").chmod(0o755)
    names = [*NAMES[:50], "ocean-1-1", "ocean-1-2", "sp0.9-commands-001-1"]
    write_data_dir(
        recipe / "data/train_pieces", dict.fromkeys(names, "x"), {each: each.rsplit("-", 1)[0] for each in names}
    )
    (recipe / "exp/campplus/xvectors_train_originals").mkdir(parents=True)
    with ArkWriter(recipe / "exp/campplus/xvectors_train_originals/xvector") as write:
        for name in names:
            write(name, np.random.default_rng(len(name)).standard_normal(8).astype(np.float32))

    def handed_on(*options: str) -> dict[str, str]:
        words = ["./compare_quality.sh", "--shares", "0 0.2", "--seeds", "0 1", *options]
        done = subprocess.run(words, cwd=recipe, env=environment(), capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        return dict(re.findall(r"--(\w+)\n(.*)\n", done.stdout))

    given = handed_on("--kd_types", "cosine mkd_quality")
    assert given["seeds"] == "0 1" and given["leave_out"] == "ocean" and given["out"] == "exp/quality"
    clean, bad = given["teachers"].split()
    assert clean == (
        "campplus=exp/campplus/xvectors_train_originals/xvector.scp,quality=exp/quality/vectors/campplus_no_ocean/0/"
        "utt2agreement_cap0.25"
    )
    scp, quality = re.fullmatch(r"campplus_bad20=(\S+),quality=(\S+)", bad).groups()  # type: ignore[union-attr]
    assert read_vectors(recipe / scp).ids == NAMES[:50] == list(read_table(recipe / quality))
    assert "no" in (how := read_table(recipe / Path(scp).parent / "utt2spoilt")).values() and len(set(how.values())) > 1
    # new vectors of the teacher are spoilt again
    before = read_vectors(recipe / scp).matrix
    with ArkWriter(recipe / "exp/campplus/xvectors_train_originals/xvector") as write:
        for name in names:
            write(name, np.random.default_rng(len(name) + 1).standard_normal(8).astype(np.float32))
    plain = handed_on("--kd_types", "cosine")["teachers"].split()  # takes no figures; compare_kd.sh refuses unused ones
    assert plain == [each.partition(",")[0] for each in (clean, bad)]
    assert not np.array_equal(before, read_vectors(recipe / scp).matrix)
