"""The data directory tools of utils/, against directories and results written out by hand."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

UTILS = Path(__file__).resolve().parent.parent / "utils"

# Two speakers of three and two utterances.
UTT2SPK = "a-1 a\na-2 a\na-3 a\nb-1 b\nb-2 b\n"
FILES = {
    "utt2spk": UTT2SPK,
    "spk2utt": "a a-1 a-2 a-3\nb b-1 b-2\n",
    "wav.scp": "a-1 /w/a1.wav\na-2 sox /w/a2.wav  -t wav - |\na-3 /w/a3.wav\nb-1 /w/b1.wav\nb-2 /w/b2.wav\n",
    "feats.scp": "a-1 /f.ark:4\na-2 /f.ark:99\na-3 /f.ark:199\nb-1 /f.ark:299\nb-2 /f.ark:399\n",
    "utt2num_frames": "a-1 500\na-2 200\na-3 300\nb-1 90\nb-2 1000\n",
    "spk2gender": "a f\nb m\n",
    "trials": "a-1 a-2 target\na-1 b-1 nontarget\nmodel-7 b-2 target\nb b-1 target\n",
}
# The same five utterances, as pieces of two recordings.
SEGMENTS = {
    **FILES,
    "segments": "a-1 rec1 0.0 5.01\na-2 rec1 5.01 7\na-3 rec2 1e0 4.\nb-1 rec2 4 4.9\nb-2 rec2 5 15\n",
    "wav.scp": "rec1 /w/1.wav\nrec2 /w/2.wav\n",
    "reco2dur": "rec1 20\nrec2 30.5\n",
}
# Each tool must do the same with gawk and mawk; whichever are here are tried.
AWKS = [awk for awk in ("gawk", "mawk") if shutil.which(awk)] or ["awk"]


@pytest.fixture(params=AWKS)
def run(request, tmp_path: Path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/awk").symlink_to(str(shutil.which(request.param)))
    env = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}

    def runner(tool: str, *words: object, fails: bool = False, stdin: str = ""):
        done = subprocess.run(
            [UTILS / tool, *map(str, words)],
            cwd=tmp_path,
            env=env,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done

    return runner


@pytest.fixture
def make(tmp_path: Path):
    def maker(name: str = "data", files: dict[str, str] | None = None, **changes: str | None) -> Path:
        """A data directory; a change's "__" stands for ".", and None takes the file out."""
        folder = tmp_path / name
        folder.mkdir(parents=True)
        wanted = {**(files or FILES), **{key.replace("__", "."): text for key, text in changes.items()}}
        for file, text in wanted.items():
            if text is not None:
                (folder / file).write_bytes(text.encode("utf-8", "surrogateescape"))
        return folder

    return maker


def read(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


def no_litter(folder: Path) -> None:
    assert [path.name for path in folder.iterdir() if ".tmp" in path.name or path.name.startswith(".d")] == []


TOOLS = sorted(path.name for path in UTILS.glob("*.sh") if os.access(path, os.X_OK) and path.name != "parse_options.sh")


@pytest.mark.parametrize("tool", TOOLS)
def test_help_is_the_header(run, tool):
    text = run(tool, "--help").stdout
    assert f"Usage: {tool}" in text
    header = [line[2:] for line in (UTILS / tool).read_text().splitlines()[1:] if line.startswith("#")]
    assert text.splitlines()[0] == header[0]


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if "spk2utt" not in tool and "_jobs" not in tool])
def test_an_unknown_option_is_an_error(run, tool):
    assert "--frist" in run(tool, "--frist", "a", "b", "c", fails=True).stderr


# --- spk2utt ---


def test_spk2utt_and_back(run, make):
    data = make()
    assert run("utt2spk_to_spk2utt.sh", data / "utt2spk").stdout == FILES["spk2utt"]
    assert run("utt2spk_to_spk2utt.sh", stdin="z-1 z\na-1 a\nz-0 z\n").stdout == "z z-1 z-0\na a-1\n"
    assert run("spk2utt_to_utt2spk.sh", data / "spk2utt").stdout == UTT2SPK
    assert run("spk2utt_to_utt2spk.sh", "-", stdin="b b-2 b-1\n").stdout == "b-2 b\nb-1 b\n"


def test_one_speaker_of_many_utterances(run):
    utts = [f"s-{i:06d}" for i in range(100000)]
    text = run("utt2spk_to_spk2utt.sh", stdin="".join(f"{utt} s\n" for utt in utts)).stdout
    assert text == f"s {' '.join(utts)}\n"
    assert run("spk2utt_to_utt2spk.sh", stdin=text).stdout == "".join(f"{utt} s\n" for utt in utts)


def test_lines_that_are_none(run, make):
    bad = run("utt2spk_to_spk2utt.sh", stdin="a-1 a\na 2 a\n", fails=True)
    assert bad.stdout == ""
    assert 'standard input:2: "a 2 a"' in bad.stderr
    assert "standard input:1:" in run("spk2utt_to_utt2spk.sh", stdin="a\n", fails=True).stderr
    assert "no such file: nowhere" in run("utt2spk_to_spk2utt.sh", "nowhere", fails=True).stderr


# --- validate ---


@pytest.mark.parametrize("files", [FILES, SEGMENTS])
def test_a_good_directory_is_valid(run, make, files):
    done = run("validate_data_dir.sh", make(files=files))
    assert done.stdout.endswith("data is valid: 5 utterances of 2 speakers\n")
    assert done.stderr == ""


