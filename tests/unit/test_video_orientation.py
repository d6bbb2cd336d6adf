"""Turning pictures upright: all eight orientations, by the matrix's own definition."""

import struct

import numpy as np
import pytest

from momentkit.video.orientation import UPRIGHT, Orientation, from_matrix

ONE = 1 << 16
MATRICES = [(a, b, c, d) for a, d, b, c in [(x, y, 0, 0) for x in (1, -1) for y in (1, -1)]] + [
    (0, b, c, 0) for b in (1, -1) for c in (1, -1)
]


def matrix(a, b, c, d):
    return struct.pack("=9i", a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)


@pytest.mark.parametrize("turn", MATRICES)
def test_each_pixel_lands_where_the_matrix_sends_it(turn):
    a, b, c, d = turn
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    turned = from_matrix(matrix(*turn)).apply(picture)
    places = {(x, y): (a * x + c * y, b * x + d * y) for x in range(3) for y in range(2)}
    left, top = (min(place[axis] for place in places.values()) for axis in (0, 1))
    for (x, y), (to_x, to_y) in places.items():
        np.testing.assert_array_equal(turned[to_y - top, to_x - left], picture[y, x])


@pytest.mark.parametrize("turn", MATRICES)
def test_degrees_and_mirror_describe_the_same_turn(turn):
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    orientation = from_matrix(matrix(*turn))
    mirrored = picture[:, ::-1] if orientation.mirrored else picture
    described = np.rot90(mirrored, orientation.rotation_degrees // 90)
    np.testing.assert_array_equal(orientation.apply(picture), described)
    assert orientation.size(2, 3) == described.shape[:2]


@pytest.mark.parametrize("content", [b"", b"\x00" * 36, b"\x01" * 20, matrix(1, 1, 1, 1)])
def test_a_matrix_without_sense_turns_nothing(content):
    assert from_matrix(content) == UPRIGHT == Orientation()
