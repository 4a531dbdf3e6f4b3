"""The verbs of finetuning, linear probes and predictions."""

from pathlib import Path
from typing import Annotated

import typer

from pri3d import config
from pri3d.cli.options import (
    DEFAULT,
    Assigned,
    ConfigFile,
    Device,
    Engine,
    Threads,
    app,
    assigned_values,
    existing_folder,
    existing_weights,
    known,
    listing,
    setting,
    settings_file,
)
from pri3d.cli.training import train
from pri3d.errors import Pri3DError

_PROBED = [name for name in config.TASKS if config.kind_of(name).probe]
DataFolder = Annotated[Path, typer.Option(help="folder of the labeled data set")]


_HELP = f"""Finetune a network on labeled data.

`--set initial_weights=RUN` loads the weights of a pretraining run. A share of the labels:
`--set percent=20`. A linear probe: `--set frozen=true`. A stopped run resumes from its last
checkpoint. Prints the last line of its metrics.

{listing("Tasks:", {name: config.kind_of(name).summary for name in config.TASKS})}
"""


@app.command(help=_HELP)
def finetune(
    task: Annotated[str, typer.Argument(metavar="TASK", help="one of the tasks above")],
    data: DataFolder,
    out: Annotated[
        Path | None, typer.Option(help="folder of the run; default: results/runs/<task>")
    ] = None,
    weights_name: Annotated[
        str,
        typer.Option(metavar="NAME", help="name of the initial weights in tables of the report"),
    ] = "",
    engine: Annotated[Engine, setting(DEFAULT.sparse, "engine")] = DEFAULT.sparse.engine,
    config_file: ConfigFile = None,
    assigned: Assigned = [],  # noqa: B006
) -> None:
    settings = _task_settings(task, config_file, assigned, data)
    out = out or Path("results/runs", task)

    def run() -> None:
        from pri3d.finetune import train as stage

        stage.run(task, data, out, settings, engine, weights_name or None)

    train(out, settings.processes, run)


@app.command()
def probe(
    task: Annotated[str, typer.Argument(metavar="TASK", help=", ".join(_PROBED))],
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="JSON file to write")] = Path("probe.json"),
    config_file: ConfigFile = None,
    assigned: Assigned = [],  # noqa: B006
) -> None:
    """Classify frozen features of images.

    Labeled feature cells of validation images are classified by their 20 nearest neighbors among
    cells of training images, and by the linear classifier that fits these best. It takes minutes.
    No network is trained. `--set initial_weights=RUN` names the network. Prints both results.
    """
    known("task to probe", task, _PROBED)
    settings = _task_settings(task, config_file, assigned, data)
    assert isinstance(settings, config.Semseg)
    from pri3d.finetune import probe as stage

    result = stage.run(task, data, out, settings, settings.threads)
    for name, title in (("knn", "nearest neighbors"), ("linear", "linear classifier")):
        measured = result[name]
        print(
            f"{task}, {title}: mIoU {100 * measured['mean_iou']:.2f} %, "
            f"accuracy {100 * measured['accuracy']:.2f} %"
        )


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finetuning on images")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="JPEG or PNG")],
    out: Annotated[Path, typer.Option(help="folder for the predictions")] = Path("predictions"),
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Predict labels or objects of images.

    Writes <name>_labels.png (ids of the data set) or <name>_objects.json (as COCO's results), and
    <name>_predicted.jpg to look at. Prints one line per image.
    """
    from pri3d.run.folder import read_run

    finetuned = read_run(existing_folder(run, "give the folder of a finetuning run"))
    if finetuned.task is None or config.kind_of(finetuned.task).unit != "images":
        raise Pri3DError(f"{run}: is no finetuning on images; give the folder of one")
    if not any(image.exists() for image in images):
        raise Pri3DError(f"{images[0]}: no such file; give JPEG or PNG files")
    from pri3d.finetune import predict as stage

    for line in stage.run(run, images, out, device, threads):
        print(line)


def _task_settings(
    task: str, config_file: Path | None, assigned: list[str], data: Path
) -> config.Task:
    """The settings of a task, after checking the paths that it reads."""
    known("task", task, config.TASKS)
    raw, changes = settings_file(config_file), assigned_values(assigned)
    try:
        settings = config.task_settings(raw, task, changes)
    except Pri3DError as error:
        raise typer.BadParameter(str(error)) from None
    existing_folder(data, "give the folder of the labeled data set with --data")
    setting_name = f"{config.TASKS[task].kind}.initial_weights"
    existing_weights(setting_name, settings.initial_weights, or_run=True)
    return settings