def test_everything_optional_may_be_there(run, make):
    more = {
        "vad__scp": FILES["feats.scp"],
        "utt2dur": "a-1 1\na-2 .5\na-3 1e-1\nb-1 2.25\nb-2 3\n",
        "utt2uniq": "a-1 x\na-2 x\na-3 y\nb-1 y\nb-2 y\n",
        "utt2aug": "a-2 noise=pink#17 10 dB\n",
        "cmvn__scp": "a /c:1\nb /c:2\n",
        "text": "a-1\na-2 hello wörld\na-3 x\nb-1 x\nb-2 x\n",
        "aug__scp": "z /z.wav\na /a.wav\n",
        "frame_shift": "0.01\n",
    }
    run("validate_data_dir.sh", make(**more))
    run("validate_data_dir.sh", "--no-feats", "--no-wav", "--no-text", make("bare", feats__scp=None, wav__scp=None))


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (
            {"utt2spk": UTT2SPK.replace("\n", "\r\n")},
            ["data/utt2spk:1: the line ends in CR LF", r"sed -i 's/\r$//'", "[5 "],
        ),
        (
            {"utt2spk": UTT2SPK.replace("a-2 a\na-3 a\n", "a-3 a\na-2 a\n")},
            ["data/utt2spk:3: a-2 comes after a-3", "fix_"],
        ),
        (
            {"utt2spk": UTT2SPK.replace("a-3 a\n", "a-3 a\na-3 a\n")},
            ["data/utt2spk:4: a-3 is there twice", "fix_data_dir"],
        ),
        (
            {"utt2spk": UTT2SPK.replace("a-3", "a 3")},
            ['data/utt2spk:3: "a 3 a" has 3 fields where 2 belong', "no spaces"],
        ),
        ({"utt2spk": UTT2SPK.replace("a-3 a", "a-3")}, ['data/utt2spk:3: "a-3" has 1 fields']),
        ({"utt2spk": UTT2SPK.replace("a-3", "\na-3")}, ["data/utt2spk:3: the line is empty"]),
        ({"utt2spk": UTT2SPK.replace("a-3", " a-3")}, ["data/utt2spk:3: the line starts with a blank"]),
        ({"utt2spk": UTT2SPK[:-1]}, ["data/utt2spk: the last line has no newline"]),
        ({"utt2spk": "\ufeff" + UTT2SPK}, ["data/utt2spk:1: the file starts with a byte-order mark"]),
        (
            {"utt2spk": UTT2SPK.replace("a-3 a", "a-3 b")},
            ["data/utt2spk:3: speaker b is not the start of utterance a-3"],
        ),
        ({"utt2spk": None}, ["data/utt2spk is missing"]),
        ({"spk2utt": None}, ["data/spk2utt is missing", "utt2spk_to_spk2utt.sh"]),
        ({"wav__scp": None}, ["data/wav.scp is missing", "--no-wav"]),
        ({"feats__scp": None}, ["data/feats.scp is missing", "--no-feats"]),
        ({"feats__scp": ""}, ["data/feats.scp is empty"]),
        ({"utt2spk": "", "spk2utt": ""}, ["data/utt2spk is empty", "data/spk2utt is empty"]),
        (
            {"feats__scp": "a-1 /f.ark:4\nb-2 /f.ark:9\n"},
            ["data/feats.scp lacks 3 of the 5 utterances", "first: a-2", "fix_"],
        ),
        (
            {"feats__scp": FILES["feats.scp"] + "c-1 /f.ark:9\n"},
            ["data/feats.scp has 1 utterances that utt2spk does not"],
        ),
        ({"utt2aug": "c-1 x\n"}, ["data/utt2aug has 1 utterances that utt2spk does not"]),
        ({"wav__scp": FILES["wav.scp"].replace("/w/a3", "~/a3")}, ["data/wav.scp:3: ~ is not expanded in ~/a3.wav"]),
        ({"utt2num_frames": FILES["utt2num_frames"].replace("90", "90.5")}, ['data/utt2num_frames:4: "90.5" is not']),
        ({"utt2num_frames": FILES["utt2num_frames"].replace("90", "0")}, ['data/utt2num_frames:4: "0" is not']),
        ({"utt2dur": "a-1 1\na-2 x\na-3 1\nb-1 2\nb-2 -3\n"}, ['data/utt2dur:2: "x" is not', "[2 such lines]"]),
        ({"spk2gender": "a f\nb male\n"}, ['data/spk2gender:2: "male" is neither m nor f']),
        ({"spk2gender": "a f\n"}, ["data/spk2gender lacks 1 of the 2 speakers"]),
        (
            {"cmvn__scp": "a /c:1\nb /c:2\nc /c:3\n"},
            ["data/cmvn.scp has 1 speakers that utt2spk does not (the first: c)"],
        ),
        (
            {"spk2utt": "a a-1 a-3 a-2\nb b-1 b-2\n"},
            ["data/spk2utt is not the inverse of utt2spk", "utt2spk_to_spk2utt.sh"],
        ),
        ({"spk2utt": "a a-1 a-2\nb b-1 b-2\n"}, ["data/spk2utt is not the inverse"]),
        ({"trials": "a-1 a-2 1\n"}, ['data/trials:1: "1" is neither target nor nontarget']),
        ({"trials": "a-1 a-2 target\na-1 c-1 target\n"}, ["data/trials:2: the test utterance c-1 is not in utt2spk"]),
        ({"trials": "1 a-1 a-2 target\n"}, ['data/trials:1: "1 a-1 a-2 target" has 4 fields']),
        ({"text": "a-1\na-2\udcff\na-3\nb-1\nb-2\n"}, ["data/text:2: the line is not UTF-8"]),
        ({"text": "a-1\na-2 \x07\na-3\nb-1\nb-2\n"}, ["data/text:2: the line has a character that does not print"]),
        # All faults at once, not only the first:
        (
            {"feats__scp": "a-1 f\na-1 f\n", "spk2gender": "b m\na f\n"},
            ["feats.scp:2: a-1 is there twice", "spk2gender:2: a"],
        ),
    ],
)
def test_faults_are_reported_with_a_remedy(run, make, changes, messages):
    done = run("validate_data_dir.sh", make(**changes), fails=True)
    for message in messages:
        assert message in done.stderr
    assert "valid" not in done.stdout


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"wav__scp": None}, ["data/wav.scp is missing"]),
        ({"wav__scp": "rec1 /w/1.wav\n"}, ["data/wav.scp lacks 1 of the 2 recordings of segments (the first: rec2)"]),
        ({"wav__scp": SEGMENTS["wav.scp"] + "rec3 /w\n"}, ["data/wav.scp has 1 recordings that segments does not"]),
        ({"reco2dur": "rec1 20\n"}, ["data/reco2dur lacks 1 of the 2 recordings"]),
        (
            {"segments": SEGMENTS["segments"].replace("15", "5")},
            ["data/segments:5: b-2 ends at 5, not after its start 5"],
        ),
        ({"segments": SEGMENTS["segments"].replace("7", "x")}, ['data/segments:2: "5.01 x" are not two times']),
        ({"segments": SEGMENTS["segments"].replace(" rec1", "", 1)}, ['data/segments:1: "a-1 0.0 5.01" has 3 fields']),
        ({"segments": SEGMENTS["segments"].split("b-2")[0]}, ["data/segments lacks 1 of the 5 utterances"]),
    ],
)
def test_faults_of_segments(run, make, changes, messages):
    done = run("validate_data_dir.sh", "--no-wav", make(files=SEGMENTS, **changes), fails=True)
    for message in messages:
        assert message in done.stderr


