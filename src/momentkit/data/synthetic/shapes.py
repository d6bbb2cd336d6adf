"""Signed distances of the actors' shapes: negative inside, in radii, about 1 at most across.

Source   two-dimensional distance functions as collected by I. Quilez (star by folding)
Shapes   H, W pixels of a crop around the actor
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating]
Distance = Callable[[Plane, Plane], Plane]


def _circle(x_HW: Plane, y_HW: Plane) -> Plane:
    return np.sqrt(x_HW * x_HW + y_HW * y_HW) - 0.92


def _box(x_HW: Plane, y_HW: Plane, half_x: float, half_y: float, corner: float) -> Plane:
    dx = np.abs(x_HW) - (half_x - corner)
    dy = np.abs(y_HW) - (half_y - corner)
    outside = np.sqrt(np.maximum(dx, 0) ** 2 + np.maximum(dy, 0) ** 2)
    return outside + np.minimum(np.maximum(dx, dy), 0) - corner


def _square(x_HW: Plane, y_HW: Plane) -> Plane:
    return _box(x_HW, y_HW, 0.8, 0.8, 0.14)


def _cross(x_HW: Plane, y_HW: Plane) -> Plane:
    return np.minimum(_box(x_HW, y_HW, 0.98, 0.36, 0.1), _box(x_HW, y_HW, 0.36, 0.98, 0.1))


def _triangle(x_HW: Plane, y_HW: Plane) -> Plane:
    side = 0.866 * np.abs(x_HW) - 0.5 * (y_HW - 0.2)
    return np.maximum(side, y_HW - 0.2) - 0.55


def _heart(x_HW: Plane, y_HW: Plane) -> Plane:
    x, y = np.abs(x_HW), y_HW
    lobe = np.sqrt((x - 0.43) ** 2 + (y + 0.3) ** 2) - 0.5
    along, across = (x + y - 0.1) * 0.7071, (x - y + 0.1) * 0.7071
    tip = np.maximum(np.abs(along), np.abs(across)) - 0.6
    belly = np.sqrt(x * x + (y + 0.02) ** 2) - 0.52  # without it the shading shows the seam of the parts
    return np.minimum(np.minimum(lobe, tip), belly)


def _star(x_HW: Plane, y_HW: Plane) -> Plane:
    x, y = np.abs(x_HW), -y_HW
    fold = 2 * np.maximum(0.80902 * x - 0.58779 * y, 0)
    x, y = x - fold * 0.80902, y + fold * 0.58779
    fold = 2 * np.maximum(-0.80902 * x - 0.58779 * y, 0)
    x, y = np.abs(x + fold * 0.80902), y + fold * 0.58779 - 1.08
    edge_x, edge_y = 0.5 * 0.58779, 0.5 * 0.80902 - 1.0
    share = np.clip((x * edge_x + y * edge_y) / (edge_x**2 + edge_y**2), 0, 1.08)
    distance = np.sqrt((x - edge_x * share) ** 2 + (y - edge_y * share) ** 2)
    return distance * np.sign(y * edge_x - x * edge_y) - 0.05


DISTANCE: dict[str, Distance] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
}
FACE_Y = {"circle": -0.08, "square": -0.05, "triangle": 0.3, "star": 0.0, "heart": -0.15, "cross": 0.0}
"""Height of the eyes in each shape, in radii."""
