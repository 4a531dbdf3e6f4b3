"""One chunk in bird's-eye view: the surface, the points of the frame, its view frustum and box."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pri3d import geometry
from pri3d.artefacts import Chunks, Clouds
from pri3d.report import charts, html, pairs
from pri3d.report.gather import Results, read
from pri3d.report.html import Html

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ID = "chunk"
TITLE = "Example chunk"

_ABOVE_CAMERA_M = 0.3  # anything higher would hide the room
_POINTS = 1200
_MAX_PIXELS = 1500  # along each side of the map


class _Chunk(NamedTuple):
    """One frame and its chunk.

    voxel, color: of the whole surface [V, 3]. inside: rows of `voxel` in the chunk. box: lowest
    and highest corner [2, 3]. corners: of the view frustum [8, 3]. points: of the frame [n, 3]. up:
    unit vector. All in world coordinates, in meters.
    """

    scene: str
    frame: int
    voxel_m: float
    voxel: np.ndarray
    color: np.ndarray
    inside: np.ndarray
    box: np.ndarray
    world_from_camera: np.ndarray
    corners: np.ndarray
    points: np.ndarray
    up: np.ndarray


def render(results: Results) -> Html:
    """Problems of surfaces, and the map of one chunk."""
    return html.join([*map(html.warning, _problems(results)), chunk_map(results)])


def _problems(results: Results) -> list[str]:
    """Surfaces that could not be used, or only in part."""
    problems = []
    for scene, path in results.chunks.items():
        frames, status, dropped = read(path, _surface_status)
        if frames and status.startswith("failed: "):
            problems.append(f"{scene} has no surface, so modes with chunks skip it: {status}")
        if dropped:
            problems.append(f"{scene}: {dropped:,} vertices of the surface are not finite.")
    return problems


def _surface_status(path: Path) -> tuple[int, str, int]:
    """Number of frames, status of the surface, and number of vertices that were dropped."""
    with Chunks(path) as chunks:
        attrs = chunks.file.attrs
        return len(chunks.index), str(attrs["status"]), int(attrs["surface_dropped"])


def chunk_map(results: Results) -> Html:
    """The map of one chunk, of a scan that the example pairs show too if possible."""
    complete = [scene for scene in results.chunks if scene in results.clouds]
    if not complete:
        return html.missing(
            "There are no files in chunks/ (with their files in clouds/); snakemake chunks makes "
            "them."
        )
    preferred = []
    if results.pairs:
        chosen = pairs.choose(results.pairs, set(results.clouds))
        preferred = [pairs.scene_of(results.pairs, pair) for pair in chosen[len(chosen) // 2 :]]
    for scene in [scene for scene in preferred if scene in complete] + complete:
        chunk = _median_chunk(results, scene)
        if chunk is not None:
            break
    else:
        return html.missing("No frame has any part of the surface in its view.")
    share = 100 * len(chunk.inside) / len(chunk.voxel)
    caption = (
        f"{chunk.scene}, frame {chunk.frame}, in bird's-eye view; voxels more than "
        f"{100 * _ABOVE_CAMERA_M:g} cm above the camera are hidden. Full color: the chunk, "
        f"{len(chunk.inside):,} of {len(chunk.voxel):,} voxels of {100 * chunk.voxel_m:g} cm "
        f"({share:.0f} %). Pale: the rest of the surface. Blue points: the depth image of the "
        "frame. Dashed: the view frustum, from the smallest to the largest depth. Solid: the box "
        "around it, which cuts out the chunk. Look for: the points lie on walls and furniture of "
        "the surface, and inside the box."
    )
    picture = html.image(_picture(chunk), "png", "Bird's-eye view of a room and a view frustum")
    return html.figure(picture, caption)


def _median_chunk(results: Results, scene: str) -> _Chunk | None:
    """The chunk of median size of a scan; None if all chunks are empty."""

    def load(path: Path) -> _Chunk | None:
        with Chunks(path) as chunks, Clouds(results.clouds[scene]) as clouds:
            sizes = np.diff(chunks.file["frames/offset"][()].astype(np.int64))
            filled = np.flatnonzero((sizes > 0) & np.isin(chunks.index, clouds.index))
            if not len(filled):
                return None
            frame = int(filled[np.argsort(sizes[filled], kind="stable")[len(filled) // 2]])
            row = int(np.flatnonzero(clouds.index == chunks.index[frame])[0])
            view = clouds.view(row)
            depth = view.depth[view.depth > 0]
            corners = geometry.frustum_corners(view.K, clouds.shape, depth.min(), depth.max())
            lowest, highest = chunks.box[frame].astype(np.float64)
            points, valid = geometry.unproject(view.depth, view.K)
            step = max(1, int(np.sqrt(valid.sum() / _POINTS)))
            points = points[::step, ::step][valid[::step, ::step]]
            return _Chunk(
                scene=scene,
                frame=int(chunks.index[frame]),
                voxel_m=chunks.voxel_m,
                voxel=chunks.voxel,
                color=chunks.color,
                inside=chunks.rows(frame),
                box=np.array([lowest, highest + 1]) * chunks.voxel_m,
                world_from_camera=view.world_from_camera,
                corners=geometry.transform(view.world_from_camera, corners),
                points=geometry.transform(view.world_from_camera, points),
                up=_up(clouds.world_from_camera),
            )

    return read(results.chunks[scene], load)


def _up(world_from_camera: np.ndarray) -> np.ndarray:
    """The mean up direction of the images; the nearest world axis if it is within 18 degrees."""
    up = -world_from_camera[:, :3, 1].mean(axis=0)
    length = np.linalg.norm(up)
    up = up / length if length > 1e-6 else np.array([0.0, 0, 1])
    axis = np.abs(up).argmax()
    return np.sign(up[axis]) * np.eye(3)[axis] if abs(up[axis]) > 0.95 else up


def _picture(chunk: _Chunk) -> bytes:
    """The map as PNG. Its coordinates are meters along two horizontal directions."""
    first = np.eye(3)[np.abs(chunk.up).argmin()]
    first = first - first @ chunk.up * chunk.up
    first /= np.linalg.norm(first)
    plan = np.stack([first, np.cross(chunk.up, first)])  # [2, 3]
    camera = chunk.world_from_camera[:3, 3]
    surface, extent = _top_view(chunk, plan, camera @ chunk.up + _ABOVE_CAMERA_M)
    box = np.array(
        [[chunk.box[k, axis] for axis, k in enumerate(corner)] for corner in np.ndindex(2, 2, 2)]
    )
    with charts.style():
        size = np.array([extent[1] - extent[0], extent[3] - extent[2]])
        width, height = size * min(6.4 / size[0], 6.4 / size[1])
        figure = charts.new_figure(max(width, 3.0), height)
        axes = figure.add_subplot()
        axes.imshow(surface, extent=extent, origin="lower", interpolation="nearest")
        x, y = plan @ chunk.points.T
        label = "points of the frame"
        axes.plot(x, y, "o", label=label, ms=3.2, color=charts.BLUE, mec="white", mew=0.4)
        frustum = np.vstack([camera, chunk.corners])
        _outline(axes, plan @ frustum.T, "--", "view frustum")
        _outline(axes, plan @ box.T, "-", "box of the chunk")
        _camera(axes, plan @ camera)
        _scale_bar(axes, extent)
        axes.set_xlim(extent[:2])
        axes.set_ylim(extent[2:])
        axes.set_aspect("equal")
        axes.set_axis_off()
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        return charts.png(figure)


def _top_view(
    chunk: _Chunk, plan: np.ndarray, ceiling: float
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """The highest voxel below `ceiling` at each pixel.

    Returns:
        RGB float [H, W, 3], and its extent in meters (left, right, bottom, top).
    """
    center = (chunk.voxel + 0.5) * chunk.voxel_m
    height = center @ chunk.up
    color = chunk.color / 255
    pale = np.ones(len(color), bool)
    pale[chunk.inside] = False
    color[pale] = 0.72 + 0.28 * color[pale]
    shown = np.flatnonzero(height < ceiling)
    shown = shown[np.argsort(height[shown], kind="stable")]  # higher voxels overwrite lower ones
    # Pixels are voxels if the plan is aligned with the world axes; otherwise they are larger, so
    # that no gaps remain.
    aligned = np.isclose(np.abs(plan), np.round(np.abs(plan))).all()
    pixel_m = chunk.voxel_m * (1 if aligned else 1.6)
    outline = plan @ np.vstack([chunk.corners, chunk.box, chunk.world_from_camera[None, :3, 3]]).T
    at = plan @ center[shown].T
    # A few stray points far away must not make the picture huge.
    pixel_m = max(pixel_m, np.ptp(np.hstack([at, outline]), axis=1).max() / _MAX_PIXELS)
    at, framed = (np.floor(each / pixel_m + 1e-6).astype(np.int64) for each in (at, outline))
    margin = int(0.15 / pixel_m) + 1
    everything = np.hstack([at, framed])
    low, high = everything.min(axis=1) - margin, everything.max(axis=1) + margin
    picture = np.ones((high[1] - low[1] + 1, high[0] - low[0] + 1, 3))
    picture[at[1] - low[1], at[0] - low[0]] = color[shown]
    left, right, bottom, top = np.array([low[0], high[0] + 1, low[1], high[1] + 1]) * pixel_m
    return picture, (float(left), float(right), float(bottom), float(top))


def _outline(axes: "Axes", corners: np.ndarray, line: str, label: str) -> None:
    """The convex hull of points [2, n], black on a white halo."""
    from scipy.spatial import ConvexHull

    hull = corners[:, ConvexHull(corners.T).vertices]
    x, y = np.hstack([hull, hull[:, :1]])
    axes.plot(x, y, "-", color="white", lw=3.2, alpha=0.7, zorder=3)
    axes.plot(x, y, line, color=charts.INK, lw=1.5, label=label, zorder=4)


def _camera(axes: "Axes", position: np.ndarray) -> None:
    x, y = float(position[0]), float(position[1])
    axes.plot([x], [y], "o", ms=9, color=charts.RED, mec="white", mew=1.5, zorder=5)
    axes.annotate(
        "camera",
        (x, y),
        xytext=(8, 8),
        textcoords="offset points",
        fontweight="bold",
        bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.8},
    )


def _scale_bar(axes: "Axes", extent: tuple[float, float, float, float]) -> None:
    length = next(n for n in (5, 2, 1, 0.5, 0.2, 0.1, 0) if n <= 0.35 * (extent[1] - extent[0]))
    x, y = extent[0] + 0.1, extent[2] + 0.1
    axes.plot([x, x + length], [y, y], color=charts.INK, lw=4, solid_capstyle="butt", zorder=6)
    axes.annotate(
        f"{length:g} m",
        (x + length / 2, y),
        xytext=(0, 5),
        textcoords="offset points",
        ha="center",
        bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
        zorder=6,
    )
