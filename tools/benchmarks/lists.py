"""Stages 1, 6 and 7 of egs/voxceleb on lists as long as the real ones: seconds, and the memory of the largest process.

Recordings are empty files. Vectors are made up and have 256 dimensions. Only the work on the lists is measured.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tools.benchmarks.common import ROOT, Options, Row, watched

# Speakers, videos, utterances, as published.
VOXCELEB1 = (1251, 22_496, 153_516)
VOXCELEB2 = (5994, 145_569, 1_092_009)
# Speakers, utterances and trials of the cleaned lists.
LISTS = {"O": (40, 4_708, 37_611), "E": (1251, 145_160, 579_818), "H": (1190, 137_924, 550_894)}
FILES = {"O": "veri_test2.txt", "E": "list_test_all2.txt", "H": "list_test_hard2.txt"}
JOBS = 64
DIM, OF_SPEAKERS = 256, 32  # dimensions of a vector, and of the part that differs between speakers
COHORT = 20  # utterances of each speaker


def small(sizes: tuple[int, int, int], scale: float) -> tuple[int, int, int]:
    speakers, videos, utterances = (round(scale * size) for size in sizes)
    speakers = max(8, speakers)
    return speakers, max(3 * speakers, videos), max(12 * speakers, utterances)


def recordings(sizes: tuple[int, int, int], first: int) -> Iterator[str]:
    """Recordings id00012/<video>/00001.wav, distributed evenly over speakers and videos."""
    speakers, videos, utterances = sizes
    for video in range(videos):
        name = f"id{first + video * speakers // videos:05}/{hashlib.sha256(b'%d' % video).hexdigest()[:11]}"
        for number in range((video + 1) * utterances // videos - video * utterances // videos):
            yield f"{name}/{number + 1:05}.wav"


def make_tree(folder: Path, names: Iterator[str]) -> list[str]:
    made, last = [], ""
    for name in names:
        parent = name.rsplit("/", 1)[0]
        if parent != last:
            Path(folder, parent).mkdir(parents=True)
            last = parent
        open(f"{folder}/{name}", "x").close()
        made.append(name)
    return made


def pairs(speakers: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` pairs of different utterances; the speakers take turns. Every second pair is from one speaker."""
    rng = np.random.default_rng(seed)
    one = rng.integers(len(speakers), size=count)
    starts, sizes = np.unique(speakers, return_index=True)[1], np.bincount(speakers)
    own, size = starts[speakers[one]], sizes[speakers[one]]
    other = own + (one - own + 1 + rng.integers(size - 1)) % size
    away = (own + size + rng.integers(len(speakers) - size)) % len(speakers)
    return one, np.where(np.arange(count) % 2, other, away)


def stage1(options: Options, folder: Path) -> list[Row]:
    one, two = small(VOXCELEB1, options.scale), small(VOXCELEB2, options.scale)
    tests = make_tree(folder / "VoxCeleb1/wav", recordings(one, 10001))
    make_tree(folder / "VoxCeleb2/dev/wav", recordings(two, 20001))
    meta = folder / "VoxCeleb1/meta"
    meta.mkdir()
    for number, (name, sizes) in enumerate(LISTS.items()):
        _, few, count = small(sizes, options.scale)
        names = tests[:few]
        speakers = np.unique([each[:7] for each in names], return_inverse=True)[1]
        with open(meta / FILES[name], "w") as file:
            for a, b in zip(*pairs(speakers, count, number), strict=True):
                file.write(f"{int(speakers[a] == speakers[b])} {names[a]} {names[b]}\n")
    recipe, data = ROOT / "egs/voxceleb/v1", folder / "data"
    jobs = min(JOBS, two[0])
    rows = []
    for what, words in (
        (
            f"prepare_data.py, {one[2]} and {two[2]} files",
            ("./prepare_data.py", "--nj", 16, folder / "VoxCeleb1", folder / "VoxCeleb2", data),
        ),
        ("validate_data_dir.sh of those to train on", ("utils/validate_data_dir.sh", "--no-feats", data / "train")),
        (f"split_data.sh of these into {jobs}", ("utils/split_data.sh", data / "train", jobs)),
    ):
        rows.append(Row("stage1", what, watched(words, recipe)))
    return rows


