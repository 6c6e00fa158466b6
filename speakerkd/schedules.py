"""Schedules: values that change during a run, such as the learning rate, the margin and the weight of a distance.

The unit of all schedules is the part of the run that is done, from 0 to 1. Conf files may give it as a fraction: 6/150
means 6 of 150 epochs. A run with a third of the epochs then has the same curves. Each curve equals that of the official
code at every step: WeSpeaker and ENSKD (exponential decay, rise of the margin), DINO and SDPN (cosine, momentum,
temperature).
"""

import math

RISES = ("exponential", "linear")
DECAYS = ("exponential", "cosine")
ROUNDING = 1e-9  # parts such as 39/150 are rounded; a step is far more than this


def require_part(name: str, value: float) -> None:
    """The value must be a part of the run. `name` is the option as the user writes it, such as --warmup."""
    if not 0 <= value <= 1:
        raise ValueError(
            f"{name}={value:g}: not a part of the run, from 0 to 1; for 6 of 150 epochs write {name}=6/150"
        )


def require_parts_in_order(first: tuple[str, float], second: tuple[str, float]) -> None:
    """Two options, each with its name and value: the first part of the run ends before the second."""
    for name, value in (first, second):
        require_part(name, value)
    if first[1] > second[1]:
        raise ValueError(f"{first[0]}={first[1]:g} lies after {second[0]}={second[1]:g}; both are parts of the run")


def learning_rate(decay: str, peak: float, final: float, warmup: float, step: int, steps: int) -> float:
    """The learning rate of step number `step` (from 0) of `steps`.

    exponential   falls from the first step on, and is multiplied by a linear rise over the warm-up. So the highest rate
                  is a little below `peak`.
    cosine        rises linearly to `peak` over the warm-up, then falls as half a cosine over the rest of the run.
    """
    rising = round(warmup * steps)
    if decay == "exponential":
        rate = peak * (final / peak) ** (step / steps)
        return rate * min(step / rising, 1.0) if rising else rate
    if step < rising:
        return peak * step / max(rising - 1, 1)
    return half_cosine(peak, final, (step - rising) / max(steps - rising, 1))


def half_cosine(first: float, last: float, part: float) -> float:
    """Goes from the first value to the last one, slowly at both ends."""
    return last + (first - last) * (1 + math.cos(math.pi * min(part, 1.0))) / 2


def rise(part: float, start: float, end: float, shape: str = "linear") -> float:
    """0 up to `start`, 1 from `end` on.

    exponential   1 - 0.001^r, with r from 0 to 1 between the two. Half of the rise is done after a tenth of the way.
    """
    if part >= end - ROUNDING:
        return 1.0
    if part <= start:
        return 0.0
    between = (part - start) / (end - start)
    return between if shape == "linear" else 1 - math.exp(between * math.log(1e-3))


def rise_in_epochs(epoch: int, num_epochs: int, end: float) -> float:
    """1/n in epoch 0, 2/n in epoch 1, ..., then 1. n is the number of epochs in the part `end` of the run."""
    rising = round(end * num_epochs)
    return 1.0 if rising < 1 else min((epoch + 1) / rising, 1.0)


def line_in_epochs(epoch: int, num_epochs: int, first: float, last: float, end: float) -> float:
    """`first` in epoch 0, then equal steps to `last` in the last epoch of the part `end` of the run, then `last`."""
    rising = int(end * num_epochs + ROUNDING)
    return last if epoch >= rising - 1 else first + (last - first) * epoch / (rising - 1)
