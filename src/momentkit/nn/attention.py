"""Attention with our mask convention: bool, True = real.

Shapes   B samples   N queries   M keys   V values, V <= M   H heads   E width of queries, keys   D of values
Source   detr_family.md 3.4
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.nn.pointwise import dropout as apply_dropout


def attend(
    query_BNE: Tensor,
    key_BME: Tensor,
    value_BVD: Tensor,
    heads: int,
    key_mask_BM: Tensor,
    *,
    dropout: float = 0.0,
    blocked_BHNM: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Multi-head attention on tensors as they are, without projections.

    Args:
        query_BNE, key_BME: split into heads; scale (E / H) ** -0.5.
        value_BVD: one row a key. Fewer rows than keys belong to the last keys: the first M - V keys (dummies)
            take weight and give nothing (CG-DETR eq. 3, FlashVTG eq. 1).
        heads: H; divides E and D.
        key_mask_BM: True = real; each sample has at least one real key.
        dropout: rate on the weights; callers pass 0 outside training.
        blocked_BHNM: True = this head must not look from this query to this key; None = nothing blocked.

    Returns:
        (B, N, D) joined values, and (B, N, M) weights: mean over heads, before dropout.
    """
    q_BHNe, k_BHMe, v_BHVd = (
        x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query_BNE, key_BME, value_BVD)
    )
    score_BHNM = (q_BHNe * q_BHNe.shape[-1] ** -0.5) @ k_BHMe.transpose(-1, -2)
    hidden_BHNM = ~key_mask_BM[:, None, None, :]
    if blocked_BHNM is not None:
        hidden_BHNM = hidden_BHNM | blocked_BHNM
    weight_BHNM = score_BHNM.masked_fill(hidden_BHNM, -torch.inf).softmax(-1)
    kept_BHNM = apply_dropout(weight_BHNM, dropout)
    joined = (kept_BHNM[..., -value_BVD.shape[1] :] @ v_BHVd).transpose(1, 2).flatten(-2)
    return joined, weight_BHNM.mean(1)


class PackedAttention(nn.Module):
    """Attention with the three input projections stacked in one matrix; equal to `nn.MultiheadAttention`.

    Args:
        width: D, of queries, keys, values and output.
        heads: H.
        dropout: rate on the weights while training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor, blocked: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, N, D), (B, M, D), (B, M, D), (B, M) -> (B, N, D) and the mean weights (B, N, M)."""
        weight_q, weight_k, weight_v = self.in_proj_weight.chunk(3)
        bias_q, bias_k, bias_v = self.in_proj_bias.chunk(3)
        joined, weights = attend(
            F.linear(query, weight_q, bias_q),
            F.linear(key, weight_k, bias_k),
            F.linear(value, weight_v, bias_v),
            self.heads,
            key_mask,
            dropout=self.dropout if self.training else 0.0,
            blocked_BHNM=blocked,
        )
        return self.out_proj(joined), weights


class BareAttention(nn.Module):
    """Attention on its inputs as they are; only the output is projected.

    Args:
        width: D of the values and the output.
        heads: H.
        dropout: rate on the weights while training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.out_proj = nn.Linear(width, width)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor, blocked: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, N, E), (B, M, E), (B, V, D), (B, M) -> (B, N, D) and the mean weights (B, N, M)."""
        rate = self.dropout if self.training else 0.0
        joined, weights = attend(query, key, value, self.heads, key_mask, dropout=rate, blocked_BHNM=blocked)
        return self.out_proj(joined), weights
