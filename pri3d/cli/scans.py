"""Verbs from raw scans to pairs and chunks."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pri3d.cli.options import (
    DEFAULT,
    HELP,
    app,
    checked,
    existing_file,
    setting,
)
from pri3d.errors import Pri3DError

if TYPE_CHECKING:
    from pri3d.artefacts import Clouds

sens = typer.Typer(
    help="Look into a .sens file.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings=HELP,
)
app.add_typer(sens, name="sens")

SensFile = Annotated[Path, typer.Argument(metavar="SCAN.sens", help="a scan in ScanNet's format")]
CloudsFile = Annotated[Path, typer.Argument(metavar="CLOUDS.h5", help="made by `pri3d clouds`")]
OutFile = Annotated[Path, typer.Argument(metavar="OUT.h5", help="the artefact to write")]
_SCAN = "give a .sens file"
_CLOUDS = "make it with `pri3d clouds`"


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="folder to make, with one folder per scan")],
    scene: Annotated[str | None, typer.Option(help="make only this scan")] = None,
    scans: Annotated[int, setting(DEFAULT.demo, "scans")] = DEFAULT.demo.scans,
    seed: Annotated[int, setting(DEFAULT.demo, "seed")] = DEFAULT.demo.seed,
    frames: Annotated[int, setting(DEFAULT.demo, "frames")] = DEFAULT.demo.frames,
    height: Annotated[int, setting(DEFAULT.demo, "height")] = DEFAULT.demo.height,
    color_height: Annotated[int, setting(DEFAULT.demo, "color_height")] = DEFAULT.demo.color_height,
    noise: Annotated[bool, setting(DEFAULT.demo, "noise")] = DEFAULT.demo.noise,
) -> None:
    """Make synthetic scans of furnished rooms.

    With labels, in ScanNet's formats.
    """
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
    """Report what a scan holds.

    And which of its frames cannot be used, and why.
    """
    existing_file(scan, _SCAN)
    from pri3d.sources import export

    report = export.info(scan)
    print(json.dumps(report) if as_json else export.format_info(report))


@sens.command("export")
def export_scan(
    scan: SensFile,
    out: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="folder to write into")],
    every: Annotated[int, typer.Option(min=1, help="write every n-th frame")] = 1,
) -> None:
    """Write color, depth, pose and intrinsic files.

    Named as ScanNet's tools name them.
    """
    existing_file(scan, _SCAN)
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
            help="if the scan cannot be read at all, write an artefact without frames, whose "
            "status says why",
        ),
    ] = False,
) -> None:
    """Read the usable frames of a scan: depth, pose, color.

    Takes every n-th frame.
    """
    existing_file(scan, _SCAN)
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
    threads: Annotated[int, typer.Option(min=1, help="number of cores; same result")] = 1,
) -> None:
    """Count the points that each two frames share.

    For each two frames of a scan: the points of one that have a point of the other within the
    radius.
    """
    existing_file(clouds, _CLOUDS)
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
        list[str],
        typer.Option(metavar="SCENE", help="a scene without a scan, for the ledger"),
    ] = [],  # noqa: B006
) -> None:
    """Select the pairs of frames that overlap enough.

    Over all scans.
    """
    for overlap_file in overlaps:
        existing_file(overlap_file, "make it with `pri3d overlap`")
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
            help="if the surface cannot be used, write chunks without voxels, whose status "
            "says why",
        ),
    ] = False,
) -> None:
    """Voxelize a scan's surface and find each frame's part.

    A frame's part is what lies in the axis-aligned box of its view frustum.
    """
    existing_file(clouds, _CLOUDS)
    if surface is not None:
        existing_file(surface, "give a .ply file with --surface, or leave it out")
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
    """Find the corresponding pixels of two frames.

    For each pixel of frame A that has a point of frame B within the radius: that pixel, and the
    pixel of the nearest point.
    """
    existing_file(clouds, _CLOUDS)
    radius = checked("overlap", radius_m=radius).radius_m
    import numpy as np

    from pri3d import artefacts, store
    from pri3d.matching.correspondences import nearest

    with artefacts.Clouds(clouds) as scan:
        view_a, view_b = (scan.view(_row(scan, frame)) for frame in (frame_a, frame_b))
        a, b, distance = nearest(view_a, view_b, radius)
    with store.atomic_path(out) as temporary, open(temporary, "wb") as file:
        np.savez(file, a=a, b=b, distance=distance)


def _row(scan: "Clouds", frame: int) -> int:
    rows = (scan.index == frame).nonzero()[0]
    if not len(rows):
        reason = dict(scan.dropped).get(frame, "not one of the frames that `every` selects")
        raise Pri3DError(f"{scan.path}: has no frame {frame} ({reason}); give a kept frame")
    return int(rows[0])
