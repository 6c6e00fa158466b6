#!/usr/bin/env python3
"""Exports a trained system for use elsewhere: ONNX in fp32 and int8, thresholds, and a card with its error rates.

Usage: local/export_onnx.py [options] <exp-dir or final.pt> <out-dir>
  local/export_onnx.py exp/xvector_tiny_none_s0 exp/xvector_tiny_none_s0/export
  local/export_onnx.py --train-dir data/train_all --test-dir data/open_test --trials data/open_test/trials_ocean \
    --calibration-dir data/open_dev --calibration-trials data/open_dev/trials_ocean exp/student exp/student/export

It writes
  model.onnx         input feats (B, T, F): raw features, as the card's front_end says; output embs (B, D), minus --mean
  model.int8.onnx    the same, quantised; layers that lose accuracy compute in fp32, with weights in int8
  model.pt           the same for PyTorch, without classifier and --mean: to start from (--init) or learn from (--teacher)
  card.json, card.md what it is: teacher, data, licences, size, speed, error rates, thresholds
  verify_example.py  a program of 50 lines that compares two recordings with these files

Nothing is written unless the fp32 model gives the embeddings of PyTorch: cosine at least 0.99999 on 200 pieces of 0.5 to
20 s, one at a time and by eights. sherpa-onnx and WeSpeaker's runtime read model.onnx as it is.
"""

import json
import logging
import shlex
import shutil
import sys
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speakerkd.audio.augment import Augmenter
from speakerkd.audio.waves import Waves
from speakerkd.conf import opt, parse_args, run
from speakerkd.feats.frontend import FrontEnd, Reading, front_end_info, front_end_of
from speakerkd.feats.source import feature_source, utterance_list_of
from speakerkd.files.tables import read_utt2spk, replacing
from speakerkd.foreign import onnx_export, onnx_int8
from speakerkd.foreign.export_card import about, add_file
from speakerkd.foreign.export_check import gate, mean_embedding
from speakerkd.foreign.export_speech import embeddings_of, some_features
from speakerkd.models import SpeakerNet, load_net, save_net
from speakerkd.score.trials import Trials, read_trials, speakers_of
from speakerkd.train.runfolder import circumstances
from speakerkd.verify.card import NAME
from speakerkd.verify.cardtext import markdown_of
from speakerkd.verify.encoder import Encoder
from speakerkd.verify.measure import Change, error_rates, measure
from speakerkd.verify.onnxsession import open_session

CALIBRATION_CROPS = 200
MOST_LOST = 0.05  # of the recordings of the trials
WORSE = 0.3  # points of EER that int8 may cost before it is said
NOISES = ("white", "pink", "brown", "band", "music")


@dataclass
class Options:
    train_dir: str = opt(
        "data/train_all", "data directory of training features, for the calibration of int8 and the checks"
    )
    test_dir: str = opt("data/test", "test set of the card's error rates")
    trials: str = opt("", "trials of these error rates; default: trials in --test-dir")
    calibration_dir: str = opt(
        "", "recordings of speakers that were not trained on, for thresholds; default: --test-dir"
    )
    calibration_trials: str = opt("", "trials of --calibration-dir; default: trials in that folder")
    mean: str = opt("", "mean.vec; the model then subtracts it from its embeddings, as score.py --mean does")
    noise_snr: float = opt(10.0, "signal-to-noise ratio in dB of the noisy thresholds; generated noise is added")
    int8: bool = opt(True, "true: also write model.int8.onnx")
    taught_by: str = opt("", "teacher of the model, for the card; default: the teacher of its conf.json")
    data: str = opt("", "training data and their licences, for the card")
    licence: str = opt("", "licence of the exported model, for the card")
    language: str = opt("", "language of the training data, for sherpa-onnx")
    num_bootstrap: int = opt(1000, "resamplings of the speakers for the intervals")
    seed: int = opt(0, "random seed for pieces, noise and intervals")


