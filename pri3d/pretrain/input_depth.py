"""The depth of each pixel of the network's input image, as the depth camera measured it.

Shapes: H x W pixels of the input.
"""

import numpy as np
from numba import njit

from pri3d.geometry import View
from pri3d.pretrain.matches import Frame

_ITERATIONS = 3  # from an estimate of the depth to the pixel that measured it
_TIE = 1e-6  # pixels; halfway between two pixels, the choice is always the same


def input_view(frame: Frame) -> View:
    """Depth of the input image along the axis of the color camera, [H, W] meters, and that camera.

    A pixel has the depth of the nearest depth pixel (as published, without interpolation), 0 if
    that has no value. If the cameras differ, the depth pixel is searched along the ray of the input
    pixel.
    """
    view, color_from_depth = frame.view, frame.color_from_depth
    depth = np.empty(frame.input_shape)
    measured = view.depth[view.depth > 0]
    estimate = float(measured.mean()) if len(measured) else 1.0
    depth_from_color = np.linalg.inv(color_from_depth)
    _resample(
        view.depth,
        np.asarray(view.K, np.float64),
        color_from_depth,
        depth_from_color,
        frame.color_K,
        estimate,
        depth,
    )
    world_from_color = view.world_from_camera @ depth_from_color
    return View(depth, frame.color_K, world_from_color)


@njit(cache=True, nogil=True, error_model="numpy")
def _resample(
    depth: np.ndarray,
    K: np.ndarray,
    m: np.ndarray,
    back: np.ndarray,
    color_K: np.ndarray,
    estimate: float,
    resampled: np.ndarray,
) -> None:
    height, width = depth.shape
    for row in range(resampled.shape[0]):
        ray_y = (row - color_K[1, 2]) / color_K[1, 1]
        for column in range(resampled.shape[1]):
            ray_x = (column - color_K[0, 2]) / color_K[0, 0]
            z = estimate
            for _ in range(_ITERATIONS):
                x = (back[0, 0] * ray_x + back[0, 1] * ray_y + back[0, 2]) * z + back[0, 3]
                y = (back[1, 0] * ray_x + back[1, 1] * ray_y + back[1, 2]) * z + back[1, 3]
                d = (back[2, 0] * ray_x + back[2, 1] * ray_y + back[2, 2]) * z + back[2, 3]
                u, v = x / d * K[0, 0] + K[0, 2], y / d * K[1, 1] + K[1, 2]
                z = 0.0
                if not (d > 0 and u >= -0.5 and u < width - 0.5 and v >= -0.5 and v < height - 0.5):
                    break
                across, down = np.int64(u + 0.5 + _TIE), np.int64(v + 0.5 + _TIE)
                d = depth[min(down, height - 1), min(across, width - 1)]
                if not (d > 0 and d < np.inf):
                    break
                x, y = (across - K[0, 2]) / K[0, 0] * d, (down - K[1, 2]) / K[1, 1] * d
                z = max(0.0, m[2, 0] * x + m[2, 1] * y + m[2, 2] * d + m[2, 3])
            resampled[row, column] = z
