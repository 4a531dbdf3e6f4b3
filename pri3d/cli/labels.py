"""Verbs of labelled data: a look at data sets, finetuning, predictions."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from pri3d import config
from pri3d.cli.options import (
    DEFAULT,
    Assigned,
    ConfigFile,
    Device,
    Threads,
    app,
    section_of,
    setting,
)
from pri3d.errors import Pri3DError

data = typer.Typer(help="Labelled data sets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data")


@data.command("check")
def check_data(
    folder: Annotated[Path, typer.Argument(help="ScanNet's labelled frames or scans, or NYUv2")],
    dataset: Annotated[
        Literal["scannet", "nyuv2"] | None, typer.Option(help="default: told from the files")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object, nothing else")] = False,
) -> None:
    """Tell what is there of a labelled data set, what is missing and what for; reads every frame.

    Exit status 1 where a split cannot be used.
    """
    from pri3d.datasets import check

    told = check.check(folder, dataset)
    print(json.dumps(told) if as_json else check.as_text(told))
    empty = [split for split, found in told["splits"].items() if not found["frames"]]
    if empty:
        reasons = "; ".join(told["splits"][split]["problems"][0] for split in empty)
        raise Pri3DError(f"{folder}: cannot be used for {' and '.join(empty)} ({reasons})")


@data.command("split")
def split_data(
    folder: Annotated[Path, typer.Argument(help="ScanNet's labelled frames or scans")],
    out: Annotated[Path, typer.Argument(help="folder to make; data are linked, not copied")],
    percent: Annotated[
        float, typer.Option(min=0, max=100, help="share of the training scans to hold out, in %")
    ] = 21.0,
    seed: Annotated[int, typer.Option(min=0, help="seed of the draw of spaces")] = 0,
) -> None:
    """Hold out part of ScanNet's training scans, to choose settings without its validation split.

    Scans of one space stay together.
    """
    from pri3d.datasets import subsets

    kept, held_out = subsets.split_training(folder, out, percent, seed)
    print(f"{out}: {kept:,} scans to train on, {held_out:,} of other spaces to measure on")


@data.command("demo")
def demo_data(
    dataset: Annotated[
        Literal["scannet", "nyuv2", "scannet3d", "s3dis", "sunrgbd"],
        typer.Argument(help="which look-alike"),
    ],
    out: Annotated[Path, typer.Argument(help="folder to make")],
    scans: Annotated[
        Path,
        typer.Option(help="demo scans, but for nyuv2 and sunrgbd (made by `pri3d demo`)"),
    ] = Path("results/demo"),
    held_out: Annotated[
        list[str], typer.Option(metavar="SCENE", help="a scan for validation, not training")
    ] = [],  # noqa: B006
    scene: Annotated[list[str], typer.Option(help="a scan to take; default all of them")] = [],  # noqa: B006
    every: Annotated[int, typer.Option(min=1, help="every n-th frame of a scan, for scannet")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="seed of the rooms, for nyuv2, sunrgbd")] = 0,
) -> None:
    """Write a look-alike of a labelled data set from procedural rooms, in the published formats."""
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


@app.command()
def finetune(
    task: Annotated[
        config.TaskName, typer.Argument(help="what is segmented: images, objects or clouds of what")
    ],
    data: Annotated[Path, typer.Option(help="folder of the labelled data set")],
    out: Annotated[
        Path | None, typer.Option(help="folder of the run; default: results/runs/<task>")
    ] = None,
    engine: Annotated[
        Literal["auto", "torch", "triton", "minkowski"], setting(DEFAULT.sparse, "engine")
    ] = DEFAULT.sparse.engine,
    config_file: ConfigFile = None,
    assigned: Assigned = [],  # noqa: B006
) -> None:
    """Finetune a network on labels. `--set init=RUN` starts from a pretraining run.

    A run that was stopped goes on from its last checkpoint. Prints its last figures. A share of
    the labels: `--set percent=20`. A linear probe: `--set frozen=true`.
    """
    settings = section_of(task, config_file, assigned)
    out = out or Path("results/runs", task)
    from pri3d import store
    from pri3d.finetune import train

    with store.sole_writer(out):
        train.run(task, data, out, settings, engine)
    print((out / "metrics.jsonl").read_text().splitlines()[-1])


@app.command()
def probe(
    task: Annotated[
        Literal["semseg_scannet", "semseg_nyuv2"],
        typer.Argument(help="whose classes are asked for"),
    ],
    data: Annotated[Path, typer.Option(help="folder of the labelled data set")],
    out: Annotated[Path, typer.Option(help="JSON to write")] = Path("probe.json"),
    config_file: ConfigFile = None,
    assigned: Assigned = [],  # noqa: B006
) -> None:
    """Ask what frozen features know of the classes; takes minutes, and trains no network.

    Labelled places of unseen images are classified by their 20 nearest neighbours among places of
    the training images, and by the linear classifier that fits those best. `--set init=RUN` names
    the features. Prints both figures.
    """
    settings = section_of(task, config_file, assigned)
    from pri3d.finetune import probe as stage

    told = stage.run(task, data, out, settings, settings.threads)
    for name, said in (("knn", "nearest neighbours"), ("linear", "linear classifier")):
        figures = told[name]
        print(
            f"{task}, {said}: mIoU {100 * figures['mean_iou']:.2f} %, places right "
            f"{100 * figures['accuracy']:.2f} %"
        )


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a folder that finetune has filled")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="JPEG or PNG")],
    out: Annotated[Path, typer.Option(help="folder for the predictions")] = Path("predictions"),
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Use a finetuned network on pictures.

    Writes <name>_labels.png (ids of the data set) or <name>_objects.json (COCO's results), and a
    picture of either, <name>_predicted.jpg. Prints what was found.
    """
    from pri3d.finetune import predict as stage

    for line in stage.run(run, images, out, device, threads):
        print(line)
