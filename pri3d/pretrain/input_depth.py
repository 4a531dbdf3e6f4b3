"""The depth of the network's input image: what the depth camera measured, pixel by pixel of it.

Shapes: H x W pixels of the input.
"""

import numpy as np
from numba import njit

from pri3d.geometry import View
from pri3d.pretrain.matches import Frame

_STEPS = 3  # from a guess of the depth towards the pixel that measured it
_TIE = 1e-6  # pixels: halfway between two, always the same one is taken


def input_view(frame: Frame) -> View:
    """Depth of the input image along the axis of the colour camera, [H, W] metres, and that camera.

    A pixel has the depth of the nearest depth pixel (as published: no mean of several), 0 where
    that has none. Where the cameras differ, the pixel is sought along the ray of the input's pixel.
    """
    view, color_from_depth = frame.view, frame.color_from_depth
    found = np.empty(frame.input_shape)
    known = view.depth[view.depth > 0]
    guess = float(known.mean()) if len(known) else 1.0
    depth_from_color = np.linalg.inv(color_from_depth)
    _resample(
        *(view.depth, np.float64(view.K), color_from_depth, depth_from_color),
        *(frame.color_K, guess, found),
    )
    world_from_color = view.world_from_camera @ depth_from_color
    return View(found, frame.color_K, world_from_color)


@njit(cache=True, nogil=True, error_model="numpy")
def _resample(depth, K, m, back, color_K, guess, found):
    height, width = depth.shape
    for row in range(found.shape[0]):
        ray_y = (row - color_K[1, 2]) / color_K[1, 1]
        for column in range(found.shape[1]):
            ray_x = (column - color_K[0, 2]) / color_K[0, 0]
            z = guess
            for _ in range(_STEPS):
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
            found[row, column] = z
