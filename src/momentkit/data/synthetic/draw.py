"""Pictures of a film at any size: backdrop, shadows, actors with faces, dust, camera sway, light, grain.

Colours are sRGB in [0, 1]. Drawing is plain numpy: every actor is a signed distance on a small crop.

Shapes   H, W pixels   A actors   N frames   3 = red, green, blue
"""

import numpy as np
from numpy.typing import NDArray

from momentkit.data.synthetic.motion import OPACITY, SIZE, STRETCH, TILT, X, Y, poses
from momentkit.data.synthetic.shapes import DISTANCE, FACE_Y, Plane
from momentkit.data.synthetic.world import RADIUS, Actor, Film, Scene

Image = NDArray[np.float32]
RGB = {
    "red": (0.89, 0.22, 0.20),
    "orange": (0.97, 0.56, 0.15),
    "yellow": (0.99, 0.87, 0.27),
    "green": (0.27, 0.74, 0.36),
    "blue": (0.23, 0.48, 0.96),
    "purple": (0.64, 0.35, 0.85),
    "white": (0.95, 0.95, 0.97),
}
# sky above, sky at the horizon, far hills, near ground: muted, so that the actors stand out
BACKDROPS = (
    ((0.14, 0.15, 0.30), (0.46, 0.34, 0.44), (0.24, 0.20, 0.34), (0.17, 0.15, 0.26)),  # dusk
    ((0.10, 0.23, 0.27), (0.30, 0.44, 0.42), (0.13, 0.27, 0.27), (0.09, 0.20, 0.21)),  # forest
    ((0.33, 0.25, 0.24), (0.60, 0.47, 0.37), (0.40, 0.30, 0.26), (0.31, 0.23, 0.21)),  # desert
    ((0.22, 0.26, 0.31), (0.43, 0.48, 0.53), (0.28, 0.32, 0.37), (0.21, 0.25, 0.30)),  # mist
    ((0.05, 0.12, 0.23), (0.13, 0.33, 0.42), (0.07, 0.21, 0.30), (0.05, 0.15, 0.23)),  # sea
    ((0.20, 0.11, 0.21), (0.45, 0.27, 0.36), (0.26, 0.15, 0.26), (0.18, 0.11, 0.20)),  # plum
)
_GRAIN = 0.012
_SWAY = 0.014  # heights
_SPECKS = 12
_FACE = 0.85  # no part of a face lies further from the centre, in radii
_DARK = np.array([0.07, 0.06, 0.10], np.float32)
_INK = np.array([0.10, 0.09, 0.14], np.float32)