def test_speakers_that_are_not_prefixes(run, make):
    files = {"utt2spk": "u1 y\nu2 x\nu3 y\n", "spk2utt": "x u2\ny u1 u3\n", "wav.scp": "u1 1\nu2 2\nu3 3\n"}
    data = make(files=files)
    assert "speaker y is not the start" in run("validate_data_dir.sh", "--no-feats", data, fails=True).stderr
    run("validate_data_dir.sh", "--no-feats", "--no-spk-sort", data)


def test_speakers_of_two_lengths(run, make):
    files = {"utt2spk": "a-1 a\na-b-1 a-b\na-c a\n", "spk2utt": "a a-1 a-c\na-b a-b-1\n"}
    done = run("validate_data_dir.sh", "--no-feats", "--no-wav", make(files=files), fails=True)
    assert "data/utt2spk:3: the order of utterances is not that of speakers (a comes after a-b)" in done.stderr


def test_other_alphabets_are_legal(run, make):
    files = {"utt2spk": "é-1 é\n张-1 张\n", "spk2utt": "é é-1\n张 张-1\n"}
    run("validate_data_dir.sh", "--no-feats", "--no-wav", make(files=files))
    bell = make("bell", **{"text": "a-1\na-2 \x07\na-3\nb-1\nb-2\n"})
    run("validate_data_dir.sh", "--non-print", bell)


def test_ids_that_look_like_numbers_are_text(run, make):
    files = {"utt2spk": "10 10\n100 100\n1e1 1e1\n9 9\n", "spk2utt": "10 10\n100 100\n1e1 1e1\n9 9\n"}
    run("validate_data_dir.sh", "--no-feats", "--no-wav", make(files=files))
    swapped = {"utt2spk": "9 9\n10 10\n", "spk2utt": "9 9\n10 10\n"}
    done = run("validate_data_dir.sh", "--no-feats", "--no-wav", make("swapped", files=swapped), fails=True)
    assert "10 comes after 9" in done.stderr


def test_one_speaker_is_a_warning(run, make):
    done = run(
        "validate_data_dir.sh", "--no-feats", "--no-wav", make(files={"utt2spk": "a-1 a\n", "spk2utt": "a a-1\n"})
    )
    assert "one speaker only" in done.stderr


# --- fix ---


def test_fix_leaves_a_good_directory_alone(run, make):
    data = make(files=SEGMENTS)
    before = {path.name: path.stat().st_mtime_ns for path in data.iterdir()}
    assert run("fix_data_dir.sh", data).stdout.endswith("kept 5 of 5 utterances in " + str(data) + "\n")
    assert {path.name: path.stat().st_mtime_ns for path in data.iterdir()} == before


def test_fix_keeps_what_all_files_have(run, make, tmp_path):
    data = make(
        utt2spk="b-2 b\nb-1 b\n\na-1 a\na-2 a\na-3 a\na-3 a",
        spk2utt="rubbish\n",
        feats__scp="a-1 /f.ark:4\na-3 /f.ark:199\nb-1 /f.ark:299\nz-1 /f.ark:1\n",
        utt2aug="a-1 x\na-2 y\n",
        aug__scp="n /n.wav\nm /m.wav\n",
    )
    done = run("fix_data_dir.sh", data)
    assert "kept 3 of 5 utterances" in done.stdout
    assert "data/feats.scp lacks 2 utterances, which are removed (the first: a-2)" in done.stdout
    assert "data/utt2spk: dropped 1 lines whose id was there before (the first: a-3)" in done.stdout
    assert read(data) == {
        "utt2spk": "a-1 a\na-3 a\nb-1 b\n",
        "spk2utt": "a a-1 a-3\nb b-1\n",
        "wav.scp": "a-1 /w/a1.wav\na-3 /w/a3.wav\nb-1 /w/b1.wav\n",
        "feats.scp": "a-1 /f.ark:4\na-3 /f.ark:199\nb-1 /f.ark:299\n",
        "utt2num_frames": "a-1 500\na-3 300\nb-1 90\n",
        "spk2gender": "a f\nb m\n",
        "trials": "a-1 b-1 nontarget\nb b-1 target\n",
        "utt2aug": "a-1 x\n",
        "aug.scp": "n /n.wav\nm /m.wav\n",
    }
    assert (data / ".backup/spk2utt").read_text() == "rubbish\n"
    assert (data / ".backup/wav.scp").read_text() == FILES["wav.scp"]
    assert not (data / ".backup/aug.scp").exists()
    run("validate_data_dir.sh", data)
    no_litter(tmp_path)


