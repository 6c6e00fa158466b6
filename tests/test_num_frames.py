"""Features of another kind, such as 30 MFCCs that Kaldi's scripts made: what training lacks is named and made."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import kaldi_native_io
import kaldiio
import numpy as np
import pytest

from speakerkd.files.kaldi import Scp
from speakerkd.files.numframes import frames_of
from speakerkd.files.tables import read_table, write_data_dir

Run = Callable[..., subprocess.CompletedProcess[str]]
LENGTHS = {"a-1": 31, "a-2": 7, "b-1": 300, "b-2": 1}


def write(folder: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    write_data_dir(folder, dict.fromkeys(LENGTHS, "x"), {key: key[0] for key in LENGTHS})
    wspecifier = f"ark,scp:{folder}/feats.ark,{folder}/feats.scp"
    rows = {key: rng.normal(size=(frames, 30)).astype(np.float32) for key, frames in LENGTHS.items()}
    if kind == "FM":
        with kaldi_native_io.FloatMatrixWriter(wspecifier) as file:
            for key, value in rows.items():
                file.write(key, value)
    elif kind == "DM":
        with kaldi_native_io.DoubleMatrixWriter(wspecifier) as file:
            for key, value in rows.items():
                file.write(key, value.astype(np.float64))
    else:
        method = {"CM": 2, "CM2": 3, "CM3": 5}[kind]
        kaldiio.save_ark(str(folder / "feats.ark"), rows, scp=str(folder / "feats.scp"), compression_method=method)


@pytest.mark.parametrize("kind", ["FM", "DM", "CM", "CM2", "CM3"])
def test_frames_of_every_kind_of_archive(tmp_path: Path, kind: str) -> None:
    write(tmp_path, kind)
    content = (tmp_path / "feats.ark").read_bytes()
    assert content.count(b"\0B" + kind.encode() + b" ") == len(LENGTHS)
    assert list(frames_of(Scp(tmp_path / "feats.scp"))) == list(LENGTHS.values())


def test_training_names_the_script_that_makes_it(recipe: Path, sh: Run) -> None:
    write(recipe / "data/x", "CM")
    words = [
        "local/train.py",
        "--model",
        "conf/model/xvector_micro.conf",
        "--head",
        "conf/head.conf",
        "data/x",
        "exp/a",
    ]
    done = sh(*words, fails=True)
    assert "data/x/utt2num_frames is missing; local/make_num_frames.py data/x makes it" in done.stderr
    sh("local/make_num_frames.py", "data/x")
    assert read_table(recipe / "data/x/utt2num_frames") == {key: str(value) for key, value in LENGTHS.items()}


def test_what_is_no_matrix_is_named(recipe: Path, sh: Run) -> None:
    write(recipe / "data/x", "FM")
    (recipe / "data/x/feats.ark").write_bytes((recipe / "data/x/feats.ark").read_bytes()[:3000])
    done = sh("local/make_num_frames.py", "data/x", fails=True)
    assert "feats.scp:2: 'a-2'" in done.stderr
    assert not (recipe / "data/x/utt2num_frames").exists()


def test_text_archives_and_pipes(recipe: Path, sh: Run) -> None:
    write(recipe / "data/x", "FM")
    rows = "\n".join(" ".join(["0.5"] * 30) for _ in range(4))
    (recipe / "data/x/text.ark").write_text(f"a-1 [ {rows} ]\n")
    lines = (recipe / "data/x/feats.scp").read_text().splitlines()
    lines[0] = f"a-1 {recipe}/data/x/text.ark:4"
    (recipe / "data/x/feats.scp").write_text("\n".join(lines) + "\n")
    sh("local/make_num_frames.py", "data/x")
    assert read_table(recipe / "data/x/utt2num_frames")["a-1"] == "4"
