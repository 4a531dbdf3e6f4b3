"""The command line: one verb a stage. A stage is imported only when its verb is called.

Exit status: 0 done; 1 the work could not be done (one line on stderr); 2 wrong usage; 130
interrupted. Results of `--json` go to stdout, everything else to stderr.
"""

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pri3d import config
from pri3d.errors import Pri3DError

app = typer.Typer(
    help="Raw RGB-D scans in, contrastively pretrained 2D and 3D backbones out. "
    "Each verb reads files and writes one; Snakemake runs them all.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
sens = typer.Typer(help="Look into a .sens file.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(sens, name="sens")

DEFAULT = config.Settings()


def main() -> None:
    try:
        app(prog_name="pri3d")
    except Pri3DError as error:
        _fail(str(error))
    except MemoryError:
        _fail("out of memory; use a machine with more of it, or fewer --threads")
    except OSError as error:  # no space, no permission, a disk that went away
        where = error.filename or "a damaged artefact (`pri3d verify` tells which)"
        _fail(f"{where}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> None:
    print("pri3d:", " ".join(message.split()), file=sys.stderr)
    sys.exit(1)


def _flag(field: str) -> str:
    """`radius_m` is the flag `--radius`: its help names the unit."""
    return "--" + field.removesuffix("_m").replace("_", "-")


def _setting(section: config.Section, field: str) -> Any:
    """The option of one setting, described as the typed settings describe it."""
    flag = _flag(field)
    if isinstance(getattr(section, field), bool):
        flag += "/--no-" + flag[2:]
    return typer.Option(flag, help=type(section).model_fields[field].description)


def _settings(section: str, **values: Any) -> Any:
    """A checked section of the settings; a bad value is wrong usage."""
    try:
        return getattr(config.parse({section: values}), section)
    except Pri3DError as error:
        raise typer.BadParameter(str(error)) from None


def options(section: config.Section, leave_out: Collection[str] = ()) -> str:
    """A section of the settings as the options of its verb, quoted for a shell."""
    words = []
    for field, value in section.model_dump(exclude=set(leave_out)).items():
        if isinstance(value, bool):
            words.append(_flag(field) if value else "--no-" + _flag(field)[2:])
        elif value is not None:
            words += [_flag(field), str(value)]
    return shlex.join(words)


def assignments(
    section: config.Section, leave_out: Collection[str] = (), only: Collection[str] | None = None
) -> str:
    """A section of the settings, or some of it, as `--set key=value ...`, quoted for a shell."""
    chosen = section.model_dump(exclude=set(leave_out), include=only and set(only))
    pairs = (f"{key}={json.dumps(value)}" for key, value in chosen.items())
    return " ".join(f"--set {shlex.quote(pair)}" for pair in pairs)


SensFile = Annotated[Path, typer.Argument(metavar="SCAN.sens", help="a scan in ScanNet's format")]
CloudsFile = Annotated[Path, typer.Argument(metavar="CLOUDS.h5", help="made by `pri3d clouds`")]
PairsFile = Annotated[Path, typer.Option(help="made by `pri3d pairs`")]
CloudsFolder = Annotated[Path, typer.Option(help="folder with <scene>.h5 made by `pri3d clouds`")]
ChunksFolder = Annotated[
    Path, typer.Option(help="folder with <scene>.h5 made by `pri3d chunks`; read for geo and joint")
]
OutFile = Annotated[Path, typer.Argument(metavar="OUT.h5", help="the artefact to write")]


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="folder to make; one folder a scan inside")],
    scene: Annotated[str | None, typer.Option(help="make this scan only")] = None,
    scans: Annotated[int, _setting(DEFAULT.demo, "scans")] = DEFAULT.demo.scans,
    seed: Annotated[int, _setting(DEFAULT.demo, "seed")] = DEFAULT.demo.seed,
    frames: Annotated[int, _setting(DEFAULT.demo, "frames")] = DEFAULT.demo.frames,
    height: Annotated[int, _setting(DEFAULT.demo, "height")] = DEFAULT.demo.height,
    color_height: Annotated[
        int, _setting(DEFAULT.demo, "color_height")
    ] = DEFAULT.demo.color_height,
    noise: Annotated[bool, _setting(DEFAULT.demo, "noise")] = DEFAULT.demo.noise,
) -> None:
    """Make procedural scans of furnished rooms, with labels, in ScanNet's formats."""
    settings = _settings(
        "demo",
        scans=scans,
        seed=seed,
        frames=frames,
        height=height,
        color_height=color_height,
        noise=noise,
    )
    from pri3d.scans import demo as stage

    stage.make(out, settings, scene)


