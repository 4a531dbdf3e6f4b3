"""The surface of a room as a mesh: the part of the charts that the camera saw."""

from typing import NamedTuple

import numpy as np
from numba import njit

from pri3d.demo import shading
from pri3d.demo.rooms import Room

SPACING = 0.02
_TOLERANCE = 0.03


class Mesh(NamedTuple):
    """points float64 [V, 3] world, normal [V, 3], primitive i32 [V], chart i32 [V] (each chart has
    a number of its own), triangles i32 [T, 3] with their front where the normals point."""

    points: np.ndarray
    normal: np.ndarray
    primitive: np.ndarray
    chart: np.ndarray
    triangles: np.ndarray


def whole(room: Room) -> Mesh:
    """All charts, hidden ones too, as grids of about `SPACING` metres."""
    points, normals, primitive, chart, triangles = [], [], [], [], []
    first = number = 0
    for p in range(len(room.shape)):
        for face in range(shading.faces(room.shape[p])):
            grid, normal = shading.chart_grid(room, p, face, SPACING)
            nv, nu = grid.shape[:2]
            index = first + np.arange(nv * nu).reshape(nv, nu)
            a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
            new = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
            points.append(grid.reshape(-1, 3))
            normals.append(normal.reshape(-1, 3))
            primitive.append(np.full(nv * nu, p, np.int32))
            chart.append(np.full(nv * nu, number, np.int32))
            triangles.append(new)
            first, number = first + nv * nu, number + 1
    points, normals = np.concatenate(points), np.concatenate(normals)
    triangles = np.concatenate(triangles)
    corner = points[triangles]
    front = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    area = np.linalg.norm(front, axis=1) / 2
    backwards = np.einsum("ti,ti->t", front, normals[triangles[:, 0]]) < 0
    triangles[backwards] = triangles[backwards][:, ::-1]
    triangles = triangles[area > 1e-8].astype(np.int32)  # a disc's rim folds squares flat
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
        if far < 0.1:
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
    """Set seen bool [V] where a vertex faces this camera and is what its pixel shows."""
    rotation, position = world_from_camera[:3, :3].copy(), world_from_camera[:3, 3].copy()
    _mark(mesh.points, mesh.normal, depth, K, rotation, position, seen)


def keep(mesh: Mesh, seen: np.ndarray) -> Mesh:
    """Triangles whose three vertices were seen, and their vertices."""
    triangles = mesh.triangles[seen[mesh.triangles].all(1)]
    used = np.zeros(len(seen), bool)
    used[triangles] = True
    number = np.cumsum(used, dtype=np.int32) - 1
    rest = (field[used] for field in mesh[:4])
    return Mesh(*rest, number[triangles])
