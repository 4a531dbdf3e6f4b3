"""Verbs of pretraining, its evaluation, and weights in and out."""

import contextlib
import os
import sys
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
    checked,
    section_of,
    setting,
)

PairsFile = Annotated[Path, typer.Option(help="made by `pri3d pairs`")]
CloudsFolder = Annotated[Path, typer.Option(help="folder with <scene>.h5 made by `pri3d clouds`")]
ChunksFolder = Annotated[
    Path, typer.Option(help="folder with <scene>.h5 made by `pri3d chunks`; read for geo and joint")
]


@app.command()
def pretrain(
    mode: Annotated[
        config.ModeName,
        typer.Option(
            help="what is compared. For a 2D network: view (views of a place), geo (an image and "
            "the surface), joint (both); moco (crops of an image, the baseline). For a 3D network: "
            "ppkt (points and pixels of a frozen 2D network), pointcontrast (two clouds); "
            "global_kd, crd, gupta (whole frames, baselines)"
        ),
    ] = "joint",
    pairs: PairsFile = Path("results/pairs.h5"),
    clouds: CloudsFolder = Path("results/clouds"),
    chunks: ChunksFolder = Path("results/chunks"),
    out: Annotated[
        Path | None, typer.Option(help="folder of the run; default: results/runs/<mode>")
    ] = None,
    held_out: Annotated[
        list[str], typer.Option(metavar="SCENE", help="a scene that is not trained on")
    ] = [],  # noqa: B006
    scene: Annotated[
        list[str],
        typer.Option(
            metavar="SCENE",
            help="a scene to train on, for ppkt, global_kd, crd and gupta, which read no pairs; "
            "default: all in --clouds",
        ),
    ] = [],  # noqa: B006
    engine: Annotated[
        Literal["auto", "torch", "triton", "minkowski"], setting(DEFAULT.sparse, "engine")
    ] = DEFAULT.sparse.engine,
    config_file: ConfigFile = None,
    assigned: Assigned = [],  # noqa: B006
) -> None:
    """Pretrain a 2D network, a 3D network, or both, without labels.

    A run that was stopped goes on from its last checkpoint. Prints its last figures.
    """
    settings = section_of(mode, config_file, assigned)
    out = out or Path("results/runs", mode)
    if settings.processes > 1 and "RANK" not in os.environ:
        from pri3d.run.launch import launch

        raise typer.Exit(launch(sys.argv[1:], settings.processes))
    from pri3d import store
    from pri3d.pretrain import train

    lead = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    with store.sole_writer(out) if lead else contextlib.nullcontext():
        train.run(pairs, clouds, chunks, out, mode, settings, engine, held_out, scene)
    if lead:
        print((out / "metrics.jsonl").read_text().splitlines()[-1])


@app.command()
def evaluate(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="a folder that pretrain or finetune has filled")
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="finetuned: folder of the labelled data set; its validation split"),
    ] = None,
    most_images: Annotated[
        int | None, typer.Option(min=1, help="finetuned: so many images (clouds), spread over all")
    ] = None,
    pictures: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="finetuned on images: number of pictures of predictions, in <OUT>_pictures/; "
            "default: 6",
        ),
    ] = None,
    submission: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="finetuned: predictions for ScanNet's benchmark"),
    ] = None,
    split: Annotated[
        Literal["val", "test"],
        typer.Option(help="finetuned: test has no labels, it is for --submission"),
    ] = "val",
    held_out: Annotated[
        list[str],
        typer.Option(metavar="SCENE", help="pretrained: a scene that RUN was not trained on"),
    ] = [],  # noqa: B006
    pairs: PairsFile = Path("results/pairs.h5"),
    clouds: CloudsFolder = Path("results/clouds"),
    chunks: ChunksFolder = Path("results/chunks"),
    out: Annotated[
        Path | None, typer.Option(help="default: results/evaluation/<name of RUN>.json")
    ] = None,
    max_pairs: Annotated[int, setting(DEFAULT.evaluate, "max_pairs")] = DEFAULT.evaluate.max_pairs,
    matches: Annotated[int, setting(DEFAULT.evaluate, "matches")] = DEFAULT.evaluate.matches,
    radius: Annotated[float, setting(DEFAULT.evaluate, "radius_m")] = DEFAULT.evaluate.radius_m,
    seed: Annotated[int, setting(DEFAULT.evaluate, "seed")] = DEFAULT.evaluate.seed,
    engine: Annotated[
        Literal["auto", "torch", "triton", "minkowski"], setting(DEFAULT.sparse, "engine")
    ] = DEFAULT.sparse.engine,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Measure a network: a finetuned one on labels (--data), a pretrained one without (--held-out).

    Pretrained: how well it finds matches in scans that it has not seen; recall at 1, 3 and 5 cells,
    before and after pretraining, and by chance. Finetuned: IoU of each class by two rules, or
    average precision by two rules. Prints a line a figure and writes all as JSON.
    """
    out = out or Path("results/evaluation", f"{run.resolve().name}.json")
    if data is not None and held_out:
        raise typer.BadParameter("--held-out is for pretrained networks, --data for finetuned ones")
    if data is None and (submission or most_images or split != "val"):
        raise typer.BadParameter("--submission, --most-images and --split need --data")
    if data is not None:
        from pri3d.run.folder import read_run

        task = read_run(run).task
        wrong = task and config.inapplicable_option(
            task, split=split, submission=submission is not None, pictures=pictures is not None
        )
        if wrong:
            raise typer.BadParameter(wrong)
        from pri3d.finetune import evaluate as measuring

        options = measuring.Options(split, most_images, pictures, submission)
        result = measuring.run(run, data, out, options, device, threads, engine)
        print(*measuring.summary(result), sep="\n")
        return
    settings = checked("evaluate", max_pairs=max_pairs, matches=matches, radius_m=radius, seed=seed)
    from pri3d.pretrain import evaluate as stage

    result = stage.run(run, pairs, clouds, chunks, out, held_out, settings, engine, device, threads)
    for kind in result["after"]:
        for name in ("recall_1", "recall_3", "recall_5", "top1"):
            before, after, chance = (
                100 * result[when][kind][name] for when in ("before", "after", "chance")
            )
            print(f"{kind} {name}: {before:.2f} % -> {after:.2f} % (chance {chance:.2f} %)")


@app.command()
def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_FILE",
            help="folder of a run (its final weights, else its newest checkpoint), or a file of "
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
    """Write weights in the form of another library. Prints what was written, and what not.

    What is exported and imported again is the same bit by bit.
    """
    from pri3d.weights import convert

    print(*convert.export(source, out, to), sep="\n  ")


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="a checkpoint of Pri3D or PointContrast's family, or a ResNet-18, -34 or -50 of "
            "torchvision, timm, MoCo v2 or detectron2; the names in it tell which",
        ),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT.safetensors", help="the same under Pri3D's names")
    ],
) -> None:
    """Read weights of other libraries. Prints what was read, and what not.

    `pri3d pretrain` takes such files as they are, by its settings initial_weights_2d and initial_weights_3d.
    """
    from pri3d.weights import convert

    print(*convert.import_file(file, out), sep="\n  ")