@sens.command()
def info(
    scan: SensFile,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object, nothing else")] = False,
) -> None:
    """Tell what a scan holds, and which of its frames cannot be used and why."""
    from pri3d.scans import export

    found = export.info(scan)
    print(json.dumps(found) if as_json else export.format_info(found))


@sens.command("export")
def export_scan(
    scan: SensFile,
    out: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="folder to write into")],
    every: Annotated[int, typer.Option(min=1, help="write every n-th frame")] = 1,
) -> None:
    """Write colour, depth, pose and intrinsic files, named as ScanNet's tools name them."""
    from pri3d.scans import export

    for problem in export.export(scan, out, every):
        print(f"pri3d: {scan}: {export.format_problem(problem)}", file=sys.stderr)


@app.command()
def clouds(
    scan: SensFile,
    out: OutFile,
    every: Annotated[int, _setting(DEFAULT.frames, "every")] = DEFAULT.frames.every,
    max_depth: Annotated[
        float | None, _setting(DEFAULT.frames, "max_depth_m")
    ] = DEFAULT.frames.max_depth_m,
    color_height: Annotated[
        int, _setting(DEFAULT.frames, "color_height")
    ] = DEFAULT.frames.color_height,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going",
            help="write an artefact without frames, whose status says why, where the scan "
            "cannot be read at all",
        ),
    ] = False,
) -> None:
    """Take every n-th frame of a scan: depth, pose and colour of those that can be used."""
    settings = _settings("frames", every=every, max_depth_m=max_depth, color_height=color_height)
    from pri3d.stages import clouds as stage

    stage.run(scan, out, settings, keep_going=keep_going)


@app.command()
def overlap(
    clouds: CloudsFile,
    out: OutFile,
    radius: Annotated[float, _setting(DEFAULT.overlap, "radius_m")] = DEFAULT.overlap.radius_m,
    rule: Annotated[
        Literal["paper", "official"], _setting(DEFAULT.overlap, "rule")
    ] = DEFAULT.overlap.rule,
    threads: Annotated[int, typer.Option(min=1, help="cores to use; the result is the same")] = 1,
) -> None:
    """Count, for each two frames of a scan, the points of one that the other has too."""
    settings = _settings("overlap", radius_m=radius, rule=rule)
    from pri3d.stages import overlap as stage

    stage.run(clouds, out, settings, threads=threads)


@app.command()
def pairs(
    overlaps: Annotated[
        list[Path], typer.Argument(metavar="OVERLAP.h5...", help="made by `pri3d overlap`")
    ],
    out: OutFile,
    min_overlap: Annotated[
        float, _setting(DEFAULT.pairs, "min_overlap")
    ] = DEFAULT.pairs.min_overlap,
    max_pairs: Annotated[
        int | None, _setting(DEFAULT.pairs, "max_pairs")
    ] = DEFAULT.pairs.max_pairs,
    seed: Annotated[int, _setting(DEFAULT.pairs, "seed")] = DEFAULT.pairs.seed,
    missing: Annotated[
        list[str], typer.Option(metavar="SCENE", help="a scene without a scan, for the ledger")
    ] = [],  # noqa: B006
) -> None:
    """Keep the pairs of frames that overlap enough, over all scans."""
    settings = _settings("pairs", min_overlap=min_overlap, max_pairs=max_pairs, seed=seed)
    from pri3d.stages import pairs as stage

    stage.run(overlaps, out, settings, missing=missing)


