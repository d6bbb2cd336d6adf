"""Which query answers for which true moment: minimal-cost assignment, sample by sample.

Shapes   B samples   Q queries   G true moments of a sample      se = start,end   cw = centre,width
Source   DETR (Carion et al. 2020) in one dimension; detr_family.md 4.1
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from momentkit.core.errors import TrainingError
from momentkit.core.spans import cw_to_se, pairwise_giou


class Matching(NamedTuple):
    """Matched pairs of a batch, all samples in a row.

    Attributes:
        sample_M: which sample.
        query_M: which query of it; ascending within a sample.
        target_M: which of its true moments.
    """

    sample_M: Tensor
    query_M: Tensor
    target_M: Tensor


@torch.no_grad()
def match(
    logits_BQ2: Tensor,
    spans_cw_BQ2: Tensor,
    targets_cw: Sequence[Tensor],
    costs: tuple[float, float, float] = (10.0, 1.0, 4.0),
) -> Matching:
    """Assign min(Q, G) queries of each sample to its true moments.

    Args:
        logits_BQ2: class logits, 0 = a moment.
        spans_cw_BQ2: predicted spans.
        targets_cw: B tensors (G, 2).
        costs: weights of the L1 distance, of minus the generalised IoU, of minus the share of class 0.

    Raises:
        TrainingError: a cost that is not finite; the sample is named.
    """
    spans, giou, share = costs
    padded_BG2 = torch.nn.utils.rnn.pad_sequence(
        [target.to(spans_cw_BQ2) for target in targets_cw], batch_first=True
    )
    distance_BQG = (spans_cw_BQ2[:, :, None] - padded_BG2[:, None]).abs().sum(-1)
    overlap_BQG = pairwise_giou(cw_to_se(spans_cw_BQ2), cw_to_se(padded_BG2))
    cost_BQG = spans * distance_BQG - giou * overlap_BQG - share * logits_BQ2.softmax(-1)[..., :1]
    rows: list[np.ndarray] = []
    for sample, (cost_QG, target) in enumerate(zip(cost_BQG.float().cpu().numpy(), targets_cw, strict=True)):
        if not np.isfinite(cost_QG).all():
            raise TrainingError(
                f"sample {sample} of the batch cannot be matched: a predicted span or score is not finite; "
                f"a smaller learning rate may help"
            )
        query, moment = linear_sum_assignment(cost_QG[:, : len(target)])
        rows.append(np.stack([np.full_like(query, sample), query, moment]))
    return Matching(*torch.from_numpy(np.concatenate(rows, 1)).to(logits_BQ2.device))
