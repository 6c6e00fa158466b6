"""Archives: against Kaldi's own bytes, against kaldi-native-io in both directions, and everything that is refused."""

import multiprocessing
import os
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

from speakerkd.feats.source import feature_conf
from speakerkd.files.columns import read_column
from speakerkd.files.kaldi import ArkWriter, Scp
from speakerkd.files.made import origin_in_archives
from speakerkd.files.objects import pack, read_object
from speakerkd.train.identity import fingerprint

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
    """cm1 (CM) takes the way through kaldiio; the others lie row by row."""
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
        ("a", np.zeros(3), "only float32 can be written, not float64"),
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
    assert np.array_equal(Scp(tmp_path / "y.scp", pipes=True).read(0), expected)
    assert np.array_equal(Scp(tmp_path / "y.scp", pipes=True).read(0, 1, 2), expected[1:2])


def test_what_a_line_names_is_known_however_it_is_written(tmp_path: Path) -> None:
    """Digests of an scp follow its archives, also where lines have tabs, rows in brackets or no offset."""
    archive, listed = tmp_path / "x.1.ark", tmp_path / "x.scp"
    (tmp_path / "x.conf").write_text("--num-mel-bins=40\n")
    found = []
    for content in (b"one", b"two and more"):
        archive.write_bytes(content)
        for text in (
            f"a {archive}:5",
            f"a {archive}:5[0:9]",
            f"a {archive}",
            f"a\t{archive}:5",
            f"a  {archive}:5[:,2:3]",
        ):
            listed.write_text(f"{text}\n")
            found.append((fingerprint(listed), origin_in_archives(listed, "")))
            (tmp_path / "feats.scp").write_text(f"{text}\n")
            assert feature_conf(tmp_path) == tmp_path / "x.conf"
    prints, origins = zip(*found, strict=True)
    assert (len(set(prints)), len(set(origins))) == (8, 10)  # a tab or a space: the same line to fingerprint()
    listed.write_text("a gunzip -c x.gz |\n")
    assert fingerprint(listed).startswith("vectors:")


def test_a_tab_after_the_id(tmp_path: Path, rng: np.random.Generator) -> None:
    matrix = rng.normal(size=(5, 3)).astype(np.float32)
    with ArkWriter(tmp_path / "x") as write:
        write("a", matrix)
    path = tmp_path / "x.scp"
    path.write_text(path.read_text().replace(" ", "\t"))
    np.testing.assert_array_equal(Scp(path).read(0), matrix)
    (tmp_path / "utt2spk").write_text("a\tanna\n")
    assert list(read_column(tmp_path / "utt2spk", Scp(path))) == ["anna"]


def test_damage_is_named(tmp_path: Path) -> None:
    good = write(tmp_path / "x", {"a": np.ones((50, 8), np.float32), "b": np.ones((50, 8), np.float32)})
    size = (tmp_path / "x.ark").stat().st_size
    for line, message in [
        (f"a {tmp_path}/x.ark:{size + 5}", r"y.scp:1: 'a': .*x.ark:\d+: is past the end of the file.*make it again"),
        (f"a {tmp_path}/x.ark:{size - 3}", "there is no Kaldi object"),
        (f"a {tmp_path}/x.ark:7", "there is no Kaldi object"),
        (f"a {tmp_path}/gone.ark:2", r"y.scp:1: 'a': .*gone.ark:2: there is no such file"),
        (f"a {tmp_path}/gone.mat", r"y.scp:1: 'a': .*gone.mat: there is no such file"),
        (f"a {tmp_path}", r"y.scp:1: 'a': .*: is a folder"),
    ]:
        (tmp_path / "y.scp").write_text(line + "\n")
        with pytest.raises(ValueError, match=message):
            Scp(tmp_path / "y.scp").read(0)
    (tmp_path / "x.ark").write_bytes((tmp_path / "x.ark").read_bytes()[:-10])
    assert len(good.read(0)) == 50
    with pytest.raises(ValueError, match=r"x.scp:2: 'b': .*50 rows of 8 don't fit .* truncated\? make it again"):
        Scp(tmp_path / "x.scp").read(1)
    (tmp_path / "x.ark").write_bytes((tmp_path / "x.ark").read_bytes()[: 1619 + 12])
    with pytest.raises(ValueError, match="header is past the end"):
        Scp(tmp_path / "x.scp").read(1)
    (tmp_path / "x.ark").write_bytes(b"")
    with pytest.raises(ValueError, match="is an empty file"):
        Scp(tmp_path / "x.scp").read(1)


WRONG_ROWS = [(0, 4), (-3, 4), (2**31 - 1, 2**31 - 1), (-(2**31), 1)]
WRONG_COLUMNS = [(4, 0), (4, -3)]