def test_fix_follows_recordings_and_speakers(run, make):
    data = make(files=SEGMENTS, wav__scp="rec2 /w/2.wav\nrec9 /w/9.wav\n", spk2gender="b m\n")
    assert "kept 2 of 5" in run("fix_data_dir.sh", data).stdout
    assert (data / "segments").read_text() == "b-1 rec2 4 4.9\nb-2 rec2 5 15\n"
    assert (data / "wav.scp").read_text() == "rec2 /w/2.wav\n"
    assert (data / "reco2dur").read_text() == "rec2 30.5\n"
    assert (data / "spk2utt").read_text() == "b b-1 b-2\n"


def test_fix_says_when_lines_contradict(run, make):
    data = make(utt2spk=UTT2SPK + "b-2 a\n")
    done = run("fix_data_dir.sh", data)
    assert "1 of them said something else" in done.stderr
    assert (data / "utt2spk").read_text() == UTT2SPK


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feats__scp": "c-1 x\n"}, "no utterance is in all files"),
        ({"feats__scp": ""}, "no utterance is in all files"),
        ({"utt2spk": UTT2SPK.replace("a-3", "a 3")}, "3 fields where 2 belong"),
        ({"feats__scp": FILES["feats.scp"].replace("\n", "\r\n")}, "CR LF"),
        ({"utt2spk": None}, "utt2spk is missing or empty"),
    ],
)
def test_fix_changes_nothing_if_it_fails(run, make, tmp_path, changes, message):
    data = make(**changes)
    before = read(data)
    assert message in run("fix_data_dir.sh", data, fails=True).stderr
    assert read(data) == before
    assert not (data / ".backup").exists()
    no_litter(tmp_path)


# --- subset ---


@pytest.mark.parametrize(
    ("words", "utts"),
    [
        (["--first", "DATA", 2], "a-1 a-2"),
        (["--last", "DATA", 2], "b-1 b-2"),
        (["--per-spk", "DATA", 1], "a-3 b-2"),
        (["--per-spk", "DATA", 2], "a-2 a-3 b-1 b-2"),
        (["--per-spk", "DATA", 9], "a-1 a-2 a-3 b-1 b-2"),
        (["--shortest", "DATA", 3], "a-2 a-3 b-1"),
        (["DATA", 5], "a-1 a-2 a-3 b-1 b-2"),
        (["DATA", 2], "a-3 b-2"),
        (["--spk-list", "LIST", "DATA"], "b-1 b-2"),
        (["--utt-list", "LIST", "DATA"], "a-2 b-1"),
    ],
)
@pytest.mark.parametrize("files", [FILES, SEGMENTS])
def test_subset(run, make, tmp_path, words, utts, files):
    data = make(files=files)
    (tmp_path / "list").write_text("b-1 whatever\nb more\na-2\nz\n")
    words = [{"DATA": data, "LIST": tmp_path / "list"}.get(word, word) for word in words]
    done = run("subset_data_dir.sh", *words, tmp_path / "sub/set")
    assert f"kept {len(utts.split())} of 5 utterances" in done.stdout
    assert [line.split()[0] for line in (tmp_path / "sub/set/utt2spk").read_text().splitlines()] == utts.split()
    assert set(read(tmp_path / "sub/set")) == set(files)
    run("validate_data_dir.sh", tmp_path / "sub/set")
    no_litter(tmp_path / "sub")


def test_subset_filters_every_file(run, make, tmp_path):
    data = make(files=SEGMENTS, odd="x\n", aug__scp="m /m\n")
    (data / "conf").mkdir()
    (data / "conf/fbank.conf").write_text("--dither=0\n")
    done = run("subset_data_dir.sh", "--first", data, 2, tmp_path / "sub")
    assert "left out" in done.stderr
    assert "data/odd" in done.stderr
    assert read(tmp_path / "sub") == {
        "utt2spk": "a-1 a\na-2 a\n",
        "spk2utt": "a a-1 a-2\n",
        "segments": "a-1 rec1 0.0 5.01\na-2 rec1 5.01 7\n",
        "wav.scp": "rec1 /w/1.wav\n",
        "reco2dur": "rec1 20\n",
        "feats.scp": "a-1 /f.ark:4\na-2 /f.ark:99\n",
        "utt2num_frames": "a-1 500\na-2 200\n",
        "spk2gender": "a f\n",
        "trials": "a-1 a-2 target\n",
        "aug.scp": "m /m\n",
    }
    assert (tmp_path / "sub/conf/fbank.conf").read_text() == "--dither=0\n"


def test_subset_of_speakers_is_whole_and_repeatable(run, make, tmp_path):
    speakers = [f"s{i:02d}" for i in range(20)]
    utt2spk = "".join(f"{spk}-{i} {spk}\n" for spk in speakers for i in range(5))
    data = make(files={"utt2spk": utt2spk})
    chosen = []
    for name in ("one", "two"):
        run("subset_data_dir.sh", "--speakers", data, 23, tmp_path / name)
        chosen.append(read(tmp_path / name)["spk2utt"].splitlines())
    assert chosen[0] == chosen[1]
    assert [len(line.split()) for line in chosen[0]] == [6] * 5  # whole speakers, and no more than needed
    assert [line.split()[0] for line in chosen[0]] != speakers[:5]
    more = make("more", {"utt2spk": "".join(sorted([*utt2spk.splitlines(True), "r-1 r\n", "t-1 t\n"]))})
    run("subset_data_dir.sh", "--speakers", more, 25, tmp_path / "three")
    names = {line.split()[0] for line in read(tmp_path / "three")["spk2utt"].splitlines()}
    assert {line.split()[0] for line in chosen[0]} <= names | {"r", "t"}  # the others kept their order


