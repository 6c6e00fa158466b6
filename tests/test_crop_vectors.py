"""Vectors of fixed crops: they are what the teacher says of these crops, and the student's crops lie there."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_hearing import FRONT_ENDS, teacher_net
from test_wave_crops import make, twelve
from toy import command

from speakerkd.batches.crops import Places
from speakerkd.batches.dataset import Batches, View
from speakerkd.batches.utterances import Utterances
from speakerkd.feats.stretch import even_starts
from speakerkd.files.kaldi import ArkWriter, Scp
from speakerkd.files.tables import read_table, write_table
from speakerkd.kd.find_teacher import find_teacher
from speakerkd.losses.margin import MarginConf
from speakerkd.models import make_net, save_net

Run = Callable[..., subprocess.CompletedProcess[str]]
TOY = Path(__file__).parent / "data/xvector_toy.conf"


def test_even_starts() -> None:
    assert even_starts(100, 20, 5) == [0, 20, 40, 60, 80]
    assert even_starts(22, 20, 5) == [0, 1, 2] and even_starts(20, 20, 5) == [0] and even_starts(5, 20, 5) == [0]
    assert even_starts(100, 20, 1) == [40]


def key(utterance: str, start: int, end: int) -> str:
    return f"{utterance}-{start:08d}-{end:08d}"


def write_crops(folder: Path, data: Utterances, frames: int = 20, dim: int = 3) -> Path:
    """Vector of a crop: its utterance, its start, 1."""
    names = {}
    for entry in range(len(data)):
        for start in even_starts(int(data.frames[entry]), frames, 4):
            names[key(data.scp.key(entry), start, start + frames)] = np.array([entry, start, 1], np.float32)[:dim]
    with ArkWriter(folder / "crops") as write:
        for name in sorted(names):
            write(name, names[name])
    return folder / "crops.scp"


@pytest.mark.parametrize("source", ["feats", "waves"])
@pytest.mark.parametrize("front_end", ["kaldi", "windows", "none"])
def test_vectors_of_crops_are_what_the_teacher_says_of_these_crops(
    recipe: Path, data: Path, sh: Run, source: str, front_end: str
) -> None:
    """With a front end of its own, or with the student's; made from features or from recordings."""
    if source == "feats" and front_end != "none":
        pytest.skip("it can't hear crops of features")
    folder = make(recipe / "data/train", {**twelve(0.3), "s0-short": 0.11})
    (recipe / "exp/t").mkdir(parents=True)
    net = make_net(TOY, 24).eval() if front_end == "none" else teacher_net(FRONT_ENDS[front_end])
    net.info = net.info or {"fbank": {"num_mel_bins": "24", "dither": "0"}, "cmn": "utterance"}
    save_net(recipe / "exp/t/final.pt", net)
    words = [
        "local/extract_crop_xvectors.sh",
        "--nj",
        2,
        "--crop-frames",
        20,
        "exp/t/final.pt",
        "data/train",
        "exp/t/crops",
    ]
    sh(*words)
    scp = Scp(recipe / "exp/t/crops/xvector.scp")
    utterances = Utterances(folder, source=source)
    net.head = None
    teacher = find_teacher(str(recipe / "exp/t/final.pt"), "", utterances, np.arange(13), MarginConf())
    seen = Batches(utterances, [View()], 20, 4, 0)
    count = 0
    for entry in range(13):
        for start in even_starts(int(utterances.frames[entry]), 20, 4):
            place = Places(np.array([entry]), np.array([start]), 20, np.zeros(1, np.uint64), heard=True)
            cut = utterances.crops.cut(place)
            batch = seen[0]
            batch.feats = [torch.from_numpy(cut.feats)]
            batch.heard = {name: torch.from_numpy(each) for name, each in cut.heard.items()}
            found = scp.read(scp.find(key(utterances.scp.key(entry), start, start + 20)))
            np.testing.assert_allclose(found, teacher.embed(batch).embedding[0].numpy(), rtol=2e-3, atol=2e-4)
            count += 1
    assert len(scp) == count == len(read_table(recipe / "exp/t/crops/utt2spk"))
    assert read_table(recipe / "exp/t/crops/utt2spk")[scp.key(0)] == "s0"
    before = [path.stat().st_mtime_ns for path in sorted((recipe / "exp/t/crops").glob("*.ark"))]
    (recipe / "exp/t/crops/xvector.1.made").unlink()
    sh(*words)
    after = [path.stat().st_mtime_ns for path in sorted((recipe / "exp/t/crops").glob("xvector.?.ark"))]
    assert before[-2] != after[0] and before[-1] == after[1]


