"""Maps of candidate moments: which moment a cell is, which cells are real, several scales as one map.

Cell (row i, column j) of scale k is the moment from clip i * 2^k of (j + 1) * 2^k clips.

Shapes   B samples   N clips, rows of the finest map   K scales   n rows of a scale, N // 2^k   A columns
         Q distinct moments   T clips of a saliency curve
Source   ms_2d_tan.md sections 2 and 6, map_diffusion.md sections 1 and 9
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def cell_spans(rows: int, columns: int, stride: int, device: torch.device | None = None) -> Tensor:
    """(rows, columns, 2) start and end of each cell, in clips of the finest map.

    Args:
        rows: n.
        columns: A.
        stride: 2^k.
        device: of the result.
    """
    start_n = torch.arange(rows, device=device)[:, None] * stride
    length_A = (torch.arange(columns, device=device)[None] + 1) * stride
    return torch.stack([start_n.expand(rows, columns), start_n + length_A], -1)


def valid_cells(clips_B: Tensor, rows: int, columns: int, stride: int) -> Tensor:
    """(B, rows, columns) True where a cell holds real clips only.

    Args:
        clips_B: real clips of each sample; they come first.
        rows, columns, stride: see `cell_spans`.
    """
    end_nA = cell_spans(rows, columns, stride, clips_B.device)[..., 1]
    return end_nA <= clips_B[:, None, None]


def merge_maps(maps_BnA: Sequence[Tensor], fill: float) -> Tensor:
    """Maps of all scales as one (B, N, N): row = first clip, column = length - 1; the highest value stands.

    Args:
        maps_BnA: finest first; the order of the scales changes nothing.
        fill: of cells that no scale stores. The published 0 would swallow negative scores.
    """
    samples, rows = len(maps_BnA[0]), max(values.shape[1] for values in maps_BnA)
    merged_BNN = maps_BnA[0].new_full((samples, rows, rows), fill)
    for values in maps_BnA:
        stride = 2 ** _scale_of(rows, values.shape[1])
        target = merged_BNN[:, ::stride, stride - 1 :: stride][:, : values.shape[1], : values.shape[2]]
        target.copy_(torch.maximum(target, values))  # a view
    return merged_BNN


def _scale_of(rows: int, rows_of_scale: int) -> int:
    """k, from n = N // 2^k; the published N // n is wrong for some N below 4^k."""
    return next(k for k in range(rows.bit_length()) if rows // 2**k == rows_of_scale)


def distinct_moments(
    rows: int, columns: int, scales: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """The moments that K maps store and that end by N, each once, by first clip and then by length.

    Args:
        rows: N.
        columns: A, the same at every scale.
        scales: K.
        device: of the result.

    Returns:
        (Q, 2) start and end in clips, and (Q,) place of each in a flattened (N, N) merged map.
    """
    stored = [torch.ones(1, rows // 2**k, columns, device=device) for k in range(scales)]
    place_Q = merge_maps(stored, 0.0).flatten().nonzero()[:, 0]
    place_Q = place_Q[place_Q // rows + place_Q % rows < rows]
    start_Q, column_Q = place_Q // rows, place_Q % rows
    return torch.stack([start_Q, start_Q + column_Q + 1], 1), place_Q


def clip_scores(score_BQ: Tensor, valid_BQ: Tensor, spans_Q2: Tensor, clips: int) -> Tensor:
    """(B, T) mean score of the valid moments that cover a clip; 0 where none does.

    Args:
        score_BQ: one score a moment.
        valid_BQ: True = counts.
        spans_Q2: start and end, whole clips.
        clips: T; moments may end later.
    """
    start_Q, end_Q = spans_Q2.clamp(max=clips).unbind(-1)
    # Sum and number of the moments that cover a clip: up at the start, down at the end, summed in order.
    # float64, because what has come in must go out without a trace.
    counted = torch.stack([score_BQ.double() * valid_BQ, valid_BQ.double()])
    steps = counted.new_zeros(*counted.shape[:2], clips + 1)
    steps = steps.index_add(2, start_Q, counted).index_add(2, end_Q, counted, alpha=-1)
    total_BT, number_BT = steps.cumsum(2)[..., :clips]
    return (total_BT / number_BT.round().clamp(min=1)).to(score_BQ.dtype)
