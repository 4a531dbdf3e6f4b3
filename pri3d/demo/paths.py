"""Hand-held camera paths."""

import numpy as np

from pri3d.demo.room import Room

SECONDS = 10  # duration of a path; 200 frames are then 20 per second
CLEARANCE = 0.3  # meters between the camera and any primitive
CANDIDATES = 60


def hand_held(room: Room, frames: int, rng: np.random.Generator) -> np.ndarray:
    """A camera path: world_from_camera float64 [frames, 4, 4], exact in float32 as it is stored.

    With probability 0.6 the camera moves along an arc and looks inward across the room, otherwise
    it stays near the center and turns; both shake like a hand. The path does not depend on the
    number of frames, which only sample it. The first of several candidates that keeps `CLEARANCE`
    from everything is taken, or the one with the largest distance.
    """
    inward = rng.random() < 0.6
    world_from_room = np.linalg.inv(room.room_from_world)

    def poses(seed: int, reach: float, samples: int) -> np.ndarray:
        t = np.linspace(0, 1, samples)
        path = _path(room.size, t, inward, reach, np.random.default_rng(seed))
        return world_from_room @ _look(*path)

    best_seed, best_reach, best_gap = 0, 1.0, -1.0
    for attempt in range(CANDIDATES):
        seed, reach = int(rng.integers(1 << 32)), 1 - 0.5 * attempt / CANDIDATES
        gap = _clearance(room, poses(seed, reach, 100)[:, :3, 3])
        if gap > best_gap:
            best_seed, best_reach, best_gap = seed, reach, gap
        if gap >= CLEARANCE:
            break
    return poses(best_seed, best_reach, frames).astype(np.float32).astype(np.float64)


def _path(
    size: tuple[float, float, float],
    t: np.ndarray,
    inward: bool,
    reach: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eye and target [F, 3] in the room's frame, and roll [F], at times t [F] in 0..1."""
    turn = rng.choice([-1, 1])
    start = rng.uniform(0, 2 * np.pi)
    sweep = np.deg2rad(rng.uniform(220, 290) if inward else rng.uniform(150, 200))
    # The speed varies, and stays above zero.
    phase = 2 * np.pi * rng.random()
    pace = t + 0.06 * (np.sin(2 * np.pi * t + phase) - np.sin(phase))
    angle = start + turn * sweep * pace
    around = np.stack([np.cos(angle), np.sin(angle)], 1)
    half = np.array(size[:2]) / 2
    eye, target = np.empty((len(t), 3)), np.empty((len(t), 3))
    if inward:
        eye[:, :2] = around * (half - 0.55) * reach
        target[:, :2] = -0.25 * around * half + rng.uniform(-0.25, 0.25, 2)
    else:
        eye[:, :2] = -0.35 * around * half * reach + rng.uniform(-0.2, 0.2, 2)
        target[:, :2] = around * half
    eye[:, 2] = rng.uniform(1.35, 1.65) + 0.1 * _sway(t, 0.25, rng)
    target[:, 2] = rng.uniform(0.5, 0.8) + 0.12 * _sway(t, 0.2, rng)
    for axis in range(3):
        eye[:, axis] += 0.025 * _sway(t, 0.7, rng) + 0.004 * _sway(t, 3.0, rng)
        target[:, axis] += 0.06 * _sway(t, 0.6, rng) + 0.012 * _sway(t, 3.5, rng)
    return eye, target, 0.04 * _sway(t, 0.3, rng) + 0.004 * _sway(t, 3.0, rng)


def _sway(t: np.ndarray, hertz: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise [F] around 0 with an amplitude of about 1 and about this frequency."""
    rates = hertz * rng.uniform(0.6, 1.4, 3) * SECONDS
    phases = rng.uniform(0, 2 * np.pi, 3)
    return np.sin(2 * np.pi * rates[:, None] * t + phases[:, None]).mean(0) * 1.5


def _look(eye: np.ndarray, target: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """room_from_camera [F, 4, 4]: z towards the target, y down."""
    z = target - eye
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    x = np.cross(z, [0, 0, 1.0])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.cross(z, x)
    c, s = np.cos(roll)[:, None], np.sin(roll)[:, None]
    poses = np.tile(np.eye(4), (len(eye), 1, 1))
    poses[:, :3, :3] = np.stack([c * x + s * y, c * y - s * x, z], 2)
    poses[:, :3, 3] = eye
    return poses


def _clearance(room: Room, eye: np.ndarray) -> float:
    """The smallest distance of any eye [F, 3] from the box of any primitive."""
    local = np.einsum("pij,fpj->fpi", room.axes, eye[:, None] - room.center)
    outside = np.maximum(np.abs(local) - room.half, 0)
    return float(np.linalg.norm(outside, axis=2).min())
