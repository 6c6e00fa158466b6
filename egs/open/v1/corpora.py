"""The layouts of the corpora: for each corpus its speakers, their recordings, and what the publisher says about them.

find(corpus, folder) looks only at names and opens no recording. If the folder is not such a corpus, the error says what was
expected and what was found.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from speakerkd.conf import first_few
from speakerkd.files.corpus import names
from speakerkd.files.tables import read_lines, read_table

AUDIO = (".wav", ".flac", ".ogg", ".mp3", ".opus")


@dataclass
class Speaker:
    """Recordings of one person in one corpus."""

    name: str  # <corpus>-<the publisher's name>: two corpora may use the same name
    root: Path
    files: dict[str, str] = field(default_factory=dict)  # path below root -> utterance
    part: str = ""  # train or test, if the publisher says so; dev and test are drawn from the others
    gender: str = ""  # m or f
    age: int = -1  # years
    words: bool = False  # the recordings are single words, to be joined


def find(corpus: str, folder: str) -> list[Speaker]:
    """The speakers of the corpus in this folder, sorted by name."""
    root = Path(folder).resolve()
    if not root.is_dir():
        raise ValueError(f"{folder}: no such folder; --{OPTIONS[corpus]} names the folder of {EXPECTED[corpus]}")
    speakers = [speaker for speaker in FINDERS[corpus](root) if speaker.files]
    if not speakers:
        raise _not_this(corpus, root)
    return sorted(speakers, key=lambda speaker: speaker.name)


def commands(root: Path) -> list[Speaker]:
    found: dict[str, Speaker] = {}
    for word in names(root, folders=True):
        for name in names(root / word, folders=False):
            if match := re.fullmatch(r"([0-9a-f]+)_nohash_\d+\.wav", name):
                speaker = found.setdefault(match[1], Speaker(f"commands-{match[1]}", root, words=True))
                speaker.files[f"{word}/{name}"] = ""
    return list(found.values())


def ocean(root: Path) -> list[Speaker]:
    """Kaldi data directories train and test, whose ids are numbers, and paths below the folder of the corpus."""
    speakers: list[Speaker] = []
    for part in ("train", "test"):
        folder = root / part
        if not all((folder / name).is_file() for name in ("wav.scp", "utt2spk")):
            raise _not_this("ocean", root)
        paths, owners = _table(folder / "wav.scp"), _table(folder / "utt2spk")
        genders, ages = _table(folder / "spk2gender"), _table(folder / "spk2age")
        mine: dict[str, Speaker] = {}
        for utterance, path in paths.items():
            owner = owners.get(utterance)
            if owner is None:
                raise ValueError(f"{folder}/utt2spk: lacks {utterance}, which wav.scp has; unpack the corpus again")
            speaker = mine.setdefault(owner, Speaker(f"ocean-{owner}", root, part=part))
            speaker.files[path] = f"{speaker.name}-{utterance}"
            speaker.gender = genders.get(owner, "")
            speaker.age = int(ages[owner]) if ages.get(owner, "").isdigit() else -1
        speakers += mine.values()
    both = [name for name, count in Counter(speaker.name for speaker in speakers).items() if count > 1]
    if both:
        raise ValueError(f"{root}: {first_few(both)} in train and in test; unpack the corpus again")
    return speakers


def libri(root: Path) -> list[Speaker]:
    """Any subsets below the folder: [LibriSpeech/]<subset>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac."""
    if (root / "LibriSpeech").is_dir():
        root = root / "LibriSpeech"
    genders = _libri_genders(root / "SPEAKERS.TXT")
    found: dict[str, Speaker] = {}
    for path in sorted(root.glob("*/[0-9]*/[0-9]*/*.flac")):
        match = re.fullmatch(r"(\d+)-(\d+-\d+)", path.stem)
        if match and match[1] == path.parts[-3]:
            speaker = found.setdefault(match[1], Speaker(f"libri-{match[1]}", root, gender=genders.get(match[1], "")))
            speaker.files[path.relative_to(root).as_posix()] = f"{speaker.name}-{match[2]}"
    return list(found.values())


def voice(root: Path) -> list[Speaker]:
    """Common Voice of one language: validated.tsv and clips/*.mp3."""
    table, clips = root / "validated.tsv", root / "clips"
    if not table.is_file() or not clips.is_dir():
        raise _not_this("voice", root)
    there = set(names(clips, folders=False))
    found: dict[str, Speaker] = {}
    clients: dict[str, str] = {}
    with open(table, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if not {"client_id", "path"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{table}: the first line must name the columns client_id and path, tabs between")
        for row in rows:
            if row["path"] not in there:
                continue
            short = row["client_id"][:20]
            if clients.setdefault(short, row["client_id"]) != row["client_id"]:
                raise ValueError(f"{table}: two client_ids begin with {short}")
            gender = str(row.get("gender") or "")[:1].lower()
            speaker = found.setdefault(short, Speaker(f"voice-{short}", root))
            speaker.gender = speaker.gender or {"m": "m", "f": "f"}.get(gender, "")
            speaker.files[f"clips/{row['path']}"] = f"{speaker.name}-{Path(row['path']).stem}"
    return list(found.values())


def folder(root: Path) -> list[Speaker]:
    """A folder for each speaker, with recordings at any depth."""
    speakers: dict[str, Speaker] = {}
    for name in names(root, folders=True):
        # With '-' or characters before it in ASCII order, utterances and speakers would have different orders.
        speaker = Speaker("folder-" + re.sub(r"[^A-Za-z0-9._]", "_", name), root)
        if speaker.name in speakers:
            raise ValueError(f"{root}: two folders of speakers become {speaker.name}; rename one of them")
        speakers[speaker.name] = speaker
        for path in sorted((root / name).rglob("*")):
            if path.suffix.lower() in AUDIO and path.is_file():
                below = path.relative_to(root / name).as_posix()
                utterance = speaker.name + "-" + re.sub(r"[^A-Za-z0-9._]", "_", below.rsplit(".", 1)[0])
                if utterance in speaker.files.values():
                    raise ValueError(f"{path}: two recordings of this speaker become {utterance}; rename one of them")
                speaker.files[f"{name}/{below}"] = utterance
    return list(speakers.values())


def mini(root: Path) -> list[Speaker]:
    """What egs/mini/v1/prepare_data.py has written: data directories train and test."""
    speakers: list[Speaker] = []
    for part in ("train", "test"):
        if not all((root / part / name).is_file() for name in ("wav.scp", "utt2spk")):
            raise _not_this("mini", root)
        paths, owners = read_table(root / part / "wav.scp"), read_table(root / part / "utt2spk", 2)
        mine: dict[str, Speaker] = {}
        for utterance, path in paths.items():
            speaker = mine.setdefault(owners[utterance], Speaker(f"mini-{owners[utterance]}", root, part=part))
            speaker.files[path] = f"mini-{utterance}"
        speakers += mine.values()
    return speakers


def _not_this(corpus: str, root: Path) -> ValueError:
    inside = [f"{name}/" for name in names(root, folders=True)] + names(root, folders=False)
    return ValueError(
        f"{root}: this is not {EXPECTED[corpus]}; found there: {first_few(inside, 5) or 'nothing'}; "
        f"--{OPTIONS[corpus]} names the folder that the corpus was unpacked in"
    )


def _table(path: Path) -> dict[str, str]:
    """Reads a table of speechocean762. It is not sorted as in Kaldi, and it may be missing."""
    if not path.is_file():
        return {}
    rows = [line.split(None, 1) for _, line in read_lines(path)]
    odd = [row[0] for row in rows if len(row) != 2]
    if odd:
        raise ValueError(f"{path}: nothing stands after '{odd[0]}'; unpack the corpus again")
    return {key: value.strip() for key, value in rows}


def _libri_genders(path: Path) -> dict[str, str]:
    """SPEAKERS.TXT: `14 | F | train-clean-360 | 25.03 | name`, after lines that begin with a semicolon."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    fields = [[part.strip() for part in line.split("|")] for line in lines if not line.startswith(";")]
    return {part[0]: part[1].lower() for part in fields if len(part) > 2 and part[1] in ("M", "F")}


FINDERS: dict[str, Callable[[Path], list[Speaker]]] = {
    "commands": commands,
    "ocean": ocean,
    "libri": libri,
    "voice": voice,
    "folder": folder,
    "mini": mini,
}
OPTIONS = {
    "commands": "speech-commands",
    "ocean": "speechocean",
    "libri": "librispeech",
    "voice": "common-voice",
    "folder": "folder",
    "mini": "mini",
}
EXPECTED = {
    "commands": "Speech Commands (<word>/<contributor>_nohash_<number>.wav)",
    "ocean": "speechocean762 (train/wav.scp, train/utt2spk, test/wav.scp, test/utt2spk, WAVE/)",
    "libri": "LibriSpeech (<subset>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac)",
    "voice": "Common Voice of one language (validated.tsv, clips/)",
    "folder": f"speakers (a folder for each, with {' '.join(AUDIO)} files)",
    "mini": "egs/mini's data (train/wav.scp, train/utt2spk, test/wav.scp, test/utt2spk; egs/mini/v1/run.sh --stop_stage 1)",
}