def vectors(folder: Path, name: str, sizes: tuple[int, int], seed: int) -> tuple[list[str], np.ndarray]:
    """Writes <folder>/data/<name>/{utt2spk,spk2utt} and <folder>/xvectors_<name>; returns the names and their speakers."""
    from speakerkd.files.backend import write_text_vector
    from speakerkd.files.kaldi import ArkWriter
    from speakerkd.files.tables import write_data_dir

    speakers, utterances = sizes
    rng = np.random.default_rng(seed)
    names: list[str] = []
    owners = np.arange(utterances) * speakers // utterances
    mean = np.zeros(DIM)
    with ArkWriter(folder / f"xvectors_{name}/xvector") as write:
        for speaker, count in enumerate(np.bincount(owners).tolist()):
            rows = 0.5 * rng.standard_normal((count, DIM), dtype=np.float32)
            rows[:, :OF_SPEAKERS] += rng.standard_normal(OF_SPEAKERS, dtype=np.float32)
            mean += rows.sum(0)
            for row in rows:
                names.append(f"{name}{speaker:05}-{len(names):011}-00001")
                write(names[-1], row)
    write_text_vector(folder / f"xvectors_{name}/mean.vec", mean / utterances)
    table = dict(zip(names, (each.split("-")[0] for each in names), strict=True))
    write_data_dir(folder / "data" / name, dict.fromkeys(names, "x"), table)
    return names, owners


def write_list(path: Path, names: list[str], speakers: np.ndarray, count: int, seed: int) -> None:
    with open(path, "w") as file:
        for a, b in zip(*pairs(speakers, count, seed), strict=True):
            file.write(f"{names[a]} {names[b]} {'target' if speakers[a] == speakers[b] else 'nontarget'}\n")


def stage6(options: Options, folder: Path) -> list[Row]:
    """Calls local/score.py as run.sh does, with intervals and pictures."""
    speakers = small(VOXCELEB2, options.scale)[0]
    tested = small(VOXCELEB1, options.scale)
    scores, cohort, test = (
        folder / "scores",
        folder / "xvectors_cohort/xvector.scp",
        folder / "xvectors_test/xvector.scp",
    )
    rows = []

    def run(what: str, trials: Path, scp: Path, *words: object) -> None:
        command = ("local/score.py", "--mean", cohort.with_name("mean.vec"), *words, trials, scp, scp, scores)
        rows.append(Row("stage6", what, watched(command, ROOT / "egs/voxceleb/v1")))

    names, owners = vectors(folder, "cohort", (speakers, COHORT * speakers), 1)
    pairs_of_cohort = folder / "data/cohort/trials_calibration"
    write_list(pairs_of_cohort, names, owners, 12 * speakers, 2)
    run(f"calibration: {12 * speakers} trials, cosine", pairs_of_cohort, cohort)
    names, owners = vectors(folder, "test", (tested[0], tested[2]), 3)
    for number, name in enumerate(("E", "H")):
        _, few, count = small(LISTS[name], options.scale)
        trials = folder / f"data/test/trials_{name}"
        write_list(trials, names[:few], owners[:few], count, 4 + number)
        stored = scores / "trials_calibration.cosine.calibration"
        run(f"{name}: {count} trials, cosine", trials, test, "--calibration", stored)
        norm = ("--norm", "asnorm", "--top-n", min(300, speakers // 2), "--cohort", cohort)
        means = ("--cohort-spk2utt", folder / "data/cohort/spk2utt")
        run(f"{name}: {count} trials, asnorm, cohort of {speakers}", trials, test, *norm, *means)
    return rows


def stage7(options: Options, folder: Path) -> list[Row]:
    """Calls local/align.sh as run.sh does: the maps are trained for the first list; the second list uses them again."""
    from speakerkd.files.kaldi import ArkWriter, Scp

    old, new = folder / "old", folder / "new"
    speakers = max(160, small(VOXCELEB2, options.scale)[0])  # 100 are held out, a batch takes 32
    tested = small(VOXCELEB1, options.scale)
    rng = np.random.default_rng(7)
    turn = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0].astype(np.float32)
    for name, sizes in (("cohort", (speakers, COHORT * speakers)), ("test", (tested[0], tested[2]))):
        names, owners = vectors(old, name, sizes, len(name))
        stored = Scp(old / f"xvectors_{name}/xvector.scp")
        with ArkWriter(new / f"xvectors_{name}/xvector") as write:
            for index, key in enumerate(stored):
                write(key, (stored.read(index) + 0.2 * rng.standard_normal(DIM, dtype=np.float32)) @ turn)
    rows = []
    for number, name in enumerate(("E", "H")):
        _, few, count = small(LISTS[name], options.scale)
        trials = folder / f"trials_{name}"
        write_list(trials, names[:few], owners[:few], count, 4 + number)
        data = (old / "data/cohort", old / "data/test", trials)
        words = ("local/align.sh", "--nj", 1, "--out", folder / "pair", old, new, *data)
        what = f"{name}: {count} trials, maps of {speakers} speakers {'there' if number else 'trained'}"
        rows.append(Row("stage7", what, watched(words, ROOT / "egs/voxceleb/v1")))
    return rows
