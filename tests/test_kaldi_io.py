"""Archives: against Kaldi's own bytes, against kaldi-native-io in both directions, and everything that is refused."""

import multiprocessing
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import kaldi_native_io
import kaldiio
import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from speakerkd.files.kaldi import ArkWriter, Scp, load, pack

GOLDEN = ROOT / "tests/data/kaldi-golden"
STEP = 1 / 65535


def write(prefix: Path, entries: dict[str, np.ndarray], compress: bool = False) -> Scp:
    with ArkWriter(prefix, compress) as writer:
        for key, value in entries.items():
            writer(key, value)
    return Scp(f"{prefix}.scp")


@pytest.mark.parametrize(("compress", "name"), [(False, "fbank80-povey.ark"), (True, "fbank80-povey-cm3-twobyte.ark")])
def test_bytes_are_kaldis(tmp_path: Path, compress: bool, name: str) -> None:
    write(tmp_path / "x", dict(kaldiio.load_ark(str(GOLDEN / "fbank80-povey.ark"))), compress)
    assert (tmp_path / "x.ark").read_bytes() == (GOLDEN / name).read_bytes()


def test_vector_bytes_are_kaldis(tmp_path: Path) -> None:
    write(tmp_path / "x", dict(kaldiio.load_ark(str(GOLDEN / "test_xvector.ark"))))
    assert (tmp_path / "x.ark").read_bytes() == (GOLDEN / "test_xvector.ark").read_bytes()


@pytest.mark.parametrize(
    "name", ["fbank80-povey", "fbank80-povey-cm1", "fbank80-povey-cm2-speech", "fbank80-povey-cm3-twobyte"]
)
def test_reads_each_layout_that_kaldi_writes(tmp_path: Path, name: str) -> None:
    """cm1 and cm2 take the way through kaldiio, FM and CM2 are read by offset."""
    raw = (GOLDEN / f"{name}.ark").read_bytes()
    keys = ["a-16k-long", "b-16k-odd", "c-16k-short"]
    lines = [f"{key} {GOLDEN}/{name}.ark:{raw.index(key.encode() + b' ') + len(key) + 1}\n" for key in keys]
    (tmp_path / "feats.scp").write_text("".join(lines))
    scp = Scp(tmp_path / "feats.scp")
    exact = dict(kaldiio.load_ark(str(GOLDEN / "fbank80-povey.ark")))
    # One byte a value between percentiles, one byte over the range, two bytes over the range.
    tolerance = {"cm1": 0.5, "cm2": 0.5, "cm3": 1e-3}.get(name.split("-")[2] if name.count("-") > 1 else "", 0)
    for index, key in enumerate(keys):
        whole = scp.read(index)
        assert whole.dtype == np.float32 and whole.shape == exact[key].shape
        assert np.abs(whole - exact[key]).max() <= tolerance
        assert np.array_equal(scp.read(index, 3, 9), whole[3:9])


@pytest.mark.parametrize("compress", [False, True])
def test_kaldi_native_io_reads_ours(tmp_path: Path, rng: np.random.Generator, compress: bool) -> None:
    entries = {f"é{i}": (50 * rng.standard_normal((i + 1, 7))).astype(np.float32) for i in range(9)}
    ours = write(tmp_path / "x", entries, compress)
    for index, line in enumerate((tmp_path / "x.scp").read_text().splitlines()):
        key, place = line.split()
        theirs = np.array(kaldi_native_io.FloatMatrix.read(place).numpy())
        assert np.abs(theirs - entries[key]).max() <= (np.ptp(entries[key]) * STEP if compress else 0)
        # the last bit may differ: they multiply before adding in another order
        np.testing.assert_allclose(ours.read(index), theirs, rtol=0, atol=1e-4 if compress else 0)


def test_kaldi_native_io_reads_our_vectors_and_we_read_theirs(tmp_path: Path, rng: np.random.Generator) -> None:
    vectors = {f"u{i}": rng.standard_normal(5).astype(np.float32) for i in range(4)}
    write(tmp_path / "x", vectors)
    with kaldi_native_io.SequentialFloatVectorReader(f"scp:{tmp_path}/x.scp") as reader:
        assert [(key, value.tolist()) for key, value in reader] == [(k, v.tolist()) for k, v in vectors.items()]

    matrices = {f"m{i}": rng.standard_normal((i + 2, 3)).astype(np.float32) for i in range(4)}
    with kaldi_native_io.FloatMatrixWriter(f"ark,scp:{tmp_path}/y.ark,{tmp_path}/y.scp") as writer:
        for key, value in matrices.items():
            writer.write(key, value)
    with kaldi_native_io.CompressedMatrixWriter(f"ark,scp:{tmp_path}/z.ark,{tmp_path}/z.scp") as writer:
        for key, value in matrices.items():
            writer.write(key, value, kaldi_native_io.CompressionMethod.kTwoByteAuto)
    for name, tolerance in [("y", 0.0), ("z", 2e-4)]:
        theirs = Scp(tmp_path / f"{name}.scp")
        for index, key in enumerate(theirs):
            np.testing.assert_allclose(theirs.read(index), matrices[key], rtol=0, atol=tolerance)
    write(tmp_path / "w", matrices, True)
    assert (tmp_path / "w.ark").read_bytes() == (tmp_path / "z.ark").read_bytes()


shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)
values = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=80, deadline=None)
@given(matrix=hnp.arrays(np.float32, shapes, elements=values))
def test_compression_errs_by_half_a_step_at_most(matrix: np.ndarray) -> None:
    data = pack(matrix, True, "x")
    low, span, rows, columns = struct.unpack_from("<ffii", data, 6)
    decoded = low + np.frombuffer(data, "<u2", offset=22).reshape(rows, columns).astype(np.float64) * span * STEP
    bound = 0.5011 * span * STEP + 4e-7 * np.abs(matrix).max()  # and single precision's own
    assert np.abs(decoded - matrix).max() <= bound


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("a b", np.zeros(3, np.float32), "'a b' can't be an id"),
        ("", np.zeros(3, np.float32), "can't be an id"),
        ("a", np.zeros(3), "float32 is written, not float64"),
        ("a", np.zeros(3, np.float16), "not float16"),
        ("a", np.zeros(3, np.int64), "not int64"),
        ("a", np.array([1, np.nan], np.float32), "'a': holds NaN"),
        ("a", np.full((2, 2), np.inf, np.float32), "holds NaN or infinite"),
        ("a", np.zeros((2, 2, 2), np.float32), r"not shape \(2, 2, 2\)"),
        ("a", np.zeros((0, 4), np.float32), "not empty"),
    ],
)
@pytest.mark.parametrize("compress", [False, True])
def test_writer_refuses(tmp_path: Path, key: str, value: np.ndarray, message: str, compress: bool) -> None:
    with pytest.raises(ValueError, match=message), ArkWriter(tmp_path / "x", compress) as writer:
        writer(key, value)
    assert not list(tmp_path.iterdir())


def test_writer_refuses_what_does_not_go_together(tmp_path: Path) -> None:
    one, two = np.zeros(3, np.float32), np.zeros(4, np.float32)
    for entries, message in [
        ([("a", one), ("a", one)], "keys must ascend and be unique"),
        ([("b", one), ("a", one)], "'a' is written after 'b'"),
        ([("a", one), ("b", two)], r"'b' has shape \(4,\), unlike"),
        ([("a", one), ("b", one[None])], r"'b' has shape \(1, 3\), unlike"),
    ]:
        with pytest.raises(ValueError, match=message), ArkWriter(tmp_path / "x") as writer:
            for key, value in entries:
                writer(key, value)
    with pytest.raises(ValueError, match="white space"):
        ArkWriter(tmp_path / "a b" / "x")


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("deep/er/x"), {"a": np.zeros(3, np.float32)})
    assert (tmp_path / "deep/er/x.scp").read_text() == f"a {tmp_path}/deep/er/x.ark:2\n"


