"""A whole SDPN step beside the forward and backward passes that it needs in any case."""

from pathlib import Path

import torch
from torch.nn import functional as F

from speakerkd.batches.dataset import Batch
from speakerkd.conf import typed_conf
from speakerkd.kd import METHODS, Clock, Components
from speakerkd.kd.sdpn import SDPN
from speakerkd.models import make_net
from speakerkd.train.options import TrainConf
from speakerkd.train.step import Stepper, make_optimizer
from tools.benchmarks.common import Options, Row, compare
from tools.benchmarks.training import MODEL

CONF = MODEL.parents[1] / "kd/sdpn.conf"


def sdpn(options: Options, folder: Path) -> list[Row]:
    """Compares the whole step (losses, targets, watch, optimiser, moving average) with the passes of student and teacher."""
    method = SDPN(typed_conf(CONF, METHODS)[2], Components(make_net(MODEL, 80), ())).train()
    size = min(64, options.utterances // 2 * 2)
    views = method.needs_of(method.conf).views
    batch = Batch([torch.randn(size, round(100 * view.length), 80) for view in views])
    conf = TrainConf(optimizer="adamw")
    optimizer = make_optimizer(conf, method)
    clean, *short = batch.feats

    def whole() -> None:
        Stepper(method, optimizer, conf, torch.device("cpu"))(batch, Clock(0, 1), 1e-4)
        method.after_step(Clock(0, 1))

    def passes() -> None:
        with torch.no_grad():
            method.teacher([clean])
        method.zero_grad(set_to_none=True)
        _, points = method.student(short)
        F.mse_loss(points, torch.zeros_like(points)).backward()

    mine, theirs, ratio = compare(whole, passes, options.seconds)
    rates = [f"{size * len(views) / seconds:.0f} crops/s" for seconds in (mine, theirs)]
    what = f"0.3 M x-vector, SDPN's step, {size} utterances"
    return [Row("sdpn", what, rates[0], f"its passes alone {rates[1]}", f"{ratio:.2f}", "0.90")]
