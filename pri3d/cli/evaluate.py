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
_FINETUNED = ("data", "split", "max_samples", "pictures", "submission")


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
        int | None,
        typer.Option(
            min=0,
            help="finetuned on images: number of pictures of predictions, in <OUT>_pictures/; "
            "default: 6",
        ),
    ] = None,
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
    if problem := _inapplicable(context, run, trained.mode, task):
        raise typer.BadParameter(problem)
    out = out or Path("results/evaluation", f"{trained.name}.json")
    if task is None:
        existing_file(pairs, "run `pri3d pairs`, or name the file with --pairs")
        existing_folder(clouds, "run `pri3d clouds`, or name the folder with --clouds")
        if trained.mode is not None and "chunks" in config.MODES[trained.mode].reads:
            existing_folder(chunks, "run `pri3d chunks`, or name the folder with --chunks")
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
    from pri3d.finetune import evaluate as finetuned

    options = finetuned.Options(split, max_samples, pictures, submission)
    result = finetuned.run(run, data, out, options, device, threads, engine)
    print(*finetuned.summary(result), sep="\n")


def _inapplicable(
    context: typer.Context, run: Path, mode: str | None, task: str | None
) -> str | None:
    """The message about given options that do not apply to a run, or None."""
    given = [name for name in context.params if _is_given(context, name)]
    if task is None:
        wrong = [name for name in given if name in _FINETUNED]
        what = f"a pretraining run ({mode})"
    else:
        wrong = [name for name in given if name in _PRETRAINED]
        what = f"a finetuning run ({task}: {config.kind_of(task).summary})"
    if wrong:
        do = "does" if len(wrong) == 1 else "do"
        return f"{run} is {what}; {', '.join(map(_flag, wrong))} {do} not apply to it"
    if task is None:
        return None
    problem = config.inapplicable_option(
        task,
        split=context.params["split"],
        submission="submission" in given,
        pictures="pictures" in given,
    )
    return problem and f"{run} is {what}; {problem}"


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


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
