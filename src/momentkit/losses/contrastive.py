"""Pairs of vectors that belong together against all others of the batch.

Shapes   B samples   D width
Source   InfoNCE (van den Oord et al. 2018)
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(one_BD: Tensor, other_BD: Tensor, temperature: float, *, both: bool = True) -> Tensor:
    """Cross entropy of each row of `one` finding its own row of `other`, and the other way round.

    Args:
        one_BD, other_BD: row b of both belongs together; used as given (callers normalise).
        temperature: divides the dot products.
        both: mean of both directions; otherwise from `one` to `other` alone.
    """
    score_BB = one_BD @ other_BD.T / temperature
    own_B = torch.arange(len(score_BB), device=score_BB.device)
    forth = F.cross_entropy(score_BB, own_B)
    return (forth + F.cross_entropy(score_BB.T, own_B)) / 2 if both else forth