def main(argv: list[str]) -> None:
    options, (system, out) = parse_args(Options, argv, __doc__, 2)
    onnx_export.need_packages()
    path = Path(system) / "final.pt" if Path(system).is_dir() else Path(system)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a folder of a finished training, or its final.pt")
    net = load_net(path)
    onnx_export.check_exportable(net, str(path))
    front_end = front_end_of(net.info, str(path))
    if front_end is None:
        raise ValueError(
            f"{path}: does not say which features it was trained on; train it on data with conf/fbank.conf"
        )
    torch.set_num_threads(1)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export.", dir=Path(out).parent) as folder:
        card = export(options, net, front_end, path, Path(folder))
        shutil.copy(Path(__file__).resolve().parent / "verify_example.py", folder)
        write_card(card, Path(folder))
        Path(out).mkdir(exist_ok=True)
        made = sorted(Path(folder).iterdir())
        for old in Path(out).glob("model*.onnx"):  # of an earlier export
            if old.name not in {each.name for each in made}:
                old.unlink()
        for file in made:
            file.replace(Path(out) / file.name)
    print(f"{out}: {', '.join(each.name for each in made)}")


def export(options: Options, net: SpeakerNet, front_end: FrontEnd, path: Path, folder: Path) -> dict[str, Any]:
    """model.onnx, model.int8.onnx and the card's entries."""
    reading: Reading = front_end.conf
    if reading.window_frames:
        raise ValueError(f"{path}: reads windows of {reading.window_frames} frames; one ONNX graph can't do that")
    subtract = reading.mean == "utterance"
    fp32 = folder / "model.onnx"
    feats = some_features(options.train_dir, front_end, str(path), options.seed)
    mean = mean_embedding(options.mean, net, feats, reading) if options.mean else None
    onnx_export.write_onnx(net, fp32, subtract, metadata(options, net, front_end, path), mean)
    gate(net, fp32, feats, subtract, options.seed, mean)
    checkpoint = folder / "model.pt"
    licence = options.licence or str(net.info.get("licence", ""))
    save_net(checkpoint, SpeakerNet(net.encoder), {**net.info, "licence": licence})
    card = about(net, front_end, path) | {
        "checkpoint": {"name": checkpoint.name, "bytes": checkpoint.stat().st_size},
        "calibration_data": options.calibration_dir or options.test_dir,
        "mean": options.mean,
        "seed": options.seed,
        "command": shlex.join(["local/export_onnx.py", *sys.argv[1:]]),
        "commit": circumstances()["commit"],
    }
    for name in ("taught_by", "data", "licence"):
        card[name] = getattr(options, name) or card[name]
    add_file(card, "fp32", fp32, net.feat_dim)
    if options.int8:
        crops = [piece[0] for piece in onnx_export.pieces(feats, [200] * (CALIBRATION_CROPS + 64), 1)]
        int8 = folder / "model.int8.onnx"
        alike, kept = onnx_int8.write_int8(fp32, int8, crops[:CALIBRATION_CROPS], crops[CALIBRATION_CROPS:])
        card["int8_cosine"], card["int8_kept_in_fp32"] = round(alike, 5), kept
        add_file(card, "int8", int8, net.feat_dim)
        logging.info(
            "int8: mean cosine to fp32 %.4f on training crops; layers that compute in fp32: %s",
            alike,
            ", ".join(kept) or "none",
        )
    write_card(card, folder)  # written first, because the encoder below reads it
    if front_end.rate and type(front_end).__name__ == "KaldiFrontEnd":
        add_thresholds(options, card, folder)
    else:
        logging.warning("no thresholds: features of this kind can't be computed without PyTorch")
    add_error_rates(options, card, net, front_end, path, folder, mean)
    return card


def metadata(options: Options, net: SpeakerNet, front_end: FrontEnd, path: Path) -> dict[str, str]:
    """What sherpa-onnx's speaker-embedding extractor reads. Its features are Kaldi's; other front ends don't fit it."""
    facts = {"comment": f"speakerkd: {path.parent.name}", "url": "", "language": options.language or "unknown"}
    if front_end_info(front_end)["type"] != "kaldi":
        return facts
    scale = front_end_info(front_end)["waveform_scale"]
    return facts | {
        "framework": "wespeaker",
        "sample_rate": str(front_end.rate),
        "output_dim": str(net.dim),
        "normalize_samples": "0" if scale == 32768 else "1",
        "feature_normalize_type": "global-mean" if front_end.conf.mean == "utterance" else "",
    }


