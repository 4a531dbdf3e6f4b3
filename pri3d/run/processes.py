"""Several processes that train one network: who they are, and what they exchange.

`torchrun`, or `pri3d.run.launch`, starts them and numbers them by environment variables. Without
these there is one process, and all sums and gathers return what they are given.
"""

import logging
import os
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from pri3d.errors import Pri3DError

Value = TypeVar("Value")


class Processes(NamedTuple):
    """This process has number `rank` of `size`, and computes on `device`."""

    rank: int
    size: int
    device: torch.device


def start(device: str) -> Processes:
    """Join the other processes, if there are any.

    All but the first log warnings and errors only.

    Args:
        device: auto, cpu or cuda. Each process has a GPU of its own.

    Raises:
        Pri3DError: cuda is requested and there is no GPU, there are fewer GPUs than processes, or
            the other processes cannot be reached.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cuda" and not gpus:
        raise Pri3DError(
            "device: cuda is requested, and torch finds no GPU on this machine; run on a "
            "machine with one, or set it to auto or cpu (slow)"
        )
    on_gpu = bool(gpus) and device != "cpu"
    if "RANK" not in os.environ:
        return Processes(0, 1, torch.device("cuda" if on_gpu else "cpu"))
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local = int(os.environ.get("LOCAL_RANK", 0))
    if on_gpu and local >= gpus:
        raise Pri3DError(
            f"training.processes: process {local} of this machine has no GPU of its own, there are "
            f"{gpus}; start at most one process per GPU"
        )
    if rank:
        logging.getLogger("pri3d").setLevel(logging.WARNING)
    own_device = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(own_device)
    if not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if on_gpu else "gloo", rank=rank, world_size=size)
        except RuntimeError as error:  # another process has ended, or the network is down
            raise Pri3DError(
                f"training.processes: process {rank} cannot reach the others "
                f"({str(error).splitlines()[0]}); look at their messages"
            ) from None
    return Processes(rank, size, own_device)


def stop() -> None:
    """Leave the other processes; nothing is summed after this."""
    if dist.is_initialized():
        dist.destroy_process_group()


def several() -> bool:
    """Whether there are other processes."""
    return dist.is_initialized() and dist.get_world_size() > 1


def sum_over_processes(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over all processes, with one exchange per data type."""
    tensors = list(tensors)
    if not several():
        return
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        same = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.reshape(-1) for tensor in same])
        dist.all_reduce(flat)
        for tensor, total in zip(same, flat.split([tensor.numel() for tensor in same])):
            tensor.copy_(total.view_as(tensor))


def gather(value: Value) -> list[Value]:
    """The values of all processes, in the order of their ranks; the same in every process."""
    if not several():
        return [value]
    values: list[Value | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return cast("list[Value]", values)


def move(value: Any, device: torch.device) -> Any:
    """A batch with all its tensors on a device.

    Args:
        value: nested named tuples, lists and dictionaries of tensors and anything else.
        device: where to move them.
    """
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if hasattr(value, "_fields"):
        return type(value)(*(move(part, device) for part in value))
    if isinstance(value, list):
        return [move(part, device) for part in value]
    if isinstance(value, dict):
        return {name: move(part, device) for name, part in value.items()}
    return value