def test_subset_of_speakers_favours_nobody(run, make, tmp_path):
    """The first speaker was always chosen; here each of five should be about 12 of 60 times."""
    times = dict.fromkeys(range(5), 0)
    for name in range(60):
        data = make(f"data{name}", {"utt2spk": "".join(f"{name:02d}é{i}-1 {name:02d}é{i}\n" for i in range(5))})
        run("subset_data_dir.sh", "--speakers", data, 1, tmp_path / "sub")
        (line,) = read(tmp_path / "sub")["spk2utt"].splitlines()
        times[int(line.split()[0][-1])] += 1
    assert all(4 <= count <= 22 for count in times.values()), times


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["DATA", 6, "DEST"], "has only 5 utterances, not 6"),
        (["DATA", "x", "DEST"], "must be a positive integer, not 'x'"),
        (["DATA", 2, "DATA"], "cannot be its own subset"),
        (["nowhere", 2, "DEST"], "no such directory: nowhere"),
        (["--utt-list", "nowhere", "DATA", "DEST"], "nowhere is missing or empty"),
        (["--utt-list", "STRANGE", "DATA", "DEST"], "none of the ids"),
        (["DATA", "DEST"], "Usage: subset_data_dir.sh"),
    ],
)
def test_subset_mistakes(run, make, tmp_path, words, message):
    (tmp_path / "strange").write_text("x\n")
    names = {"DATA": make(), "DEST": tmp_path / "dest", "STRANGE": tmp_path / "strange"}
    done = run("subset_data_dir.sh", *[names.get(word, word) for word in words], fails=True)
    assert message in done.stderr
    assert not (tmp_path / "dest").exists()
    no_litter(tmp_path)


def test_shortest_needs_lengths(run, make, tmp_path):
    data = make(utt2num_frames=None)
    assert "needs" in run("subset_data_dir.sh", "--shortest", data, 1, tmp_path / "d", fails=True).stderr
    (data / "utt2dur").write_text("a-1 10\na-2 9.5\na-3 1e1\nb-1 10\nb-2 10\n")
    run("subset_data_dir.sh", "--shortest", data, 1, tmp_path / "d")
    assert read(tmp_path / "d")["utt2spk"] == "a-2 a\n"


def test_shortest_does_not_guess_the_end_of_a_recording(run, make, tmp_path):
    data = make(utt2num_frames=None)
    (data / "utt2dur").unlink(missing_ok=True)
    (data / "segments").write_text("a-1 r1 0 2\na-2 r2 0 -1\na-3 r3 0 3\nb-1 r4 0 4\nb-2 r5 0 5\n")
    done = run("subset_data_dir.sh", "--shortest", data, 1, tmp_path / "d", fails=True)
    assert "segments has ends of -1" in done.stderr


def test_an_older_directory_leaves_nothing_stale(run, make, tmp_path):
    data, dest = make(feats__scp=None), make("dest")
    (dest / "log").mkdir()
    done = run("subset_data_dir.sh", "--first", data, 1, dest)
    assert "moved the old" in done.stderr
    assert not (dest / "feats.scp").exists()
    assert (dest / ".backup/feats.scp").read_text() == FILES["feats.scp"]
    assert (dest / "log").is_dir()
    assert (dest / "trials").read_text() == ""
    run("validate_data_dir.sh", "--no-feats", dest)


def test_names_with_blanks(run, make, tmp_path):
    data = make("my data", files=SEGMENTS)
    run("validate_data_dir.sh", data)
    (data / "feats.scp").write_text(FILES["feats.scp"].replace("a-1", "c-1"))
    run("fix_data_dir.sh", data)
    run("subset_data_dir.sh", "--last", data, 3, tmp_path / "a part")
    run("copy_data_dir.sh", "--utt-suffix", "-x", tmp_path / "a part", tmp_path / "a copy")
    run("combine_data.sh", tmp_path / "all of it", tmp_path / "a part", tmp_path / "a copy")
    run("split_data.sh", tmp_path / "all of it", 2)
    assert split_of(tmp_path / "all of it/split2", 2) == ["a-3 a\na-3-x a\n", "b-1 b\nb-1-x b\nb-2 b\nb-2-x b\n"]


# --- copy ---


def test_a_plain_copy_is_the_same(run, make, tmp_path):
    data = make(files=SEGMENTS)
    run("copy_data_dir.sh", data, tmp_path / "copy")
    assert read(tmp_path / "copy") == SEGMENTS


def test_copy_renames(run, make, tmp_path):
    data = make(cmvn__scp="a /c:1\nb /c:2\n")
    affixes = ["--utt-prefix", "p-", "--spk-prefix", "p-", "--utt-suffix", "&\\1"]
    run("copy_data_dir.sh", *affixes, data, tmp_path / "copy")
    assert read(tmp_path / "copy") == {
        "utt2spk": "p-a-1&\\1 p-a\np-a-2&\\1 p-a\np-a-3&\\1 p-a\np-b-1&\\1 p-b\np-b-2&\\1 p-b\n",
        "spk2utt": "p-a p-a-1&\\1 p-a-2&\\1 p-a-3&\\1\np-b p-b-1&\\1 p-b-2&\\1\n",
        "wav.scp": "p-a-1&\\1 /w/a1.wav\np-a-2&\\1 sox /w/a2.wav  -t wav - |\n"
        "p-a-3&\\1 /w/a3.wav\np-b-1&\\1 /w/b1.wav\np-b-2&\\1 /w/b2.wav\n",
        "feats.scp": "p-a-1&\\1 /f.ark:4\np-a-2&\\1 /f.ark:99\np-a-3&\\1 /f.ark:199\n"
        "p-b-1&\\1 /f.ark:299\np-b-2&\\1 /f.ark:399\n",
        "utt2num_frames": "p-a-1&\\1 500\np-a-2&\\1 200\np-a-3&\\1 300\np-b-1&\\1 90\np-b-2&\\1 1000\n",
        "utt2uniq": "p-a-1&\\1 a-1\np-a-2&\\1 a-2\np-a-3&\\1 a-3\np-b-1&\\1 b-1\np-b-2&\\1 b-2\n",
        "spk2gender": "p-a f\np-b m\n",
        "cmvn.scp": "p-a /c:1\np-b /c:2\n",
        "trials": "p-a-1&\\1 p-a-2&\\1 target\np-a-1&\\1 p-b-1&\\1 nontarget\n"
        "model-7 p-b-2&\\1 target\np-b p-b-1&\\1 target\n",
    }


