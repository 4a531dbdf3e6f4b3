"""Verbs from raw scans to pairs and chunks."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pri3d.cli.options import DEFAULT, app, checked, setting
from pri3d.errors import Pri3DError

sens = typer.Typer(help="Look into a .sens file.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(sens, name="sens")

SensFile = Annotated[Path, typer.Argument(metavar="SCAN.sens", help="a scan in ScanNet's format")]
CloudsFile = Annotated[Path, typer.Argument(metavar="CLOUDS.h5", help="made by `pri3d clouds`")]
OutFile = Annotated[Path, typer.Argument(metavar="OUT.h5", help="the artefact to write")]


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="folder to make; one folder a scan inside")],
    scene: Annotated[str | None, typer.Option(help="make this scan only")] = None,
    scans: Annotated[int, setting(DEFAULT.demo, "scans")] = DEFAULT.demo.scans,
    seed: Annotated[int, setting(DEFAULT.demo, "seed")] = DEFAULT.demo.seed,
    frames: Annotated[int, setting(DEFAULT.demo, "frames")] = DEFAULT.demo.frames,
    height: Annotated[int, setting(DEFAULT.demo, "height")] = DEFAULT.demo.height,
    color_height: Annotated[int, setting(DEFAULT.demo, "color_height")] = DEFAULT.demo.color_height,
    noise: Annotated[bool, setting(DEFAULT.demo, "noise")] = DEFAULT.demo.noise,
) -> None:
    """Make procedural scans of furnished rooms, with labels, in ScanNet's formats."""
    settings = checked(
        "demo",
        scans=scans,
        seed=seed,
        frames=frames,
        height=height,
        color_height=color_height,
        noise=noise,
    )
    from pri3d import demo as stage

    stage.make(out, settings, scene)


@sens.command()
def info(
    scan: SensFile,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object, nothing else")] = False,
) -> None:
    """Tell what a scan holds, and which of its frames cannot be used and why."""
    from pri3d.sources import export

    found = export.info(scan)
    print(json.dumps(found) if as_json else export.format_info(found))


@sens.command("export")
def export_scan(
    scan: SensFile,
    out: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="folder to write into")],
    every: Annotated[int, typer.Option(min=1, help="write every n-th frame")] = 1,
) -> None:
    """Write colour, depth, pose and intrinsic files, named as ScanNet's tools name them."""
    from pri3d.sources import export

    for problem in export.export(scan, out, every):
        print(f"pri3d: {scan}: {export.format_problem(problem)}", file=sys.stderr)


@app.command()
def clouds(
    scan: SensFile,
    out: OutFile,
    every: Annotated[int, setting(DEFAULT.frames, "every")] = DEFAULT.frames.every,
    max_depth: Annotated[
        float | None, setting(DEFAULT.frames, "max_depth_m")
    ] = DEFAULT.frames.max_depth_m,
    color_height: Annotated[
        int, setting(DEFAULT.frames, "color_height")
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
    settings = checked("frames", every=every, max_depth_m=max_depth, color_height=color_height)
    from pri3d.stages import clouds as stage

    stage.run(scan, out, settings, keep_going=keep_going)


@app.command()
def overlap(
    clouds: CloudsFile,
    out: OutFile,
    radius: Annotated[float, setting(DEFAULT.overlap, "radius_m")] = DEFAULT.overlap.radius_m,
    rule: Annotated[
        Literal["paper", "official"], setting(DEFAULT.overlap, "rule")
    ] = DEFAULT.overlap.rule,
    threads: Annotated[int, typer.Option(min=1, help="cores to use; the result is the same")] = 1,
) -> None:
    """Count, for each two frames of a scan, the points of one that the other has too."""
    settings = checked("overlap", radius_m=radius, rule=rule)
    from pri3d.stages import overlap as stage

    stage.run(clouds, out, settings, threads=threads)


@app.command()
def pairs(
    overlaps: Annotated[
        list[Path], typer.Argument(metavar="OVERLAP.h5...", help="made by `pri3d overlap`")
    ],
    out: OutFile,
    min_overlap: Annotated[
        float, setting(DEFAULT.pairs, "min_overlap")
    ] = DEFAULT.pairs.min_overlap,
    max_pairs: Annotated[int | None, setting(DEFAULT.pairs, "max_pairs")] = DEFAULT.pairs.max_pairs,
    seed: Annotated[int, setting(DEFAULT.pairs, "seed")] = DEFAULT.pairs.seed,
    missing: Annotated[
        list[str], typer.Option(metavar="SCENE", help="a scene without a scan, for the ledger")
    ] = [],  # noqa: B006
) -> None:
    """Keep the pairs of frames that overlap enough, over all scans."""
    settings = checked("pairs", min_overlap=min_overlap, max_pairs=max_pairs, seed=seed)
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
    voxel: Annotated[float, setting(DEFAULT.chunks, "voxel_m")] = DEFAULT.chunks.voxel_m,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going",
            help="write chunks without voxels, whose status says why, where there is no surface",
        ),
    ] = False,
) -> None:
    """Voxelise a scan's surface, and find what lies in the view frustum's box of each frame."""
    settings = checked("chunks", voxel_m=voxel)
    from pri3d.stages import chunks as stage

    stage.run(clouds, out, settings, surface=surface, keep_going=keep_going)


@app.command()
def correspondences(
    clouds: CloudsFile,
    frame_a: Annotated[int, typer.Argument(help="frame number in the scan")],
    frame_b: Annotated[int, typer.Argument(help="frame number in the scan")],
    out: Annotated[Path, typer.Argument(metavar="OUT.npz", help="a, b: row and column; distance")],
    radius: Annotated[float, setting(DEFAULT.overlap, "radius_m")] = DEFAULT.overlap.radius_m,
) -> None:
    """Write each pixel of frame A that has a point of frame B within the radius, and that pixel."""
    radius = checked("overlap", radius_m=radius).radius_m
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
