"""Validation while a net is trained: the processes share the work, and all get the figure of one."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
SCRIPT = """
import sys
import numpy as np
import torch
from speakerkd.batches.utterances import Utterances, hold_out
from speakerkd.models import make_net
from speakerkd.parallel import start
from speakerkd.train.netvectors import net_vectors
from speakerkd.train.validate import Validation

world = start("cpu")
data = Utterances("data/train")
_, entries, speakers = hold_out(data, 3, 0)
torch.manual_seed(0)
net = make_net("tiny.conf", data.dim)
if world.rank > 0:
    for buffer in net.buffers():
        buffer.add_(1)  # the other process's batch norms, which don't go into the checkpoint
validation = Validation(data, entries, speakers, world.device)
read = []
rows = data.crops.rows
data.crops.rows = lambda entry, *ends: read.append(entry) or rows(entry, *ends)
vectors = net_vectors(net, data, validation.entries, world.device)
np.save(f"{sys.argv[1]}.{world.rank}.npy", vectors)
print(f"process {world.rank}: {len(entries)} entries, {len(read)} read, {validation({'final': net}):.9f}", flush=True)
world.close()
"""


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_validation(recipe: Path, data: Path, sh: Run, processes: int) -> None:
    (recipe / "tiny.conf").write_text("--type=xvector\n--channels=16\n--stats-channels=24\n--embedding-dim=12\n")
    (recipe / "shared.py").write_text(SCRIPT)
    alone = sh("python3", "shared.py", "alone").stdout
    together = sh("local/launch.sh", 1, 1, processes, "exp", "shared.py", "shared").stdout
    found = re.findall(r"process (\d): (\d+) entries, (\d+) read, ([0-9.]+)", alone + together)
    assert sorted(int(rank) for rank, *_ in found) == sorted([0, *range(processes)])
    count = int(found[0][1])
    assert [int(each[2]) for each in found] == [count] + [-(-count // processes)] * processes
    assert len({each[3] for each in found[1:]}) == 1
    plain = np.load(recipe / "alone.0.npy")
    assert len(plain) == count
    for rank in range(processes):
        np.testing.assert_allclose(np.load(recipe / f"shared.{rank}.npy"), plain, rtol=1e-5, atol=1e-6)
