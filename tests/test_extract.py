"""Stage 5: vectors in batches are those of one by one; it goes on where it stopped; two runs never mix."""

import fcntl
import itertools
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import environment

from speakerkd.feats.frontend import Reading
from speakerkd.files.kaldi import ArkWriter, Scp
from speakerkd.files.tables import read_table, write_data_dir
from speakerkd.models import load_net, make_net, save_net
from speakerkd.models.extract import Cut, NetEncoder, batches, embed, vectors_of
from speakerkd.models.precision import choose_half

Run = Callable[..., subprocess.CompletedProcess[str]]
CPU = torch.device("cpu")
DIM = 20
TINY = "--type=xvector\n--channels=16\n--stats-channels=24\n--embedding-dim=12\n"


def model(path: Path, seed: int = 0) -> Path:
    (path.parent / "tiny.conf").write_text(TINY)
    torch.manual_seed(seed)
    save_net(path, make_net(path.parent / "tiny.conf", DIM), {})
    return path


def features(folder: Path, seed: int = 0, count: int = 24) -> None:
    rng = np.random.default_rng(seed)
    names = sorted(f"s{index % 4}-{index:02}" for index in range(count))
    write_data_dir(folder, dict.fromkeys(names, "x"), {name: name[:2] for name in names})
    with ArkWriter(folder / "feats") as write:
        for name in names:
            write(name, rng.normal(size=(int(rng.integers(20, 400)), DIM)).astype(np.float32))


@pytest.fixture
def data(recipe: Path) -> Path:
    features(recipe / "data/x")
    model(recipe / "final.pt")
    return recipe / "data/x"


COMMAND = ("local/extract_xvectors.sh", "--nj", 3, "final.pt", "data/x", "out")


def test_vectors_are_those_of_one_by_one(recipe: Path, data: Path, sh: Run) -> None:
    assert "24 in, 24 vectors out, 0 lost" in sh(*COMMAND).stdout
    net, scp, vectors = load_net(recipe / "final.pt"), Scp(data / "feats.scp"), Scp(recipe / "out/xvector.scp")
    assert list(vectors) == list(scp)
    for index in range(len(scp)):
        expected = embed(net, scp.read(index), CPU)
        np.testing.assert_allclose(vectors.read(index), expected, rtol=1e-5, atol=1e-5)
    log = (recipe / "out/log/extract.1.log").read_text()
    assert "8 in, 8 out, 0 lost" in log and "times real time" in log


