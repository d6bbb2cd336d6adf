"""Windows in the order of the greatest expected average precision.

Suppression keeps the best-scored windows apart; it does not ask which list is likely to hold the truth. Here
the proposals are read as evidence of where the one true moment lies: proposal n with probability
score_n ** sharpness / sum. Reciprocal ranks at the ten thresholds of mAP then have an expected value for any
list of windows, and the list is built greedily: each time the window is added that brings the most evidence
over a threshold which no window before it had reached. The first window is thereby the one that most of the
evidence overlaps, which a single best-scored proposal need not be.

Windows are not only the proposals: every start of the evidence may meet every end.

Part of the evidence may be where moments lie before the query is read. A model too sure of itself gains
by it, and a list so mixed beats the bare location prior more easily: figures say whether it was used.

Shapes   N proposals   M windows of the location prior   P pieces of evidence   C candidates   K kept
Source   ours; the location prior (`train/baselines.py`) is chosen by the same rule from training moments
"""

import torch
from torch import Tensor

from momentkit.core.spans import pairwise_iou

FIRST_THRESHOLD, STEP, THRESHOLDS = 0.5, 0.05, 10  # those of mAP
# A normal border, integrated at three points (Gauss-Hermite): -sqrt(3), 0, sqrt(3) deviations.
NODES, NODE_WEIGHTS = (-(3**0.5), 0.0, 3**0.5), (1 / 6, 2 / 3, 1 / 6)


def expected_order(
    windows_N3: Tensor,
    duration_s: float,
    *,
    sharpness: float,
    border_spread: float,
    keep: int,
    location_M2: Tensor | None = None,
    location_share: float = 0.0,
) -> Tensor:
    """The `keep` windows of the greatest expected average precision, best first.

    Args:
        windows_N3: start_s, end_s, score in [0, 1]; any order.
        duration_s: of the video; spread borders stay within [0, duration_s].
        sharpness: > 0; above 1 trusts high scores more than they say, below 1 less.
        border_spread: standard deviation of each border, in lengths of its window; 0 = as proposed.
        keep: windows at most; fewer where no further window would bring anything.
        location_M2: start_s, end_s of windows that are likely a priori, each as much as the next.
        location_share: of the evidence that they are, in [0, 1).

    Returns:
        (K, 3); the first window has the best proposal's score, the next fall as what they bring falls.
    """
    evidence_P2, weight_P = _evidence(windows_N3.double(), duration_s, sharpness, border_spread)
    if not len(windows_N3) or not weight_P.sum() > 0:
        return windows_N3[windows_N3[:, 2].argsort(descending=True, stable=True)][:keep]
    if location_M2 is not None and location_share > 0:
        location_M = torch.full([len(location_M2)], location_share / len(location_M2)).double()
        weight_P = torch.cat([weight_P / weight_P.sum() * (1 - location_share), location_M])
        evidence_P2 = torch.cat([evidence_P2, location_M2.double()])
    starts, ends = (torch.unique(evidence_P2[:, side]) for side in (0, 1))
    candidates_C2 = torch.cartesian_prod(starts, ends)
    candidates_C2 = candidates_C2[candidates_C2[:, 1] > candidates_C2[:, 0]]
    reached_CP = _thresholds_reached(candidates_C2, evidence_P2)

    chosen: list[int] = []
    gains: list[float] = []
    best_P = torch.zeros_like(weight_P)
    while len(chosen) < keep and len(candidates_C2):
        gain_C = (reached_CP - best_P).clamp(min=0) @ weight_P
        index = int(gain_C.argmax())
        # Rounding alone brings nothing.
        if gains and not gain_C[index] > 1e-9 * gains[0]:
            break
        chosen.append(index)
        gains.append(float(gain_C[index]))
        best_P = torch.maximum(best_P, reached_CP[index])
    score_K = windows_N3[:, 2].max() * torch.tensor(gains, dtype=torch.float64) / max(gains, default=1.0)
    return torch.cat([candidates_C2[chosen], score_K[:, None]], 1).to(windows_N3.dtype)


def _evidence(
    windows_N3: Tensor, duration_s: float, sharpness: float, border_spread: float
) -> tuple[Tensor, Tensor]:
    """(P, 2) where the truth may lie, (P,) how likely, up to a factor."""
    spans_N2, weight_N = windows_N3[:, :2], windows_N3[:, 2].clamp(min=0) ** sharpness
    if border_spread == 0:
        return spans_N2, weight_N
    nodes, shares = torch.tensor(NODES).double(), torch.tensor(NODE_WEIGHTS).double()
    deviation_N = border_spread * (spans_N2[:, 1] - spans_N2[:, 0]).clamp(min=0)
    moved_N92 = spans_N2[:, None] + deviation_N[:, None, None] * torch.cartesian_prod(nodes, nodes)
    weight_N9 = weight_N[:, None] * torch.outer(shares, shares).flatten()
    return moved_N92.clamp(0, duration_s).flatten(0, 1), weight_N9.flatten()


def _thresholds_reached(candidates_C2: Tensor, evidence_P2: Tensor) -> Tensor:
    """(C, P) 0 to 10: how many of the thresholds 0.5, 0.55 ... 0.95 the overlap reaches."""
    iou_CP, _ = pairwise_iou(candidates_C2, evidence_P2)
    # A hair above, so that 0.55 counts as 0.55.
    return ((iou_CP - FIRST_THRESHOLD) / STEP + 1e-9).floor().add(1).clamp(0, THRESHOLDS)
