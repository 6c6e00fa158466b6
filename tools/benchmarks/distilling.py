"""A step of distillation beside its parts: a step of plain training, the teacher's forward pass, and its features."""

import itertools
from pathlib import Path

import torch

from speakerkd.batches.dataset import Batch, Batches, View
from speakerkd.batches.utterances import Utterances
from speakerkd.conf import typed_conf
from speakerkd.feats.frontend import read_front_end
from speakerkd.kd import METHODS, Clock, Components, Distiller
from speakerkd.kd.teacher import VECTORS, NetTeacher, Teacher, VectorTeacher
from speakerkd.losses.margin import MarginConf
from speakerkd.models import make_net
from speakerkd.models.frozen import Frozen
from speakerkd.train.options import TrainConf
from speakerkd.train.step import Stepper, make_optimizer
from tools.benchmarks.common import ROOT, Options, Row, compare
from tools.benchmarks.training import MODEL
from tools.benchmarks.wavecrops import archive

NAMES = tuple(f"s{number:03}" for number in range(100))
DIM = 192  # of the teacher's vectors
CONF = ROOT / "egs/mini/v1/conf"
BIG = ROOT / "egs/voxceleb/v1/conf/model/campplus.conf"


class Bench:
    """A method with its optimiser; each call is a step on the same batch."""

    def __init__(self, kd: str, teacher: Teacher | None, batch: Batch, names: tuple[str, ...] = NAMES) -> None:
        _, kind, conf = typed_conf(MODEL.parents[1] / f"kd/{kd}.conf", METHODS)
        torch.manual_seed(0)
        net = make_net(MODEL, 80, names, MarginConf())
        self.method: Distiller = kind(conf, Components(net, names, teacher)).train()
        self.conf, self.batch = TrainConf(optimizer="adamw"), batch
        self.optimizer = make_optimizer(self.conf, self.method)

    def __call__(self) -> None:
        Stepper(self.method, self.optimizer, self.conf, torch.device("cpu"))(self.batch, Clock(0, 1), 1e-4)


def distill(options: Options, folder: Path) -> list[Row]:
    size = min(64, options.utterances // 2 * 2)
    labels = torch.arange(size) % len(NAMES)
    batch = Batch([torch.randn(size, 200, 80)], labels, {VECTORS: torch.randn(size, DIM)})
    heard = NetTeacher(make_net(MODEL.with_name("resnet_tiny.conf"), 80, NAMES, MarginConf()), "", NAMES)
    everyone = torch.ones(len(NAMES), dtype=torch.bool)
    told = VectorTeacher("", NAMES, torch.randn(len(NAMES), DIM), everyone, MarginConf())
    plain = Bench("none", None, batch)

    def parts() -> None:
        plain()
        heard.embed(batch)

    rows = []
    for what, ours, theirs, beside in (
        ("ENSKD, a ResNet hears the crop", Bench("enskd", heard, batch), parts, "its parts alone"),
        ("ENSKD, vectors as the teacher", Bench("enskd", told, batch), plain, "plain training"),
        ("cosine, vectors as the teacher", Bench("cosine", told, batch), plain, "plain training"),
    ):
        mine, other, ratio = compare(ours, theirs, options.seconds)
        rates = [f"{size / seconds:.0f} crops/s" for seconds in (mine, other)]
        rows.append(Row("distill", f"x-vector by {what}", rates[0], f"{beside} {rates[1]}", f"{ratio:.2f}", "0.95"))
    return [*rows, imported(options, folder)]


def imported(options: Options, folder: Path) -> Row:
    """A whole step, reading the waves included, with a CAM++ that hears each crop by 3D-Speaker's features."""
    archive(folder, options.utterances)
    data = Utterances(folder, source="waves")
    batches = Batches(data, [View()], 200, min(32, options.utterances // 2 * 2), 0)
    front_end = read_front_end(CONF / "frontend/3dspeaker.conf")
    net = make_net(BIG, front_end.dim, data.speakers, MarginConf()).eval()
    data.crops.listen("big", front_end)
    teacher = NetTeacher(net, "big", data.speakers, front_end.conf)
    alone = Frozen(net)
    plain, taught = Bench("none", None, batches[0], data.speakers), Bench("enskd", teacher, batches[0], data.speakers)
    number = itertools.count()

    def whole() -> None:
        taught.batch = batches[next(number) % batches.per_epoch]
        taught()

    def parts() -> None:
        plain.batch = batches[next(number) % batches.per_epoch]  # the features of both
        plain()
        with torch.inference_mode():
            feats = plain.batch.heard["big"]
            alone(feats - feats.mean(1, keepdim=True))

    mine, other, ratio = compare(whole, parts, options.seconds)
    rates = [f"{batches.batch_size / seconds:.0f} crops/s" for seconds in (mine, other)]
    what = "x-vector by ENSKD, CAM++ hears the crop by features of its own"
    return Row("distill", what, rates[0], f"its parts alone {rates[1]}", f"{ratio:.2f}", "0.95")
