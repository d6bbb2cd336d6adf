"""Losses of a set of predicted spans against the true ones.

Shapes   N decoder layers   B samples   Q queries   G true moments of a sample      cw = centre,width
Source   detr_family.md 4.2, 4.3
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from momentkit.core.spans import cw_to_se, pairwise_giou, se_to_cw
from momentkit.losses.matching import Matching, match


def targets_as_fractions(windows_clip: Sequence[Tensor], video_mask_BT: Tensor) -> list[Tensor]:
    """True moments in clips -> B tensors (G, 2) cw, fractions of the real clips (detr_family.md F7)."""
    clips_B = video_mask_BT.sum(1)
    return [
        se_to_cw(window.to(video_mask_BT.device) / clips)
        for window, clips in zip(windows_clip, clips_B, strict=True)
    ]


def span_distance(spans_cw_BQ2: Tensor, targets_cw: Sequence[Tensor], matching: Matching) -> Tensor:
    """Mean absolute difference over matched pairs and both numbers; 0 where nothing is matched."""
    predicted_M2, true_M2 = _pairs(spans_cw_BQ2, targets_cw, matching)
    return (predicted_M2 - true_M2).abs().sum() / max(predicted_M2.numel(), 1)


def span_giou(spans_cw_BQ2: Tensor, targets_cw: Sequence[Tensor], matching: Matching) -> Tensor:
    """Mean of 1 - generalised IoU over matched pairs; 0 where nothing is matched."""
    predicted_M2, true_M2 = _pairs(spans_cw_BQ2, targets_cw, matching)
    overlap_M = pairwise_giou(cw_to_se(predicted_M2)[:, None], cw_to_se(true_M2)[:, None]).flatten()
    return (1 - overlap_M).sum() / max(len(overlap_M), 1)


def label_cross_entropy(logits_BQ2: Tensor, matching: Matching, background: float = 0.1) -> Tensor:
    """Plain mean over all queries of the weighted cross entropy; an unmatched query counts `background`."""
    matched_BQ = _matched(logits_BQ2, matching)
    share_BQ2 = logits_BQ2.log_softmax(-1)
    return -torch.where(matched_BQ, share_BQ2[..., 0], background * share_BQ2[..., 1]).mean()


def label_focal(logits_BQ2: Tensor, matching: Matching) -> Tensor:
    """Focal loss of the two logits as independent sigmoids: gamma 2, alpha 0.25."""
    matched_BQ = _matched(logits_BQ2, matching)
    label_BQ2 = torch.stack([matched_BQ, ~matched_BQ], -1).to(logits_BQ2)
    plain_BQ2 = F.binary_cross_entropy_with_logits(logits_BQ2, label_BQ2, reduction="none")
    p_BQ2 = logits_BQ2.sigmoid()
    missed_BQ2 = 1 - (p_BQ2 * label_BQ2 + (1 - p_BQ2) * (1 - label_BQ2))
    return ((0.25 * label_BQ2 + 0.75 * (1 - label_BQ2)) * plain_BQ2 * missed_BQ2**2).mean()


def set_terms(
    logits_NBQ2: Tensor,
    spans_cw_NBQ2: Tensor,
    targets_cw: Sequence[Tensor],
    *,
    costs: tuple[float, float, float] = (10.0, 1.0, 4.0),
    background: float | None = 0.1,
) -> dict[str, Tensor]:
    """The three set losses of every decoder layer, each layer with a matching of its own.

    Args:
        logits_NBQ2, spans_cw_NBQ2: of all layers.
        targets_cw: B tensors (G, 2).
        costs: see `match`.
        background: weight of an unmatched query in the cross entropy; None: focal loss instead.

    Returns:
        "span", "giou", "label" of the last layer, "span_0", "giou_0", "label_0" of the first, and so on.
    """
    terms: dict[str, Tensor] = {}
    last = len(logits_NBQ2) - 1
    for index, (logits_BQ2, spans_cw_BQ2) in enumerate(zip(logits_NBQ2, spans_cw_NBQ2, strict=True)):
        matching = match(logits_BQ2, spans_cw_BQ2, targets_cw, costs)
        suffix = "" if index == last else f"_{index}"
        terms[f"span{suffix}"] = span_distance(spans_cw_BQ2, targets_cw, matching)
        terms[f"giou{suffix}"] = span_giou(spans_cw_BQ2, targets_cw, matching)
        terms[f"label{suffix}"] = (
            label_focal(logits_BQ2, matching)
            if background is None
            else label_cross_entropy(logits_BQ2, matching, background)
        )
    return terms


def _pairs(spans_cw_BQ2: Tensor, targets_cw: Sequence[Tensor], matching: Matching) -> tuple[Tensor, Tensor]:
    """Matched spans and their targets, (M, 2) each."""
    padded_BG2 = torch.nn.utils.rnn.pad_sequence(
        [target.to(spans_cw_BQ2) for target in targets_cw], batch_first=True
    )
    return (
        spans_cw_BQ2[matching.sample_M, matching.query_M],
        padded_BG2[matching.sample_M, matching.target_M],
    )


def _matched(logits_BQ2: Tensor, matching: Matching) -> Tensor:
    """(B, Q) bool."""
    matched_BQ = torch.zeros(logits_BQ2.shape[:2], dtype=torch.bool, device=logits_BQ2.device)
    matched_BQ[matching.sample_M, matching.query_M] = True
    return matched_BQ