@app.command()
def chunks(
    clouds: CloudsFile,
    out: OutFile,
    surface: Annotated[
        Path | None,
        typer.Option(metavar="MESH.ply", help="the scan's surface; default: fused from its depth"),
    ] = None,
    voxel: Annotated[float, _setting(DEFAULT.chunks, "voxel_m")] = DEFAULT.chunks.voxel_m,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going",
            help="write chunks without voxels, whose status says why, where there is no surface",
        ),
    ] = False,
) -> None:
    """Voxelise a scan's surface, and find what lies in the view frustum's box of each frame."""
    settings = _settings("chunks", voxel_m=voxel)
    from pri3d.stages import chunks as stage

    stage.run(clouds, out, settings, surface=surface, keep_going=keep_going)


@app.command()
def correspondences(
    clouds: CloudsFile,
    frame_a: Annotated[int, typer.Argument(help="frame number in the scan")],
    frame_b: Annotated[int, typer.Argument(help="frame number in the scan")],
    out: Annotated[Path, typer.Argument(metavar="OUT.npz", help="a, b: row and column; distance")],
    radius: Annotated[float, _setting(DEFAULT.overlap, "radius_m")] = DEFAULT.overlap.radius_m,
) -> None:
    """Write each pixel of frame A that has a point of frame B within the radius, and that pixel."""
    radius = _settings("overlap", radius_m=radius).radius_m
    import numpy as np

    from pri3d import artefacts, store
    from pri3d.matching.correspondences import nearest

    with artefacts.Clouds(clouds) as scan:
        view_a, view_b = (scan.view(_row(scan, frame)) for frame in (frame_a, frame_b))
        a, b, distance = nearest(view_a, view_b, radius)
    with store.atomic_path(out) as temporary, open(temporary, "wb") as file:
        np.savez(file, a=a, b=b, distance=distance)


def _row(scan: Any, frame: int) -> int:
    rows = (scan.index == frame).nonzero()[0]
    if not len(rows):
        reason = dict(scan.dropped).get(frame, "not among those that `every` selects")
        raise Pri3DError(f"{scan.path}: has no frame {frame} ({reason}); give one that was kept")
    return int(rows[0])


