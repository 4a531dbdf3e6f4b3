"""How a training is computed: settings that do not change what comes out."""

from typing import Literal

from pydantic import Field

from pri3d.config.section import Section


class Training(Section):
    """Shared by pretraining and finetuning. They may change when a run resumes."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto uses a GPU if there is one"
    )
    processes: int = Field(
        1,
        ge=1,
        description="training processes on this machine, one per GPU; they share each batch "
        "(paper: 8)",
    )
    threads: int = Field(
        0, ge=0, description="CPU threads of each training process; 0: torch's default"
    )
    workers: int = Field(
        2,
        ge=0,
        description="data loading processes per training process; 0: the training process loads "
        "the samples itself",
    )
    compile: bool = Field(
        False, description="compile the 2D network (torch.compile; needs a C compiler)"
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(1, ge=1, description="number of most recent checkpoints to keep")
    log_every: int = Field(10, ge=1, description="steps between lines of metrics.jsonl")
    wandb: bool = Field(
        False, description="also log to Weights & Biases (pip install -e '.[wandb]')"
    )


RUNTIME = tuple(Training.model_fields)
