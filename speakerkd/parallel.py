"""One process or several, as torchrun's environment says, and the device of this process."""

import contextlib
import ctypes
import os
import time
import warnings
from dataclasses import dataclass
from typing import Any

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
        """The mean over the processes."""
        if self.size > 1:
            value = value.clone()
            torch.distributed.all_reduce(value)
        return value / self.size

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Is a flag set in any process? For decisions that must be the same in all. It does not wait for GPUs."""
        if self.size == 1:
            return flags
        tensor = torch.tensor(flags, dtype=torch.int32)
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
        return tuple(bool(each) for each in tensor)

    def barrier(self) -> None:
        if self.size > 1:
            torch.distributed.barrier()

    def close(self) -> None:
        if self.size > 1:
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
            if self.device.type == "cpu":
                time.sleep(1)  # gloo's threads end a little later; a process that ends before them is aborted (7 in 20)


def device_of_job(name: str, job: int) -> torch.device:
    """Jobs that run side by side share the GPUs that they see, in turn. name: auto, cpu or cuda; job: from 1 on."""
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device={name} is not one of: auto cpu cuda")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("--device=cuda: PyTorch sees no GPU here (nvidia-smi tells why); --device=cpu works anywhere")
    return torch.device("cuda", (job - 1) % torch.cuda.device_count())


def start(device: str = "auto") -> World:
    """device: auto (a GPU for each process if there are GPUs), cpu, or cuda."""
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device={device} is not one of: auto cpu cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device=cuda: PyTorch sees no GPU here (nvidia-smi tells why); --device=cpu works anywhere")
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        local = int(os.environ.get("LOCAL_RANK", 0))
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"process {local} of this machine has no GPU of its own (there are {torch.cuda.device_count()})"
            )
        torch.cuda.set_device(local)
    if size > 1:
        # Filters of width 1 have gradients of other strides on some CPUs. This does no harm, and nobody can change it.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    return World(rank, size, torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu"))


def keep_memory() -> None:
    """Makes glibc keep freed memory for the next tensors. Otherwise it goes back to the kernel, which clears it again.

    For training on CPUs only. A step of skdfe on a small ResNet takes about a fifth less time, but the process keeps the
    largest amount of memory that it ever had. Results don't change.
    """
    settings = {-3: 1 << 30, -1: -1, -2: 1 << 26}  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD (never), M_TOP_PAD of malloc.h
    with contextlib.suppress(OSError, AttributeError):  # a C library without mallopt
        mallopt = ctypes.CDLL(None).mallopt
        for name, value in settings.items():
            mallopt(name, value)


def gather_rows(rows: torch.Tensor, same_loss: bool = True) -> torch.Tensor:
    """The rows of all processes, in the order of their ranks. Each process gives the same number of rows.

    DistributedDataParallel takes the mean of the processes' gradients. With same_loss, every process must compute the same
    loss from the rows; each then knows the gradient of its own rows. Without it, each process may compute its own loss, and
    the gradients are summed over the processes. Both give the gradient of the mean of the processes' losses.
    """
    return _Gather.apply(rows, same_loss) if _several() else rows


def own_rows(count: int) -> slice:
    """The position of this process's `count` rows among those of gather_rows."""
    first = torch.distributed.get_rank() * count if _several() else 0
    return slice(first, first + count)


def mean_over_processes(value: torch.Tensor) -> torch.Tensor:
    """The mean over the processes; its gradient is right under the same conditions."""
    return _Mean.apply(value) if _several() else value


def own_share(rows: torch.Tensor) -> torch.Tensor:
    """The rows of gather_rows that this process gave."""
    if not _several():
        return rows
    return rows.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, same_loss: bool) -> torch.Tensor:
        ctx.same_loss = same_loss
        parts = [
            torch.empty_like(rows, memory_format=torch.contiguous_format)
            for _ in range(torch.distributed.get_world_size())
        ]
        torch.distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        if ctx.same_loss:
            return own_share(gradients[0]) * torch.distributed.get_world_size(), None
        total = gradients[0].contiguous().clone()
        torch.distributed.all_reduce(total)
        return own_share(total), None


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        torch.distributed.all_reduce(value)
        return value / torch.distributed.get_world_size()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]
