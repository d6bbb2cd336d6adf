"""How the bundled frame encoder is trained: it learns to say, place by place, who is there and does what.

Clips are drawn in rounds and forgotten, so that memory stays small; each is seen twice, once mirrored.

Shapes   N clips   A actors   P places (9 x 16)   R roles
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits, cross_entropy

from momentkit.core.weights import WeightsCard, save_weights
from momentkit.data.synthetic.concepts import COLOURS, ROLES, SHAPES
from momentkit.data.synthetic.descriptor import FAINTEST
from momentkit.data.synthetic.plan import FilmOptions, make_film
from momentkit.data.synthetic.samples import ClipSamples, read_film
from momentkit.features.tiny import FRAME_SIZE, FRAMES_NAME, FrameNet, as_input

ROUND_CLIPS, _CLIPS_A_FILM, _BATCH, _LEARNING_RATE = 2048, 16, 64, 3e-3
_FIRST_FILM = 10**12  # far from the seeds of any set
_PLACES = (9, 16)
_MIRRORED = {"left": "right", "right": "left"}
_USUAL = FilmOptions(pause_s=1.0)
# Crowded films show more events a clip than those people ask about.
_CROWDED = FilmOptions(gap_s=(0.8, 3.0), pause_s=1.0)


def train_frames(target: Path, seed: int, rounds: int) -> FrameNet:
    """Train the frame encoder and write its weights.

    Args:
        target: folder of `tiny_frames.safetensors`.
        seed: of weights, films and noise.
        rounds: of 2,048 new clips each.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = FrameNet(len(COLOURS), len(SHAPES), len(ROLES))
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        _fit(net, seed, rounds)
    save_frames(target, net, seed, rounds, {})
    return net


def save_frames(target: Path, net: FrameNet, seed: int, rounds: int, metrics: dict[str, float]) -> None:
    """Write the weights in half precision, with their card."""
    card = WeightsCard(
        model=FRAMES_NAME,
        options={
            "colours": len(COLOURS),
            "shapes": len(SHAPES),
            "roles": len(ROLES),
            "width": net.width,
            "detail": net.detail,
        },
        trained_on=f"momentkit synthetic films, seed {seed}, {rounds * ROUND_CLIPS} clips, each twice",
        licence="Apache-2.0",
        metrics=metrics,
        measured_on="unseen films, written as mp4 and decoded" if metrics else "",
    )
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in net.state_dict().items()}
    save_weights(target / "tiny_frames.safetensors", tensors, card)