def test_a_crash_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "x", {"a": np.ones(3, np.float32)})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyError), ArkWriter(tmp_path / "x") as writer:
        writer("a", np.zeros(3, np.float32))
        raise KeyError
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_sigkill_leaves_no_half_file_under_the_final_name(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, numpy as np; from speakerkd.files.kaldi import ArkWriter\n"
        "with ArkWriter(sys.argv[1]) as writer:\n"
        "    writer('a', np.zeros((1000, 80), np.float32)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "x"], cwd=ROOT)
    assert done.returncode == -9
    assert not (tmp_path / "x.ark").exists() and not (tmp_path / "x.scp").exists()
    write(tmp_path / "x", {"a": np.ones(3, np.float32)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.ark", "x.scp"]


def test_full_disk_and_read_only_folder_are_named(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys, numpy as np; from speakerkd.files.kaldi import ArkWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "with ArkWriter(sys.argv[1]) as writer:\n"
        "    for i in range(100, 200): writer(f'a{i}', np.zeros((10, 80), np.float32))"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "x"], cwd=ROOT, capture_output=True, text=True)
    assert "x.ark: can't be written (File too large); check the disk space and the rights" in done.stderr
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match=r"/proc/no/x\.ark: can't be written"), ArkWriter("/proc/no/x"):
        pass


def test_rows_by_offset_equal_the_whole(tmp_path: Path, rng: np.random.Generator) -> None:
    entries = {f"u{i:02}": rng.standard_normal((i + 5, 4)).astype(np.float32) for i in range(20)}
    for compress in (False, True):
        scp = write(tmp_path / "x", entries, compress)
        assert list(scp) == list(entries) and len(scp) == 20
        for index in range(20):
            whole = scp.read(index)
            theirs = kaldiio.load_mat(f"{tmp_path}/x.ark:{scp._offset[index]}")
            np.testing.assert_allclose(whole, theirs, rtol=0, atol=1e-6 if compress else 0)
            for start, stop in [(0, 2), (3, 5), (index, index + 5), (0, 999), (index + 5, index + 9)]:
                assert np.array_equal(scp.read(index, start, stop), whole[start:stop])


def test_find(tmp_path: Path) -> None:
    keys = sorted(["é1", "a", "ab", "b-1", "Z", "日"])
    scp = write(tmp_path / "x", {key: np.zeros(2, np.float32) for key in keys})
    assert [scp.find(key) for key in keys] == list(range(len(keys)))
    assert [scp.find(key) for key in ("", "aa", "zz", "\U0001f600", "A")] == [-1] * 5


@pytest.mark.parametrize("kind", ["ark without offset", "pipe", "rows of kaldi"])
def test_scp_lines_of_other_kinds(tmp_path: Path, kind: str) -> None:
    matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
    write(tmp_path / "x", {"a": matrix})
    (tmp_path / "one.mat").write_bytes((tmp_path / "x.ark").read_bytes()[2:])
    line = {
        "ark without offset": f"a {tmp_path}/one.mat",
        "pipe": f"a cat {tmp_path}/one.mat |",
        "rows of kaldi": f"a {tmp_path}/x.ark:2[1:2]",
    }[kind]
    (tmp_path / "y.scp").write_text(line + "\n")
    expected = matrix[1:3] if kind == "rows of kaldi" else matrix
    assert np.array_equal(Scp(tmp_path / "y.scp").read(0), expected)
    assert np.array_equal(Scp(tmp_path / "y.scp").read(0, 1, 2), expected[1:2])


def test_damage_is_named(tmp_path: Path) -> None:
    good = write(tmp_path / "x", {"a": np.ones((50, 8), np.float32), "b": np.ones((50, 8), np.float32)})
    size = (tmp_path / "x.ark").stat().st_size
    for line, message in [
        (f"a {tmp_path}/x.ark:{size + 5}", r"y.scp:1: 'a': .*x.ark:\d+ is past the end of the archive"),
        (f"a {tmp_path}/x.ark:{size - 3}", "past the end"),
        (f"a {tmp_path}/x.ark:7", "no object of Kaldi stands at"),
        (f"a {tmp_path}/gone.ark:2", "gone.ark"),
    ]:
        (tmp_path / "y.scp").write_text(line + "\n")
        with pytest.raises(ValueError, match=message):
            Scp(tmp_path / "y.scp").read(0)
    (tmp_path / "x.ark").write_bytes((tmp_path / "x.ark").read_bytes()[:-10])
    assert len(good.read(0)) == 50
    with pytest.raises(ValueError, match="50 rows don't fit into the archive: truncated"):
        Scp(tmp_path / "x.scp").read(1)
    with pytest.raises(ValueError, match="is it truncated"):
        load(f"{tmp_path}/x.ark:{1619 + 2}")
    (tmp_path / "x.ark").write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        Scp(tmp_path / "x.scp").read(1)


def test_scp_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "s.scp"
    for text, message in [
        ("", "s.scp: is empty"),
        ("b x:1\na x:2\n", "s.scp:2: 'a' stands after 'b': not sorted or not unique; utils/fix_data_dir.sh"),
        ("a x:1\na x:2\n", "not unique"),
        ("a\n", "s.scp:1: not 'key archive:offset'"),
        ("a x:1\r\n", "CR LF"),
    ]:
        path.write_bytes(text.encode())
        with pytest.raises(ValueError, match=message):
            Scp(path)


def test_workers_share_the_index(tmp_path: Path, rng: np.random.Generator) -> None:
    """Forked with its maps open, or pickled: the rows are the same."""
    entries = {f"u{i}": rng.standard_normal((6, 2)).astype(np.float32) for i in range(5)}
    scp = write(tmp_path / "x", entries, True)
    expected = [scp.read(i, 1, 4) for i in range(5)]
    again = pickle.loads(pickle.dumps(scp))
    assert all(np.array_equal(again.read(i, 1, 4), expected[i]) for i in range(5))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert all(
            np.array_equal(a, b)
            for a, b in zip(pool.starmap(scp.read, [(i, 1, 4) for i in range(5)]), expected, strict=True)
        )
