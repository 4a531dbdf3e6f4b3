"""Made-up posed depth images for tests of geometry."""

import numpy as np

from pri3d.geometry import View, transform, unproject


def world_points(view: View) -> np.ndarray:
    points, valid = unproject(view.depth, view.K)
    return transform(view.world_from_camera, points[valid])


def pose(rng: np.random.Generator, angle: float, shift: float) -> np.ndarray:
    """A random small motion."""
    axis = rng.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix = np.eye(4)
    matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix[:3, 3] = rng.uniform(-shift, shift, 3)
    return matrix


def bumpy(rng: np.random.Generator, shape: tuple[int, int], mean: float, noise: float):
    """A slanted, wavy surface with noise, steps and holes."""
    v, u = np.mgrid[: shape[0], : shape[1]]
    depth = mean * (1 + 0.3 * np.sin(u / 9) * np.cos(v / 7) + 0.002 * u)
    depth += noise * rng.standard_normal(shape)
    depth[rng.random(shape) < 0.1] *= 1.4
    depth[rng.random(shape) < 0.1] = 0
    return np.maximum(depth, 0)


def camera(shape: tuple[int, int], focal: float) -> np.ndarray:
    return np.array(
        [[focal, 0, shape[1] / 2 - 0.7], [0, focal * 1.02, shape[0] / 2 + 0.4], [0, 0, 1.0]]
    )


def views_of(seed: int, shape=(90, 130), mean=1.5, noise=0.004, frames=4, shift=0.1) -> list[View]:
    rng = np.random.default_rng(seed)
    K = camera(shape, 120.0)
    return [View(bumpy(rng, shape, mean, noise), K, pose(rng, 0.1, shift)) for _ in range(frames)]
