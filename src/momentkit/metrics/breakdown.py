"""Figures of parts of the queries: by moment length, position, number of words, number of moments.

Shapes   Q queries   T overlap thresholds of the average precision
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from momentkit.metrics.overlap import Floats

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Scale:
    """How queries are sorted into parts.

    Attributes:
        name: of the property, with its unit.
        borders: part i holds values from borders[i] up to, not including, borders[i + 1].
        labels: one a part.
    """

    name: str
    borders: tuple[float, ...]
    labels: tuple[str, ...]

    def parts(self, value_Q: Floats) -> dict[str, Bools]:
        """Label -> which queries are in it; every finite value from the first border on is in one part."""
        edges = pairwise(self.borders)
        return {
            label: (value_Q >= low) & (value_Q < high)
            for label, (low, high) in zip(self.labels, edges, strict=True)
        }


INF = float("inf")
LENGTH = Scale(
    "moment length", (0, 5, 10, 30, INF), ("under 5 s", "5 to 10 s", "10 to 30 s", "30 s and more")
)
POSITION = Scale("position", (0, 1 / 3, 2 / 3, INF), ("first third", "middle third", "last third"))
WORDS = Scale("words", (0, 5, 8, 12, INF), ("up to 4", "5 to 7", "8 to 11", "12 and more"))
MOMENTS = Scale("moments", (1, 2, 3, 5, INF), ("1", "2", "3 or 4", "5 and more"))


def moment_properties(
    windows_s: Sequence[Sequence[tuple[float, float]]], durations_s: Sequence[float], texts: Sequence[str]
) -> dict[Scale, Floats]:
    """What queries are sorted by; the longest of several moments speaks for a query.

    Args:
        windows_s: true moments of each query, at least one, in seconds.
        durations_s: of the videos.
        texts: the sentences.
    """
    longest = [max(windows, key=lambda window: window[1] - window[0]) for windows in windows_s]
    length_Q = np.array([end - start for start, end in longest])
    middle_Q = np.array([(start + end) / 2 for start, end in longest])
    return {
        LENGTH: length_Q,
        POSITION: middle_Q / np.array(durations_s, dtype=np.float64),
        WORDS: np.array([len(text.split()) for text in texts], dtype=np.float64),
        MOMENTS: np.array([len(windows) for windows in windows_s], dtype=np.float64),
    }


def part_figures(iou_Q: Floats, ap_QT: Floats, part_Q: Bools) -> dict[str, float]:
    """Figures in percent of the queries of a part; nothing but the count for an empty one.

    Args:
        iou_Q: overlap of the first window with the true one it fits best.
        ap_QT: average precision at each threshold.
        part_Q: which queries.
    """
    count = int(part_Q.sum())
    if not count:
        return {"queries": 0}
    iou, ap = iou_Q[part_Q], ap_QT[part_Q]
    return {
        "queries": count,
        "R1@0.5": 100 * float((iou >= 0.5).mean()),
        "R1@0.7": 100 * float((iou >= 0.7).mean()),
        "mIoU": 100 * float(iou.mean()),
        "mAP": 100 * float(ap.mean()),
    }


def breakdown(
    iou_Q: Floats, ap_QT: Floats, properties: Mapping[Scale, Floats]
) -> dict[str, dict[str, dict[str, float]]]:
    """Property -> part -> figures."""
    return {
        scale.name: {
            label: part_figures(iou_Q, ap_QT, part_Q) for label, part_Q in scale.parts(value_Q).items()
        }
        for scale, value_Q in properties.items()
    }
