"""Hand-held camera paths."""

import numpy as np

SECONDS = 10  # what the path takes by hand; 200 frames are then 20 a second
CLEARANCE = 0.3
CANDIDATES = 60


def hand_held(room, frames: int, rng: np.random.Generator) -> np.ndarray:
    """world_from_camera float64 [frames, 4, 4] (values exact in float32, as files hold them).

    In 60 % of the cases the camera walks along an arc and looks inwards across the room, else it
    stands near the middle and turns; both shake as a hand does. The path does not depend on the
    number of frames, which only sample it more or less densely. Of several candidates the first is
    taken that stays `CLEARANCE` away from everything, or the one that comes nearest to that.
    """
    inward = rng.random() < 0.6
    world_from_room = np.linalg.inv(room.room_from_world)

    def poses(draw, reach, samples):
        t = np.linspace(0, 1, samples)
        path = _path(room.size, t, inward, reach, np.random.default_rng(draw))
        return world_from_room @ _look(*path)

    best, best_gap = None, -1.0
    for attempt in range(CANDIDATES):
        candidate = rng.integers(1 << 32), 1 - 0.5 * attempt / CANDIDATES
        gap = _clearance(room, poses(*candidate, 100)[:, :3, 3])
        if gap > best_gap:
            best, best_gap = candidate, gap
        if gap >= CLEARANCE:
            break
    return poses(*best, frames).astype(np.float32).astype(np.float64)


def _path(size, t, inward, reach, rng):
    """Eye and target [F, 3] in the room's frame, and roll [F], at times t [F] in 0..1."""
    turn = rng.choice([-1, 1])
    start = rng.uniform(0, 2 * np.pi)
    sweep = np.deg2rad(rng.uniform(220, 290) if inward else rng.uniform(150, 200))
    # People speed up and slow down, and never quite stop.
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


def _sway(t, hertz, rng):
    """Smooth noise around 0 with amplitude about 1 at about the given rate."""
    rates = hertz * rng.uniform(0.6, 1.4, 3) * SECONDS
    phases = rng.uniform(0, 2 * np.pi, 3)
    return np.sin(2 * np.pi * rates[:, None] * t + phases[:, None]).mean(0) * 1.5


def _look(eye, target, roll) -> np.ndarray:
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


def _clearance(room, eye: np.ndarray) -> float:
    """Smallest distance of any eye [F, 3] from any primitive's box."""
    local = np.einsum("pij,fpj->fpi", room.axes, eye[:, None] - room.centre)
    outside = np.maximum(np.abs(local) - room.half, 0)
    return float(np.linalg.norm(outside, axis=2).min())
