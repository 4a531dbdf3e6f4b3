"""The verb of pretraining."""

from pathlib import Path
from typing import Annotated

import typer

from pri3d import config
from pri3d.cli.options import (
    DEFAULT,
    Assigned,
    ConfigFile,
    Engine,
    app,
    assigned_values,
    existing_file,
    existing_folder,
    existing_weights,
    known,
    listing,
    setting,
    settings_file,
)
from pri3d.cli.training import train
from pri3d.errors import Pri3DError

PairsFile = Annotated[Path, typer.Option(help="made by `pri3d pairs`")]
CloudsFolder = Annotated[Path, typer.Option(help="folder with <scene>.h5 made by `pri3d clouds`")]
_WITH_CHUNKS = " and ".join(name for name, mode in config.MODES.items() if "chunks" in mode.reads)
ChunksFolder = Annotated[
    Path,
    typer.Option(help=f"folder with <scene>.h5 made by `pri3d chunks`; read for {_WITH_CHUNKS}"),
]


_HELP = f"""Pretrain networks without labels.

A stopped run resumes from its last checkpoint. Prints the last line of its metrics.

{listing("Modes:", {name: mode.summary for name, mode in config.MODES.items()})}
"""


@app.command(help=_HELP)
def pretrain(
    mode: Annotated[
        str,
        typer.Option(
            metavar="MODE",
            help="one of the modes above; default: joint, or the mode of --variant",
            show_default=False,
        ),
    ] = "",
    variant: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="name of the run's settings: an entry of `variants` in --config"
        ),
    ] = "",
    pairs: PairsFile = Path("results/pairs.h5"),
    clouds: CloudsFolder = Path("results/clouds"),
    chunks: ChunksFolder = Path("results/chunks"),
    out: Annotated[
        Path | None,
        typer.Option(help="folder of the run; default: results/runs/<variant, or mode>"),
    ] = None,
    held_out: Annotated[
        list[str], typer.Option(metavar="SCENE", help="a scene that is not trained on")
    ] = [],  # noqa: B006
    scene: Annotated[
        list[str],
        typer.Option(
            metavar="SCENE",
            help="a scene to train on, for modes that read no pairs; default: all in --clouds",
        ),
    ] = [],  # noqa: B006
    engine: Annotated[Engine, setting(DEFAULT.sparse, "engine")] = DEFAULT.sparse.engine,
    config_file: ConfigFile = None,
    assigned: Assigned = [],  # noqa: B006
) -> None:
    mode, settings = _mode_and_settings(mode, variant, config_file, assigned)
    out = out or Path("results/runs", variant or mode)
    record = config.MODES[mode]
    existing_folder(clouds, "run `pri3d clouds`, or name the folder with --clouds")
    if "pairs" in record.reads:
        existing_file(pairs, "run `pri3d pairs`, or name the file with --pairs")
    if "chunks" in record.reads:
        existing_folder(chunks, "run `pri3d chunks`, or name the folder with --chunks")
    used = config.used_settings(mode)
    for name in ("initial_weights_2d", "initial_weights_3d", "teacher_weights"):
        if name in used:
            existing_weights(f"pretrain.{name}", getattr(settings, name), or_run=False)

    def run() -> None:
        from pri3d.pretrain import train as stage

        stage.run(
            pairs, clouds, chunks, out, mode, settings, engine, held_out, scene, variant or None
        )

    train(out, settings.processes, run)


def _mode_and_settings(
    mode: str, variant: str, config_file: Path | None, assigned: list[str]
) -> tuple[str, config.Pretrain]:
    """The mode of a pretraining and its settings: a variant's, otherwise the mode's."""
    raw, changes = settings_file(config_file), assigned_values(assigned)
    variants = raw.get("variants") or {}
    if mode:
        known("mode", mode, config.MODES)
    elif variant and variant not in variants:
        known("variant", variant, [*config.MODES, *variants])
    try:
        name = variant if variant in variants else mode or variant or "joint"
        own_mode, settings = config.pretrain_settings(raw, name, changes)
    except Pri3DError as error:
        raise typer.BadParameter(str(error)) from None
    if mode and own_mode != mode:
        raise typer.BadParameter(
            f"--mode {mode}: the variant {variant} has the mode {own_mode}; leave --mode out"
        )
    return own_mode, settings