@pytest.mark.parametrize("cut", [Cut(), Cut(100), Cut(0, 0, Reading("none", 50, 30))])
def test_chunks_and_windows_in_batches(recipe: Path, data: Path, cut: Cut) -> None:
    net, scp = load_net(recipe / "final.pt"), Scp(data / "feats.scp")
    given = [scp.read(index) for index in range(len(scp))]
    found = vectors_of(NetEncoder(net, CPU), given, cut)
    for feats, vector in zip(given, found, strict=True):
        np.testing.assert_allclose(vector, embed(net, feats, CPU, cut.max_frames, cut.reading), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mixes", [True, False])
def test_batches_are_of_like_length_and_hold_each_piece_once(mixes: bool) -> None:
    class Encoder:
        frames = 1600

        def __call__(self, pieces: object) -> np.ndarray:
            raise AssertionError

    encoder = Encoder()
    encoder.mixes = mixes  # type: ignore[attr-defined]
    lengths = [*np.random.default_rng(0).integers(5, 2000, 300).tolist(), *[20] * 30]
    found = list(batches(lengths, encoder))  # type: ignore[arg-type]
    assert sorted(itertools.chain(*found)) == list(range(len(lengths)))
    for batch in found:
        own = [lengths[index] for index in batch]
        assert len(own) * max(own) <= 1600 or len(own) == 1
        assert len(set(own)) == 1 or (mixes and min(own) >= 32 and min(own) >= 0.8 * max(own))
    assert any(len({lengths[index] for index in batch}) > 1 for batch in found) == mixes


def test_it_goes_on_where_it_stopped(recipe: Path, data: Path, sh: Run) -> None:
    sh(*COMMAND)
    out = recipe / "out"
    whole = {job: (out / f"xvector.{job}.ark").read_bytes() for job in (1, 2, 3)}
    times = {job: (out / f"xvector.{job}.ark").stat().st_mtime_ns for job in (1, 2, 3)}

    def remade(*options: object) -> list[int]:
        said = sh(COMMAND[0], *options, *COMMAND[1:]).stdout
        now = {job: (out / f"xvector.{job}.ark").stat().st_mtime_ns for job in (1, 2, 3)}
        anew = [job for job in now if now[job] != times[job]]
        times.update(now)
        assert len(anew) == 3 or f"{3 - len(anew)} of 3 jobs were finished before" in said
        assert "24 in, 24 vectors out, 0 lost" in said and len(Scp(out / "xvector.scp")) == 24
        return anew

    (out / "xvector.2.ark").unlink()
    assert remade() == [2] and (out / "xvector.2.ark").read_bytes() == whole[2]
    assert remade() == []
    assert remade("--max-frames", 90) == [1, 2, 3]
    features(data, seed=1)  # others under the same names, in the same file, at the same places
    assert remade("--max-frames", 90) == [1, 2, 3]
    model(recipe / "final.pt", seed=1)
    assert remade("--max-frames", 90) == [1, 2, 3]
    lines = (data / "feats.scp").read_text().splitlines(keepends=True)
    (data / "feats.scp").write_text("".join(lines[:-1]))
    assert "finished before" not in sh(*COMMAND).stdout


def test_two_runs_into_one_folder_end_in_one_error(recipe: Path, data: Path, sh: Run) -> None:
    """The second is refused while the first is at work, and changes nothing."""
    sh(*COMMAND)
    before = {path.name: path.read_bytes() for path in (recipe / "out").glob("*.*")}
    with open(recipe / "out/.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = sh(*COMMAND, fails=True)
    assert "another job extracts vectors into out; wait for it, or give another folder" in done.stderr
    assert {path.name: path.read_bytes() for path in (recipe / "out").glob("*.*")} == before


def test_two_at_once_in_truth(recipe: Path, data: Path) -> None:
    """Started a moment apart with two models: one of them ends well and its vectors are all there, the other is refused."""
    model(recipe / "other.pt", seed=1)
    runs = []
    for name in ("final.pt", "other.pt"):
        words = ["local/extract_xvectors.sh", "--nj", "2", name, "data/x", "out"]
        runs.append(subprocess.Popen(words, cwd=recipe, env=environment(), stdout=-1, stderr=-1, text=True))
        time.sleep(0.5)
    said = [run.communicate(timeout=200) for run in runs]
    codes = [run.returncode for run in runs]
    assert sorted(map(bool, codes)) == [False, True], said
    assert "another job extracts vectors into out" in said[codes.index(1)][1]
    net = load_net(recipe / ("final.pt", "other.pt")[codes.index(0)])
    scp, vectors = Scp(data / "feats.scp"), Scp(recipe / "out/xvector.scp")
    assert list(vectors) == list(scp)
    for index in range(len(scp)):
        np.testing.assert_allclose(vectors.read(index), embed(net, scp.read(index), CPU), rtol=1e-5, atol=1e-5)


def test_a_short_part_is_an_error(recipe: Path, data: Path, sh: Run) -> None:
    """Where the file system knows no locks, another run's part may stand in the place of a job's."""
    (recipe / "jobs.sh").write_text(
        '#!/bin/bash\nutils/run_jobs.sh "$@" && sed -i "\\$d" out/xvector.2.scp\n'
    )  # fmt: skip
    (recipe / "jobs.sh").chmod(0o755)
    done = sh(*COMMAND[:1], "--cmd", recipe / "jobs.sh", *COMMAND[1:], fails=True)
    assert "out/xvector.2.scp doesn't have the vectors of job 2" in done.stderr
    assert not (recipe / "out/xvector.scp").exists()


def test_a_killed_run_leaves_no_xvector_scp(recipe: Path, data: Path, sh: Run) -> None:
    sh(*COMMAND)
    (recipe / "jobs.sh").write_text("#!/bin/bash\nexit 1\n")
    (recipe / "jobs.sh").chmod(0o755)
    sh(*COMMAND[:1], "--cmd", recipe / "jobs.sh", *COMMAND[1:], fails=True)
    assert not (recipe / "out/xvector.scp").exists()
    assert "3 of 3 jobs were finished before" in sh(*COMMAND).stdout
    assert read_table(recipe / "out/spk_xvector.scp").keys() == {"s0", "s1", "s2", "s3"}


@pytest.mark.parametrize("script", ["local/extract_xvectors.sh", "local/extract_crop_xvectors.sh"])
def test_jobs_share_the_gpus(recipe: Path, data: Path, sh: Run, script: str) -> None:
    """What the jobs are told, without a GPU: a runner that notes the command line and the devices that it would see."""
    seen = recipe / "seen"
    (recipe / "run_jobs.sh").write_text(f'#!/bin/bash\necho "$CUDA_VISIBLE_DEVICES $*" > {seen}\nexit 1\n')
    (recipe / "queue.sh").write_text(f'#!/bin/bash\necho "$CUDA_VISIBLE_DEVICES $*" > {seen}\nexit 1\n')
    for name in ("run_jobs.sh", "queue.sh"):
        (recipe / name).chmod(0o755)
    env = [name for name in os.environ if name == "CUDA_VISIBLE_DEVICES"]
    clean = ["env", *(f"-u{name}" for name in env)]
    options = ["--gpus", 2, *COMMAND[1:]]
    sh(*clean, script, "--cmd", recipe / "run_jobs.sh", *options, fails=True)
    words = seen.read_text().split()
    assert words[:4] == ["0,1", "--max-jobs-run", "3", "JOB=1:3"] and "--device cuda" in " ".join(words)
    sh("env", "CUDA_VISIBLE_DEVICES=4,6,7", script, "--cmd", recipe / "run_jobs.sh", *options, fails=True)
    assert seen.read_text().startswith("4,6 --max-jobs-run 3 ")
    sh("env", "CUDA_VISIBLE_DEVICES=", script, "--cmd", recipe / "queue.sh", *options, fails=True)
    assert seen.read_text().split()[:4] == ["--gpu", "1", "--max-jobs-run", "2"]
    if not torch.cuda.is_available():
        done = sh(script, *options, fails=True)
        assert "--device=cuda: PyTorch sees no GPU here" in done.stderr


def test_half_precision_is_taken_only_where_it_changes_nothing(
    recipe: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import speakerkd.models.precision as precision

    net, scp = load_net(recipe / "final.pt"), Scp(data / "feats.scp")
    samples = [scp.read(index) - scp.read(index).mean(0) for index in range(4)]
    monkeypatch.setattr(precision, "hardware_half", lambda device: torch.bfloat16)
    assert choose_half("none", net, CPU, samples) is None
    assert choose_half("auto", net, CPU, samples) is choose_half("bf16", net, CPU, samples) is torch.bfloat16
    monkeypatch.setattr(precision, "ALIKE", 1.1)
    assert choose_half("auto", net, CPU, samples) is None
    assert choose_half("fast", net, CPU, samples) is torch.bfloat16
    monkeypatch.setattr(precision, "hardware_half", lambda device: None)
    assert choose_half("auto", net, CPU, samples) is choose_half("fast", net, CPU, samples) is None
    with pytest.raises(ValueError, match="--amp=half is not one of: none auto fast bf16"):
        choose_half("half", net, CPU, samples)


def test_bf16_vectors_by_the_script(recipe: Path, data: Path, sh: Run) -> None:
    sh(COMMAND[0], "--amp", "bf16", *COMMAND[1:])
    log = (recipe / "out/log/extract.1.log").read_text()
    assert "bfloat16: the vectors' cosine to float32 is 0.999" in log
    net, scp, vectors = load_net(recipe / "final.pt"), Scp(data / "feats.scp"), Scp(recipe / "out/xvector.scp")
    for index in range(len(scp)):
        ours, plain = vectors.read(index), embed(net, scp.read(index), CPU)
        assert ours @ plain / np.linalg.norm(ours) / np.linalg.norm(plain) > 0.9995
        assert np.abs(ours - plain).max() > 0