def test_copy_leaves_recordings_and_keeps_utt2uniq(run, make, tmp_path):
    data = make(files=SEGMENTS, utt2uniq="a-1 u\na-2 u\na-3 v\nb-1 v\nb-2 v\n")
    run("copy_data_dir.sh", "--utt-suffix", "-x", data, tmp_path / "copy")
    copy = read(tmp_path / "copy")
    assert copy["wav.scp"] == SEGMENTS["wav.scp"]
    assert copy["reco2dur"] == SEGMENTS["reco2dur"]
    assert copy["segments"].splitlines()[0] == "a-1-x rec1 0.0 5.01"
    assert copy["utt2uniq"] == "a-1-x u\na-2-x u\na-3-x v\nb-1-x v\nb-2-x v\n"


def test_copy_sorts_again(run, make, tmp_path):
    data = make(files={"utt2spk": "a a\na- a\n", "spk2utt": "a a a-\n"})
    run("copy_data_dir.sh", "--utt-suffix", "~", data, tmp_path / "copy")
    assert read(tmp_path / "copy")["utt2spk"] == "a-~ a\na~ a\n"


def test_copy_checks_its_result(run, make, tmp_path):
    data = make()
    done = run("copy_data_dir.sh", "--spk-prefix", "p-", data, tmp_path / "copy", fails=True)
    assert "speaker p-a is not the start of utterance a-1" in done.stderr
    run("copy_data_dir.sh", "--spk-prefix", "p-", "--validate-opts", "--no-spk-sort", data, tmp_path / "copy")
    assert "cannot be copied to itself" in run("copy_data_dir.sh", data, data, fails=True).stderr


# --- combine ---

OTHER = {
    "utt2spk": "a-0 a\nc-1 c\n",
    "spk2utt": "a a-0\nc c-1\n",
    "wav.scp": "a-0 /w/a0.wav\nc-1 /w/c1.wav",  # no newline at its end
    "feats.scp": "a-0 /g.ark:4\nc-1 /g.ark:99\n",
    "spk2gender": "a f\nc m\n",
}


def test_combine(run, make, tmp_path):
    one = make("one", utt2uniq="a-1 u\na-2 a-2\na-3 u\nb-1 w\nb-2 w\n", utt2aug="a-1 x y\n", aug__scp="n /n\nk /k\n")
    two = make("two", files=OTHER, aug__scp="m /m\nk /k\n")
    done = run("combine_data.sh", tmp_path / "all", one, two)
    assert f"left out utt2num_frames: {two} has none" in done.stderr
    assert "combined 7 utterances of 2 directories to 7 of 3 speakers" in done.stdout
    assert read(tmp_path / "all") == {
        "utt2spk": "a-0 a\na-1 a\na-2 a\na-3 a\nb-1 b\nb-2 b\nc-1 c\n",
        "spk2utt": "a a-0 a-1 a-2 a-3\nb b-1 b-2\nc c-1\n",
        "wav.scp": "a-0 /w/a0.wav\n" + FILES["wav.scp"] + "c-1 /w/c1.wav\n",
        "feats.scp": "a-0 /g.ark:4\n" + FILES["feats.scp"] + "c-1 /g.ark:99\n",
        "spk2gender": "a f\nb m\nc m\n",
        "utt2uniq": "a-0 a-0\na-1 u\na-2 a-2\na-3 u\nb-1 w\nb-2 w\nc-1 c-1\n",
        "utt2aug": "a-1 x y\n",
        "aug.scp": "k /k\nm /m\nn /n\n",
        "trials": FILES["trials"],
    }
    run("validate_data_dir.sh", tmp_path / "all")


def test_combine_makes_segments_where_there_are_none(run, make, tmp_path):
    one, two = make("one", files=SEGMENTS), make("two", files=OTHER)
    assert "two/utt2dur is needed" in run("combine_data.sh", tmp_path / "all", one, two, fails=True).stderr
    assert not (tmp_path / "all").exists()
    (two / "utt2dur").write_text("a-0 3.5\nc-1 4\n")
    run("combine_data.sh", tmp_path / "all", one, two)
    assert read(tmp_path / "all")["segments"] == "a-0 a-0 0 3.5\n" + SEGMENTS["segments"] + "c-1 c-1 0 4\n"
    assert read(tmp_path / "all")["wav.scp"] == "a-0 /w/a0.wav\nc-1 /w/c1.wav\nrec1 /w/1.wav\nrec2 /w/2.wav\n"
    run("validate_data_dir.sh", tmp_path / "all")


def test_the_segment_of_a_copy_at_another_speed_lasts_to_the_end_of_its_recording(run, make, tmp_path):
    one, two = make("one", files=SEGMENTS), make("two", files=OTHER)
    (two / "utt2dur").write_text("a-0 3.5\nc-1 4\n")  # of what is left at the other speed
    (two / "utt2aug").write_text("c-1 speed=1.1 noise=pink#1:snr=5\n")
    run("combine_data.sh", tmp_path / "all", one, two)
    assert read(tmp_path / "all")["segments"] == "a-0 a-0 0 3.5\n" + SEGMENTS["segments"] + "c-1 c-1 0 -1\n"
    assert not (tmp_path / "all/speeds").exists()
    run("validate_data_dir.sh", tmp_path / "all")


