"""A step of the optimiser: losses, gradient, clipping, update. If the gradient is not finite, there is no update."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from speakerkd.batches.dataset import Batch
from speakerkd.kd.base import Clock, Distiller, Outcome
from speakerkd.train.options import TrainConf
from speakerkd.train.precision import autocast_dtype

# Scale of the loss in fp16. It is halved for each gradient that is not finite, and doubled after 2,000 finite ones.
FIRST_SCALE = 2.0**12
LEAST_SCALE = 2.0**-10


class NotFiniteError(ValueError):
    """A loss, a gradient or a state with nan or infinity."""


def make_optimizer(conf: TrainConf, method: Distiller) -> torch.optim.Optimizer:
    unregularised = method.unregularised_parameters()
    others = {id(each) for each in unregularised}
    trained = [each for each in method.parameters() if each.requires_grad and id(each) not in others]
    on_vectors = conf.weight_decay if conf.weight_decay_on == "all" else 0.0
    groups: list[dict[str, Any]] = [
        {"params": [each for each in trained if each.ndim > 1], "weight_decay": conf.weight_decay, "clip": True},
        {"params": [each for each in trained if each.ndim <= 1], "weight_decay": on_vectors, "clip": True},
        {"params": unregularised, "weight_decay": 0.0, "clip": False},
    ]
    if conf.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=conf.lr)
    return torch.optim.SGD(groups, lr=conf.lr, momentum=conf.momentum, nesterov=conf.nesterov and conf.momentum > 0)


class Stepper:
    """stepper(batch, clock, rate) makes one step.

    On CPUs each gradient is checked before the update. On GPUs this check would make the GPU wait. So its result stays in
    `spoilt` on the GPU, and require_good_gradients reads it before a log line and before anything is saved.
    """

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer, conf: TrainConf, device: torch.device) -> None:
        self.net, self.optimizer, self.conf, self.device = net, optimizer, conf, device
        self.dtype = autocast_dtype(conf.amp, device)
        self.scaler = torch.amp.GradScaler(device.type, FIRST_SCALE) if self.dtype == torch.float16 else None
        self.spoilt = torch.zeros((), dtype=torch.bool, device=device)

    def __call__(self, batch: Batch, clock: Clock, rate: float) -> Outcome:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self.autocast():
            outcome: Outcome = self.net(batch, clock)
            loss = torch.stack(list(outcome.losses.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        if self.scaler is None:
            loss.backward()
            self._regularise(outcome, batch)
            self.optimizer.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
            self._regularise(outcome, batch)
            self.scaler.step(self.optimizer)  # skipped if the gradient is not finite
            self.scaler.update()
        return outcome

    def autocast(self) -> AbstractContextManager:
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)

    def _regularise(self, outcome: Outcome, batch: Batch) -> None:
        """Checks the gradient, then clips it."""
        gradients = [_gradients(group["params"]) for group in self.optimizer.param_groups]
        norms = [torch._foreach_norm(each) if each else [] for each in gradients]
        whole = total_norm([norm for each in norms for norm in each])
        if self.scaler is not None:
            if self.scaler.get_scale() < LEAST_SCALE:
                what = "the gradient is not finite in fp16, however small the loss scale"
                raise NotFiniteError(f"{what}. {advice(outcome, batch)}")
        elif whole.device.type == "cpu":
            if not bool(whole.isfinite()):
                raise NotFiniteError(complaint(outcome, batch))
        else:
            self.spoilt |= ~whole.isfinite()
        if self.conf.clip > 0:
            clipped = [number for number, group in enumerate(self.optimizer.param_groups) if group["clip"]]
            clip_gradients(
                [each for number in clipped for each in gradients[number]],
                [each for number in clipped for each in norms[number]],
                self.conf.clip,
                self.conf.clip_each,
            )

    def require_good_gradients(self) -> None:
        if bool(self.spoilt):
            raise NotFiniteError("the gradient was not finite at one of the steps since the last line. " + REMEDY)

    def state(self) -> dict[str, Any] | None:
        return None if self.scaler is None else self.scaler.state_dict()

    def restore(self, state: dict[str, Any] | None) -> None:
        if self.scaler is not None and state is not None:
            self.scaler.load_state_dict(state)


def _gradients(parameters: list[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def total_norm(norms: list[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def clip_gradients(gradients: list[Tensor], norms: list[Tensor], most: float, each: bool) -> None:
    """Scales gradients with these norms to a norm of at most `most`: each separately, or all as one."""
    if not gradients:
        return
    if each:
        torch._foreach_mul_(gradients, [(most / (norm + 1e-6)).clamp(max=1) for norm in norms])
    else:
        torch._foreach_mul_(gradients, (most / (total_norm(norms) + 1e-6)).clamp(max=1))


REMEDY = "Try a lower --lr, a longer --warmup, --clip 5 or --amp none, in another folder"


def complaint(outcome: Outcome, batch: Batch) -> str:
    """Says what is not finite, and what may help."""
    values = ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in outcome.losses.items())
    finite = all(bool(value.isfinite()) for value in outcome.losses.values())
    what = "gradient is not finite, although the loss is" if finite else "loss is not finite"
    return f"the {what} ({values}). {advice(outcome, batch)}"


def advice(outcome: Outcome, batch: Batch) -> str:
    if not all(bool(each.isfinite().all()) for each in (*batch.feats, *batch.heard.values())):
        return "The features of this batch are not finite: make them again (local/make_fbank.sh)"
    vectors = [name for name, each in batch.vectors.items() if each.shape[-1] > 1 and not bool(each.isfinite().all())]
    if vectors:
        return f"The vectors '{vectors[0]}' of this batch are not finite: make them again"
    return REMEDY
