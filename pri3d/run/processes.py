"""Several processes that train one network: what they sum, and what they tell each other.

`torchrun` starts them and says through the environment who is who. Without it there is one process,
and everything here does nothing.
"""

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from pri3d.errors import Pri3DError


class Processes(NamedTuple):
    """This process is number `rank` of `size`, and computes on `device`."""

    rank: int
    size: int
    device: torch.device


def start(device: str) -> Processes:
    """Join the processes that `torchrun` started, if it did.

    device: "auto", "cpu" or "cuda" (setting `pretrain.device`); the GPUs of a machine are dealt out
    one a process. Raises Pri3DError where "cuda" is asked for and there is none, or fewer GPUs
    than processes.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cuda" and not gpus:
        raise Pri3DError(
            "device: cuda is asked for and torch sees no GPU here; run it on a machine with one, "
            "or set it to auto or cpu (slow)"
        )
    on_gpu = bool(gpus) and device != "cpu"
    if "RANK" not in os.environ:
        return Processes(0, 1, torch.device("cuda" if on_gpu else "cpu"))
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local = int(os.environ.get("LOCAL_RANK", 0))
    if on_gpu and local >= gpus:
        raise Pri3DError(
            f"pretrain.processes: process {local} of this machine has no GPU of its own, there are "
            f"{gpus}; start as many processes as there are GPUs"
        )
    chosen = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(chosen)
    if not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if on_gpu else "gloo", rank=rank, world_size=size)
        except RuntimeError as error:  # another one has ended, or the network is in the way
            raise Pri3DError(
                f"pretrain.processes: process {rank} cannot reach the others "
                f"({str(error).splitlines()[0]}); look at what they said"
            ) from None
    return Processes(rank, size, chosen)


def stop() -> None:
    """Leave the other processes; nothing is summed from here on."""
    if dist.is_initialized():
        dist.destroy_process_group()


def several() -> bool:
    return dist.is_initialized() and dist.get_world_size() > 1


def sum_over_processes(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in one message for each type."""
    tensors = list(tensors)
    if not several():
        return
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        same = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.reshape(-1) for tensor in same])
        dist.all_reduce(flat)
        for tensor, total in zip(same, flat.split([tensor.numel() for tensor in same])):
            tensor.copy_(total.view_as(tensor))


def gather(value: Any) -> list[Any]:
    """What each process gives, in order of ranks, in every process."""
    if not several():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def move(value: Any, device: torch.device) -> Any:
    """A batch (named tuples, lists and dictionaries of tensors and other things) with all its
    tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if hasattr(value, "_fields"):
        return type(value)(*(move(part, device) for part in value))
    if isinstance(value, list):
        return [move(part, device) for part in value]
    if isinstance(value, dict):
        return {name: move(part, device) for name, part in value.items()}
    return value
