"""Spans on a time line: conversion, length, overlap.

A span is (start, end) in whatever unit the caller uses; the functions are the same in all of them.

Shapes   B videos   Q proposals   G true moments      se = start,end   cw = centre,width
Source   generalised overlap: Rezatofighi et al. 2019, eq. 1-3, in one dimension
"""

import torch
from torch import Tensor


def cw_to_se(spans_cw: Tensor) -> Tensor:
    """(..., 2) centre, width -> (..., 2) start, end."""
    centre, width = spans_cw.unbind(-1)
    return torch.stack([centre - width / 2, centre + width / 2], -1)


def se_to_cw(spans_se: Tensor) -> Tensor:
    """(..., 2) start, end -> (..., 2) centre, width."""
    start, end = spans_se.unbind(-1)
    return torch.stack([(start + end) / 2, end - start], -1)


def pairwise_iou(a_se: Tensor, b_se: Tensor) -> tuple[Tensor, Tensor]:
    """Overlap of every span of one list with every span of another.

    Args:
        a_se: (..., N, 2) start, end.
        b_se: (..., M, 2) start, end.

    Returns:
        IoU and union, (..., N, M) each. Two spans of length zero give IoU 0.
    """
    a, b = a_se[..., :, None, :], b_se[..., None, :, :]
    intersection = (torch.minimum(a[..., 1], b[..., 1]) - torch.maximum(a[..., 0], b[..., 0])).clamp(min=0)
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - intersection
    return torch.where(union > 0, intersection / union.clamp(min=torch.finfo(union.dtype).tiny), 0.0), union


def pairwise_giou(a_se: Tensor, b_se: Tensor) -> Tensor:
    """Generalised IoU in [-1, 1], (..., N, M): IoU minus the share of the hull that neither span covers."""
    iou, union = pairwise_iou(a_se, b_se)
    a, b = a_se[..., :, None, :], b_se[..., None, :, :]
    hull = (torch.maximum(a[..., 1], b[..., 1]) - torch.minimum(a[..., 0], b[..., 0])).clamp(min=0)
    return iou - torch.where(hull > 0, (hull - union) / hull.clamp(min=torch.finfo(hull.dtype).tiny), 0.0)
