"""One process or several: what torchrun says in the environment, and on which device this one works."""

import os
from dataclasses import dataclass

import torch
import torch.distributed


@dataclass(frozen=True)
class World:
    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Over the processes."""
        if self.size > 1:
            value = value.clone()
            torch.distributed.all_reduce(value)
        return value / self.size

    def barrier(self) -> None:
        if self.size > 1:
            torch.distributed.barrier()

    def close(self) -> None:
        if self.size > 1:
            torch.distributed.destroy_process_group()


def start(device: str = "auto") -> World:
    """device: auto (a GPU for each process where there are GPUs), cpu, or cuda."""
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device={device} is none of auto cpu cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device=cuda: PyTorch sees no GPU here (nvidia-smi tells why); --device=cpu works anywhere")
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        local = int(os.environ.get("LOCAL_RANK", 0))
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"process {local} of this machine has no GPU of its own ({torch.cuda.device_count()} there)"
            )
        torch.cuda.set_device(local)
    if size > 1:
        torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
    return World(rank, size, torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu"))