def trials_in(folder: str, path: str) -> Trials | None:
    found = Path(path or Path(folder) / "trials")
    if found.is_file():
        return read_trials(found)
    if path:
        raise ValueError(f"{path}: no such file")
    logging.warning("%s: no such file, so no figures on it; --trials names another", found)
    return None


def add_thresholds(options: Options, card: dict[str, Any], folder: Path) -> None:
    place = Path(card["calibration_data"])
    trials = trials_in(str(place), options.calibration_trials)
    if trials is None or not (place / "wav.scp").is_file():
        logging.warning("no thresholds: recordings and trials are needed (--calibration-dir, --calibration-trials)")
        return
    speakers = speakers_of(trials, read_utt2spk(place / "utt2spk"), {}, str(place / "utt2spk"))
    encoder = Encoder(folder)
    waves, augment = Waves(place, encoder.rate), Augmenter({}, encoder.rate)

    def add_noise(wave: np.ndarray, name: str) -> np.ndarray:
        number = zlib.crc32(f"{options.seed} {name}".encode())
        return augment(wave, f"noise={NOISES[number % len(NOISES)]}#{number % 1000}:snr={options.noise_snr:g}")

    noises: dict[str, Change | None] = {"clean": None, f"{options.noise_snr:g} dB": add_noise}
    card["conditions"], card["snr_split"] = measure(encoder, trials, speakers, waves, noises, options.seed)
    for each in card["conditions"]:
        logging.info("%s, %s: EER %.2f %%", each["label"], each["noise"], each["eer"])


def add_error_rates(
    options: Options,
    card: dict[str, Any],
    net: SpeakerNet,
    front_end: FrontEnd,
    path: Path,
    folder: Path,
    mean: np.ndarray | None,
) -> None:
    """EER of PyTorch, fp32 and int8 on the test trials, with intervals over the speakers."""
    trials = trials_in(options.test_dir, options.trials)
    if trials is None:
        return
    source, _ = feature_source(front_end, options.test_dir, utterance_list_of(options.test_dir), str(path))
    ids = sorted({*trials.enroll_ids, *trials.test_ids})
    sessions = {name: open_session(folder / file["name"], 1) for name, file in card["files"].items()}
    heard, matrices = embeddings_of(net, front_end.conf, sessions, source, ids)
    if len(ids) - len(heard) > MOST_LOST * len(ids):
        raise ValueError(
            f"{options.test_dir}: {len(ids) - len(heard)} of {len(ids)} recordings of the trials can't be read"
        )
    if mean is not None:
        matrices["PyTorch"] -= mean
    row = {name: index for index, name in enumerate(heard)}
    enroll = np.array([row.get(name, -1) for name in trials.enroll_ids])[trials.enroll]
    test = np.array([row.get(name, -1) for name in trials.test_ids])[trials.test]
    keep = np.minimum(enroll, test) >= 0
    trials, enroll, test = trials.select(keep), enroll[keep], test[keep]
    speakers = speakers_of(trials, read_utt2spk(Path(options.test_dir) / "utt2spk"), {}, options.test_dir)
    card["eer"] = error_rates(matrices, trials, enroll, test, speakers, options.num_bootstrap, options.seed)
    for each in card["eer"]:
        logging.info("%s: EER %.2f %%", each["system"], each["eer"])
    rates = {each["system"]: each["eer"] for each in card["eer"]}
    if "int8" in rates and rates["int8"] - rates["PyTorch"] > WORSE:
        card["warning"] = f"int8 costs {rates['int8'] - rates['PyTorch']:.2f} points of EER on {trials.path}"
        logging.warning("%s; take the fp32 model where that matters", card["warning"])


def write_card(card: dict[str, Any], folder: Path) -> None:
    with replacing(folder / NAME) as file:
        json.dump(card, file, indent=1)
        file.write("\n")
    with replacing(folder / "card.md") as file:
        file.write(markdown_of(card))


if __name__ == "__main__":
    run(main)