@pytest.mark.parametrize(
    ("token", "sizes"),
    [(token, sizes) for token in (b"FV", b"DV", b"\4") for sizes in WRONG_ROWS]
    + [(token, sizes) for token in (b"FM", b"DM", b"CM", b"CM2", b"CM3") for sizes in WRONG_ROWS + WRONG_COLUMNS],
)
def test_sizes_of_a_header_that_can_not_be(tmp_path: Path, token: bytes, sizes: tuple[int, int]) -> None:
    """Not an empty matrix, not a request for gigabytes, not a traceback."""
    rows, columns = sizes
    head = b"\0B" + token
    if token in (b"FV", b"DV"):
        head += b" \4" + struct.pack("<i", rows)
    elif token == b"\4":
        head += struct.pack("<i", rows)
    elif token in (b"FM", b"DM"):
        head += b" " + struct.pack("<bibi", 4, rows, 4, columns)
    else:
        head += b" " + struct.pack("<ffii", 0, 1, rows, columns)
    (tmp_path / "x.mat").write_bytes(head + bytes(200))
    (tmp_path / "y.scp").write_text(f"a {tmp_path}/x.mat\n")
    message = r"y.scp:1: 'a': .*x.mat: .*(empty or damaged|don't fit into the \d+ bytes)"
    with pytest.raises(ValueError, match=message):
        Scp(tmp_path / "y.scp").read(0)
    with pytest.raises(ValueError, match=message):
        Scp(tmp_path / "y.scp").read(0, 1, 2)


