"""Large tables: read in blocks as line by line, kept as mapped arrays, and the same batches whichever way they came."""

import hashlib
import multiprocessing
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from speakerkd.batches.dataset import Batches, View
from speakerkd.batches.utterances import Utterances, hold_out
from speakerkd.files import blocks, columns, numbering, scplines, stored
from speakerkd.files.columns import read_column, read_counts, read_seconds
from speakerkd.files.kaldi import ArkWriter, Scp
from speakerkd.files.names import Names, places
from speakerkd.files.numbering import Numbering, by_number, places_of, taken
from speakerkd.files.tables import write_data_dir, write_table
from speakerkd.files.vectors import read_vectors
from tools.benchmarks.opening import make_data

Patch = pytest.MonkeyPatch


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """8 speakers x 5 utterances at three speeds, each with two copies; copies are named as Kaldi's utt2uniq names them."""
    rows: dict[str, tuple[str, str, int]] = {}
    for speed in ("", "sp0.9-", "sp1.1-"):
        for number in range(40):
            speaker, original = f"{speed}s{number % 8}", f"s{number % 8}-{number:02}"
            for copy in ("", "-babble", "-reverb"):
                rows[f"{speed}{original}{copy}"] = (speaker, original, 30 + number)
    folder = tmp_path / "data"
    write_data_dir(folder, dict.fromkeys(rows, "x"), {name: row[0] for name, row in rows.items()})
    with ArkWriter(folder / "feats") as write:
        for name in sorted(rows):
            write(name, np.arange(rows[name][2] * 2, dtype=np.float32).reshape(-1, 2))
    write_table(folder / "utt2num_frames", {name: row[2] for name, row in rows.items()})
    write_table(folder / "utt2uniq", {name: row[1] for name, row in rows.items()})
    with ArkWriter(tmp_path / "xvector") as write:
        for name in [*sorted({row[1] for row in rows.values()} - {"s3-11"}), "z"]:
            write(name, np.random.default_rng(int.from_bytes(name.encode(), "little")).standard_normal(5, np.float32))
    return folder


def line_by_line(patch: Patch) -> None:
    def unusual(path: Path) -> None:
        raise blocks.UnusualTableError

    for module in (scplines, columns):
        patch.setattr(module, "plain_blocks", unusual)


def in_small_blocks(patch: Patch) -> None:
    patch.setattr(blocks, "BLOCK", 70)
    patch.setattr("speakerkd.files.names.BLOCK", 7)
    patch.setattr("speakerkd.files.vectors.BLOCK", 4)
    for name, few in (("WAITING", 5), ("PART", 7)):
        patch.setattr(numbering, name, few)
    patch.setattr("speakerkd.batches.utterances.PART", 7)


def from_the_cache(patch: Patch) -> None:
    patch.setattr(stored, "SMALL", 0)


def as_it_is(patch: Patch) -> None:
    return


def drawn(folder: Path, labels: bool, held: int) -> str:
    """A digest of entries, labels and places of the crops in two epochs."""
    data = Utterances(folder, labels=labels)
    entries, valid, _ = hold_out(data, held, 3)
    seen = Batches(data, [View(), View(0.5)], 24, 16, 5, entries)
    digest, cut = hashlib.sha256(np.asarray(valid, np.int64).tobytes()), data.crops.cut

    def watched(places: Any) -> Any:
        digest.update(np.asarray(places.starts, np.int64).tobytes())
        return cut(places)

    data.crops.cut = watched  # type: ignore[method-assign]
    for step in range(2 * seen.per_epoch):
        batch = seen[step]
        digest.update(np.asarray(seen.entries_of(step), np.int64).tobytes())
        if batch.labels is not None:
            digest.update(batch.labels.numpy().tobytes())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("way", [as_it_is, line_by_line, in_small_blocks, from_the_cache])
def test_batches_are_those_of_before_the_tables_were_flat(
    data_dir: Path, monkeypatch: Patch, way: Callable[[Patch], None]
) -> None:
    """The digests are of the code that read the tables as dictionaries."""
    way(monkeypatch)
    for _ in range(2):  # the second time from what is kept
        assert drawn(data_dir, True, 0) == "8c482d2410460f6b"
        assert drawn(data_dir, True, 2) == "b18ba23e41375cf4"
        assert drawn(data_dir, False, 0) == "f63f08b2153fe3b7"
    assert (data_dir / ".cache").exists() == (way is from_the_cache)


