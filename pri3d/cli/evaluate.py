"""The verb that measures a network: pretrained without labels, finetuned with labels."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pri3d import config
from pri3d.cli.options import (
    DEFAULT,
    Device,
    Engine,
    Threads,
    app,
    checked,
    existing_file,
    existing_folder,
    setting,
)
from pri3d.cli.pretrain import ChunksFolder, CloudsFolder, PairsFile

_PRETRAINED = ("held_out", "pairs", "clouds", "chunks", "max_pairs", "matches", "radius", "seed")
# Options of finetuned runs -> the kinds of task that they apply to.
_FINETUNED = {
    "data": tuple(config.KINDS),
    "max_samples": tuple(config.KINDS),
    "pictures": ("semseg", "insseg"),
    "submission": ("semseg", "insseg", "semseg3d"),
    "split": ("semseg", "insseg", "semseg3d"),
}


@app.command()
def evaluate(
    context: typer.Context,
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="folder made by `pri3d pretrain` or `finetune`")
    ],
    out: Annotated[
        Path | None, typer.Option(help="default: results/evaluation/<name of RUN>.json")
    ] = None,
    engine: Annotated[Engine, setting(DEFAULT.sparse, "engine")] = DEFAULT.sparse.engine,
    device: Device = "auto",
    threads: Threads = 0,
    held_out: Annotated[
        list[str],
        typer.Option(metavar="SCENE", help="pretrained: a scene that RUN was not trained on"),
    ] = [],  # noqa: B006
    pairs: PairsFile = Path("results/pairs.h5"),
    clouds: CloudsFolder = Path("results/clouds"),
    chunks: ChunksFolder = Path("results/chunks"),
    max_pairs: Annotated[int, setting(DEFAULT.evaluate, "max_pairs")] = DEFAULT.evaluate.max_pairs,
    matches: Annotated[int, setting(DEFAULT.evaluate, "matches")] = DEFAULT.evaluate.matches,
    radius: Annotated[float, setting(DEFAULT.evaluate, "radius_m")] = DEFAULT.evaluate.radius_m,
    seed: Annotated[int, setting(DEFAULT.evaluate, "seed")] = DEFAULT.evaluate.seed,
    data: Annotated[
        Path | None, typer.Option(help="finetuned: folder of the labeled data set")
    ] = None,
    split: Annotated[
        Literal["val", "test"],
        typer.Option(help="finetuned: test has no labels, it is for --submission"),
    ] = "val",
    max_samples: Annotated[
        int | None,
        typer.Option(min=1, help="finetuned: at most N images, clouds or scenes, evenly spaced"),
    ] = None,
    pictures: Annotated[
        int,
        typer.Option(
            min=0, help="finetuned on images: number of pictures of predictions, in <OUT>_pictures/"
        ),
    ] = 6,
    submission: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="finetuned: write predictions for ScanNet's benchmark"),
    ] = None,
) -> None:
    """Measure a pretrained or a finetuned network.

    Pretrained: the share of correspondences that it finds in scans that it was not trained on;
    recall at 1, 3 and 5 cells, before and after pretraining, and by chance. Finetuned: IoU of each
    class by two rules, or average precision by two rules, on the validation split. Prints one line
    per number and writes all as JSON.
    """
    from pri3d.run.folder import read_run

    trained = read_run(existing_folder(run, "give the folder of a run"))
    task = trained.task
    _check_options(context, run, trained.mode, task)
    out = out or Path("results/evaluation", f"{trained.name}.json")
    if task is None:
        existing_file(pairs, "run `pri3d pairs`, or name the file with --pairs")
        existing_folder(clouds, "run `pri3d clouds`, or name the folder with --clouds")
        settings = checked(
            "evaluate", max_pairs=max_pairs, matches=matches, radius_m=radius, seed=seed
        )
        from pri3d.pretrain import evaluate as stage

        result = stage.run(
            run, pairs, clouds, chunks, out, held_out, settings, engine, device, threads
        )
        print(*_recall_lines(result), sep="\n")
        return
    if data is None:
        raise typer.BadParameter(
            f"{run} is a finetuning run ({task}); give the folder of its labeled data set with "
            "--data"
        )
    existing_folder(data, "give the folder of the labeled data set with --data")
    kind = config.TASKS[task].kind
    if kind == "semseg3d":
        from pri3d.finetune import measure3d

        result = measure3d.run(
            run, data, out, device, threads, max_samples, submission, split, engine
        )
        print(*measure3d.as_lines(result), sep="\n")
    elif kind == "det3d":
        from pri3d.finetune import measure_boxes

        result = measure_boxes.run(run, data, out, device, threads, max_samples, engine)
        print(*measure_boxes.as_lines(result), sep="\n")
    else:
        from pri3d.finetune import measure

        result = measure.run(
            run, data, out, device, threads, max_samples, pictures, submission, split
        )
        print(*measure.as_lines(result), sep="\n")


def _check_options(context: typer.Context, run: Path, mode: str | None, task: str | None) -> None:
    """Refuse options that do not apply to the kind of run.

    Raises:
        typer.BadParameter: such an option is given; the message says what the run is.
    """
    given = {
        name
        for name in context.params
        if context.get_parameter_source(name) is not None
        and context.get_parameter_source(name).name == "COMMANDLINE"
    }
    if task is None:
        applicable, what = set(_PRETRAINED), f"a pretraining run ({mode})"
    else:
        kind = config.TASKS[task].kind
        applicable = {name for name, kinds in _FINETUNED.items() if kind in kinds}
        what = f"a finetuning run ({task}: {config.kind_of(task).summary})"
    special = {*_PRETRAINED, *_FINETUNED}
    if wrong := [_flag(name) for name in context.params if name in given & special - applicable]:
        raise typer.BadParameter(
            f"{run} is {what}; {', '.join(wrong)} {'does' if len(wrong) == 1 else 'do'} not apply"
        )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _recall_lines(result: dict[str, Any]) -> list[str]:
    lines = []
    for kind in result["after"]:
        for name in ("recall_1", "recall_3", "recall_5", "top1"):
            before, after, chance = (
                100 * result[when][kind][name] for when in ("before", "after", "chance")
            )
            lines.append(f"{kind} {name}: {before:.2f} % -> {after:.2f} % (chance {chance:.2f} %)")
    return lines
