"""extract_faces.py: pixels as the network is to get them, averages by hand, what is missing or broken is counted."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, environment
from faces import LACKING, SIZE, picture, save_model, save_picture, save_rows

import speakerkd.foreign.face
from speakerkd.files.kaldi import Scp
from speakerkd.files.tables import read_table, write_data_dir
from speakerkd.foreign.face import FaceConf, need_packages, pool

needs_onnx = pytest.mark.skipif(bool(LACKING), reason=f"not installed: {' '.join(LACKING)}")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(recipe: Path) -> Path:
    """Three speakers with two utterances each; eight pictures; raw pixels are the vectors."""
    utt2spk = {f"s{i}-{j}": f"s{i}" for i in range(3) for j in range(2)}
    write_data_dir(recipe / "data", dict.fromkeys(utt2spk, "x"), utt2spk)
    if not LACKING:
        save_model(recipe / "net.onnx", ["n", 3, SIZE, SIZE])
        for seed in range(8):
            save_picture(recipe / f"{seed}.png", picture(seed))
    (recipe / "face.conf").write_text(f"--size={SIZE}\n--mean=0\n--scale=1\n")
    (recipe / "faces.scp").write_text("s0-0 0.png 1.png\ns1-0 2.png\ns0-0 3.png 1.png\ns2 4.png\ns2-1 5.png\n")
    return recipe


@pytest.fixture
def faces(folder: Path) -> Run:
    def runner(*options: object, model: str = "net.onnx", fails: bool = False) -> subprocess.CompletedProcess[str]:
        words = ["local/extract_faces.py", "--face-config", "face.conf", *map(str, options), model]
        path = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
        done = subprocess.run(
            [sys.executable, *words, "faces.scp", "data", "out"],
            cwd=folder,
            env={**environment(), "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert (done.returncode != 0) == fails, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return runner


def flat(seed: int) -> np.ndarray:
    return picture(seed).transpose(2, 0, 1).ravel().astype(np.float64)


def vectors(folder: Path) -> dict[str, np.ndarray]:
    scp = Scp(folder / "out/face.scp")
    return {name: scp.read(index) for index, name in enumerate(scp)}


@needs_onnx
def test_vectors_and_qualities_by_hand(folder: Path, faces: Run) -> None:
    done = faces("--batch-size", 2)
    found, qualities = vectors(folder), read_table(folder / "out/utt2quality")
    # s1-1 has no image; s2-0 has its speaker's, s2-1 its own
    assert list(found) == list(qualities) == ["s0-0", "s1-0", "s2-0", "s2-1"]
    for utt, seed in (("s1-0", 2), ("s2-0", 4), ("s2-1", 5)):
        np.testing.assert_allclose(found[utt], flat(seed), rtol=1e-6)
        assert float(qualities[utt]) == pytest.approx(np.linalg.norm(flat(seed)), rel=1e-5)
    lengths = [float(np.linalg.norm(flat(seed))) for seed in (0, 1, 3)]
    # weights are the lengths: the unit vectors' weighted sum is the plain sum of the vectors
    expected = sum(flat(seed) for seed in (0, 1, 3)) / sum(lengths) * sum(each**2 for each in lengths) / sum(lengths)
    np.testing.assert_allclose(found["s0-0"], expected, rtol=1e-5)
    assert float(qualities["s0-0"]) == pytest.approx(np.mean(lengths), rel=1e-5)
    assert read_table(folder / "out/missing_faces") == {"s0-1": "dropped", "s1-1": "dropped"}
    assert (folder / "out/lost_faces").read_text() == ""
    assert "6 images in, 0 lost; 6 utterances: 3 with their own, 1 with their speaker's, 0 filled" in done.stderr
    assert "2 dropped; vectors of 48" in done.stderr


@needs_onnx
def test_missing_ones_are_filled_from_the_speaker(folder: Path, faces: Run) -> None:
    done = faces("--missing", "speaker")
    found = vectors(folder)
    assert list(found) == [f"s{i}-{j}" for i in range(3) for j in range(2)]
    np.testing.assert_array_equal(found["s0-1"], found["s0-0"])
    np.testing.assert_array_equal(found["s1-1"], found["s1-0"])
    assert list(read_table(folder / "out/missing_faces")) == ["s0-1", "s1-1"]
    assert "2 filled from the speaker's other utterances, 0 dropped" in done.stderr


@needs_onnx
def test_qualities_that_are_given(folder: Path, faces: Run) -> None:
    (folder / "figures").write_text("".join(f"{seed}.png {figure}\n" for seed, figure in enumerate((3, 1, 7, 0, 0, 2))))
    faces("--quality", "figures")
    found, qualities = vectors(folder), read_table(folder / "out/utt2quality")
    units = {seed: flat(seed) / np.linalg.norm(flat(seed)) for seed in (0, 1)}
    length = (3 * np.linalg.norm(flat(0)) + np.linalg.norm(flat(1))) / 4
    np.testing.assert_allclose(found["s0-0"], (3 * units[0] + units[1]) / 4 * length, rtol=1e-5)
    np.testing.assert_allclose(found["s2-0"], flat(4), rtol=1e-6)  # alone, though worth nothing
    assert {utt: float(text) for utt, text in qualities.items()} == pytest.approx(
        {"s0-0": 4 / 3, "s1-0": 7, "s2-0": 0, "s2-1": 2}, rel=1e-5
    )
    (folder / "figures").write_text("0.png 3\n")
    assert "no figure for 5 image(s), such as 1.png" in faces("--quality", "figures", fails=True).stderr
    for text, message in (
        ("nan", "'0.png nan': the figure must be 0 or more"),
        ("inf", "'0.png inf': the figure must be 0 or more"),
        ("-1", "'0.png -1': the figure must be 0 or more"),
        ("good", "'0.png good' is not an image and a figure"),
        ("1\n0.png 2", "each image may occur once"),
    ):
        (folder / "figures").write_text(f"0.png {text}\n")
        assert message in faces("--quality", "figures", fails=True).stderr


@needs_onnx
def test_ids_of_other_data_are_left_and_counted(folder: Path, faces: Run) -> None:
    with (folder / "faces.scp").open("a") as file:
        file.write("x-1 6.png\nx 7.png\n")
    done = faces()
    assert "2 ids belong to no utterance here and are not used: x-1, x" in done.stderr
    assert "6 images in, 0 lost" in done.stderr and list(vectors(folder)) == ["s0-0", "s1-0", "s2-0", "s2-1"]


@needs_onnx
@pytest.mark.parametrize(
    ("conf", "shape", "change"),
    [
        ("--colors=bgr", ["n", 3, SIZE, SIZE], lambda p: p[..., ::-1].transpose(2, 0, 1)),
        ("--layout=nhwc", ["n", SIZE, SIZE, 3], lambda p: p),
        ("--mean=127.5\n--scale=0.0078125", [1, 3, SIZE, SIZE], lambda p: ((p - 127.5) / 128).transpose(2, 0, 1)),
        ("--mean=1,2,3\n--scale=4:5:6", [5, 3, SIZE, SIZE], lambda p: ((p - [1, 2, 3]) * [4, 5, 6]).transpose(2, 0, 1)),
        (
            "--colors=bgr\n--mean=1,2,3",
            ["n", 3, SIZE, SIZE],
            lambda p: (p[..., ::-1] - [1, 2, 3]).transpose(2, 0, 1),
        ),
    ],
)
def test_the_network_gets_what_the_conf_says(
    folder: Path, faces: Run, conf: str, shape: list[Any], change: Callable[[np.ndarray], np.ndarray]
) -> None:
    """The third takes one image at a time, the fourth five."""
    rest = "" if "--mean" in conf else "--mean=0\n"
    (folder / "face.conf").write_text(f"--size={SIZE}\n{conf}\n{rest}{'' if '--scale' in conf else '--scale=1'}\n")
    save_model(folder / "net.onnx", shape)
    faces()
    for utt, seed in (("s1-0", 2), ("s2-0", 4), ("s2-1", 5)):
        np.testing.assert_allclose(vectors(folder)[utt], change(picture(seed).astype(float)).ravel(), rtol=1e-5)


@needs_onnx
def test_images_of_another_size_and_kind(folder: Path, faces: Run) -> None:
    """Wide, with one colour: the middle square, of the size that is asked for; grey has three equal colours."""
    from PIL import Image

    wide = np.zeros((SIZE, 3 * SIZE, 3), np.uint8)
    wide[:, SIZE : 2 * SIZE] = picture(2)
    save_picture(folder / "2.png", wide)
    Image.fromarray(picture(4)[..., 0]).save(folder / "4.png")
    save_picture(folder / "5.png", np.full((30, 40, 3), 77, np.uint8))
    faces()
    found = vectors(folder)
    np.testing.assert_allclose(found["s1-0"], flat(2))
    np.testing.assert_allclose(found["s2-0"], np.tile(picture(4)[..., 0].ravel(), 3))
    np.testing.assert_allclose(found["s2-1"], 77)


@needs_onnx
def test_broken_images_are_listed_and_counted(folder: Path, faces: Run) -> None:
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:60])
    (folder / "3.png").write_text("no image")
    (folder / "1.png").unlink()
    save_picture(folder / "5.png", np.zeros((SIZE, SIZE, 3), np.uint8))
    stderr = faces(fails=True).stderr
    assert "4 of 6 images are unusable, more than --max-lost 5 %" in stderr and "out/lost_faces" in stderr
    lines = (folder / "out/lost_faces").read_text().splitlines()
    assert {tuple(line.split()[:2]) for line in lines} == {
        ("s0-0", "1.png"),
        ("s0-0", "3.png"),
        ("s1-0", "2.png"),
        ("s2-1", "5.png"),
    }
    assert any("No such file" in line for line in lines) and any("zero or not finite" in line for line in lines)
    assert not (folder / "out/face.scp").exists()
    done = faces("--max-lost", 70)
    assert "6 images in, 4 lost" in done.stderr
    found = vectors(folder)
    assert list(found) == ["s0-0", "s2-0", "s2-1"]  # s2-1 lost its own, and has its speaker's
    np.testing.assert_allclose(found["s0-0"], flat(0), rtol=1e-6)
    np.testing.assert_allclose(found["s2-1"], flat(4), rtol=1e-6)


@needs_onnx
@pytest.mark.parametrize(
    ("mishap", "message"),
    [
        ("size", r"takes images of shape ['n', 3, 4, 4], not (3, 112, 112); say so with --size and --layout"),
        ("model", "net.onnx: onnxruntime can't load it"),
        ("nowhere", "none.onnx: no such file"),
        ("ids", "none of its ids is an utterance or a speaker here; the first is 'x'"),
        ("line", "faces.scp:1: 's0-0' has no image"),
        ("missing", "--missing must be drop or speaker"),
        ("output", "has no output 'fc1' (there are: vector)"),
        ("colours", "--colors must be rgb or bgr"),
        ("refusal", "net.onnx: doesn't take images of shape (3, 4, 4)"),
        ("device", "--device=tpu: this onnxruntime has no such device"),
    ],
)
def test_wrong_calls(folder: Path, faces: Run, mishap: str, message: str) -> None:
    options: list[object] = []
    model = "net.onnx"
    if mishap == "size":
        (folder / "face.conf").write_text("")
    elif mishap == "model":
        (folder / "net.onnx").write_text("nothing")
    elif mishap == "nowhere":
        model = "none.onnx"
    elif mishap == "ids":
        (folder / "faces.scp").write_text("x 1.png\n")
    elif mishap == "line":
        (folder / "faces.scp").write_text("s0-0\n")
    elif mishap == "missing":
        options = ["--missing", "zero"]
    elif mishap in ("output", "colours"):
        with (folder / "face.conf").open("a") as file:
            file.write("--output=fc1\n" if mishap == "output" else "--colors=grey\n")
    elif mishap == "refusal":
        save_rows(folder / "net.onnx", 3 * (2 * SIZE) ** 2)
    elif mishap == "device":
        options = ["--device", "tpu"]
    (folder / "out").mkdir()
    (folder / "out/face.scp").write_text("an earlier run's\n")
    assert message in faces(*options, model=model, fails=True).stderr
    assert (folder / "out/face.scp").exists()


def test_pooling_by_hand() -> None:
    one, two = np.array([3.0, 4.0], np.float32), np.array([0.0, 10.0], np.float32)
    vector, quality = pool([one], [0.3])
    np.testing.assert_allclose(vector, one)
    assert quality == 0.3 and vector.dtype == np.float32
    vector, quality = pool([one, two], [3.0, 1.0])  # (3 (0.6, 0.8) + (0, 1)) / 4, times (3 · 5 + 10) / 4
    np.testing.assert_allclose(vector, np.array([0.45, 0.85]) * 6.25, rtol=1e-6)
    assert quality == 2
    np.testing.assert_allclose(pool([one, two], [0.0, 0.0])[0], np.array([0.3, 0.9]) * 7.5, rtol=1e-6)


def test_without_the_packages_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speakerkd.foreign.face, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(
        ValueError, match=r"faces need onnxruntime, which is not installed: tools/setup.sh --extras face"
    ):
        need_packages()


def test_wrong_confs_are_errors() -> None:
    for options in ({"layout": "chw"}, {"mean": (1.0, 2.0)}, {"size": 0}):
        with pytest.raises(ValueError, match=r"must be|one number"):
            FaceConf(**options)  # type: ignore[arg-type]
