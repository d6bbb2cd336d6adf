"""Overlap of windows in numpy, exactly as the QVHighlights evaluator computes it.

The evaluator has two functions that agree for proper windows. They differ for windows whose end is not
after their start, and there the printed figures depend on which one is used where.

Shapes   N, M windows   se = start, end in seconds
Source   Moment-DETR, standalone_eval/utils.py
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def iou_cross(a_se: Floats, b_se: Floats) -> Floats:
    """IoU of every window of one list with every window of another, over the sum of the lengths.

    Args:
        a_se: (..., N, 2).
        b_se: (..., M, 2).

    Returns:
        (..., N, M). NaN where the union is 0 (two empty windows, or a reversed one that cancels the other).
    """
    a_start, a_end = a_se[..., :, None, 0], a_se[..., :, None, 1]
    b_start, b_end = b_se[..., None, :, 0], b_se[..., None, :, 1]
    intersection = np.maximum(np.minimum(a_end, b_end) - np.maximum(a_start, b_start), 0.0)
    union = (a_end - a_start) + (b_end - b_start) - intersection
    with np.errstate(invalid="ignore", divide="ignore"):
        return intersection / union


def iou_paired(a_se: Floats, b_se: Floats) -> Floats:
    """IoU of the i-th window of one list with the i-th of the other, over their hull; 0 where the hull is 0.

    Args:
        a_se: (..., 2).
        b_se: (..., 2).
    """
    intersection = np.maximum(
        np.minimum(a_se[..., 1], b_se[..., 1]) - np.maximum(a_se[..., 0], b_se[..., 0]), 0.0
    )
    hull = np.maximum(a_se[..., 1], b_se[..., 1]) - np.minimum(a_se[..., 0], b_se[..., 0])
    return np.divide(intersection, hull, out=np.zeros_like(intersection), where=hull != 0)