def test_combine_shares_recordings_but_not_contradictions(run, make, tmp_path):
    for name, utt in (("one", "a-1"), ("two", "a-2")):
        make(name, files={"utt2spk": f"{utt} a\n", "segments": f"{utt} r 0 1\n", "wav.scp": "r /r.wav\n"})
    run("combine_data.sh", tmp_path / "all", tmp_path / "one", tmp_path / "two")
    assert read(tmp_path / "all")["wav.scp"] == "r /r.wav\n"
    (tmp_path / "two/wav.scp").write_text("r /other.wav\n")
    done = run("combine_data.sh", tmp_path / "all2", tmp_path / "one", tmp_path / "two", fails=True)
    assert 'different lines for r in wav.scp: "r /other.wav" "r /r.wav"' in done.stderr
    assert not (tmp_path / "all2").exists()


def test_combine_of_different_front_ends_is_an_error(run, make, tmp_path):
    one, two = make("one", frame_shift="0.01\n"), make("two", files=OTHER, frame_shift="0.02\n")
    assert "frame_shift differs" in run("combine_data.sh", tmp_path / "all", one, two, fails=True).stderr
    (two / "frame_shift").write_text("0.01\n")
    run("combine_data.sh", tmp_path / "all", one, two)
    assert read(tmp_path / "all")["frame_shift"] == "0.01\n"


def test_combine_options(run, make, tmp_path):
    one, two = make("one", mine="a-1 x\n", feats__scp="a-1 f\n"), make("two", files=OTHER, mine="c-1 y\n")
    run("combine_data.sh", "--extra-files", "mine not", "--skip-fix", "true", tmp_path / "all", one, two)
    assert read(tmp_path / "all")["mine"] == "a-1 x\nc-1 y\n"
    assert read(tmp_path / "all")["utt2spk"].count("\n") == 7
    run("combine_data.sh", tmp_path / "all", one, two)
    assert read(tmp_path / "all")["utt2spk"] == "a-0 a\na-1 a\nc-1 c\n"
    assert "into itself" in run("combine_data.sh", one, one, two, fails=True).stderr


# --- split ---


def split_of(folder: Path, num: int) -> list[str]:
    return [(folder / f"{n}/utt2spk").read_text() for n in range(1, num + 1)]


def test_split_data(run, make):
    data = make(files=SEGMENTS, aug__scp="m /m\n")
    run("split_data.sh", data, 2)
    assert split_of(data / "split2", 2) == ["a-1 a\na-2 a\na-3 a\n", "b-1 b\nb-2 b\n"]
    assert read(data / "split2/1") == {
        "utt2spk": "a-1 a\na-2 a\na-3 a\n",
        "spk2utt": "a a-1 a-2 a-3\n",
        "segments": "a-1 rec1 0.0 5.01\na-2 rec1 5.01 7\na-3 rec2 1e0 4.\n",
        "wav.scp": "rec1 /w/1.wav\nrec2 /w/2.wav\n",
        "reco2dur": "rec1 20\nrec2 30.5\n",
        "feats.scp": "a-1 /f.ark:4\na-2 /f.ark:99\na-3 /f.ark:199\n",
        "utt2num_frames": "a-1 500\na-2 200\na-3 300\n",
        "spk2gender": "a f\n",
        "aug.scp": "m /m\n",
    }
    assert (data / "split2/2/aug.scp").is_symlink()
    for part in (1, 2):
        run("validate_data_dir.sh", data / f"split2/{part}")


def test_split_by_utterance_may_cut_speakers(run, make):
    data = make()
    done = run("split_data.sh", data, 3, fails=True)
    assert "2 speakers" in done.stderr
    assert "--per-utt" in done.stderr
    assert not (data / "split3").exists()
    run("split_data.sh", "--per-utt", data, 3)
    assert split_of(data / "split3utt", 3) == ["a-1 a\na-2 a\n", "a-3 a\nb-1 b\n", "b-2 b\n"]
    assert (data / "split3utt/2/spk2gender").read_text() == "a f\nb m\n"
    assert (data / "split3utt/2/spk2utt").read_text() == "a a-3\nb b-1\n"
    no_litter(data)


def test_a_split_is_redone_only_if_it_must(run, make):
    data = make()
    run("split_data.sh", data, 2)
    first = data / "split2/1/feats.scp"
    made = first.stat().st_mtime_ns
    run("split_data.sh", data, 2)
    assert first.stat().st_mtime_ns == made
    (data / "feats.scp").write_text(FILES["feats.scp"].replace("/f.ark", "/new.ark"))
    run("split_data.sh", data, 2)
    assert first.read_text().startswith("a-1 /new.ark:4\n")
    (data / "vad.scp").write_text(FILES["feats.scp"])
    run("split_data.sh", data, 2)
    assert (data / "split2/2/vad.scp").read_text() == "b-1 /f.ark:299\nb-2 /f.ark:399\n"
    (data / "vad.scp").unlink()
    run("split_data.sh", data, 2)
    assert not (data / "split2/2/vad.scp").exists()


@pytest.mark.parametrize("num", ["0", "-1", "x"])
def test_split_data_mistakes(run, make, num):
    assert run("split_data.sh", make(), num, fails=True).stderr


