"""Text tables: what is refused, with file, line and remedy; what is written."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from speakerkd.files.tables import (
    Segment,
    read_segments,
    read_table,
    read_utt2spk,
    replacing,
    spk2utt,
    without_speed,
    write_data_dir,
    write_table,
)


def test_reads_paths_and_pipes(tmp_path: Path) -> None:
    path = tmp_path / "wav.scp"
    path.write_text("a-1 /x/with space.wav\na-2 sox b.wav -t wav - |\nÄ-3 /y.wav\n", encoding="utf-8")
    assert read_table(path) == {"a-1": "/x/with space.wav", "a-2": "sox b.wav -t wav - |", "Ä-3": "/y.wav"}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"a 1\r\nb 2\r\n", r"t:1: the line ends in CR LF; remedy: sed -i"),
        (b"b 1\na 2\n", r"t:2: 'a' stands after 'b'.*fix_data_dir"),
        (b"a 1\na 2\n", r"t:2: 'a' occurs twice.*fix_data_dir"),
        (b"a 1\n\nb 2\n", r"t:2: empty line.*fix_data_dir"),
        (b"a 1\n\xff\xfe 2\n", r"t:2: not UTF-8"),
        (b" a 1\n", r"t:1: the line starts with white space"),
        (b"a\n", r"t:1: there is nothing after the id 'a'"),
    ],
)
def test_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "t").write_bytes(raw)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "t")


def test_ids_with_spaces_show_as_fields(tmp_path: Path) -> None:
    (tmp_path / "utt2spk").write_text("a 1 a\n")
    with pytest.raises(ValueError, match=r"utt2spk:1: 3 fields, not 2: 'a 1 a' \(ids must not have spaces\)"):
        read_utt2spk(tmp_path / "utt2spk")


def test_order_is_that_of_bytes(tmp_path: Path) -> None:
    names = ["Zoe", "a-B", "a.b", "aB", "ab", "é", "日", "\U0001f600"]
    write_table(tmp_path / "t", dict.fromkeys(reversed(names), "x"))
    lines = (tmp_path / "t").read_bytes().splitlines()
    assert lines == sorted(lines) and list(read_table(tmp_path / "t")) == [line.split()[0].decode() for line in lines]


def test_a_speaker_called_sp1_is_no_copy_at_another_speed() -> None:
    assert [without_speed(name) for name in ("sp0.9-anna", "sp2.0-sp1.1-anna", "sp1-anna", "sp-9")] == [
        "anna",
        "anna",
        "sp1-anna",
        "sp-9",
    ]


def test_segments(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("a r 0 1.5\nb r 1.5 -1\n")
    assert read_segments(tmp_path / "s") == {"a": Segment("r", 0, 1.5), "b": Segment("r", 1.5, -1)}
    (tmp_path / "s").write_text("a r 2 1.5\n")
    with pytest.raises(ValueError, match="end after its start"):
        read_segments(tmp_path / "s")
    (tmp_path / "s").write_text("a r zero 1.5\n")
    with pytest.raises(ValueError, match="must be seconds"):
        read_segments(tmp_path / "s")


def test_data_dir(tmp_path: Path) -> None:
    write_data_dir(
        tmp_path / "d", {"s1-b": "b.wav", "s1-a": "a.wav"}, {"s1-b": "s1", "s1-a": "s1"}, utt2dur={"s1-a": 1.5}
    )
    assert (tmp_path / "d/wav.scp").read_text() == "s1-a a.wav\ns1-b b.wav\n"
    assert (tmp_path / "d/spk2utt").read_text() == "s1 s1-a s1-b\n"
    assert (tmp_path / "d/utt2dur").read_text() == "s1-a 1.5\n"
    with pytest.raises(ValueError, match="must be a prefix"):
        write_data_dir(tmp_path / "d", {"x": "b.wav"}, {"x": "s1"})
    with pytest.raises(ValueError, match="no utterance"):
        write_data_dir(tmp_path / "d", {}, {})
    assert spk2utt({"b-2": "b", "a-1": "a", "b-1": "b"}) == {"a": ["a-1"], "b": ["b-1", "b-2"]}


def test_write_table_refuses(tmp_path: Path) -> None:
    for rows, message in [
        ([("a", 1), ("a", 2)], "'a' would be written twice"),
        ([("a b", 1)], "can't be an id"),
        ([("a", "x\ny")], "line break"),
    ]:
        with pytest.raises(ValueError, match=message):
            write_table(tmp_path / "t", rows)
    assert not list(tmp_path.iterdir())


def test_a_crash_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("old")
    with pytest.raises(KeyError), replacing(path) as file:
        file.write("half")
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_or_read_only_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"no/t: can't be written \(No such file or directory\)"):
        write_table(tmp_path / "no" / "t", {"a": 1})
    with pytest.raises(OSError, match="can't make this folder"):
        write_data_dir("/proc/no", {"a": "a"}, {"a": "a"})


def test_a_full_disk_is_named_and_the_old_file_stays(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk."""
    (tmp_path / "t").write_text("old\n")
    script = (
        "import resource, signal, sys; from speakerkd.files.tables import write_table\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "write_table(sys.argv[1], {f'a{i}': i for i in range(10000)})"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "t"], cwd=ROOT, capture_output=True, text=True)
    assert "t: can't be written (File too large); check the disk space" in done.stderr
    assert (tmp_path / "t").read_text() == "old\n" and list(tmp_path.iterdir()) == [tmp_path / "t"]


def test_some_of_a_table_are_held_and_all_of_it_is_checked(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("a 1\nb 2\nc 3\n")
    assert read_table(tmp_path / "t", only={"b", "z"}) == {"b": "2"}
    for text, said in (("a 1\na 2\nb 3\n", "'a' occurs twice"), ("c 1\na 2\nb 3\n", "not sorted")):
        (tmp_path / "t").write_text(text)
        with pytest.raises(ValueError, match=said):
            read_table(tmp_path / "t", only={"b"})
