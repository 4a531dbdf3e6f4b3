"""One chunk seen from above: the surface, the frame's points, the frustum and its box."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pri3d import geometry
from pri3d.artefacts import Chunks, Clouds
from pri3d.report import charts, examples, html
from pri3d.report.gather import Made, read
from pri3d.report.html import Html

_ABOVE_CAMERA = 0.3  # metres; what is higher hides the room
_POINTS = 1200
_MOST_PIXELS = 1500  # along each side of the map


class _Chunk(NamedTuple):
    """Arrays of one frame. corners: of the frustum [8, 3]; box: lowest and highest corner [2, 3];
    inside: rows of `voxel` in the chunk; up: a unit vector."""

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


def above(made: Made) -> Html:
    problems = [html.paragraph(problem, class_="warning") for problem in _problems(made)]
    return html.join([*problems, _map(made)])


def _problems(made: Made) -> list[str]:
    """What became of surfaces that could not be used, or not whole."""
    problems = []
    for scene, path in made.chunks.items():
        frames, status, dropped = read(path, _surface_status)
        if frames and status.startswith("failed: "):
            problems.append(f"{scene} has no surface, geo and joint training skip it: {status}")
        if dropped:
            problems.append(f"{scene}: {dropped:,} vertices of its surface are no finite points.")
    return problems


def _surface_status(path: Path) -> tuple[int, str, int]:
    """Frames, what became of the surface, and its vertices that were left out."""
    with Chunks(path) as chunks:
        attrs = chunks.file.attrs
        return len(chunks.index), str(attrs["status"]), int(attrs["surface_dropped"])


def _map(made: Made) -> Html:
    both = [scene for scene in made.chunks if scene in made.clouds]
    if not both:
        return html.missing(
            "There are no files in chunks/ (with those in clouds/ that they belong to); "
            "snakemake chunks makes them."
        )
    pairs = examples.choose(made) if made.pairs else []
    preferred = [examples.scene_of(made, pair) for pair in pairs[len(pairs) // 2 :]]
    for scene in [scene for scene in preferred if scene in both] + both:
        chunk = _median_chunk(made, scene)
        if chunk is not None:
            break
    else:
        return html.missing("No frame has a part of the surface in its view.")
    share = 100 * len(chunk.inside) / len(chunk.voxel)
    caption = (
        f"{chunk.scene}, frame {chunk.frame}, from above (what is more than "
        f"{100 * _ABOVE_CAMERA:g} cm over the camera is left out). In full colour: the chunk, "
        f"{len(chunk.inside):,} of {len(chunk.voxel):,} voxels of {100 * chunk.voxel_m:g} cm "
        f"({share:.0f} %); pale: the rest of the surface. Blue dots: points of the frame's depth "
        "image. Dashed: what the camera can see, between its smallest and largest depth; solid: "
        "the box around it that cuts out the chunk. Good: the dots lie on walls and furniture of "
        "the surface, not beside them, and all of them are inside the box."
    )
    picture = html.image(_picture(chunk), "png", "A room from above with a camera's view")
    return html.figure(picture, caption)


def _median_chunk(made: Made, scene: str) -> _Chunk | None:
    """The scan's frame whose chunk is of middling size; None where no chunk holds anything."""

    def load(path) -> _Chunk | None:
        with Chunks(path) as chunks, Clouds(made.clouds[scene]) as clouds:
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

    return read(made.chunks[scene], load)


def _up(world_from_camera: np.ndarray) -> np.ndarray:
    """The direction that is up in the images on average; a world axis where it is close to one."""
    up = -world_from_camera[:, :3, 1].mean(axis=0)
    length = np.linalg.norm(up)
    up = up / length if length > 1e-6 else np.array([0.0, 0, 1])
    axis = np.abs(up).argmax()
    return np.sign(up[axis]) * np.eye(3)[axis] if abs(up[axis]) > 0.95 else up


