#!/usr/bin/env python3
"""Converts a public checkpoint of another toolkit into a final.pt: a teacher that need not be trained.

Usage: local/import_checkpoint.py [options] --family <family> <checkpoint> <exp-dir>
  local/import_checkpoint.py --family wespeaker --licence CC-BY-4.0 avg_model.pt exp/resnet34
  local/import_checkpoint.py --family speechbrain --classifier classifier.ckpt --speakers label_encoder.txt \
    embedding_model.ckpt exp/ecapa

<family> is
  wespeaker     avg_model.pt of x-vector, ECAPA-TDNN, ResNet, CAM++; projection.weight becomes the classifier
  3dspeaker     CAM++, ECAPA-TDNN, ResNet, x-vector (not ERes2Net)
  speechbrain   embedding_model.ckpt of ECAPA-TDNN. Its classifier has another margin for angles beyond pi - m:
                cos - m sin m. Here it is WeSpeaker's, so a training that goes on from it differs there
  resemblyzer   pretrained.pt, the GE2E d-vector
  unispeech     wavlm_large_finetune.pth and similar models: WavLM, wav2vec 2.0 or HuBERT with a small ECAPA-TDNN on top.
                They hear the wave
  torchaudio    state_dict of a bundle of torchaudio.pipelines: WavLM, wav2vec 2.0 or HuBERT. They hear the wave, and have
                no speaker head: the embedding is the mean over all layers and frames
The options of the model are read from its weights. A weight that is missing or left over is an error. final.pt stores
the feature settings (front end), and local/extract_xvectors.sh computes these features. The speakers of the classifier
are written to spk2id.
"""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from speakerkd.conf import build, opt, parse_args, read_conf, run
from speakerkd.feats.frontend import FrontEnd, front_end_info, read_front_end
from speakerkd.files.tables import read_lines, replacing
from speakerkd.foreign.checkpoint import FAMILIES, layout_of, read_weights, rename
from speakerkd.foreign.infer import encoder_with, infer
from speakerkd.foreign.unispeech import joined
from speakerkd.losses.margin import MarginConf, MarginHead
from speakerkd.models import SpeakerNet, read_model, save_net
from speakerkd.train.runfolder import RunFolder

PROJECTION = "projection."


@dataclass(frozen=True)
class Options:
    family: str = opt("", "wespeaker, 3dspeaker, speechbrain, resemblyzer, unispeech or torchaudio")
    front_end: str = opt("", "conf file of the front end; default: conf/frontend/<family>.conf")
    model: str = opt("", "conf file of the model, if its options can't be read from its weights")
    classifier: str = opt("", "checkpoint of the classifier, if it is a separate file; none: leave the classifier out")
    speakers: str = opt(
        "", "speakers of the classifier in class order: spk2id, SpeechBrain's label_encoder.txt, or a list"
    )
    head: str = opt("", "conf file of the classifier; default: the family's usual scale, and one row per speaker")
    licence: str = opt("", "licence of the weights, to be recorded")
    source: str = opt("", "origin of the checkpoint, to be recorded")


def main(argv: list[str]) -> None:
    options, (checkpoint, exp_dir) = parse_args(Options, argv, __doc__, 2)
    if options.family not in FAMILIES:
        raise ValueError(f"--family='{options.family}' is not one of: {' '.join(FAMILIES)}")
    front_end = read_front_end(options.front_end or f"conf/frontend/{options.family}.conf")
    weights = joined(read_weights(checkpoint))
    weights = {name.removeprefix("loss_calculator."): value for name, value in weights.items()}
    inside = {name.removeprefix(PROJECTION): weights.pop(name) for name in list(weights) if name.startswith(PROJECTION)}
    net = make_net(options, checkpoint, weights, front_end)
    if options.classifier != "none":
        add_classifier(net, options, read_weights(options.classifier) if options.classifier else inside, checkpoint)
    net.info = {
        "front_end": front_end_info(front_end),
        "source": {
            "family": options.family,
            "file": Path(checkpoint).name,
            "sha256": hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest(),
            "from": options.source,
            "licence": options.licence,
        },
    }
    folder = RunFolder(exp_dir)
    folder.open({"import": {**asdict(options), "checkpoint": checkpoint, **net.info}})
    if net.speakers:
        with replacing(folder.path / "spk2id") as file:
            file.writelines(f"{speaker} {number}\n" for number, speaker in enumerate(net.speakers))
    save_net(folder.path / "final.pt", net)
    log_model(net, checkpoint, exp_dir, options)


