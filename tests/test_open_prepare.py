"""egs/open/v1/prepare_data.py on small trees of each corpus's layout: who is in, who is out and why, counted by hand."""

import importlib
import itertools
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from conftest import ROOT

RECIPE = ROOT / "egs" / "open" / "v1"
MODULES = ("prepare_data", "corpora", "lists", "speech", "write_sets", "download")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """prepare_data.py, loaded with the modules beside it."""
    monkeypatch.syspath_prepend(str(RECIPE))
    for name in MODULES:  # names that another recipe may have too
        sys.modules.pop(name, None)
    yield importlib.import_module("prepare_data")
    for name in MODULES:
        sys.modules.pop(name, None)


def voice(
    path: Path, pitch: float, seconds: float = 0.6, pause: float = 0.2, rate: int = 16000, level: float = 0.2
) -> Path:
    """`seconds` of a harmonic tone between two pauses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    axis = np.arange(int(seconds * rate)) / rate
    tone = sum(level / k * np.sin(2 * np.pi * k * pitch * axis) for k in range(1, 6))
    rest = 5e-4 * level * np.random.default_rng(int(10 * pitch)).standard_normal(int(pause * rate))
    soundfile.write(path, np.concatenate([rest, tone, rest]), rate)
    return path


def prepare(module: ModuleType, folder: Path, *options: object) -> Path:
    module.main([*map(str, options), "--nj", "1", str(folder / "data")])
    return folder / "data"


def refused(module: ModuleType, folder: Path, *options: object) -> str:
    with pytest.raises(ValueError) as caught:
        prepare(module, folder, *options)
    return str(caught.value)


def table(path: Path) -> dict[str, str]:
    return dict(line.split(None, 1) for line in path.read_text().splitlines())


def trials(path: Path) -> list[tuple[str, str, str]]:
    return [tuple(line.split()) for line in path.read_text().splitlines()]  # type: ignore[misc]


def contributors(module: ModuleType, corpus: str, **wanted: int) -> dict[str, list[str]]:
    """part -> so many names of contributors whose hash puts them there."""
    lists = sys.modules["lists"]
    found: dict[str, list[str]] = {part: [] for part in wanted}
    for number in itertools.count():
        name = f"{number:08x}"
        at = lists.place(f"{corpus}-{name}")
        test = lists.TEST[corpus]
        part = "test" if at < test else "dev" if at < test + lists.DEV[corpus] else "train"
        if len(found.get(part, [])) < wanted.get(part, 0):
            found[part].append(name)
        if all(len(found[part]) == count for part, count in wanted.items()):
            return found
    raise AssertionError


def words(root: Path, name: str, clips: int, pitch: float, **more: float) -> None:
    for clip in range(clips):
        word = ("bed", "cat", "dog")[clip % 3]
        voice(root / word / f"{name}_nohash_{clip // 3}.wav", pitch + 0.5 * clip, **more)  # type: ignore[arg-type]


def test_words_become_pieces_and_a_hash_divides_their_speakers(load: ModuleType, tmp_path: Path) -> None:
    root = tmp_path / "commands"
    who = contributors(load, "commands", train=3, dev=2, test=3)
    one, two, damaged = who["train"]
    for number, name in enumerate([one, two, *who["dev"], *who["test"]]):
        words(root, name, 12, 100 + 20 * number)
    few = who["test"][2]
    for path in root.glob(f"*/{few}_nohash_[2-3].wav"):
        path.unlink()  # six clips are left
    words(root, damaged, 5, 400)
    # What is to be left out, of speaker one: a copy, silence, clipping, a clip of 0.3 s, and a file that is cut off.
    shutil.copy(root / "bed" / f"{one}_nohash_0.wav", root / "bed" / f"{one}_nohash_9.wav")
    voice(root / "cat" / f"{one}_nohash_7.wav", 90, level=0.002)
    soundfile.write(root / "cat" / f"{one}_nohash_8.wav", np.sign(np.sin(np.arange(16000) * 0.05)), 16000)
    voice(root / "dog" / f"{one}_nohash_7.wav", 91, seconds=0.1, pause=0.1)
    cut = root / "dog" / f"{damaged}_nohash_0.wav"
    cut.write_bytes(cut.read_bytes()[:9000])
    # A clip that two contributors have belongs to nobody.
    shutil.copy(root / "bed" / f"{two}_nohash_1.wav", root / "bed" / f"{damaged}_nohash_5.wav")

    data = prepare(load, tmp_path, "--speech-commands", root)
    # A clip of 0.6 s keeps 0.1 s on each side, 0.8 s: four are 3.2 s, so twelve make three pieces. Speaker two has lost one.
    counts = {part: Counter(table(data / part / "utt2spk").values()) for part in ("train", "dev", "test")}
    assert counts["train"] == {f"commands-{one}": 3, f"commands-{two}": 2, f"commands-{damaged}": 1}
    assert counts["dev"] == {f"commands-{name}": 3 for name in who["dev"]}
    assert counts["test"] == {f"commands-{name}": 3 for name in who["test"][:2]}
    lost = Counter(reason.split()[1].rstrip(":") for reason in table(data / "lost_utts").values())
    assert lost == {"copy": 3, "silent": 1, "clipped": 1, "short": 1, "unreadable": 1, "few": 1}
    assert f"of commands-{two}" in table(data / "lost_utts")[f"commands:bed/{damaged}_nohash_5.wav"]
    for utterance, path in table(data / "train" / "wav.scp").items():
        info = soundfile.info(path)
        assert (info.samplerate, info.channels) == (16000, 1)
        assert info.duration == pytest.approx(float(table(data / "train" / "utt2dur")[utterance]), abs=1e-3)
    # Two test speakers of three pieces: 3 + 3 target pairs, 9 others, all of them since they are so few.
    assert Counter(kind for *_, kind in trials(data / "test" / "trials_commands")) == {"target": 6, "nontarget": 9}


def test_a_part_of_a_corpus_divides_its_speakers_as_the_whole_does(load: ModuleType, tmp_path: Path) -> None:
    root = tmp_path / "commands"
    who = contributors(load, "commands", train=2, dev=2, test=4)
    for number, name in enumerate(itertools.chain(*who.values())):
        words(root, name, 9, 100 + 20 * number)
    data = prepare(load, tmp_path, "--speech-commands", root)
    whole = {part: table(data / part / "spk2utt") for part in ("train", "dev", "test")}
    all_trials = set(trials(data / "test" / "trials_commands"))
    for name in (who["train"][0], who["test"][0], who["test"][1]):
        for path in root.glob(f"*/{name}_nohash_*.wav"):
            path.unlink()
    data = prepare(load, tmp_path, "--speech-commands", root)
    for part in whole:
        for speaker, utterances in table(data / part / "spk2utt").items():
            assert whole[part][speaker] == utterances
    left = set(trials(data / "test" / "trials_commands"))
    assert left and left < all_trials


def ocean_tree(root: Path, train: int = 27, test: int = 4) -> None:
    """As the publisher has it: ids are numbers, paths are relative, spk2age is not sorted."""
    for part, first, count in (("train", 1, train), ("test", 501, test)):
        (root / part).mkdir(parents=True)
        rows: dict[str, list[str]] = {name: [] for name in ("wav.scp", "utt2spk", "spk2gender", "spk2age")}
        for number in range(first, first + count):
            speaker = f"{number:04d}"
            for sentence in range(8):
                utterance = f"{number:05d}{sentence:04d}"
                path = f"WAVE/SPEAKER{speaker}/{utterance}.WAV"
                voice(root / path, 100 + number + sentence / 10, seconds=0.6, pause=0.05)
                rows["wav.scp"].append(f"{utterance}\t{path}")
                rows["utt2spk"].append(f"{utterance}\t{speaker}")
            rows["spk2gender"].append(f"{speaker}\t{'mf'[number // 2 % 2]}")
            rows["spk2age"].insert(0, f"{speaker}\t{20 + 4 * (number % 10)}")
        for name, lines in rows.items():
            (root / part / name).write_text("\n".join(lines) + "\n")


def test_sentences_stay_as_they_are_and_hard_trials_are_of_like_speakers(load: ModuleType, tmp_path: Path) -> None:
    ocean_tree(tmp_path / "ocean")
    data = prepare(load, tmp_path, "--speechocean", tmp_path / "ocean", "--nontarget-share", "0.5")
    counts = {part: len(table(data / part / "spk2utt")) for part in ("train", "dev", "test")}
    assert counts == {"train": 2, "dev": 25, "test": 4}
    assert table(data / "test" / "wav.scp")["ocean-0501-005010000"] == str(
        tmp_path / "ocean/WAVE/SPEAKER0501/005010000.WAV"
    )
    # The four are m f f m (501 // 2 = 250, 251, 251, 252) and 24, 28, 32, 36 years old. Of one gender and within five
    # years are the second and the third alone.
    ages = {"ocean-0501": "24", "ocean-0502": "28", "ocean-0503": "32", "ocean-0504": "36"}
    assert table(data / "test" / "spk2age") == ages
    hard = trials(data / "test" / "trials_ocean_hard")
    others = {tuple(sorted((one[:10], other[:10]))) for one, other, kind in hard if kind == "nontarget"}
    assert others == {("ocean-0502", "ocean-0503")}
    assert sum(kind == "target" for *_, kind in hard) == 4 * 28
    plain = Counter(kind for *_, kind in trials(data / "test" / "trials_ocean"))
    assert plain == {"target": 4 * 28, "nontarget": 6 * 64}
    models = table(data / "test" / "enroll3_spk2utt")
    enrolled = trials(data / "test" / "trials_ocean_enroll3")
    assert len(models) == 4 * 2 and all(len(utterances.split()) == 3 for utterances in models.values())
    assert all(utterance not in models[model].split() for model, utterance, _ in enrolled)
    assert sum(kind == "target" for *_, kind in enrolled) == 8 * 5


def test_genders_stand_only_where_all_are_known(load: ModuleType, tmp_path: Path) -> None:
    """speechocean762 has genders, Speech Commands has not: utils/validate_data_dir.sh refuses half a table."""
    ocean_tree(tmp_path / "ocean")
    ocean = ("--speechocean", tmp_path / "ocean")
    data = prepare(load, tmp_path, *ocean)
    assert len(table(data / "train" / "spk2gender")) == 2
    for name in contributors(load, "commands", train=1)["train"]:
        words(tmp_path / "commands", name, 12, 300)
    data = prepare(load, tmp_path, *ocean, "--speech-commands", tmp_path / "commands")
    assert len(table(data / "train" / "spk2utt")) == 3 and not (data / "train" / "spk2gender").exists()
    assert len(table(data / "test" / "spk2gender")) == 4
    done = subprocess.run(
        [ROOT / "utils/validate_data_dir.sh", "--no-feats", data / "train"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_share_of_the_nontargets_is_drawn_by_name(load: ModuleType, tmp_path: Path) -> None:
    lists = sys.modules["lists"]
    owners = {f"s{speaker}-{number:02d}": f"s{speaker}" for speaker in range(6) for number in range(30)}
    drawn = list(lists.pairs(owners, 0.1))
    assert sum(target for *_, target in drawn) == 6 * 30 * 29 // 2
    assert 0.08 < sum(not target for *_, target in drawn) / (15 * 900) < 0.12
    fewer = {utterance: speaker for utterance, speaker in owners.items() if speaker != "s3"}
    assert set(lists.pairs(fewer, 0.1)) == {each for each in drawn if "s3" not in each[0] + each[1]}


def test_a_list_without_one_of_the_two_kinds_is_left_out(load: ModuleType, tmp_path: Path) -> None:
    """Such as the hard one of a corpus that gives no ages: it could not be scored."""
    ocean_tree(tmp_path / "ocean")
    for part in ("train", "test"):
        (tmp_path / "ocean" / part / "spk2age").unlink()
    data = prepare(load, tmp_path, "--speechocean", tmp_path / "ocean")
    for part in ("dev", "test"):
        assert (data / part / "trials_ocean").exists() and not (data / part / "trials_ocean_hard").exists()


def test_librispeech_common_voice_and_any_folder(load: ModuleType, tmp_path: Path) -> None:
    libri = tmp_path / "download" / "LibriSpeech"
    dev_clean = libri / "dev-clean"
    for number, speaker in enumerate(("84", "1272", "9")):
        for chapter in ("7", "21"):
            for sentence in range(2):
                name = f"{speaker}/{chapter}/{speaker}-{chapter}-{sentence:04d}.flac"
                voice(dev_clean / name, 100 + 9 * number + sentence)
    (libri / "SPEAKERS.TXT").write_text(
        ";ID|SEX|SUBSET|MINUTES|NAME\n84   | F | dev-clean | 8.1 | A B\n9 | M | dev-clean | 8 | C\n"
    )
    common = tmp_path / "cv"
    lines = ["client_id\tpath\tsentence\tage\tgender"]
    for number, client in enumerate(("a" * 128, "b" * 128)):
        for clip in range(3):
            name = f"common_voice_en_{number}{clip}.wav"
            voice(common / "clips" / name, 200 + 9 * number + clip, rate=32000)
            lines.append(f'{client}\t{name}\tsaid "so\ttwenties\t{("male_masculine", "")[number]}')
    lines.append(f"{'c' * 128}\tnot_there.mp3\tx\t\t")
    (common / "validated.tsv").write_text("\n".join(lines) + "\n")
    mine = tmp_path / "people"
    for number, speaker in enumerate(("Ann B", "9", "Zoë")):
        for clip in range(2):
            voice(mine / speaker / "day 1" / f"take {clip}.wav", 300 + 9 * number + clip, rate=8000)
    data = prepare(
        load, tmp_path, "--librispeech", libri.parent, "--common-voice", common, "--folder", mine, "--min-clips", 2
    )
    parts = {part: table(data / part / "utt2spk") for part in ("train", "dev", "test") if (data / part).exists()}
    owners = {utterance: speaker for part in parts.values() for utterance, speaker in part.items()}
    clients = {"voice-" + 20 * "a", "voice-" + 20 * "b"}
    assert set(owners.values()) == {
        "libri-84",
        "libri-1272",
        "libri-9",
        *clients,
        "folder-Ann_B",
        "folder-9",
        "folder-Zo_",
    }
    assert owners["libri-1272-21-0001"] == "libri-1272" and owners["folder-Ann_B-day_1_take_0"] == "folder-Ann_B"
    people = [line.split("\t") for line in (data / "speakers.tsv").read_text().splitlines()[1:]]
    genders = {name: sex for name, part, sex, age in people if sex}
    assert genders == {"libri-84": "f", "libri-9": "m", "voice-" + 20 * "a": "m"} and len(people) == len(
        set(owners.values())
    )


def table_if(path: Path) -> dict[str, str]:
    return table(path) if path.exists() else {}


def mini_tree(root: Path, speaker: str = "ann") -> Path:
    for part, pitch in (("train", 100), ("test", 200)):
        owners, paths = [], []
        for who in (speaker, "bob") if part == "train" else ("cy", "di"):
            for number in range(8):
                path = voice(root / "flac" / who / f"{who}-{number:04d}.flac", pitch + 20 * (ord(who[0]) - 96) + number)
                owners.append(f"{who}-{number:04d} {who}")
                paths.append(f"{who}-{number:04d} {path}")
        (root / part).mkdir()
        (root / part / "utt2spk").write_text("\n".join(owners) + "\n")
        (root / part / "wav.scp").write_text("\n".join(paths) + "\n")
    return root


def test_two_corpora_may_use_the_same_name_and_mini_keeps_its_test(load: ModuleType, tmp_path: Path) -> None:
    mini = mini_tree(tmp_path / "mini")
    for clip in range(8):
        voice(tmp_path / "people" / "ann" / f"{clip}.wav", 500 + clip)
    data = prepare(load, tmp_path, "--mini", mini, "--folder", tmp_path / "people")
    speakers = {name for part in ("train", "dev", "test") for name in table_if(data / part / "spk2utt")}
    assert {"mini-ann", "folder-ann", "mini-cy"} <= speakers
    assert set(table(data / "train" / "spk2utt")) >= {"mini-ann", "mini-bob"}
    assert Counter(kind for *_, kind in trials(data / "test" / "trials_mini")) == {"target": 2 * 28, "nontarget": 64}


def test_a_speaker_with_one_clip(load: ModuleType, tmp_path: Path) -> None:
    root = tmp_path / "commands"
    who = contributors(load, "commands", train=2, test=1)
    words(root, who["train"][0], 12, 100)
    words(root, who["train"][1], 1, 200)
    words(root, who["test"][0], 1, 300)
    data = prepare(load, tmp_path, "--speech-commands", root)
    assert set(table(data / "train" / "spk2utt")) == {f"commands-{who['train'][0]}"}
    assert not (data / "test").exists()
    assert sum("less than 3 s of speech" in reason for reason in table(data / "lost_utts").values()) == 2


def test_a_second_run_does_nothing_and_a_mended_clip_counts(
    load: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "commands"
    (name,) = contributors(load, "commands", train=1)["train"]
    words(root, name, 24, 100)
    clip = root / "bed" / f"{name}_nohash_0.wav"
    whole = clip.read_bytes()
    clip.write_bytes(whole[:5000])
    data = prepare(load, tmp_path, "--speech-commands", root)
    assert "truncated" in table(data / "lost_utts")[f"commands:bed/{name}_nohash_0.wav"]
    made = {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}
    with caplog.at_level("INFO"):
        prepare(load, tmp_path, "--speech-commands", root)
    assert "is in place" in caplog.text
    assert made == {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}
    clip.write_bytes(whole)
    prepare(load, tmp_path, "--speech-commands", root)
    assert table(data / "lost_utts") == {}
    pieces = json.loads((data / "pieces" / f"commands-{name}" / "made.json").read_text())
    assert sum(pieces["durations"].values()) == pytest.approx(24 * 0.8, abs=0.5)


def test_what_is_no_such_corpus(load: ModuleType, tmp_path: Path) -> None:
    assert "no corpus is named" in refused(load, tmp_path)
    absent = refused(load, tmp_path, "--speechocean", tmp_path / "nowhere")
    assert "nowhere: no such folder" in absent and "--speechocean" in absent
    voice(tmp_path / "other" / "x" / "y.wav", 100)
    (tmp_path / "other" / "README").write_text("?")
    for option in ("--speech-commands", "--speechocean", "--librispeech", "--common-voice", "--mini"):
        said = refused(load, tmp_path, option, tmp_path / "other")
        assert "this is not" in said and "found there: x/, README" in said and option in said
    (tmp_path / "empty").mkdir()
    assert "found there: nothing" in refused(load, tmp_path, "--folder", tmp_path / "empty")
    assert "must be positive" in refused(load, tmp_path, "--folder", tmp_path / "other", "--piece-seconds", 0)


def test_half_a_download(load: ModuleType, tmp_path: Path) -> None:
    """A recording that a list names is not there; or more than 5 % can't be read."""
    ocean_tree(tmp_path / "ocean")
    gone = tmp_path / "ocean/WAVE/SPEAKER0003/000030000.WAV"
    whole = gone.read_bytes()
    gone.unlink()
    said = refused(load, tmp_path, "--speechocean", tmp_path / "ocean")
    assert str(gone) in said and "unpack the corpus again" in said
    gone.write_bytes(whole)
    for path in (tmp_path / "ocean/WAVE").glob("*/*0.WAV"):
        path.write_bytes(path.read_bytes()[:3000])
    said = refused(load, tmp_path, "--speechocean", tmp_path / "ocean")
    assert "31 of 248 recordings can't be read" in said and "half a download" in said


def test_no_room_on_the_disk(load: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "commands"
    words(root, contributors(load, "commands", train=1)["train"][0], 12, 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))  # type: ignore[attr-defined]
    assert "are free on this disk" in refused(load, tmp_path, "--speech-commands", root)
    assert not (tmp_path / "data" / "pieces").exists()