class Renderer:
    """Draws one film at one size; frames are a pure function of time.

    Args:
        film: what to draw.
        height, width: pixels; the picture is stretched where they are not 9:16.
    """

    def __init__(self, film: Film, height: int, width: int) -> None:
        self.film, self.height, self.width = film, height, width
        rng = np.random.default_rng([film.seed, 2])
        # Grain is cut from one sheet at a place that changes with time: far cheaper than new noise a frame.
        sheet = rng.normal(0, _GRAIN, (height + 32, width + 32)).astype(np.float32)
        self._grain = sheet[..., None]
        self._backdrops: dict[int, Image] = {}

    def frames(self, times_s: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The pictures at N times in seconds -> (N, H, W, 3) uint8."""
        result = np.empty((len(times_s), self.height, self.width, 3), np.uint8)
        cuts_s = np.array([scene.start_s for scene in self.film.scenes[1:]])
        number_N = np.searchsorted(cuts_s, times_s + 1e-9, side="right")
        for number in np.unique(number_N):
            where = np.flatnonzero(number_N == number)
            scene = self.film.scenes[number]
            poses_AN6 = poses(scene, times_s[where])
            for column, index in enumerate(where):
                result[index] = self._picture(int(number), poses_AN6[:, column], float(times_s[index]))
        return result

    def _picture(self, number: int, poses_A6: NDArray[np.float64], time_s: float) -> NDArray[np.uint8]:
        scene = self.film.scenes[number]
        turn = scene.seed % 7
        sway_x = _SWAY * np.sin(0.37 * time_s + turn)
        sway_y = 0.6 * _SWAY * np.sin(0.53 * time_s + 2 * turn)
        image = self._backdrop(number, sway_x, sway_y)
        _dust(image, scene, time_s)
        for index in np.argsort(poses_A6[:, Y], kind="stable"):
            pose = poses_A6[index]
            if pose[OPACITY] > 0.01:
                gaze = float(np.sin(0.9 * time_s + 2.1 * index))
                _actor(image, scene.cast[index], pose, (sway_x, sway_y), gaze)
        image *= np.float32(1 + 0.06 * np.sin(0.61 * time_s + turn))
        row, column = np.random.default_rng([scene.seed, round(time_s * 1000)]).integers(0, 32, 2)
        image += self._grain[row : row + self.height, column : column + self.width]
        np.clip(image, 0, 1, out=image)
        image *= 255
        image += 0.5
        return image.astype(np.uint8)

    def _backdrop(self, number: int, sway_x: float, sway_y: float) -> Image:
        margin = int(np.ceil(1.5 * _SWAY * self.height)) + 1
        if number not in self._backdrops:
            self._backdrops[number] = _landscape(self.film.scenes[number], self.height, self.width, margin)
        sheet = self._backdrops[number]
        row = margin - round(sway_y * self.height)
        column = margin - round(sway_x * self.height)
        return sheet[row : row + self.height, column : column + self.width].copy()


def _landscape(scene: Scene, height: int, width: int, margin: int) -> Image:
    rng = np.random.default_rng([scene.seed, 3])
    sky, horizon, far, near = (np.array(colour, np.float32) for colour in BACKDROPS[scene.backdrop])
    y_H1 = ((np.arange(-margin, height + margin) + 0.5) / height).astype(np.float32)[:, None]
    x_1W = ((np.arange(-margin, width + margin) + 0.5) / width * 16 / 9).astype(np.float32)[None]
    blend_HW1 = np.clip(y_H1 * 1.25, 0, 1)[..., None] ** 1.4 * np.ones_like(x_1W)[..., None]
    image = sky + (horizon - sky) * blend_HW1
    glow_x, glow_y = rng.uniform(0.2, 1.6), rng.uniform(0.1, 0.45)
    glow_HW = np.exp(-((x_1W - glow_x) ** 2 + (y_H1 - glow_y) ** 2) / 0.18)
    image += 0.10 * glow_HW[..., None] * np.array([1.0, 0.9, 0.8], np.float32)
    for colour, level, rise in ((far, 0.66, 0.07), (near, 0.84, 0.05)):
        waves, turns = rng.uniform(1.5, 5, 3), rng.uniform(0, 6.28, 3)
        ridge_1W = level - sum(rise / (i + 1) * np.sin(waves[i] * x_1W + turns[i]) for i in range(3)) / 1.5
        inside_HW1 = np.clip((y_H1 - ridge_1W) * height + 0.5, 0, 1)[..., None]
        shade = colour * (1.12 - 0.35 * np.clip(y_H1 - ridge_1W, 0, 1))[..., None]
        image += (shade - image) * inside_HW1
    corner_HW = (x_1W - 8 / 9) ** 2 * 0.22 + (y_H1 - 0.5) ** 2 * 0.4
    return (image * (1 - 0.75 * corner_HW)[..., None]).astype(np.float32)


def _dust(image: Image, scene: Scene, time_s: float) -> None:
    """Slow bright specks in front of the backdrop: movement that no sentence is about."""
    height, width = image.shape[:2]
    rng = np.random.default_rng([scene.seed, 4])
    place, drift = rng.random((_SPECKS, 2)) * (1.9, 1.1), rng.uniform(-0.03, 0.03, (_SPECKS, 2))
    radius_px = rng.uniform(0.005, 0.011, _SPECKS) * height
    light = rng.uniform(0.10, 0.26, _SPECKS)
    spots_px = ((place + drift * time_s) % (1.9, 1.1) - 0.05) * (width / (16 / 9), height)
    reach = int(radius_px.max() + 2)
    step = np.arange(-reach, reach + 1)
    corner = np.floor(spots_px).astype(int)
    dx = corner[:, :1] + step + 0.5 - spots_px[:, :1]
    dy = corner[:, 1:] + step + 0.5 - spots_px[:, 1:]
    far = (dx**2)[:, None, :] + (dy**2)[:, :, None]
    cover = (np.clip(1.2 - far / radius_px[:, None, None] ** 2, 0, 1) * light[:, None, None]).astype(
        np.float32
    )
    for (x, y), share in zip(corner - reach, cover[..., None], strict=True):
        if x >= 0 and y >= 0 and x + len(step) <= width and y + len(step) <= height:
            patch = image[y : y + len(step), x : x + len(step)]
            patch += share * (0.9 - patch)


def _actor(
    image: Image, actor: Actor, pose: NDArray[np.float64], sway: tuple[float, float], gaze: float
) -> None:
    height, width = image.shape[:2]
    radius_px = RADIUS * pose[SIZE] * height
    aspect = width / (height * 16 / 9)
    x_px, y_px = (pose[X] + sway[0]) * height * aspect, (pose[Y] + sway[1]) * height
    reach = 1.45 * radius_px
    left, right = max(0, int(x_px - reach * aspect)), min(width, int(x_px + reach * aspect) + 2)
    top, bottom = max(0, int(y_px - reach)), min(height, int(y_px + reach) + 2)
    if right - left < 2 or bottom - top < 2:
        return
    x_1W = ((np.arange(left, right, dtype=np.float32) + 0.5 - x_px) / (radius_px * aspect))[None]
    y_H1 = ((np.arange(top, bottom, dtype=np.float32) + 0.5 - y_px) / radius_px)[:, None]
    x_HW, y_HW = _turned(x_1W, y_H1, pose)
    distance_HW = DISTANCE[actor.shape](x_HW, y_HW).astype(np.float32)
    opacity = float(pose[OPACITY])
    crop = image[top:bottom, left:right]
    _shadow(crop, distance_HW, radius_px, opacity)
    inside_HW1 = np.clip(0.5 - distance_HW * radius_px, 0, 1)[..., None]
    paint = _paint(actor, distance_HW, (x_1W, y_H1, x_HW, y_HW), radius_px, gaze)
    crop += (paint - crop) * (inside_HW1 * np.float32(opacity))


def _turned(x_1W: Image, y_H1: Image, pose: NDArray[np.float64]) -> tuple[Plane, Plane]:
    """Picture -> actor coordinates: tilt and stretch undone."""
    cos, sin = np.float32(np.cos(pose[TILT])), np.float32(np.sin(pose[TILT]))
    stretch = np.float32(pose[STRETCH])
    return (cos * x_1W + sin * y_H1) * stretch, (cos * y_H1 - sin * x_1W) / stretch


def _shadow(crop: Image, distance_HW: Image, radius_px: float, opacity: float) -> None:
    down, across = max(1, round(0.20 * radius_px)), max(1, round(0.12 * radius_px))
    soft_HW = np.clip(0.5 - distance_HW[:-down, :-across] / 0.36, 0, 1) * np.float32(0.42 * opacity)
    under = crop[down:, across:]
    under += (_DARK - under) * soft_HW[..., None]


def _paint(
    actor: Actor, distance_HW: Image, places: tuple[Image, Image, Plane, Plane], radius_px: float, gaze: float
) -> Image:
    x_1W, y_H1, x_HW, y_HW = places
    colour = np.array(RGB[actor.colour], np.float32)
    rim_HW = np.clip((distance_HW + 0.16) / 0.16, 0, 1)
    light_HW = (1.07 - 0.16 * y_H1) * (1 - 0.42 * rim_HW)
    paint = colour * light_HW[..., None]
    rows, columns = np.abs(y_H1[:, 0]) < _FACE, np.abs(x_1W[0]) < _FACE
    if rows.any() and columns.any():
        part = slice(*_ends(rows)), slice(*_ends(columns))
        _face(paint[part], x_HW[part], y_HW[part] - np.float32(FACE_Y[actor.shape]), radius_px, gaze)
    return paint


def _ends(inside: NDArray[np.bool_]) -> tuple[int, int]:
    where = np.flatnonzero(inside)
    return int(where[0]), int(where[-1]) + 1


def _face(paint: Image, x_HW: Plane, y_HW: Plane, radius_px: float, gaze: float) -> None:
    """Eyes and, where it is large enough to show, a smile; y is counted from the eyes."""
    x_eye = np.abs(x_HW) - 0.27
    eye_HW = np.sqrt(x_eye * x_eye + (0.8 * y_HW) ** 2)
    paint += (0.98 - paint) * np.clip(0.5 + (0.20 - eye_HW) * radius_px, 0, 1)[..., None]
    side = np.where(x_HW > 0, np.float32(0.06 * gaze), np.float32(-0.06 * gaze))
    pupil_HW = np.sqrt((x_eye - side) ** 2 + (y_HW - 0.03) ** 2)
    paint += (_INK - paint) * np.clip(0.5 + (0.115 - pupil_HW) * radius_px, 0, 1)[..., None]
    if radius_px > 14:
        mouth = np.abs(np.sqrt(x_HW * x_HW + (y_HW - 0.16) ** 2) - 0.20)
        smile_HW = np.clip(0.5 + (0.035 - mouth) * radius_px, 0, 1) * np.clip((y_HW - 0.25) * 12, 0, 1)
        paint += (_INK - paint) * smile_HW[..., None]