def _fit(net: FrameNet, seed: int, rounds: int) -> None:
    optimiser = torch.optim.AdamW(net.parameters(), _LEARNING_RATE, weight_decay=0.02)
    steps = rounds * 2 * ROUND_CLIPS // _BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, _LEARNING_RATE, total_steps=steps, pct_start=0.15
    )
    generator = torch.Generator().manual_seed(seed)
    net.train()
    for number in range(rounds):
        rng = np.random.default_rng([seed, 21, number])
        samples = _draw_round(seed, number, rng)
        sums = torch.zeros(4)
        batches = [
            order
            for _ in range(2)
            for order in np.array_split(rng.permutation(ROUND_CLIPS), ROUND_CLIPS // _BATCH)
        ]
        for index, chosen in enumerate(batches):
            mirrored = (index % 2 == 0) == (index < len(batches) // 2)
            frames_N, targets = _prepare(samples, chosen, mirrored, generator)
            terms = _losses(net(frames_N), targets)
            optimiser.zero_grad()
            terms.sum().backward()
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            sums += terms.detach()
        there, colour, shape, role = (sums / len(batches)).tolist()
        print(
            f"frames round {number + 1:3d} of {rounds}  presence {there:.4f}  colour {colour:.4f}  "
            f"shape {shape:.4f}  role {role:.4f}",
            flush=True,
        )


def _draw_round(seed: int, number: int, rng: np.random.Generator) -> list[ClipSamples]:
    films = ROUND_CLIPS // _CLIPS_A_FILM
    first = _FIRST_FILM * (seed + 1) + number * films
    result = []
    for index in range(films):
        film = make_film(first + index, _CROWDED if index % 2 else _USUAL)
        clips = np.sort(rng.permutation(film.duration_s)[:_CLIPS_A_FILM])
        result.append(read_film(film, clips, *FRAME_SIZE))
    return result


def _prepare(
    samples: list[ClipSamples], chosen: np.ndarray, mirrored: bool, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """One batch: frames with random light, blur and noise, and what each place should say."""
    where = [(samples[index // _CLIPS_A_FILM], index % _CLIPS_A_FILM) for index in chosen]
    frames_N = as_input(np.concatenate([film.frames_N[i] for film, i in where]))

    def stacked(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(film, name)[i] for film, i in where]))

    place_NA2, role_NAR = stacked("place_NA2"), stacked("role_NAR")
    if mirrored:
        frames_N = frames_N.flip(-1)
        place_NA2 = torch.stack([1 - place_NA2[..., 0], place_NA2[..., 1]], -1)
        role_NAR = role_NAR[..., [ROLES.index(_MIRRORED.get(role, role)) for role in ROLES]]
    targets = {"there": stacked("there_NA"), "place": place_NA2, "role": role_NAR}
    targets |= {"colour": stacked("colour_NA"), "shape": stacked("shape_NA")}
    # Colours last in memory: convolutions take a quarter less time on a processor.
    return _disturb(frames_N, generator).contiguous(memory_format=torch.channels_last), targets


def _disturb(frames_N: Tensor, generator: torch.Generator) -> Tensor:
    """Other light for each clip; blur and noise for some batches, one sheet of noise for all of its clips."""

    def uniform(low: float, high: float, count: int) -> Tensor:
        return torch.rand(count, 1, 1, 1, generator=generator) * (high - low) + low

    count = len(frames_N)
    frames_N = (frames_N + 1) * uniform(0.9, 1.1, count) + (uniform(-0.04, 0.04, count) - 1)
    blur, noise = (uniform(-2.0, 1.0, 1).clamp(min=0).item() for _ in range(2))
    if blur > 0:
        frames_N = frames_N.lerp(avg_pool2d(frames_N, 3, 1, 1, count_include_pad=False), 0.8 * blur)
    if noise > 0:
        frames_N = frames_N + 0.04 * noise * torch.randn(frames_N.shape[1:], generator=generator)
    return frames_N


def _losses(logits_N: Tensor, targets: dict[str, Tensor]) -> Tensor:
    """Presence everywhere; colour, shape and roles where an actor is. (4,) unweighted terms."""
    rows, columns = _PLACES
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    centre_P2 = torch.stack([x.flatten(), y.flatten()], -1)
    offset_NAP2 = centre_P2 - (targets["place"] * torch.tensor([columns, rows]))[:, :, None]
    # The place nearest to an actor counts fully wherever in the place the actor stands.
    far_NAP = (offset_NAP2.norm(dim=-1) - 0.5).clamp(min=0)
    there_NA = (targets["there"] / FAINTEST - 0.5).clamp(0, 1)
    heat_NAP = torch.exp(-(far_NAP**2) / (2 * 0.55**2)) * there_NA[..., None]
    heat_NP, owner_NP = heat_NAP.max(1)
    presence, colour, shape, role = (
        logits_N.flatten(2).transpose(1, 2).split((1, len(COLOURS), len(SHAPES), len(ROLES)), -1)
    )
    weight_NP = heat_NP * (heat_NP > 0.25)
    total = weight_NP.sum().clamp(min=1.0)

    def of_owner(name: str) -> Tensor:
        return targets[name].gather(1, owner_NP)

    role_NPR = targets["role"].gather(1, owner_NP[..., None].expand(-1, -1, len(ROLES)))
    positive = 1 + 2 * role_NPR
    role_NP = (binary_cross_entropy_with_logits(role, role_NPR, reduction="none") * positive).sum(-1)
    colour_NP = cross_entropy(colour.transpose(1, 2), of_owner("colour"), reduction="none")
    shape_NP = cross_entropy(shape.transpose(1, 2), of_owner("shape"), reduction="none")
    there = binary_cross_entropy_with_logits(presence.squeeze(-1), heat_NP, reduction="none").mean() * 10
    means = [(value * weight_NP).sum() / total for value in (colour_NP, shape_NP, role_NP)]
    return torch.stack([there, *means])


def held_out_films(seed: int, count: int) -> Iterator[int]:
    """Seeds of films no round uses."""
    first = _FIRST_FILM * (seed + 1) + math.floor(0.9 * _FIRST_FILM)
    return iter(range(first, first + count))