@pytest.mark.parametrize("way", [as_it_is, line_by_line, in_small_blocks, from_the_cache])
def test_vectors_are_those_of_the_scp(data_dir: Path, monkeypatch: Patch, way: Callable[[Patch], None]) -> None:
    way(monkeypatch)
    scp = data_dir.parent / "xvector.scp"
    with pytest.raises(
        ValueError, match="9 of 360 utterances have no teacher: s3-11, s3-11-babble, s3-11-reverb and 6"
    ):
        Utterances(data_dir).attach("teacher", scp)
    vectors = read_vectors(scp)
    row = dict(zip(vectors.ids, vectors.matrix, strict=True))
    for _ in range(2):
        data = Utterances(data_dir)
        data.attach("teacher", scp, "zero")
        found = data.vectors["teacher"].of(np.arange(len(data)))
        originals = [line.split()[1] for line in (data_dir / "utt2uniq").read_text().splitlines()]
        np.testing.assert_array_equal(found, [row.get(name, np.zeros(5, np.float32)) for name in originals])
        assert data.vectors["teacher"].present.sum() == 351
        assert len(data.vectors["teacher"].rows) == 40  # z is no one's
        mapped = isinstance(data.vectors["teacher"].rows.base, np.memmap)
        assert mapped == (way is from_the_cache)


