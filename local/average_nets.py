#!/usr/bin/env python3
"""Averages the weights of nets with a common start: of a net, and of others that were trained on from it.

Usage: local/average_nets.py [options] <final.pt> <final.pt> [<final.pt> ...] <exp-dir>
  local/average_nets.py exp/student/final.pt exp/student_with_noise/final.pt exp/both
  local/average_nets.py --shares 0.7,0.3 exp/student/final.pt exp/student_with_noise/final.pt exp/both

A net that is trained on with other data, such as more noise, may gain there and lose elsewhere. The average of its weights
before and after may lose less: RESULTS.md of egs/open has a case, with one seed. The nets must have one model, the same
features and a common start (--init). Nothing is trained or measured here, so score the result on dev trials.

It writes <exp-dir>/final.pt and conf.json. The classifier is averaged too if all nets have the same
speakers; otherwise it is left out.
"""

import json
import logging
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from speakerkd.conf import opt, parse_args, run
from speakerkd.files.made import digest_of_file
from speakerkd.models import SpeakerNet, load_net, save_net
from speakerkd.train.runfolder import RunFolder

APART = 0.3  # cosine of two nets' weights, below which they had hardly a common start


@dataclass(frozen=True)
class Options:
    shares: str = opt("", "share of each net, such as 0.7,0.3; default: equal shares")


def main(argv: list[str]) -> None:
    options, words = parse_args(Options, argv, __doc__, None)
    if len(words) < 3:
        raise ValueError("needs two nets or more and a folder for the result (see --help)")
    *paths, out = words
    shares = read_shares(options.shares, len(paths))
    nets = [load_net(path) for path in paths]
    check_alike(nets, paths)
    alike = min(cosine(nets[0], net) for net in nets[1:])
    if alike < APART:
        text = "the nets' weights have a cosine of %.2f; an average is good only if one net started from another"
        logging.warning(text, alike)
    first = nets[0]
    heads = all(net.head is not None and net.head.conf == first.head.conf for net in nets) if first.head else False
    if not heads or any(net.speakers != first.speakers for net in nets):
        if any(net.head for net in nets):
            logging.info("the classifier is left out: not all nets have one of the same speakers")
        nets = [SpeakerNet(net.encoder) for net in nets]
    result = nets[0]
    result.load_state_dict(average([net.state_dict() for net in nets], shares))
    folder = RunFolder(out)
    made_of = {
        path: {"share": share, "sha256": digest_of_file(path)} for path, share in zip(paths, shares, strict=True)
    }
    folder.open({"average": {**asdict(options), "nets": made_of}})
    save_net(folder.path / "final.pt", result, first.info)
    logging.info(
        "%s/final.pt is ready: %s", out, ", ".join(f"{s:.3g} of {p}" for p, s in zip(paths, shares, strict=True))
    )


def read_shares(text: str, count: int) -> list[float]:
    """They sum to 1."""
    if not text:
        return [1 / count] * count
    try:
        shares = [float(word) for word in text.split(",")]
    except ValueError:
        shares = []
    fine = all(0 <= share <= 1 for share in shares) and math.isclose(sum(shares), 1, abs_tol=1e-3)
    if len(shares) != count or not fine:
        raise ValueError(f"--shares={text}: {count} numbers from 0 to 1 are needed, with 1 as their sum")
    return [share / sum(shares) for share in shares]


def check_alike(nets: list[SpeakerNet], paths: list[str]) -> None:
    def facts(net: SpeakerNet) -> dict[str, Any]:
        hears = {name: net.info.get(name) for name in ("front_end", "fbank", "cmn")}
        return {"model": type(net.encoder).__name__, **asdict(net.encoder.conf), "feat_dim": net.feat_dim, **hears}

    first = facts(nets[0])
    for net, path in zip(nets[1:], paths[1:], strict=True):
        other = facts(net)
        changed = [f"{name}: {json.dumps(first.get(name))} and {json.dumps(other.get(name))}"
                   for name in sorted(first.keys() | other.keys()) if first.get(name) != other.get(name)]  # fmt: skip
        if changed:
            raise ValueError(f"{paths[0]} and {path} differ: {'; '.join(changed)}")


def cosine(one: SpeakerNet, other: SpeakerNet) -> float:
    """The cosine of two nets: all their filters and matrices form one long vector each."""
    states = one.encoder.state_dict(), other.encoder.state_dict()  # type: ignore[attr-defined]
    left, right = (
        torch.cat([value.double().flatten() for value in state.values() if value.ndim > 1]) for state in states
    )
    return float(torch.nn.functional.cosine_similarity(left, right, dim=0))


def average(states: list[dict[str, Tensor]], shares: list[float]) -> dict[str, Tensor]:
    """Counters are those of the first."""
    return {
        name: sum(share * state[name].double() for share, state in zip(shares, states, strict=True)).to(value.dtype)  # type: ignore[union-attr]
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }


if __name__ == "__main__":
    run(main)
