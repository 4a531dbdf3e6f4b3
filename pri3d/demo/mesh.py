"""The surface of a room as a mesh, restricted to what the camera has seen."""

from typing import NamedTuple

import numpy as np
from numba import njit

from pri3d.demo import shading
from pri3d.demo.room import Room

SPACING = 0.02  # meters between vertices
_TOLERANCE = 0.03  # meters between a vertex and the depth of its pixel
_MIN_DEPTH = 0.1  # meters


class Mesh(NamedTuple):
    """A triangle mesh in the world frame.

    points: float64 [V, 3]; normal: [V, 3]; primitive: i32 [V]; chart: i32 [V], the number of the
    chart of each vertex; triangles: i32 [T, 3], whose front side faces along the normals.
    """

    points: np.ndarray
    normal: np.ndarray
    primitive: np.ndarray
    chart: np.ndarray
    triangles: np.ndarray


def full_mesh(room: Room) -> Mesh:
    """All charts, hidden ones included, as grids with a spacing of about `SPACING`."""
    grids: list[np.ndarray] = []
    grid_normals: list[np.ndarray] = []
    primitive: list[np.ndarray] = []
    chart: list[np.ndarray] = []
    faces: list[np.ndarray] = []
    first = number = 0
    for p in range(len(room.shape)):
        for face in range(shading.faces(room.shape[p])):
            grid, normal = shading.chart_grid(room, p, face, SPACING)
            nv, nu = grid.shape[:2]
            index = first + np.arange(nv * nu).reshape(nv, nu)
            a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
            new = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
            grids.append(grid.reshape(-1, 3))
            grid_normals.append(normal.reshape(-1, 3))
            primitive.append(np.full(nv * nu, p, np.int32))
            chart.append(np.full(nv * nu, number, np.int32))
            faces.append(new)
            first, number = first + nv * nu, number + 1
    points, normals = np.concatenate(grids), np.concatenate(grid_normals)
    triangles = np.concatenate(faces)
    corner = points[triangles]
    front = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    area = np.linalg.norm(front, axis=1) / 2
    backwards = np.einsum("ti,ti->t", front, normals[triangles[:, 0]]) < 0
    triangles[backwards] = triangles[backwards][:, ::-1]
    # Squares at the rim of a disk are degenerate.
    triangles = triangles[area > 1e-8].astype(np.int32)
    return Mesh(points, normals, np.concatenate(primitive), np.concatenate(chart), triangles)


@njit(cache=True, nogil=True)
def _mark(points, normal, depth, K, rotation, position, seen):
    height, width = depth.shape
    for i in range(len(points)):
        if seen[i]:
            continue
        x, y, z = points[i, 0] - position[0], points[i, 1] - position[1], points[i, 2] - position[2]
        if normal[i, 0] * x + normal[i, 1] * y + normal[i, 2] * z >= 0:
            continue
        far = rotation[0, 2] * x + rotation[1, 2] * y + rotation[2, 2] * z
        if far < _MIN_DEPTH:
            continue
        right = rotation[0, 0] * x + rotation[1, 0] * y + rotation[2, 0] * z
        down = rotation[0, 1] * x + rotation[1, 1] * y + rotation[2, 1] * z
        u = int(np.floor(right / far * K[0, 0] + K[0, 2] + 0.5))
        v = int(np.floor(down / far * K[1, 1] + K[1, 2] + 0.5))
        if 0 <= u < width and 0 <= v < height and abs(depth[v, u] - far) < _TOLERANCE:
            seen[i] = True


def mark_seen(
    mesh: Mesh, depth: np.ndarray, K: np.ndarray, world_from_camera: np.ndarray, seen: np.ndarray
) -> None:
    """Set `seen`, bool [V], for the vertices that face a camera and are visible in it.

    Args:
        mesh: all vertices.
        depth: what the camera sees, float64 [H, W] in meters.
        K: its intrinsics [3, 3].
        world_from_camera: its pose [4, 4].
        seen: changed in place; vertices that are already set stay set.
    """
    rotation, position = world_from_camera[:3, :3].copy(), world_from_camera[:3, 3].copy()
    _mark(mesh.points, mesh.normal, depth, K, rotation, position, seen)


def keep(mesh: Mesh, seen: np.ndarray) -> Mesh:
    """The triangles whose three vertices were seen, with their vertices."""
    triangles = mesh.triangles[seen[mesh.triangles].all(1)]
    used = np.zeros(len(seen), bool)
    used[triangles] = True
    number = np.cumsum(used, dtype=np.int32) - 1
    return Mesh(
        points=mesh.points[used],
        normal=mesh.normal[used],
        primitive=mesh.primitive[used],
        chart=mesh.chart[used],
        triangles=number[triangles],
    )
