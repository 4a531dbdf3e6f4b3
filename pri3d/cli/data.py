"""The verbs of labeled data sets: `pri3d data check|split|demo`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from pri3d.cli.options import DEFAULT, HELP, app, existing_folder
from pri3d.errors import Pri3DError

data = typer.Typer(
    help="Check, split and imitate labeled data sets.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings=HELP,
)
app.add_typer(data, name="data")


@data.command("check")
def check_data(
    folder: Annotated[Path, typer.Argument(help="ScanNet's labeled frames or scans, or NYUv2")],
    dataset: Annotated[
        Literal["scannet", "nyuv2"] | None, typer.Option(help="default: recognized by the files")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object, nothing else")] = False,
) -> None:
    """Report what a labeled data set holds and lacks.

    Reads every frame. Exit status 1 if a split cannot be used.
    """
    existing_folder(folder, "give the folder of a labeled data set")
    from pri3d.datasets import check

    report = check.check(folder, dataset)
    print(json.dumps(report) if as_json else check.as_text(report))
    empty = [split for split, held in report["splits"].items() if not held["frames"]]
    if empty:
        reasons = "; ".join(report["splits"][split]["problems"][0] for split in empty)
        raise Pri3DError(f"{folder}: cannot be used for {' and '.join(empty)} ({reasons})")


@data.command("split")
def split_data(
    folder: Annotated[Path, typer.Argument(help="ScanNet's labeled frames or scans")],
    out: Annotated[Path, typer.Argument(help="folder to make; data are linked, not copied")],
    percent: Annotated[
        float, typer.Option(min=0, max=100, help="share of the training scans to hold out, in %")
    ] = 21.0,
    seed: Annotated[int, typer.Option(min=0, help="seed that draws the spaces")] = 0,
) -> None:
    """Hold out part of ScanNet's training scans.

    For choosing settings without its validation split. Scans of one space stay together.
    """
    existing_folder(folder, "give the folder of ScanNet's labeled frames or scans")
    from pri3d.datasets import subsets

    kept, held_out = subsets.split_training(folder, out, percent, seed)
    print(f"{out}: {kept:,} scans for training, {held_out:,} of other spaces for validation")


@data.command("demo")
def demo_data(
    dataset: Annotated[
        Literal["scannet", "nyuv2", "scannet3d", "s3dis", "sunrgbd"],
        typer.Argument(help="the data set to imitate"),
    ],
    out: Annotated[Path, typer.Argument(help="folder to make")],
    scans: Annotated[
        Path,
        typer.Option(help="demo scans made by `pri3d demo`; not read for nyuv2 and sunrgbd"),
    ] = Path("results/demo"),
    held_out: Annotated[
        list[str], typer.Option(metavar="SCENE", help="a scan for validation, not training")
    ] = [],  # noqa: B006
    scene: Annotated[list[str], typer.Option(help="a scan to use; default: all")] = [],  # noqa: B006
    every: Annotated[int, typer.Option(min=1, help="every n-th frame of a scan, for scannet")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="seed of the rooms, for nyuv2 and sunrgbd")] = 0,
) -> None:
    """Write a look-alike of a labeled data set.

    From synthetic rooms, in the published formats.
    """
    if dataset not in ("nyuv2", "sunrgbd"):
        existing_folder(scans, "run `pri3d demo`, or name the folder with --scans")
    from pri3d.demo import nyuv2, s3dis, scannet, scannet3d, sunrgbd

    rooms = DEFAULT.demo.model_copy(update={"seed": seed})
    if dataset == "scannet":
        scannet.write(out, scans, held_out, every, scene or None)
    elif dataset == "scannet3d":
        scannet3d.write(out, scans, held_out, scene or None)
    elif dataset == "s3dis":
        s3dis.write(out, scans, held_out, scene or None)
    elif dataset == "sunrgbd":
        sunrgbd.write(out, rooms)
    else:
        nyuv2.write(out, rooms)
