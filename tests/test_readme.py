"""What the README tells people to write or to open is there, and works."""

import re

import pytest
import torch
from conftest import ROOT

from speakerkd.kd import embed

TEXT = (ROOT / "README.md").read_text()


def test_the_example_of_a_loss() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names = dict(vars(embed))
    exec(code, names)  # noqa: S102
    method = names["Huber"]
    assert issubclass(method, embed.EmbeddingLevel) and method.Conf is embed.EmbedConf
    # |difference| 0.5 and 3: 0.5 * 0.5 ** 2 and 3 - 0.5
    found = method.compare(None, torch.tensor([[0.5, 3.0]]), torch.zeros(1, 2))
    assert found.tolist() == [pytest.approx((0.125 + 2.5) / 2)]


def test_files_that_are_named() -> None:
    named = set(re.findall(r"`((?:local|utils|tools|tests|speakerkd|egs)/[\w/.-]+)`", TEXT))
    assert len(named) > 20
    assert [
        name for name in named if not (ROOT / name).exists() and not name.startswith(("egs/mycorpus", "tools/venv"))
    ] == []
