"""Networks before their training: initial weights that all processes share, device, batch norm."""

import torch
from torch import nn

from pri3d.errors import Pri3DError
from pri3d.models.sync_batch_norm import synchronize_batch_norm
from pri3d.run import processes
from pri3d.run.checkpoint import State
from pri3d.run.folder import InitialWeights
from pri3d.run.processes import Processes


def recorded_weights(state: State) -> dict[str, InitialWeights]:
    """Network -> initial weights of the run that a checkpoint belongs to."""
    recorded = state["initial_weights"]
    return {network: InitialWeights.from_json(fields) for network, fields in recorded.items()}


def check_same_weights(initial_weights: dict[str, InitialWeights], section: str) -> None:
    """Check that all processes have loaded the same initial weights.

    Raises:
        Pri3DError: they have not; `section` is that of the settings, for the message.
    """
    if any(other != initial_weights for other in processes.gather(initial_weights)):
        raise Pri3DError(
            f"{section}: the processes have different initial weights; put the files where all "
            "machines find them"
        )


def on_device(nets: nn.ModuleDict, here: Processes, sync_bn: bool) -> nn.ModuleDict:
    """The networks on their device, on request with batch norm over all processes."""
    nets = nets.to(here.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if sync_bn:
        for name, net in nets.items():
            if name != "teacher":  # it is frozen
                synchronize_batch_norm(net)
    return nets


def compile_2d(nets: nn.ModuleDict) -> None:
    """Compile the 2D network: the parts that are called as modules, in place."""
    backbone = nets["backbone"] if "backbone" in nets else nets["model"].get_submodule("backbone")
    if isinstance(backbone, nn.ModuleDict):  # an encoder, whose stages are called one by one
        parts = list(backbone["encoder"].children())
    else:
        parts = [backbone]
    for part in parts:
        part.compile()