def test_a_table_that_changes_is_read_again_and_the_old_arrays_go(data_dir: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(stored, "SMALL", 0)
    data = Utterances(data_dir)
    before = sorted((data_dir / ".cache").iterdir())
    path = data_dir / "utt2num_frames"
    path.write_text(path.read_text().replace("s0-00 30", "s0-00 29"))
    assert Utterances(data_dir).frames[data.scp.find("s0-00")] == 29
    after = sorted((data_dir / ".cache").iterdir())
    assert len(after) == len(before) and len(set(after) - set(before)) == 1
    with ArkWriter(data_dir.parent / "xvector") as write:
        for name in sorted(set(data.scp)):
            write(name, np.ones(5, np.float32))
    data.attach("teacher", data_dir.parent / "xvector.scp")
    with ArkWriter(data_dir.parent / "xvector") as write:  # of the same size
        for name in sorted(set(data.scp)):
            write(name, np.full(5, 2, np.float32))
    data.attach("teacher", data_dir.parent / "xvector.scp")
    assert data.vectors["teacher"].of(np.arange(3)).tolist() == [[2] * 5] * 3


def test_without_a_place_to_write_each_process_holds_the_arrays(data_dir: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(stored, "SMALL", 0)
    expected = drawn(data_dir, True, 2)
    for each in (data_dir / ".cache").iterdir():
        (data_dir / ".cache" / each.name).unlink() if each.is_file() else subprocess.check_call(["rm", "-r", each])
    (data_dir / ".cache").rmdir()
    (data_dir / ".cache").write_text("in the way, as a folder without rights is")
    assert drawn(data_dir, True, 2) == expected
    (data_dir / ".cache").unlink()

    def full(self: stored.FileSink, name: str, part: np.ndarray) -> None:
        raise stored.NotWritableError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(stored.FileSink, "add", full)
        assert drawn(data_dir, True, 2) == expected
    assert [each.name for each in (data_dir / ".cache").iterdir()] == ["lock"]


def test_damaged_arrays_are_made_again_and_leftovers_swept(data_dir: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(stored, "SMALL", 0)
    expected = drawn(data_dir, True, 2)
    cache = data_dir / ".cache"
    kept = sorted(cache.glob("feats.scp-*"))
    (kept[0] / "ends.npy").write_bytes((kept[0] / "ends.npy").read_bytes()[:-9])
    (next(cache.glob("utt2spk*")) / "own.npy").unlink()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (cache / f"utt2uniq-0123,{stored.socket.gethostname()},{dead.pid}.tmp").mkdir()
    assert drawn(data_dir, True, 2) == expected
    assert sorted(cache.glob("feats.scp-*")) == kept and not list(cache.glob("*.tmp"))


def _opened(folder: str, start: Any, results: Any) -> None:
    stored.SMALL = 0
    made: list[str] = []
    make = stored._make
    stored._make = lambda cache, name, source: (made.append(name), make(cache, name, source))[1]  # type: ignore[assignment]
    start.wait()
    results.put((drawn(Path(folder), True, 2), made))


def test_processes_that_open_it_together_make_the_arrays_once(data_dir: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_opened, args=(str(data_dir), start, results)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert {digest for digest, _ in found} == {"b18ba23e41375cf4"}
    made = [name for _, names in found for name in names]
    assert sorted(made) == sorted(set(made)) and len(made) == 5


LINES = {
    "offsets": "a /x y/1.ark:12\nb /x y/1.ark:130\nc /z.ark:0\n",
    "no offset, a pipe, rows": "a /x/1.mat\nb copy-feats ark:- |\nc /x.ark:7[0:3]\nd /x.ark:12\ne :5\n",
    "many digits": f"a /x:{'9' * 18}\nb /x:{'9' * 19}\nc /x:00012\n",
    "letters beyond ASCII": "a /ä/1.ark:12\nb /ä/1.ark:13\n",
    "tabs and blanks": "a\tb  /x.ark:1 \nb /x.ark:2\n",
    "no line break at the end": "a /x.ark:12\nb /x.ark:13",
    "a long line": "a /x.ark:12\n" + "b" * 300 + " /x.ark:13\nc /x.ark:14\n",
}


@pytest.mark.parametrize("text", LINES.values(), ids=list(LINES))
@pytest.mark.parametrize("block", [13, 1 << 22])
def test_an_scp_in_blocks_is_the_scp_line_by_line(tmp_path: Path, monkeypatch: Patch, text: str, block: int) -> None:
    path = tmp_path / "x.scp"
    path.write_text(text)
    monkeypatch.setattr(blocks, "BLOCK", block)
    found = Scp(path)
    line_by_line(monkeypatch)
    expected = Scp(path)
    assert list(found) == list(expected) and len(found) == len(expected)
    assert [found.place(i) for i in range(len(found))] == [expected.place(i) for i in range(len(found))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a /x.ark:1\nc /x.ark:2\nb /x.ark:3\n", ":3: 'b' stands after 'c'"),
        ("a /x.ark:1\na /x.ark:2\n", ":2: 'a' stands after 'a'"),
        ("a /x.ark:1\n\nb /x.ark:2\n", ":2: empty line"),
        ("a /x.ark:1\r\nb /x.ark:2\r\n", ":1: the line ends in CR LF"),
        ("a /x.ark:1\nb\n", ":2: not 'key archive:offset'"),
        ("", "is empty"),
    ],
)
def test_what_is_wrong_is_said_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.scp").write_text(text)
    with pytest.raises(ValueError, match=f"x.scp.*{message}"):
        Scp(tmp_path / "x.scp")


def test_columns_that_are_not_sorted_or_do_not_fit(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "feats.scp").write_text("".join(f"u{number:03} /x.ark:{number}\n" for number in range(300)))
    scp = Scp(tmp_path / "feats.scp")
    values = [f"s{number * 7 % 11}" if number % 5 else f"u{number:03}" for number in range(300)]
    table = tmp_path / "utt2spk"
    table.write_text("".join(f"u{number:03} {value}\n" for number, value in enumerate(values)))
    monkeypatch.setattr(blocks, "BLOCK", 100)
    with monkeypatch.context() as patch:
        patch.setattr(columns, "_by_lines", lambda path, scp: pytest.fail("read line by line"))
        found = read_column(table, scp)
    assert list(found) == values and list(found.names) == sorted(set(values))
    assert found.own.tolist() == [number % 5 == 0 for number in range(300)]
    line_by_line(monkeypatch)
    slow = read_column(table, scp)
    assert slow.names.same(found.names)
    np.testing.assert_array_equal(slow.number, found.number)
    monkeypatch.undo()
    table.write_text("".join(f"u{number:03} {number + 1}\n" for number in range(299)))
    with pytest.raises(ValueError, match=r"utt2spk: 299 lines, feats\.scp has 300"):
        read_counts(table, scp, np.int32)
    table.write_text("".join(f"u{number:03} {number}\n" for number in range(300)))
    with pytest.raises(ValueError, match="utt2spk:1: '0' is not a number from 1 to 2147483647"):
        read_counts(table, scp, np.int32)
    table.write_text("".join(f"u{number:03} {number + 1}\n" for number in range(300)).replace("u123", "v123"))
    with pytest.raises(ValueError, match=r"utt2spk:124: 'v123' where feats\.scp has 'u123'"):
        read_column(table, scp)


def test_places_of_sorted_names() -> None:
    there = Names.of(["a", "c", "d", "é"])
    assert places(Names.of(["a", "b", "c", "e", "é", "ü"]), there).tolist() == [0, -1, 1, -1, 3, -1]
    assert places(there, there).tolist() == [0, 1, 2, 3]
    assert there[-1] == "é" and there[1:3] == ["c", "d"] and there.find("d") == 2 and there.find("b") == -1


@pytest.mark.parametrize("waiting", [1, 9, 1000])
@pytest.mark.parametrize("distinct", [1, 6, 300])
def test_numbering_is_that_of_sorted_names(monkeypatch: Patch, waiting: int, distinct: int) -> None:
    """Names of many lengths, in parts; later ones belong before, between and behind earlier ones."""
    monkeypatch.setattr(numbering, "WAITING", waiting)
    monkeypatch.setattr(numbering, "PART", 50)
    rng = np.random.default_rng(waiting + distinct)
    known = [f"{'x' * int(rng.integers(9))}{number}ä".encode() for number in range(distinct)]
    lines = [known[number] for number in np.repeat(rng.integers(distinct, size=200), rng.integers(1, 4, 200))]
    numbered, sink, first = Numbering(), stored.Sink(), 0
    while first < len(lines):
        last = first + int(rng.integers(1, 40))
        numbered.add(np.array(lines[first:last]))
        first = last
    number = np.concatenate(numbered.finish(sink))
    arrays = sink.finish()
    expected, inverse = np.unique(lines, return_inverse=True)
    assert list(Names(arrays["text"], arrays["ends"])) == [each.decode() for each in expected.tolist()]
    assert number.dtype == np.int32 and np.array_equal(number, inverse)
    order, starts = by_number(number)
    assert np.array_equal(order, np.argsort(inverse, kind="stable"))
    assert np.array_equal(starts, np.searchsorted(np.sort(inverse), np.arange(len(expected) + 1)))
    assert np.array_equal(taken(number, order), np.sort(inverse))
    assert np.array_equal(places_of(number % 2 == 0), np.flatnonzero(inverse % 2 == 0))


def test_the_first_opening_takes_few_bytes_per_utterance(tmp_path: Path, monkeypatch: Patch) -> None:
    """At 10 million utterances it was 1 GB. The parts are scaled down with the data, so that they weigh the same."""
    originals, copies = 4000, 9
    make_data(tmp_path, originals)
    monkeypatch.setattr(stored, "SMALL", 0)
    monkeypatch.setattr(blocks, "BLOCK", 1 << 14)
    monkeypatch.setattr(numbering, "WAITING", 1 << 11)
    monkeypatch.setattr(numbering, "PART", 1 << 12)
    monkeypatch.setattr("speakerkd.batches.utterances.PART", 1 << 12)
    used = []
    for _ in range(2):
        tracemalloc.start()
        Utterances(tmp_path)
        used.append(tracemalloc.get_traced_memory()[1] / (originals * copies))
        tracemalloc.stop()
    assert used[0] < 30, "bytes; it was 74 when all lines' names were sorted together"
    assert used[1] < 3, "what is kept is mapped"


def test_seconds_are_those_of_utt2dur(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text("a /a.wav\nb /b.wav\n")
    scp, table = Scp(tmp_path / "wav.scp"), tmp_path / "utt2dur"
    table.write_text("a 1.25\nb 0.1\n")
    assert read_seconds(table, scp).tolist() == [1.25, 0.1]
    for text, message in (
        ("a 1.25\nb long\n", ":2: 'long' is not a number of seconds"),
        ("a 1.25\nb nan\n", ":2: 'nan' is not a number of seconds"),
        ("a 1.25\n", "1 lines, wav.scp has 2"),
    ):
        table.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_seconds(table, scp)


def test_the_benchmark_opens_a_small_one(tmp_path: Path) -> None:
    environment = {**os.environ, "SPEAKERKD_BENCH": "started", "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    command = [sys.executable, ROOT / "tools/bench.py", "opening", "--utterances-opened", "900"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "open a data directory of 900 utterances, again" in said and "with 100 vectors of a teacher, again" in said
