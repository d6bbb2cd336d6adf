"""Features gathered into a few centres, and a random walk among clips by way of them.

Source   UVCOM (uvcom.md section 1), after the expectation-maximisation attention of Li et al. 2019
Shapes   B samples   N or T entries   K, J centres   d width
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-9
SPREAD = 1.44  # squared width of a centre, 1.2 ** 2
SHARPNESS = 5.0  # of the walk's affinities
FOLLOW = 0.5  # w, the share of the walk that goes on


def gather(centres_Kd: Tensor, x_BNd: Tensor, seen_BN: Tensor, rounds: int) -> Tensor:
    """Expectation and maximisation: centres move to the mean of what they are responsible for.

    The published exponent is minus half the squared distance of unit vectors over 1.2 squared, which is
    their cosine over 1.44 but for a constant.

    Returns:
        (B, K, d).
    """
    unit_BNd, centre_BKd = F.normalize(x_BNd, dim=-1), centres_Kd.expand(len(x_BNd), -1, -1)
    for _ in range(rounds):
        cosine_BKN = F.normalize(centre_BKd, dim=-1) @ unit_BNd.transpose(1, 2)
        share_BKN = (cosine_BKN / SPREAD).softmax(1) * seen_BN[:, None]
        centre_BKd = (share_BKN / (share_BKN.sum(2, keepdim=True) + TINY)) @ x_BNd
    return centre_BKd


def walk(x_BTd: Tensor, centres_BKd: Tensor, seen_BT: Tensor) -> Tensor:
    """Where a random walk among clips, by way of the centres, ends: (1 - w) (I - w^2 A)^-1 (w a'Y + X).

    A = a'm, with m the rows of a over their sums, has rank K. So the inverse of I - w^2 A is
    I + w^2 a' (I - w^2 m a')^-1 m: K equations a sample in place of T. In float32 even under autocast.

    Args:
        x_BTd: X.
        centres_BKd: Y.
        seen_BT: clips that take part; the others keep (1 - w) X.
    """
    with torch.autocast(x_BTd.device.type, enabled=False):
        x_BTd, centres_BKd = x_BTd.float(), centres_BKd.float()
        cosine_BKT = F.normalize(centres_BKd, dim=-1) @ F.normalize(x_BTd, dim=-1).transpose(1, 2)
        share_BKT = (SHARPNESS * cosine_BKT).softmax(1) * seen_BT[:, None]
        mean_BKT = share_BKT / (share_BKT.sum(2, keepdim=True) + TINY)
        back_BTK = share_BKT.transpose(1, 2)
        start_BTd = FOLLOW * back_BTK @ centres_BKd + x_BTd
        among_BKK = torch.eye(centres_BKd.shape[1], device=x_BTd.device) - FOLLOW**2 * mean_BKT @ back_BTK
        through_BKd: Tensor = torch.linalg.solve(among_BKK, mean_BKT @ start_BTd)
        return (1 - FOLLOW) * (start_BTd + FOLLOW**2 * back_BTK @ through_BKd)


def most_alike(video_BKd: Tensor, text_BJd: Tensor) -> Tensor:
    """(B, 1, d) the video centre with the highest mean cosine to the text centres."""
    cosine_BKJ = F.normalize(video_BKd, dim=-1) @ F.normalize(text_BJd, dim=-1).transpose(1, 2)
    best_B11 = cosine_BKJ.mean(2).argmax(1)[:, None, None]
    return video_BKd.take_along_dim(best_B11, 1)
