"""Charts, baked light and color of the surfaces of primitives.

A chart is one face of a primitive with coordinates (u, v) in meters from 0. A rectangle has one, a
box six (-x, +x, -y, +y, -z, +z), a cylinder three (side, bottom, top; u of the side runs around the
axis). Light that does not depend on the viewer is baked once per chart on a coarse grid: openness,
and the visible share of each lamp. Shading a point then takes one texture and one lookup.
"""

import numpy as np
from numba import njit

from pri3d.demo import cast
from pri3d.demo.primitives import BOX, RECTANGLE
from pri3d.demo.room import Baked, Room

FACES = 6
LIGHT_SPACING = 0.06  # meters between texels
AMBIENT = 0.55
LAMP_RADIUS = 0.06  # meters; makes shadows soft
OPENNESS_REACH = 0.5  # meters


def faces(shape: int) -> int:
    """The number of charts of a shape."""
    return 1 if shape == RECTANGLE else 6 if shape == BOX else 3


def chart_size(room: Room, p: int, face: int) -> tuple[float, float]:
    """The size of a chart along u and v in meters."""
    hx, hy, hz = 2 * room.half[p]
    if room.shape[p] == RECTANGLE:
        return hx, hy
    if room.shape[p] == BOX:
        return ((hy, hz), (hx, hz), (hx, hy))[face // 2]
    return (np.pi * hx, hz) if face == 0 else (hx, hy)


def chart_grid(room: Room, p: int, face: int, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """A grid over a chart that includes its edges.

    Grid points of a disk's square that are outside the disk are moved to its rim.

    Args:
        room: of the chart.
        p: primitive.
        face: of the primitive.
        spacing: largest distance of grid points in meters.

    Returns:
        Points and normals float64 [nv, nu, 3] in the world frame.
    """
    size = chart_size(room, p, face)
    nu, nv = (max(2, int(np.ceil(length / spacing)) + 1) for length in size)
    u, v = np.meshgrid(np.linspace(0, size[0], nu), np.linspace(0, size[1], nv))
    half = room.half[p]
    local, normal = np.zeros((nv, nu, 3)), np.zeros((nv, nu, 3))
    if room.shape[p] == RECTANGLE:
        local[..., 0], local[..., 1] = u - half[0], v - half[1]
        normal[..., 2] = 1
    elif room.shape[p] == BOX:
        axis, sign = face // 2, 2 * (face % 2) - 1
        i, j = ((1, 2), (0, 2), (0, 1))[axis]
        local[..., i], local[..., j] = u - half[i], v - half[j]
        local[..., axis] = sign * half[axis]
        normal[..., axis] = sign
    elif face == 0:
        angle = u / half[0] - np.pi
        normal[..., 0], normal[..., 1] = np.cos(angle), np.sin(angle)
        local[...] = normal * half[0]
        local[..., 2] = v - half[2]
    else:
        x, y = u - half[0], v - half[1]
        shrink = np.minimum(1, half[0] / np.maximum(np.hypot(x, y), 1e-12))
        sign = -1 if face == 1 else 1
        local[..., 0], local[..., 1], local[..., 2] = x * shrink, y * shrink, sign * half[2]
        normal[..., 2] = sign
    return local @ room.axes[p] + room.center[p], normal @ room.axes[p]


def bake(room: Room) -> Baked:
    """Compute openness and soft shadows on every chart."""
    start = np.full((len(room.shape), FACES), -1, np.int64)
    size = np.zeros((len(room.shape), FACES, 2), np.int64)
    grids: list[np.ndarray] = []
    grid_normals: list[np.ndarray] = []
    total = 0
    for p in range(len(room.shape)):
        for face in range(faces(room.shape[p])):
            grid, normal = chart_grid(room, p, face, LIGHT_SPACING)
            start[p, face], size[p, face] = total, (grid.shape[1], grid.shape[0])
            grids.append(grid.reshape(-1, 3))
            grid_normals.append(normal.reshape(-1, 3))
            total += len(grids[-1])
    points, normals = np.concatenate(grids), np.concatenate(grid_normals)
    lifted = points + 0.002 * normals
    value = np.empty((total, 1 + len(room.lights)), np.float32)
    value[:, 0] = cast.openness(room, lifted, normals, OPENNESS_REACH)
    samples = LAMP_RADIUS * np.array([[1, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]])
    for i, light in enumerate(room.lights):
        value[:, 1 + i] = cast.visible(room, lifted, light[:3] + samples)
    return Baked(start, size, value)


@njit(cache=True, nogil=True)
def _hash(x, y, seed):
    """A reproducible number in 0..1 for a lattice cell."""
    h = np.int64(x) * 374761393 + np.int64(y) * 668265263 + np.int64(seed) * 974634777
    h = ((h ^ ((h >> 13) & 0x7FFFF)) * 1274126177) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFF) / 65535.0


@njit(cache=True, nogil=True)
def _noise(x, y, seed):
    """Value noise in 0..1, one lattice cell per unit."""
    i, j = np.floor(x), np.floor(y)
    s, t = x - i, y - j
    s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
    low = _hash(i, j, seed) * (1 - s) + _hash(i + 1, j, seed) * s
    high = _hash(i, j + 1, seed) * (1 - s) + _hash(i + 1, j + 1, seed) * s
    return low * (1 - t) + high * t


@njit(cache=True, nogil=True)
def _step(x, edge, width):
    """A smooth step from 0 to 1 around an edge."""
    t = min(max((x - edge) / width + 0.5, 0.0), 1.0)
    return t * t * (3 - 2 * t)


@njit(cache=True, nogil=True)
def _pattern(family, x, y, seed):
    """The share of the second color at (x, y), in periods of the texture."""
    i, j = np.floor(x), np.floor(y)
    s, t = x - i, y - j
    if family == 0:  # plain
        return 0.15 * _noise(x * 0.5, y * 0.5, seed)
    if family == 1:  # stripes
        return _step(abs(s - 0.5), 0.25, 0.08)
    if family == 2:  # checker
        return (i + j) % 2
    if family == 3:  # fractal noise
        total = 0.5 * _noise(x, y, seed) + 0.25 * _noise(2 * x, 2 * y, seed + 1)
        total += 0.15 * _noise(4 * x, 4 * y, seed + 2) + 0.1 * _noise(8 * x, 8 * y, seed + 3)
        return _step(total, 0.5, 0.5)
    if family == 4:  # wood
        plank = _hash(i, 0, seed)
        rings = 6 * _noise(s * 3 + 31 * plank, y * 0.35 + 17 * plank, seed) + 2 * plank
        grain = abs(2 * (rings - np.floor(rings)) - 1)
        return 0.75 * grain + 0.25 * _noise(40 * x, 2 * y, seed) if s > 0.03 else 1.0
    if family == 5:  # dots
        radius = 0.2 + 0.2 * _hash(i, j, seed)
        return 1 - _step((s - 0.5) ** 2 + (t - 0.5) ** 2, radius * radius, 0.05)
    if family == 6:  # bricks
        row = np.floor(2 * y)
        along = x + 0.5 * (row % 2)
        brick = np.floor(along)
        a, b = along - brick, 2 * y - row
        if min(a, 1 - a) < 0.03 or min(b, 1 - b) < 0.06:
            return 1.0
        return 0.35 * _hash(brick, row, seed)
    best, shade = 9.0, 0.0  # Voronoi
    for k in range(-1, 2):
        for m in range(-1, 2):
            px = k + _hash(i + k, j + m, seed) - s
            py = m + _hash(i + k, j + m, seed + 7) - t
            distance = px * px + py * py
            if distance < best:
                best, shade = distance, _hash(i + k, j + m, seed + 13)
    return shade


@njit(cache=True, nogil=True)
def _shade(
    primitive, points, eye, highlights, shape, center, axes, half, texture, lights, start, size,
    value, rgb,
):  # fmt: skip
    count = len(lights)
    share = np.empty(1 + count)
    local, n = np.empty(3), np.empty(3)
    for i in range(len(primitive)):
        p = primitive[i]
        if p < 0:
            continue
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        for k in range(3):
            local[k] = (
                axes[p, k, 0] * (x - center[p, 0])
                + axes[p, k, 1] * (y - center[p, 1])
                + axes[p, k, 2] * (z - center[p, 2])
            )
        hx, hy, hz = half[p, 0], half[p, 1], half[p, 2]
        # The chart, the position on it, and its normal in the local frame.
        n[0], n[1], n[2] = 0.0, 0.0, 1.0
        face, u, v, su, sv = 0, local[0] + hx, local[1] + hy, 2 * hx, 2 * hy
        if shape[p] == 1:
            gx, gy, gz = hx - abs(local[0]), hy - abs(local[1]), hz - abs(local[2])
            axis = 0 if gx <= gy and gx <= gz else 1 if gy <= gz else 2
            face = 2 * axis + (1 if local[axis] > 0 else 0)
            n[2] = 0.0
            n[axis] = 1.0 if local[axis] > 0 else -1.0
            if axis == 0:
                u, v, su, sv = local[1] + hy, local[2] + hz, 2 * hy, 2 * hz
            elif axis == 1:
                v, sv = local[2] + hz, 2 * hz
        elif shape[p] == 2:
            radius = np.sqrt(local[0] ** 2 + local[1] ** 2)
            if hx - radius < hz - abs(local[2]):
                u, v = (np.arctan2(local[1], local[0]) + np.pi) * hx, local[2] + hz
                su, sv = 2 * np.pi * hx, 2 * hz
                n[0], n[1], n[2] = local[0] / radius, local[1] / radius, 0.0
            else:
                face = 2 if local[2] > 0 else 1
                n[2] = 1.0 if local[2] > 0 else -1.0
        nx = axes[p, 0, 0] * n[0] + axes[p, 1, 0] * n[1] + axes[p, 2, 0] * n[2]
        ny = axes[p, 0, 1] * n[0] + axes[p, 1, 1] * n[1] + axes[p, 2, 1] * n[2]
        nz = axes[p, 0, 2] * n[0] + axes[p, 1, 2] * n[1] + axes[p, 2, 2] * n[2]
        # Baked light, bilinear on the chart's grid.
        nu, nv = size[p, face, 0], size[p, face, 1]
        gu, gv = min(max(u / su, 0.0), 1.0) * (nu - 1), min(max(v / sv, 0.0), 1.0) * (nv - 1)
        iu, iv = min(int(gu), nu - 2), min(int(gv), nv - 2)
        fu, fv = gu - iu, gv - iv
        first = start[p, face] + iv * nu + iu
        for k in range(1 + count):
            low = value[first, k] * (1 - fu) + value[first + 1, k] * fu
            high = value[first + nu, k] * (1 - fu) + value[first + nu + 1, k] * fu
            share[k] = low * (1 - fv) + high * fv
        # Texture, with a different shift for each chart and primitive.
        period, angle, seed, gloss = texture[p, 1], texture[p, 2], texture[p, 3], texture[p, 4]
        c, s = np.cos(angle), np.sin(angle)
        tx = (c * u + s * v) / period + 10 * _hash(p, face, 1)
        ty = (c * v - s * u) / period + 10 * _hash(p, face, 2)
        w = _pattern(int(texture[p, 0]), tx, ty, int(seed))
        # Lamps: Lambert and Blinn-Phong, falling off with the squared distance.
        vx, vy, vz = eye[0] - x, eye[1] - y, eye[2] - z
        norm = np.sqrt(vx * vx + vy * vy + vz * vz) + 1e-12
        vx, vy, vz = vx / norm, vy / norm, vz / norm
        diffuse, shine = AMBIENT * share[0] * (0.8 + 0.2 * nz), 0.0
        for k in range(count):
            lx, ly, lz = lights[k, 0] - x, lights[k, 1] - y, lights[k, 2] - z
            square = lx * lx + ly * ly + lz * lz
            far = np.sqrt(square)
            cosine = (lx * nx + ly * ny + lz * nz) / far
            if cosine <= 0 or share[1 + k] <= 0:
                continue
            power = lights[k, 3] * share[1 + k] / (0.5 + square)
            diffuse += power * cosine
            if gloss > 0 and highlights:
                bx, by, bz = lx / far + vx, ly / far + vy, lz / far + vz
                b = np.sqrt(bx * bx + by * by + bz * bz) + 1e-12
                shine += power * gloss * max(0.0, (bx * nx + by * ny + bz * nz) / b) ** 40
        for k in range(3):
            albedo = texture[p, 5 + k] * (1 - w) + texture[p, 8 + k] * w
            rgb[i, k] = albedo * diffuse + shine


def shade(
    room: Room, primitive: np.ndarray, points: np.ndarray, eye: np.ndarray | None = None
) -> np.ndarray:
    """The color of surface points.

    Args:
        room: with baked light.
        primitive: int [...], the primitive of each point; -1 gives black.
        points: [..., 3], in the world frame.
        eye: position [3] of the camera; without one there are no highlights.

    Returns:
        Linear RGB float32 [..., 3].

    Raises:
        ValueError: the room has no baked light.
    """
    if room.baked is None:
        raise ValueError("the room has no baked light; build it with lit=True")
    rgb = np.zeros((primitive.size, 3), np.float32)
    _shade(
        primitive.reshape(-1),
        points.reshape(-1, 3),
        np.zeros(3) if eye is None else np.asarray(eye, np.float64),
        eye is not None,
        room.shape,
        room.center,
        room.axes,
        room.half,
        room.texture,
        room.lights,
        room.baked.start,
        room.baked.size,
        room.baked.value,
        rgb,
    )
    return rgb.reshape(*primitive.shape, 3)
