"""Points of a temporal pyramid and the windows they are to find.

Shapes   B videos   P points of all levels   G windows;   times are in clips
Source   flashvtg.md sections 3 (points) and 5 (assignment), after FCOS and ActionFormer
"""

import torch
from torch import Tensor


def make_points(clips: int, strides: tuple[int, ...], device: torch.device | None = None) -> Tensor:
    """(P, 4) position (left edge of the cell), smallest and largest reach, stride; all in clips."""
    rows = []
    for stride in strides:
        position = torch.arange(clips // stride, device=device, dtype=torch.float32) * stride
        low = 0.0 if stride == 1 else float(stride)
        high = torch.inf if stride == strides[-1] else 2.0 * stride
        fixed = [torch.full_like(position, value) for value in (low, high, float(stride))]
        rows.append(torch.stack([position, *fixed], 1))
    return torch.cat(rows)


def assign_targets(points_P4: Tensor, windows_BG2: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Which points are positive, and how far from each the window's borders are.

    Args:
        points_P4: see `make_points`.
        windows_BG2: start, end in clips; rows of infinity are padding.
        radius: reach of the centre test, in strides.

    Returns:
        (B, P) bool, and (B, P, 2) distances to start and end in strides, 0 where not positive. Of several
        windows the shortest wins, the first among equals.
    """
    position, low, high, stride = (column[None, :, None] for column in points_P4.unbind(1))
    start, end = windows_BG2[:, None, :, 0], windows_BG2[:, None, :, 1]
    real = torch.isfinite(end)
    start, end = torch.where(real, start, 0.0), torch.where(real, end, 0.0)
    centre = (start + end) / 2
    near = position >= torch.maximum(centre - radius * stride, start)
    near &= position <= torch.minimum(centre + radius * stride, end)
    reach = torch.maximum(position - start, end - position)
    matched_BPG = near & (reach >= low) & (reach <= high) & real
    length_BPG = torch.where(matched_BPG, (end - start).expand_as(matched_BPG), torch.inf)
    if length_BPG.shape[2] == 0:
        return matched_BPG.any(2), points_P4.new_zeros(*matched_BPG.shape[:2], 2)
    winner_BP1 = length_BPG.argmin(2, keepdim=True)
    distance_BPG2 = torch.stack([(position - start) / stride, (end - position) / stride], -1)
    distance_BP2 = distance_BPG2.take_along_dim(winner_BP1[..., None], 2).squeeze(2)
    positive_BP = matched_BPG.any(2)
    return positive_BP, torch.where(positive_BP[..., None], distance_BP2, 0.0)