def _picture(chunk: _Chunk) -> bytes:
    """The map as PNG. Plan coordinates are metres along two directions that are level."""
    first = np.eye(3)[np.abs(chunk.up).argmin()]
    first = first - first @ chunk.up * chunk.up
    first /= np.linalg.norm(first)
    plan = np.stack([first, np.cross(chunk.up, first)])  # [2, 3]
    camera = chunk.world_from_camera[:3, 3]
    surface, extent = _seen_from_above(chunk, plan, camera @ chunk.up + _ABOVE_CAMERA)
    box = np.array(
        [[chunk.box[k, axis] for axis, k in enumerate(corner)] for corner in np.ndindex(2, 2, 2)]
    )
    with charts.style():
        size = np.array([extent[1] - extent[0], extent[3] - extent[2]])
        width, height = size * min(6.4 / size[0], 6.4 / size[1])
        figure = charts.new_figure(max(width, 3.0), height)
        axes = figure.add_subplot()
        axes.imshow(surface, extent=extent, origin="lower", interpolation="nearest")
        dots = {"ms": 3.2, "color": charts.BLUE, "mec": "white", "mew": 0.4}
        axes.plot(*(plan @ chunk.points.T), "o", label="points of the frame", **dots)
        view = np.vstack([camera, chunk.corners])
        _outline(axes, plan @ view.T, "--", "what the camera can see")
        _outline(axes, plan @ box.T, "-", "box of the chunk")
        dot = {"ms": 9, "color": charts.RED, "mec": "white", "mew": 1.5, "zorder": 5}
        axes.plot(*(plan @ camera), "o", **dot)
        axes.annotate(
            *("camera", plan @ camera),
            xytext=(8, 8),
            textcoords="offset points",
            fontweight="bold",
            bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.8},
        )
        _scale_bar(axes, extent)
        axes.set_xlim(extent[:2])
        axes.set_ylim(extent[2:])
        axes.set_aspect("equal")
        axes.set_axis_off()
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        return charts.png(figure)


def _seen_from_above(
    chunk: _Chunk, plan: np.ndarray, ceiling: float
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """The highest voxel below `ceiling` at each place: RGB float [H, W, 3], and its extent."""
    centre = (chunk.voxel + 0.5) * chunk.voxel_m
    height = centre @ chunk.up
    color = chunk.color / 255
    pale = np.ones(len(color), bool)
    pale[chunk.inside] = False
    color[pale] = 0.72 + 0.28 * color[pale]
    shown = np.flatnonzero(height < ceiling)
    shown = shown[np.argsort(height[shown], kind="stable")]  # higher ones are painted later
    # Aligned with the world's axes, voxels and pixels are the same squares; turned, they are not.
    aligned = np.isclose(np.abs(plan), np.round(np.abs(plan))).all()
    pixel_m = chunk.voxel_m * (1 if aligned else 1.6)
    outline = plan @ np.vstack([chunk.corners, chunk.box, chunk.world_from_camera[None, :3, 3]]).T
    at = plan @ centre[shown].T
    # A few stray points far away must not make the picture huge.
    pixel_m = max(pixel_m, np.ptp(np.hstack([at, outline]), axis=1).max() / _MOST_PIXELS)
    at, framed = (np.floor(each / pixel_m + 1e-6).astype(np.int64) for each in (at, outline))
    margin = int(0.15 / pixel_m) + 1
    everything = np.hstack([at, framed])
    low, high = everything.min(axis=1) - margin, everything.max(axis=1) + margin
    picture = np.ones((high[1] - low[1] + 1, high[0] - low[0] + 1, 3))
    picture[at[1] - low[1], at[0] - low[0]] = color[shown]
    edges = np.array([low[0], high[0] + 1, low[1], high[1] + 1]) * pixel_m
    return picture, tuple(edges)


def _outline(axes: Any, corners: np.ndarray, line: str, label: str) -> None:
    """The convex outline of points [2, n], black on a white halo."""
    from scipy.spatial import ConvexHull

    hull = corners[:, ConvexHull(corners.T).vertices]
    closed = np.hstack([hull, hull[:, :1]])
    axes.plot(*closed, "-", color="white", lw=3.2, alpha=0.7, zorder=3)
    axes.plot(*closed, line, color="#1c2328", lw=1.5, label=label, zorder=4)


def _scale_bar(axes: Any, extent: tuple[float, float, float, float]) -> None:
    length = next(n for n in (5, 2, 1, 0.5, 0.2, 0.1, 0) if n <= 0.35 * (extent[1] - extent[0]))
    x, y = extent[0] + 0.1, extent[2] + 0.1
    axes.plot([x, x + length], [y, y], color="#1c2328", lw=4, solid_capstyle="butt", zorder=6)
    axes.annotate(
        *(f"{length:g} m", (x + length / 2, y)),
        xytext=(0, 5),
        textcoords="offset points",
        ha="center",
        bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
        zorder=6,
    )