def test_a_header_whose_count_is_not_the_tables(tmp_path: Path) -> None:
    write(tmp_path / "x", {"a": np.ones((50, 8), np.float32), "b": np.ones((60, 8), np.float32)}, True)
    raw = bytearray((tmp_path / "x.ark").read_bytes())
    assert struct.unpack_from("<i", raw, 2 + 14) == (50,)
    raw[2 + 14] = 34  # a bit was flipped
    (tmp_path / "x.ark").write_bytes(raw)
    assert len(Scp(tmp_path / "x.scp").read(0, 3, 9)) == 6
    with pytest.raises(ValueError, match=r"x.scp:1: 'a': .*: has 34 rows, but utt2num_frames says 50; make it again"):
        Scp(tmp_path / "x.scp").read(0, 3, 9, rows=50)
    assert len(Scp(tmp_path / "x.scp").read(1, rows=60)) == 60


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_no_list_runs_code_or_waits(tmp_path: Path) -> None:
    """kaldiio would unpickle the first, run the second, and read the last two for ever."""
    mark = tmp_path / "mark"
    (tmp_path / "x.mat").write_bytes(b"PKL" + pickle.dumps(Bomb(mark)))
    (tmp_path / "y.mat").write_bytes(b"NPY\x04" + (200).to_bytes(4, "little") + pickle.dumps(Bomb(mark)))
    os.mkfifo(tmp_path / "fifo")
    for source, message in [
        (f"{tmp_path}/x.mat", "there is no Kaldi object"),
        (f"{tmp_path}/x.mat:0", "there is no Kaldi object"),
        (f"{tmp_path}/y.mat", "there is no Kaldi object"),
        (f"touch {mark} |", r"is a pipe, and commands are run only if"),
        (f"touch {mark} |[0:1]", r"is a pipe, and commands are run only if"),
        (f"{tmp_path}/fifo", "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
        ("-", "there is no such file"),
    ]:
        (tmp_path / "s.scp").write_text(f"a {source}\n")
        with pytest.raises(ValueError, match=rf"s\.scp:1: 'a': .*{message}"):
            Scp(tmp_path / "s.scp").read(0)
    assert not mark.exists()
    (tmp_path / "s.scp").write_text("a echo oh dear >&2; exit 3 |\n")
    with pytest.raises(ValueError, match=r"s\.scp:1: 'a': .*the pipe failed with status 3 \(oh dear\)"):
        Scp(tmp_path / "s.scp", pipes=True).read(0)


def test_text_archives(tmp_path: Path, rng: np.random.Generator) -> None:
    """What copy-feats ark,t,scp: and copy-vector write."""
    matrices = {f"m{i}": rng.standard_normal((i + 1, 3)).astype(np.float32) for i in range(3)}
    vectors = {f"v{i}": rng.standard_normal(4).astype(np.float32) for i in range(3)}
    with kaldi_native_io.FloatMatrixWriter(f"ark,t,scp:{tmp_path}/m.ark,{tmp_path}/m.scp") as writer:
        for key, value in matrices.items():
            writer.write(key, value)
    with kaldi_native_io.FloatVectorWriter(f"ark,t,scp:{tmp_path}/v.ark,{tmp_path}/v.scp") as writer:
        for key, value in vectors.items():
            writer.write(key, value)
    for name, entries in [("m", matrices), ("v", vectors)]:
        scp = Scp(tmp_path / f"{name}.scp")
        for index, expected in enumerate(entries.values()):
            assert scp.read(index).dtype == np.float32
            np.testing.assert_allclose(scp.read(index), expected, rtol=1e-5)
            np.testing.assert_allclose(scp.read(index, 1, 2), expected[1:2], rtol=1e-5)
    for text, message in [
        ("[ 1 2", "no closing bracket"),
        ("[\n1 2\n3 ]", "have different lengths"),
        ("[ 1 x ]", "'x'"),
    ]:
        (tmp_path / "one.txt").write_text(text)
        (tmp_path / "s.scp").write_text(f"a {tmp_path}/one.txt\n")
        with pytest.raises(ValueError, match=rf"s\.scp:1: 'a': .*one.txt: .*{message}"):
            Scp(tmp_path / "s.scp").read(0)


@pytest.mark.parametrize("columns", [1, 300])
def test_a_text_object_longer_than_a_block(tmp_path: Path, columns: int) -> None:
    matrix = np.arange(60000, dtype=np.float32).reshape(-1, columns)
    text = " [\n" + "\n".join(" ".join(f"{x:.0f}" for x in row) for row in matrix) + " ]\n"
    (tmp_path / "x.ark").write_text("a " + text + "b  [ 1 ]\n")
    (tmp_path / "x.scp").write_text(f"a {tmp_path}/x.ark:2\nb {tmp_path}/x.ark:{len(text) + 4}\n")
    scp = Scp(tmp_path / "x.scp")
    assert np.array_equal(scp.read(0), matrix) and scp.read(1).tolist() == [1]


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
    """Forked with its files open, or pickled: the rows are the same."""
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


def test_a_crop_reads_its_rows_and_a_header(tmp_path: Path, rng: np.random.Generator) -> None:
    """Nothing else, and the system is told not to read ahead."""
    scp = write(tmp_path / "x", {f"u{i}": rng.standard_normal((500, 80)).astype(np.float32) for i in range(3)}, True)
    scp.read(1)
    (file,) = scp._files.values()
    assert not file.scattered  # objects that are read whole, one after the other, gain by it
    asked: list[int] = []
    file.read_at = lambda count, place, read=file.read_at: asked.append(count) or read(count, place)
    scp.read(2, 100, 300)
    assert sum(asked) <= 200 * 160 + 22 and file.scattered


def num_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_more_archives_than_may_be_open(tmp_path: Path, rng: np.random.Generator) -> None:
    """In the pool, and then in the process: the oldest are closed."""
    entries = {f"u{i:02}": rng.standard_normal((4, 2)).astype(np.float32) for i in range(40)}
    lines = []
    for key, value in entries.items():
        write(tmp_path / key, {key: value})
        lines.append((tmp_path / f"{key}.scp").read_text())
    (tmp_path / "all.scp").write_text("".join(lines))
    before = num_descriptors()
    scp = Scp(tmp_path / "all.scp")
    scp._files.most = 5
    for _ in range(2):
        assert all(np.array_equal(scp.read(i, 1, 3), value[1:3]) for i, value in enumerate(entries.values()))
        assert len(scp._files) == 5 and num_descriptors() <= before + 6
    del scp
    assert num_descriptors() == before
    script = (
        "import resource, sys; from speakerkd.files.kaldi import Scp\n"
        "scp = Scp(sys.argv[1]); scp.read(0)\n"
        "kept = [open('/dev/null') for _ in range(20)]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))\n"
        "print(sum(len(scp.read(i)) for i in range(len(scp))), len(scp._files) < 10)\n"
        "scp._files.clear()\n"
        "try:\n"
        "    while True: kept.append(open('/dev/null'))\n"
        "except OSError: pass\n"
        "scp.read(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "all.scp"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "160 True\n", done.stderr
    assert "all.scp:1: 'u00': " in done.stderr and "too many open files; allow more: ulimit -n 4096" in done.stderr


def test_an_archive_that_was_replaced_is_read_as_it_was(tmp_path: Path) -> None:
    """Like the files that are open: a run in progress keeps what it began with."""
    scp = write(tmp_path / "x", {"a": np.ones((3, 2), np.float32)})
    scp.read(0)
    write(tmp_path / "x", {"a": np.zeros((3, 2), np.float32)})
    assert scp.read(0).any() and not Scp(tmp_path / "x.scp").read(0).any()


def test_objects_are_read_out_of_bytes_too() -> None:
    data = pack(np.arange(6, dtype=np.float32).reshape(3, 2), False, "x")
    found = read_object(lambda count, place: data[place : place + count], len(data), 0, 1)
    assert found.tolist() == [[2, 3], [4, 5]]