def make_net(options: Options, checkpoint: str, weights: dict[str, Tensor], front_end: FrontEnd) -> SpeakerNet:
    layout = layout_of(weights, options.family, checkpoint)
    renamed = rename(weights, layout)
    if options.model:
        model, conf = read_model(options.model)
        if model != layout.model:
            raise ValueError(
                f"{options.model}: --type={model}, the weights of {checkpoint} are those of a {layout.model}"
            )
    else:
        model, conf = layout.model, infer(layout.model, renamed, checkpoint)
        if layout.floors:
            conf = replace(conf, variance_floor=dict(layout.floors)[conf.pooling])
    return SpeakerNet(encoder_with(model, conf, front_end.dim, renamed, checkpoint))


def add_classifier(net: SpeakerNet, options: Options, weights: dict[str, Tensor], checkpoint: str) -> None:
    """Takes `weights` as the rows of the net's classifier. Without weights the net gets no classifier."""
    where = options.classifier or checkpoint
    if not weights:
        if options.speakers or options.head:
            raise ValueError(
                f"{where} holds no classifier; --classifier names its file, or leave out --speakers and --head"
            )
        return
    if set(weights) not in ({"weight"}, {"weight", "bias"}):
        raise ValueError(
            f"{where}: a classifier of {' '.join(weights)} is not known here, one of weight, or weight and bias, is; "
            "--classifier none leaves it out"
        )
    conf = FAMILIES[options.family].head
    if options.head:
        conf = build(MarginConf, read_conf(options.head), options.head)
    if "bias" in weights:
        conf = MarginConf(type="softmax")
    speakers = read_speakers(options.speakers) if options.speakers else ()
    rows, dim = weights["weight"].shape
    if dim != net.dim or rows % conf.sub_centers or (speakers and rows != len(speakers) * conf.sub_centers):
        raise ValueError(
            f"{where}: a classifier of {rows} rows of {dim} doesn't fit {len(speakers) or 'any number of'} speakers with "
            f"{conf.sub_centers} row(s) each and embeddings of {net.dim}; --sub-centers of a conf given as --head says how "
            "many rows a speaker has, and speed-perturbed copies count as speakers"
        )
    head = MarginHead(conf, dim, rows // conf.sub_centers)
    head.load_state_dict({name: weights[name] for name in head.state_dict()})
    net.head, net.speakers = head, speakers


def read_speakers(path: str) -> tuple[str, ...]:
    """Names by their number: lines `name number`, `'name' => number`, or names alone in order."""
    numbers: dict[str, int] = {}
    for at, line in read_lines(path):
        if line.startswith("==="):
            break  # a label_encoder.txt has other lines after the names
        words = line.replace(" => ", " ").split()
        name = words[0].strip("'\"")
        if len(words) > 2 or name in numbers or (len(words) == 2 and not words[1].isdigit()):
            raise ValueError(f"{path}:{at}: '{line}' is not a new speaker with its number")
        numbers[name] = int(words[1]) if len(words) == 2 else len(numbers)
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise ValueError(f"{path}: the {len(numbers)} speakers are not numbered from 0 to {len(numbers) - 1}")
    return tuple(sorted(numbers, key=lambda name: numbers[name]))


def log_model(net: SpeakerNet, checkpoint: str, exp_dir: str, options: Options) -> None:
    size = sum(each.numel() for each in net.encoder.parameters())  # type: ignore[attr-defined]
    logging.info("%s: %s %s", checkpoint, type(net.encoder).__name__, json.dumps(asdict(net.encoder.conf)))
    classes = f"a classifier of {net.head.num_classes}" if net.head else "no classifier"
    logging.info("%.2f M parameters, vectors of %d, %s", size / 1e6, net.dim, classes)
    if net.head and not net.speakers:
        logging.warning("without --speakers nobody knows whose rows the classifier has: it can't teach by its logits")
    if not options.licence:
        logging.warning("--licence is not given; users of this model will want to know its licence")
    logging.info("%s/final.pt is ready", exp_dir)


if __name__ == "__main__":
    run(main)
