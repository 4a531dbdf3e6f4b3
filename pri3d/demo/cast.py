"""Ray casting against primitives, exact in float64.

Rectangles, boxes and cylinders are intersected analytically. `trace` renders all pixels of a camera
and visits, for each primitive, only the pixels that its bounding box covers. `cast` takes arbitrary
rays. `visible` and `openness` are for lighting.
"""

import numpy as np
from numba import njit

from pri3d.demo.room import Room
from pri3d.geometry import pixel_rays

_FAR = np.inf
_NEAR = 1e-3  # meters; nothing nearer is visible to a camera
_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
_EDGES = np.array([(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit])


@njit(cache=True, nogil=True, inline="always")
def _hit(shape, hx, hy, hz, ox, oy, oz, dx, dy, dz):
    """Smallest t > 0 at which o + t d meets the primitive (local frame), or infinity."""
    dx = dx if abs(dx) > 1e-14 else 1e-14
    dy = dy if abs(dy) > 1e-14 else 1e-14
    dz = dz if abs(dz) > 1e-14 else 1e-14
    if shape == 0:
        t = -oz / dz
        if t > 0 and abs(ox + t * dx) <= hx and abs(oy + t * dy) <= hy:
            return t
        return _FAR
    # A ray is between two parallel faces within half / |d| of t = -o / d.
    inverse = 1 / dz
    middle, reach = -oz * inverse, hz * abs(inverse)
    near, far = middle - reach, middle + reach
    if shape == 1:
        inverse = 1 / dx
        middle, reach = -ox * inverse, hx * abs(inverse)
        near, far = max(near, middle - reach), min(far, middle + reach)
        inverse = 1 / dy
        middle, reach = -oy * inverse, hy * abs(inverse)
        near, far = max(near, middle - reach), min(far, middle + reach)
    else:
        a = dx * dx + dy * dy
        b = ox * dx + oy * dy
        disc = b * b - a * (ox * ox + oy * oy - hx * hx)
        if disc < 0:
            return _FAR
        root = np.sqrt(disc)
        near, far = max(near, (-b - root) / a), min(far, (-b + root) / a)
    if near > far or far <= 0:
        return _FAR
    return near if near > 0 else far


@njit(cache=True, nogil=True)
def _trace(order, shape, half, origin, matrix, rect, nearest, columns, rows, depth, primitive):
    for p in order:
        kind, hx, hy, hz = shape[p], half[p, 0], half[p, 1], half[p, 2]
        ox, oy, oz = origin[p]
        m = matrix[p]
        for v in range(rect[p, 1], rect[p, 3]):
            y = rows[v]
            bx = m[0, 1] * y + m[0, 2]
            by = m[1, 1] * y + m[1, 2]
            bz = m[2, 1] * y + m[2, 2]
            for u in range(rect[p, 0], rect[p, 2]):
                if depth[v, u] <= nearest[p]:
                    continue
                x = columns[u]
                dx, dy, dz = m[0, 0] * x + bx, m[1, 0] * x + by, m[2, 0] * x + bz
                t = _hit(kind, hx, hy, hz, ox, oy, oz, dx, dy, dz)
                if t < depth[v, u]:
                    depth[v, u] = t
                    primitive[v, u] = p


def trace(
    room: Room, shape: tuple[int, int], K: np.ndarray, world_from_camera: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Render the depth and the primitives that a pinhole camera sees at the pixel centers.

    The pose is used as given: rays have z = 1 in the camera frame, so that t is the depth even if
    the rotation is not exactly orthonormal.

    Args:
        room: what is rendered.
        shape: height and width.
        K: intrinsics [3, 3].
        world_from_camera: pose [4, 4].

    Returns:
        Depth float64 [H, W], meters along the optical axis, 0 where nothing is hit, and primitive
        int32 [H, W], -1 where nothing is hit.
    """
    height, width = shape
    rotation, position = world_from_camera[:3, :3], world_from_camera[:3, 3]
    origin = np.einsum("pij,pj->pi", room.axes, position - room.center)
    matrix = room.axes @ rotation
    depth = np.full(shape, np.inf)
    primitive = np.full(shape, -1, np.int32)
    columns = (np.arange(width) - K[0, 2]) / K[0, 0]
    rows = (np.arange(height) - K[1, 2]) / K[1, 1]
    rect, nearest = _extent(room, shape, K, world_from_camera)
    order = np.argsort(nearest, kind="stable")  # hidden primitives then cost one comparison
    _trace(
        order, room.shape, room.half, origin, matrix, rect, nearest, columns, rows, depth, primitive
    )
    depth[primitive < 0] = 0
    return depth, primitive


def _extent(
    room: Room, shape: tuple[int, int], K: np.ndarray, world_from_camera: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The pixels that each primitive can cover, i64 [P, 4] (u0, v0, u1, v1; half open), and the
    smallest depth [P] that it can have.
    """
    corners = room.center[:, None] + (_CORNERS * room.half[:, None]) @ room.axes
    camera = (corners - world_from_camera[:3, 3]) @ np.linalg.inv(world_from_camera[:3, :3]).T
    # The part of a box in front of the camera is spanned by the corners in front and the points
    # where edges cross a plane close to the camera.
    a, b = camera[:, _EDGES[:, 0]], camera[:, _EDGES[:, 1]]
    za, zb = a[..., 2], b[..., 2]
    crosses = (za < _NEAR) != (zb < _NEAR)
    share = (_NEAR - za) / np.where(crosses, zb - za, 1)
    points = np.concatenate([camera, a + share[..., None] * (b - a)], 1)
    points[:, 8:, 2] = _NEAR
    seen = np.concatenate([camera[..., 2] >= _NEAR, crosses], 1)
    z = np.where(seen, points[..., 2], np.inf)
    low, high = [], []
    for axis in (0, 1):
        pixel = points[..., axis] / z * K[axis, axis] + K[axis, 2]
        low.append(np.where(seen, pixel, np.inf).min(1) - 1)
        high.append(np.where(seen, pixel, -np.inf).max(1) + 2)
    limit = np.array([shape[1], shape[0]] * 2)
    rect = np.clip(np.floor(np.stack(low + high, 1)), 0, limit).astype(np.int64)
    return rect, z.min(1) - 1e-9


@njit(cache=True, nogil=True)
def _cast(shape, half, axes, center, origins, directions, distance, primitive):
    for i in range(len(origins)):
        for p in range(len(shape)):
            a = axes[p]
            x = origins[i, 0] - center[p, 0]
            y = origins[i, 1] - center[p, 1]
            z = origins[i, 2] - center[p, 2]
            u, v, w = directions[i]
            t = _hit(
                shape[p],
                half[p, 0],
                half[p, 1],
                half[p, 2],
                a[0, 0] * x + a[0, 1] * y + a[0, 2] * z,
                a[1, 0] * x + a[1, 1] * y + a[1, 2] * z,
                a[2, 0] * x + a[2, 1] * y + a[2, 2] * z,
                a[0, 0] * u + a[0, 1] * v + a[0, 2] * w,
                a[1, 0] * u + a[1, 1] * v + a[1, 2] * w,
                a[2, 0] * u + a[2, 1] * v + a[2, 2] * w,
            )
            if t < distance[i]:
                distance[i] = t
                primitive[i] = p


def cast(
    room: Room, origins: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first surface along each of N rays, in the world frame.

    Args:
        room: what the rays hit.
        origins: [N, 3].
        directions: [N, 3], of any length.

    Returns:
        Distance float64 [N] in units of the length of the direction, infinite where nothing is hit;
        instance int32 [N] from 1, 0 where nothing is hit; and the unit normal [N, 3] towards the
        origin of the ray, 0 where nothing is hit.
    """
    origins = np.ascontiguousarray(origins, np.float64)
    directions = np.ascontiguousarray(directions, np.float64)
    distance = np.full(len(origins), np.inf)
    primitive = np.full(len(origins), -1, np.int32)
    _cast(room.shape, room.half, room.axes, room.center, origins, directions, distance, primitive)
    hit = primitive >= 0
    instance = np.where(hit, room.instance[primitive], 0).astype(np.int32)
    normal = np.zeros_like(origins)
    points = origins[hit] + distance[hit, None] * directions[hit]
    normal[hit] = normals(room, primitive[hit], points)
    away = np.einsum("ni,ni->n", normal, directions) > 0
    normal[away] *= -1
    return distance, instance, normal


def normals(room: Room, primitive: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Outward unit normals [N, 3] at points [N, 3] on the given primitives [N]."""
    axes, half, shape = room.axes[primitive], room.half[primitive], room.shape[primitive]
    local = np.einsum("nij,nj->ni", axes, points - room.center[primitive])
    gap = half - np.abs(local)
    side = np.eye(3)[np.argmin(gap, axis=1)] * np.where(local < 0, -1.0, 1.0)
    radius = np.hypot(local[:, 0], local[:, 1])
    around = np.stack([local[:, 0], local[:, 1], np.zeros(len(local))], 1)
    around /= np.maximum(radius, 1e-12)[:, None]
    cap = np.array([0, 0, 1.0]) * np.where(local[:, 2:] < 0, -1.0, 1.0)
    on_side = (half[:, 0] - radius < gap[:, 2])[:, None]
    side = np.where((shape == 2)[:, None], np.where(on_side, around, cap), side)
    side = np.where((shape == 0)[:, None], [0, 0, 1.0], side)
    return np.einsum("nij,ni->nj", axes, side)


@njit(cache=True, nogil=True, inline="always")
def _near_segment(cx, cy, cz, reach, px, py, pz, dx, dy, dz):
    """Whether the sphere around c with radius `reach` meets the segment from p to p + d."""
    x, y, z = cx - px, cy - py, cz - pz
    t = (x * dx + y * dy + z * dz) / (dx * dx + dy * dy + dz * dz)
    t = min(max(t, 0.0), 1.0)
    x, y, z = x - t * dx, y - t * dy, z - t * dz
    return x * x + y * y + z * z < reach * reach


@njit(cache=True, nogil=True)
def _unblocked(shape, half, axes, center, reach, points, ends, margin, blocked):
    """Set blocked [N, M]: the share of p -> p + ends[n, m] before the first hit, or 1."""
    count = len(shape)
    near = np.empty(count, np.int64)
    for i in range(len(points)):
        px, py, pz = points[i]
        ray = ends[i]
        mx, my, mz = 0.0, 0.0, 0.0
        for k in range(len(ray)):
            mx += ray[k, 0] / len(ray)
            my += ray[k, 1] / len(ray)
            mz += ray[k, 2] / len(ray)
        count_near = 0
        for p in range(count):
            cx, cy, cz = center[p]
            if _near_segment(cx, cy, cz, reach[p] + margin, px, py, pz, mx, my, mz):
                near[count_near] = p
                count_near += 1
        for k in range(len(ray)):
            u, v, w = ray[k]
            first = 1.0
            for n in range(count_near):
                p = near[n]
                a = axes[p]
                x, y, z = px - center[p, 0], py - center[p, 1], pz - center[p, 2]
                t = _hit(
                    shape[p],
                    half[p, 0],
                    half[p, 1],
                    half[p, 2],
                    a[0, 0] * x + a[0, 1] * y + a[0, 2] * z,
                    a[1, 0] * x + a[1, 1] * y + a[1, 2] * z,
                    a[2, 0] * x + a[2, 1] * y + a[2, 2] * z,
                    a[0, 0] * u + a[0, 1] * v + a[0, 2] * w,
                    a[1, 0] * u + a[1, 1] * v + a[1, 2] * w,
                    a[2, 0] * u + a[2, 1] * v + a[2, 2] * w,
                )
                first = min(first, t)
            blocked[i, k] = first


def _radius(room: Room) -> np.ndarray:
    """The radius [P] of the sphere around each primitive."""
    return np.linalg.norm(room.half, axis=1)


def visible(room: Room, points: np.ndarray, lights: np.ndarray) -> np.ndarray:
    """The share [N] of light samples [M, 3], close to each other, visible from points [N, 3]."""
    ends = lights[None] - points[:, None]
    margin = float(np.ptp(lights, axis=0).max())
    cut = np.empty(ends.shape[:2])
    _unblocked(
        room.shape, room.half, room.axes, room.center, _radius(room), points, ends, margin, cut
    )
    return (cut >= 1).mean(1)


def openness(room: Room, points: np.ndarray, normal: np.ndarray, reach: float) -> np.ndarray:
    """The mean free path [N] over the half space above each point, as a share of `reach` meters."""
    steps = np.arange(12)
    # Directions that sample the cosine-weighted half space uniformly.
    polar, turn = np.arcsin(np.sqrt((steps + 0.5) / 12)), steps * 2.399963
    z = normal
    x = np.cross(z, np.where(np.abs(z[:, :1]) < 0.9, [1.0, 0, 0], [0, 1.0, 0]))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    frame = np.stack([x, np.cross(z, x), z], 1)
    local = np.stack([np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)], 1)
    ends = np.einsum("mi,nij->nmj", local * reach, frame)
    cut = np.empty(ends.shape[:2])
    _unblocked(
        room.shape, room.half, room.axes, room.center, _radius(room), points, ends, reach, cut
    )
    return cut.mean(1)


def camera_points(depth: np.ndarray, K: np.ndarray, world_from_camera: np.ndarray) -> np.ndarray:
    """World points float64 [H, W, 3] of a rendered depth image."""
    rays = pixel_rays(depth.shape, K) @ world_from_camera[:3, :3].T
    return rays * depth[..., None] + world_from_camera[:3, 3]