def test_students_crops_lie_where_the_teacher_has_heard(tmp_path: Path) -> None:
    """And the vector of a crop is that of the place. Shorter crops lie within the teacher's."""
    data = Utterances(make(tmp_path / "d", twelve(0.3)))
    data.attach("teacher", write_crops(tmp_path, data))
    for frames in (20, 12):
        seen = Batches(data, [View()], frames, 4, 0)
        places: list[Places] = []
        plain = data.crops.cut
        data.crops.cut = lambda place, plain=plain, places=places: places.append(place) or plain(place)  # type: ignore[method-assign]
        chosen, offsets = set(), set()
        for step in range(200):
            batch = seen[step]
            for row, entry, start in zip(batch.vectors["teacher"], places[-1].entries, places[-1].starts, strict=True):
                assert int(row[0]) == entry and 0 <= start - int(row[1]) <= 20 - frames
                assert int(row[1]) in even_starts(int(data.frames[entry]), 20, 4)
                chosen.add((int(entry), int(row[1])))
                offsets.add(int(start) - int(row[1]))
        data.crops.cut = plain  # type: ignore[method-assign]
        assert len(chosen) == sum(len(even_starts(int(each), 20, 4)) for each in data.frames)
        assert offsets == set(range(20 - frames + 1))
    whole = Batches(data, [View()], 20, 4, 0)[5]
    shares = [Batches(data, [View()], 20, 4, 0, rank=rank, world_size=2)[5] for rank in range(2)]
    assert torch.equal(whole.vectors["teacher"], torch.cat([each.vectors["teacher"] for each in shares]))
    with pytest.raises(
        ValueError, match=r"crops of 20 frames, and the student's have 30; give --num-frames=20 or less"
    ):
        Batches(data, [View()], 30, 4, 0)


def test_copies_without_crops_of_their_own_take_their_originals(tmp_path: Path) -> None:
    names = {f"s{i % 3}-{i}{suffix}": 0.4 for i in range(4) for suffix in ("", "-noise")}
    folder = make(tmp_path / "d", names)
    data = Utterances(folder)
    scp = write_crops(tmp_path, data)
    write_table(folder / "utt2uniq", {name: name.removesuffix("-noise") for name in names})
    kept = [line for line in scp.read_text().splitlines() if "-noise" not in line]
    scp.write_text("".join(f"{line}\n" for line in kept))
    data = Utterances(folder)
    data.attach("teacher", scp)
    crops = data.crop_vectors["teacher"]
    assert crops.present.all()
    noisy, clean = (data.scp.find(name) for name in ("s0-0-noise", "s0-0"))
    assert crops.first_of[noisy] == crops.first_of[clean]
    sums = crops.means(np.arange(len(data)), data.labels, 3)  # type: ignore[arg-type]
    total = np.concatenate([crops.of(np.arange(len(crops.starts)))])
    unit = total / np.linalg.norm(total, axis=1, keepdims=True)
    np.testing.assert_allclose(sums.sum(0), unit.sum(0), rtol=1e-6)
    scp.write_text("".join(f"{line}\n" for line in kept[4:]))
    with pytest.raises(ValueError, match="2 of 8 utterances have no teacher: s0-0, s0-0-noise"):
        Utterances(folder).attach("teacher", scp)
    data = Utterances(folder)
    data.attach("teacher", scp, "zero")
    seen = Batches(data, [View()], 20, 4, 0)
    for step in range(8):
        batch = seen[step]
        for utt, vector in zip(
            map(seen.data.scp.key, seen.entries_of(step).tolist()), batch.vectors["teacher"], strict=True
        ):
            assert bool(vector.any()) == (not utt.startswith("s0-0"))


def test_odd_crops_are_named(tmp_path: Path) -> None:
    data = Utterances(make(tmp_path / "d", twelve()))
    vector = np.ones(3, np.float32)
    for names, message in (
        ([key("s0-00", 0, 20), key("s0-00", 5, 26)], "crops of 20, 21 frames; all must have one length"),
        ([key("x-1", 0, 20)], "no crop belongs to a training utterance; the first crop is x-1-00000000-00000020"),
    ):
        with ArkWriter(tmp_path / "odd") as write:
            for name in names:
                write(name, vector)
        with pytest.raises(ValueError, match=re.escape(message)):
            data.attach("teacher", tmp_path / "odd.scp")
    data.attach("teacher", write_crops(tmp_path, data))
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="the vectors of voice and teacher are not of the same crops"):
        data.attach("voice", write_crops(tmp_path / "other", data, 21))


def test_training_by_vectors_of_crops(recipe: Path, data: Path, sh: Run) -> None:
    folder = make(recipe / "data/train", twelve(0.3))
    scp = write_crops(recipe, Utterances(folder))
    words = ["--teacher", scp, "--valid-speakers", 0, "--num-frames", 16]
    for kd in ("cosine", "kld"):
        done = sh(*command(f"exp/{kd}", "--kd", f"conf/kd/{kd}.conf", *words))
        assert "is ready" in done.stderr
    done = sh(*command("exp/b", "--kd", "conf/kd/kld.conf", *words[:-1], 25), fails=True)
    assert "crops of 20 frames, and the student's have 25" in done.stderr
