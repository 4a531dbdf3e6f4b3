"""The verbs of weights out and in."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pri3d.cli.options import app, existing_file
from pri3d.errors import Pri3DError


@app.command()
def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_FILE",
            help="folder of a run (its final weights, otherwise its last checkpoint), or a file of "
            "weights in any form that `pri3d import` reads",
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help=".pth; .pkl for detectron2; .safetensors for safetensors"
        ),
    ],
    to: Annotated[
        Literal["torchvision", "timm", "detectron2", "published", "minkowski", "safetensors"],
        typer.Option(
            help="torchvision, timm, detectron2: the ResNet encoder; minkowski: the 3D network; "
            "published: all, as a checkpoint of Pri3D's release; safetensors: all"
        ),
    ],
) -> None:
    """Write weights in the form of another library.

    Prints what was written and what was left out. What is exported and imported again is the same
    bit by bit.
    """
    if not source.exists():
        raise Pri3DError(f"{source}: no such run or file; give the folder of a run, or a file")
    from pri3d.weights import convert

    print(*convert.export(source, out, to), sep="\n  ")


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="a checkpoint of Pri3D or PointContrast's family, or a ResNet-18, -34 or -50 of "
            "torchvision, timm, MoCo v2 or detectron2; recognized by the names in it",
        ),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT.safetensors", help="the same under Pri3D's names")
    ],
) -> None:
    """Read weights of other libraries.

    Prints what was read and what was left out. `pri3d pretrain` and `pri3d finetune` also read
    such files directly, by their settings of initial weights.
    """
    existing_file(file, "give a file of weights")
    from pri3d.weights import convert

    print(*convert.import_file(file, out), sep="\n  ")