@pytest.mark.parametrize(
    ("sizes", "num", "parts"),
    [
        ([1, 1, 1, 1], 2, [2, 2]),
        ([10, 1, 1, 1], 3, [10, 1, 2]),  # no part is empty, whatever the sizes
        ([1, 1, 1, 10], 3, [2, 1, 10]),
        ([3, 3, 3, 3, 3, 3], 4, [3, 6, 3, 6]),
        ([5, 1, 1, 1, 1, 1], 2, [5, 5]),
        ([1, 100, 1], 3, [1, 100, 1]),
    ],
)
def test_split_scp_balances_speakers(run, tmp_path, sizes, num, parts):
    lines = [f"s{s}-{i:03d} s{s}\n" for s, size in enumerate(sizes) for i in range(size)]
    (tmp_path / "utt2spk").write_text("".join(lines))
    outs = [tmp_path / f"out.{n}" for n in range(num)]
    run("split_scp.sh", f"--utt2spk={tmp_path}/utt2spk", tmp_path / "utt2spk", *outs)
    texts = [out.read_text() for out in outs]
    assert "".join(texts) == "".join(lines)
    assert [text.count("\n") for text in texts] == parts
    of_part = [{line.split()[1] for line in text.splitlines()} for text in texts]
    assert sum(map(len, of_part)) == len(sizes)  # no speaker is in two


def test_split_scp(run, tmp_path):
    (tmp_path / "in").write_text("1 a  b\n2\n3\n4\n5\n6\n7\n")
    outs = [tmp_path / "o 1", tmp_path / "o=2", tmp_path / "o\\n3"]
    run("split_scp.sh", "in", *outs)
    assert [out.read_text() for out in outs] == ["1 a  b\n2\n3\n", "4\n5\n", "6\n7\n"]
    assert run("split_scp.sh", "-j", 3, 0, "in").stdout == "1 a  b\n2\n3\n"
    assert run("split_scp.sh", "-j", 3, 1, "--one-based", "in").stdout == "1 a  b\n2\n3\n"
    assert run("split_scp.sh", "--one-based", "-j", 3, 3, "in", "-").stdout == "6\n7\n"
    run("split_scp.sh", "-j", 3, 2, "in", tmp_path / "third")
    assert (tmp_path / "third").read_text() == "6\n7\n"
    (tmp_path / "utt2spk").write_text("".join(f"{i} {'x' if i < 3 else 'y'}\n" for i in range(1, 8)))
    words = ["-j", 2, 1, "--one-based", "--utt2spk=utt2spk", "in"]
    assert run("split_scp.sh", *words).stdout == "1 a  b\n2\n"
    no_litter(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["in", "1", "2", "3"], "cannot split the 2 lines of in into 3 parts"),
        (["nowhere", "1"], "no such file: nowhere"),
        (["empty", "1"], "empty is empty"),
        (["-j", "2", "2", "in"], "part 2 is not in 0..1"),
        (["-j", "2", "0", "--one-based", "in"], "part 0 is not in 1..2"),
        (["--utt2spk=nowhere", "in", "1"], "--utt2spk: no such file: nowhere"),
        (["--utt2spk=empty", "in", "1"], "in:1: utterance a is not in empty"),
        (["--utt2spk=mixed", "mixed", "1"], "mixed:3: speaker x comes back after others"),
        (["in"], "Usage: split_scp.sh"),
    ],
)
def test_split_scp_mistakes(run, tmp_path, words, message):
    (tmp_path / "in").write_text("a x\nb y\n")
    (tmp_path / "mixed").write_text("a x\nb y\nc x\n")
    (tmp_path / "empty").write_text("")
    assert message in run("split_scp.sh", *words, fails=True).stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "empty", "in", "mixed"]


def test_a_directory_whose_name_looks_like_an_assignment(run, make, tmp_path: Path):
    """awk would take snr=10/wav.scp for one, and wait for its input."""
    make("snr=10", files={**FILES, "utt2uniq": "a-1 a-1\na-2 a-1\na-3 a-1\nb-1 b-1\nb-2 b-1\n"})
    make("seg=1", files={**SEGMENTS, "utt2dur": "a-1 5\na-2 2\na-3 3\nb-1 1\nb-2 10\n", "utt2num_frames": None})
    for tool, *words in (
        ("validate_data_dir.sh", "snr=10"),
        ("validate_data_dir.sh", "seg=1"),
        ("fix_data_dir.sh", "snr=10"),
        ("fix_data_dir.sh", "seg=1"),
        ("copy_data_dir.sh", "--utt-suffix", "-x", "snr=10", "copy=1"),
        ("subset_data_dir.sh", "--first", "snr=10", 3, "few=1"),
        ("subset_data_dir.sh", "--per-spk", "snr=10", 1, "few=2"),
        ("subset_data_dir.sh", "--speakers", "snr=10", 3, "few=3"),
        ("subset_data_dir.sh", "--shortest", "seg=1", 3, "few=4"),
        ("subset_data_dir.sh", "snr=10", 3, "few=5"),
        ("split_data.sh", "snr=10", 2),
        ("combine_data.sh", "all=1", "snr=10", "copy=1"),
    ):
        run(tool, *words)
    assert (tmp_path / "all=1/utt2spk").read_text().count("\n") == 10
    assert (tmp_path / "few=4/utt2spk").read_text() == "a-2 a\na-3 a\nb-1 b\n"


def test_leftovers_of_a_script_that_was_killed_are_swept(run, make, tmp_path: Path):
    make()
    host = subprocess.run(["bash", "-c", "echo $HOSTNAME"], capture_output=True, text=True).stdout.strip()
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead, alive = tmp_path / f".data.{host}.{gone.pid}.aBc123", tmp_path / f".data.{host}.{os.getpid()}.aBc123"
    other = tmp_path / f".data.elsewhere.{gone.pid}.aBc123"
    for folder in (dead, alive, other):
        (folder / "old").mkdir(parents=True)
    run("fix_data_dir.sh", "data")
    assert not dead.exists() and alive.exists() and other.exists()
    assert set(tmp_path.glob(".data.*")) == {alive, other}