@app.command()
def pretrain(
    mode: Annotated[
        Literal["view", "geo", "joint", "moco"],
        typer.Option(
            help="what is compared: views of a place, an image and the surface, or both; moco: "
            "crops of an image (the 2D baseline)"
        ),
    ] = "joint",
    pairs: PairsFile = Path("results/pairs.h5"),
    clouds: CloudsFolder = Path("results/clouds"),
    chunks: ChunksFolder = Path("results/chunks"),
    out: Annotated[
        Path | None, typer.Option(help="folder of the run; default: results/runs/<mode>")
    ] = None,
    held_out: Annotated[
        list[str], typer.Option(metavar="SCENE", help="a scene whose pairs are not trained on")
    ] = [],  # noqa: B006
    engine: Annotated[
        Literal["torch", "minkowski"], _setting(DEFAULT.sparse, "engine")
    ] = DEFAULT.sparse.engine,
    config_file: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE.yaml", help="settings; its section `pretrain`"),
    ] = None,
    assigned: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="a setting of `pretrain`, over the file's"),
    ] = [],  # noqa: B006
) -> None:
    """Pretrain a 2D network (and, for geo and joint, a 3D network) on pairs of frames.

    A run that was stopped goes on from its last checkpoint. Prints its last figures.
    """
    given = config.load(config_file).pretrain.model_dump() if config_file else {}
    settings = _settings("pretrain", **given | dict(map(_assignment, assigned)))
    out = out or Path("results/runs", mode)
    if settings.processes > 1 and "RANK" not in os.environ:
        from pri3d.launch import launch

        raise typer.Exit(launch(sys.argv[1:], settings.processes))
    from pri3d import store, training

    lead = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    with store.sole_writer(out) if lead else contextlib.nullcontext():
        training.run(pairs, clouds, chunks, out, mode, settings, engine, held_out)
    if lead:
        print((out / "metrics.jsonl").read_text().splitlines()[-1])


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a folder that pretrain has filled")],
    held_out: Annotated[
        list[str], typer.Option(metavar="SCENE", help="a scene that RUN was not trained on")
    ],
    pairs: PairsFile = Path("results/pairs.h5"),
    clouds: CloudsFolder = Path("results/clouds"),
    chunks: ChunksFolder = Path("results/chunks"),
    out: Annotated[
        Path | None, typer.Option(help="default: results/evaluation/<name of RUN>.json")
    ] = None,
    most_pairs: Annotated[
        int, _setting(DEFAULT.evaluate, "most_pairs")
    ] = DEFAULT.evaluate.most_pairs,
    matches: Annotated[int, _setting(DEFAULT.evaluate, "matches")] = DEFAULT.evaluate.matches,
    radius: Annotated[float, _setting(DEFAULT.evaluate, "radius_m")] = DEFAULT.evaluate.radius_m,
    seed: Annotated[int, _setting(DEFAULT.evaluate, "seed")] = DEFAULT.evaluate.seed,
    engine: Annotated[
        Literal["torch", "minkowski"], _setting(DEFAULT.sparse, "engine")
    ] = DEFAULT.sparse.engine,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], _setting(DEFAULT.pretrain, "device")
    ] = DEFAULT.pretrain.device,
    threads: Annotated[
        int, typer.Option(min=0, help="threads on the CPU; 0 leaves it to torch")
    ] = 0,
) -> None:
    """Measure how well a pretrained network finds matches in scans that it has not seen.

    No labels are needed. Recall at 1, 3 and 5 cells, before and after pretraining, and by chance;
    prints a line a figure and writes all as JSON.
    """
    settings = _settings(
        "evaluate", most_pairs=most_pairs, matches=matches, radius_m=radius, seed=seed
    )
    from pri3d import evaluate as stage

    out = out or Path("results/evaluation", f"{run.resolve().name}.json")
    result = stage.run(run, pairs, clouds, chunks, out, held_out, settings, engine, device, threads)
    for kind in result["after"]:
        for name in ("recall_1", "recall_3", "recall_5", "top1"):
            before, after, chance = (
                100 * result[when][kind][name] for when in ("before", "after", "chance")
            )
            print(f"{kind} {name}: {before:.2f} % -> {after:.2f} % (chance {chance:.2f} %)")


def _assignment(text: str) -> tuple[str, Any]:
    import yaml

    key, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--set takes KEY=VALUE, not {text!r}")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise typer.BadParameter(f"--set {text}: the value is no YAML ({error})") from None


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

    `pri3d pretrain` takes such files as they are, by its settings init2d and init3d.
    """
    from pri3d.weights import convert

    print(*convert.import_file(file, out), sep="\n  ")


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="folder with the artefacts")] = Path("results"),
    out: Annotated[Path | None, typer.Option(help="default: RESULTS/report/index.html")] = None,
) -> None:
    """Draw what was made, and what was left out and why, as one self-contained page."""
    from pri3d import report as stage

    stage.run(results, out or results / "report" / "index.html")


@app.command()
def verify(
    artefacts: Annotated[
        list[Path],
        typer.Argument(metavar="ARTEFACT...", help="files made by the verbs above, or a run"),
    ],
    deep: Annotated[
        bool, typer.Option("--deep", help="recount everything, not samples (slow)")
    ] = False,
) -> None:
    """Check artefacts: checksums, schema, digest, and that their figures recompute."""
    from pri3d.verify import verify as check

    failed = []
    for path in artefacts:
        try:
            print(f"{path}: good", *check(path, deep=deep), sep="\n  ")
        except Pri3DError as error:
            failed.append(str(error))
    if failed:
        raise Pri3DError("; ".join(failed))


@app.command(hidden=True)
def schema() -> None:
    """Print the JSON schema of config.yaml."""
    print(json.dumps(config.json_schema(), indent=2))


if __name__ == "__main__":
    main()
