"""A small recipe: speakers that differ in the colour of their noise, confs that train in a second."""

import shutil
from pathlib import Path

import numpy as np
import torch
from conftest import ROOT

from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.tables import write_data_dir, write_table
from speakerkd.models import load_net
from speakerkd.models.vectormap import load_map

DIM, SPEAKERS, UTTERANCES = 8, 6, 8


def make_toy(recipe: Path) -> Path:
    """data/train and conf in the recipe's folder."""
    rng = np.random.default_rng(0)
    colours = rng.uniform(0.3, 3, (SPEAKERS, DIM))
    folder = recipe / "data/train"
    features = {}
    for speaker in range(SPEAKERS):
        for utterance in range(UTTERANCES):
            name, length = f"s{speaker}-{utterance}", int(rng.integers(30, 60))
            features[name] = (colours[speaker] * rng.standard_normal((length, DIM))).astype(np.float32)
    write_data_dir(folder, dict.fromkeys(features, "x"), {name: name[:2] for name in features})
    with ArkWriter(folder / "feats", compress=True) as write:
        for name, each in features.items():
            write(name, each)
    write_table(folder / "utt2num_frames", {name: len(each) for name, each in features.items()})
    (recipe / "conf").unlink()
    (recipe / "conf/kd").mkdir(parents=True)
    for conf in (ROOT / "egs/mini/v1/conf/kd").glob("*.conf"):
        shutil.copy(conf, recipe / "conf/kd")
    (recipe / "conf/model").mkdir()
    (recipe / "conf/model/xvector.conf").write_text(
        "--type=xvector\n--channels=8\n--stats-channels=12\n--embedding-dim=6\n"
    )
    (recipe / "conf/head.conf").write_text("--margin=0.1\n")
    (recipe / "conf/train.conf").write_text(
        "--num-epochs=4\n--batch-size=8\n--num-frames=24\n--lr=0.05\n--average=2\n--valid-speakers=2\n"
    )
    return folder


def command(out: str, *more: object) -> list[str]:
    fast = ["--save-minutes", "0", "--log-interval", "2", "--threads", "1"]
    return ["local/train.py", "--config", "conf/train.conf", *fast, *map(str, more), "data/train", out]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_net(path).state_dict()


def map_weights(path: Path) -> dict[str, torch.Tensor]:
    return load_map(path).state_dict()


def write_sides(recipe: Path) -> None:
    """exp/{enroll,test}/v/xvector.scp: two systems' vectors of the toy's utterances, of 7 and 5 dimensions."""
    rng = np.random.default_rng(2)
    who = rng.standard_normal((SPEAKERS, 4))
    for side, dim in (("enroll", 7), ("test", 5)):
        seen = rng.standard_normal((4, dim))
        with ArkWriter(recipe / f"exp/{side}/v/xvector") as write:
            for speaker in range(SPEAKERS):
                for utterance in range(UTTERANCES):
                    vector = (who[speaker] + 0.3 * rng.standard_normal(4)) @ seen
                    write(f"s{speaker}-{utterance}", vector.astype(np.float32))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
