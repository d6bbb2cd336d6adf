"""Sets of spans as signals: their scale, and the random spans that make every set the same size.

Shapes   B samples   N spans   G true moments of a sample   T steps of the schedule
         cw = centre,width, fractions of the video
Source   Chen et al., "DiffusionDet", ICCV 2023, in one dimension; DiffusionVMR section III.B
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from momentkit.diffusion.samplers import add_noise, noise_like

SMALLEST_WIDTH = 1e-4  # of a random span


def to_signal(spans_cw: Tensor, scale: float) -> Tensor:
    """Fractions -> numbers in [-scale, scale]."""
    return (2 * spans_cw - 1) * scale


def to_spans(signal: Tensor, scale: float) -> Tensor:
    """Any numbers -> fractions: cut to [-scale, scale], then the way back."""
    return (signal.clamp(-scale, scale) / scale + 1) / 2


def random_spans(noise: Tensor, law: Literal["normal", "uniform"]) -> Tensor:
    """Standard normal numbers (..., 2) -> random spans: around the middle of the video, or anywhere."""
    spans_cw = noise / 6 + 0.5 if law == "normal" else torch.special.ndtr(noise)
    return torch.stack([spans_cw[..., 0], spans_cw[..., 1].clamp(min=SMALLEST_WIDTH)], -1)


def same_size(truth_cw: Sequence[Tensor], random_BN2: Tensor, order: Sequence[Tensor]) -> Tensor:
    """The true spans of each sample, filled up with random ones to N, or a random subset of N.

    Args:
        truth_cw: B tensors (G, 2).
        random_BN2: spans to fill up with; the first G of a sample are not used.
        order: B permutations of the G true spans; the first N are kept where there are more.

    Returns:
        (B, N, 2).
    """
    count = random_BN2.shape[1]
    rows = []
    for spans_G2, random_N2, order_G in zip(truth_cw, random_BN2, order, strict=True):
        kept = spans_G2 if len(spans_G2) <= count else spans_G2[order_G[:count]]
        rows.append(torch.cat([kept.to(random_N2), random_N2[len(kept) :]]))
    return torch.stack(rows)


def own_noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of the shape of `like` (B, N, ...), each sample its own; for training.

    More rows (N) leave the first as they are, as in `noise_like`.
    """
    turned = like.transpose(0, 1)[None]
    return noise_like(turned, generator)[0].transpose(0, 1)


def noisy_spans(
    truth_cw: Sequence[Tensor],
    count: int,
    law: Literal["normal", "uniform"],
    scale: float,
    share_T: Tensor,
    time_B: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """What the decoder is given in training: (B, count, 2) cw, noised at each sample's step, cut to [0, 1].

    Args:
        truth_cw: B tensors (G, 2).
        count: N.
        law: of the random spans.
        scale: of the signal.
        share_T, time_B: see `add_noise`.
        generator: of all noise; None = torch's own.
    """
    like = torch.empty(len(truth_cw), count, 2, device=time_B.device)
    at = generator.device if generator is not None else "cpu"
    order = [torch.randperm(len(spans), generator=generator, device=at).to(like.device) for spans in truth_cw]
    clean = same_size(truth_cw, random_spans(own_noise(like, generator), law), order)
    noise = own_noise(like, generator)
    return to_spans(add_noise(to_signal(clean, scale), noise, share_T, time_B), scale)


def draw_times(samples: int, total: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """A step of its own for each sample, 0..total - 1, all alike."""
    at = generator.device if generator is not None else "cpu"
    return torch.randint(total, (samples,), generator=generator, device=at).to(device)
