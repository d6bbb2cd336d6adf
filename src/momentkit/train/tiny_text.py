"""How the bundled text encoder is trained: it learns to say what a sentence asks for.

Each word's state and their mean must tell role, colour and shape of both sides. Every seventh wording is held
out, so that the figure is of wordings never seen.

Shapes   B sentences   L words   E channels
"""

import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from momentkit.core.weights import WeightsCard, save_weights
from momentkit.data.synthetic.concepts import COLOURS, ROLES, SHAPES
from momentkit.data.synthetic.grammar import Ask, any_ask, sentence, vocabulary
from momentkit.features.tiny import TEXT_NAME, TextNet, split_words

FIELDS = ("role", "colour", "shape", "other_colour", "other_shape")
_NAMES: tuple[tuple[str, ...], ...] = (ROLES, COLOURS, SHAPES, COLOURS, SHAPES)
_BATCH, _LEARNING_RATE, _UNKNOWN_SHARE = 128, 2e-3, 0.04
_OPTIONS = {"width": 96, "layers": 2, "heads": 4}


def train_text(target: Path, seed: int, steps: int) -> dict[str, float]:
    """Train the text encoder and write its weights.

    Args:
        target: folder of `tiny_text.safetensors`.
        seed: of weights, sentences and dropout.
        steps: updates of 128 sentences.

    Returns:
        Share of right answers a field, on wordings never seen in training.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words = vocabulary()
        numbers = {word: number + 2 for number, word in enumerate(words)}
        net = TextNet(len(words) + 2, **_OPTIONS)
        head = nn.Linear(_OPTIONS["width"], sum(len(names) + 1 for names in _NAMES))
        _fit(net, head, numbers, np.random.default_rng([seed, 11]), steps)
        metrics = _accuracy(net.eval(), head, numbers, np.random.default_rng([seed, 12]), 4000)
    card = WeightsCard(
        model=TEXT_NAME,
        options={**_OPTIONS, "vocabulary": list(words)},
        trained_on=f"momentkit synthetic grammar, seed {seed}, {steps} steps of {_BATCH} sentences",
        licence="Apache-2.0",
        metrics=metrics,
        measured_on="4,000 sentences whose wording was held out",
    )
    tensors = {name: tensor.half() for name, tensor in net.state_dict().items()}
    save_weights(target / "tiny_text.safetensors", tensors, card)
    return metrics


def _fit(
    net: TextNet, head: nn.Linear, numbers: dict[str, int], rng: np.random.Generator, steps: int
) -> None:
    parameters = [*net.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, _LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, total_steps=steps)
    net.train()
    for step in range(1, steps + 1):
        words_BL, answers_BF = _batch(numbers, rng, held_out=False, size=_BATCH)
        unknown_BL = torch.from_numpy(rng.random(words_BL.shape) < _UNKNOWN_SHARE)
        states_BLE = net(torch.where(unknown_BL & (words_BL > 0), torch.ones_like(words_BL), words_BL))
        real_BL = words_BL > 0
        loss = _loss(head(_mean(states_BLE, real_BL)), answers_BF)
        each = answers_BF[:, None].expand(-1, words_BL.shape[1], -1)
        loss = loss + 0.3 * _loss(head(states_BLE[real_BL]), each[real_BL])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 200 == 0 or step == steps:
            print(f"text   step {step:5d} of {steps}  loss {loss.item():.4f}", flush=True)


def _mean(states_BLE: Tensor, real_BL: Tensor) -> Tensor:
    return (states_BLE * real_BL[..., None]).sum(1) / real_BL.sum(1, keepdim=True)


def _loss(logits_BK: Tensor, answers_BF: Tensor) -> Tensor:
    parts = logits_BK.split([len(names) + 1 for names in _NAMES], -1)
    return torch.stack(
        [nn.functional.cross_entropy(part, answers_BF[:, i]) for i, part in enumerate(parts)]
    ).sum()


def _batch(
    numbers: dict[str, int], rng: np.random.Generator, *, held_out: bool, size: int
) -> tuple[Tensor, Tensor]:
    """(B, L) word numbers and (B, 5) answers; the answer 0 is "not said"."""
    rows: list[list[int]] = []
    answers: list[list[int]] = []
    while len(rows) < size:
        ask = any_ask(rng)
        text = sentence(ask, rng)
        if (zlib.crc32(text.encode()) % 7 == 0) == held_out:
            rows.append([numbers[word] for word in split_words(text)])
            answers.append(_answer(ask))
    words_BL = np.zeros((size, max(len(row) for row in rows)), np.int64)
    for index, row in enumerate(rows):
        words_BL[index, : len(row)] = row
    return torch.from_numpy(words_BL), torch.tensor(answers)


def _answer(ask: Ask) -> list[int]:
    said = (ask.role, ask.colour, ask.shape, ask.other_colour, ask.other_shape)
    return [0 if word is None else names.index(word) + 1 for word, names in zip(said, _NAMES, strict=True)]


@torch.inference_mode()
def _accuracy(
    net: TextNet, head: nn.Linear, numbers: dict[str, int], rng: np.random.Generator, size: int
) -> dict[str, float]:
    words_BL, answers_BF = _batch(numbers, rng, held_out=True, size=size)
    logits_BK = head(_mean(net(words_BL), words_BL > 0))
    parts = logits_BK.split([len(names) + 1 for names in _NAMES], -1)
    right_BF = torch.stack([part.argmax(-1) for part in parts], 1) == answers_BF
    figures = {f"{name} accuracy": float(right_BF[:, i].float().mean()) for i, name in enumerate(FIELDS)}
    return figures | {"all right": float(right_BF.all(1).float().mean())}
