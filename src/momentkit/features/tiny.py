"""The bundled encoders: a small frame network and a small text network for the synthetic world.

    4 frames of a clip (3, 72, 128) -> convolutions -> 9 x 16 places: is an actor here, colour, shape, roles
                                    -> products of two properties at a place, strongest place -> (C,) concepts
    words -> embedding + position -> 2 transformer layers -> (L, E)

The frame features are readable: entry i is how sure the network is of concept i (colour x role, shape x role,
colour x shape). Products are taken place by place, so that "a red circle jumps, a blue square spins" is not
taken for the opposite. Recipe: `momentkit.train.tiny_encoders`.

Shapes   N clips   C concepts   L words   E text channels   K colours   S shapes   R roles   P places
"""

import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from momentkit.core.contract import StreamContract
from momentkit.core.errors import FeatureError, QueryError, WeightsError
from momentkit.core.types import TextFeatures
from momentkit.core.weights import WeightsCard, checksum, read_weights

FRAMES_NAME, TEXT_NAME = "momentkit/tiny-frames", "momentkit/tiny-text"
FRAME_OFFSETS_S = (0.125, 0.375, 0.625, 0.875)
FRAME_SIZE = (72, 128)
CLIP_LENGTH_S = 1.0
MAX_WORDS = 32
UNKNOWN = "<unk>"
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_CHUNK = 64  # clips in one pass


class FrameNet(nn.Module):
    """Four frames of a clip -> what is where.

    Args:
        colours, shapes, roles: how many there are.
        width: channels of the last stage.
        detail: channels of the stage before, which sees shapes.
    """

    def __init__(self, colours: int, shapes: int, roles: int, width: int = 80, detail: int = 48) -> None:
        super().__init__()
        self.sizes = (1, colours, shapes, roles)
        self.width, self.detail = width, detail
        frames = 3 * len(FRAME_OFFSETS_S)
        self.stem = nn.Sequential(
            _conv(frames, 32, stride=2), _conv(32, detail, stride=2), _conv(detail, detail)
        )
        self.down = _conv(detail, width, stride=2)
        self.blocks = nn.ModuleList(_conv(width, width, dilation=step) for step in (1, 2, 4, 2))
        self.head = nn.Conv2d(width, sum(self.sizes), 1)

    def forward(self, frames_N: Tensor) -> Tensor:
        """(N, 12, 72, 128) in [-1, 1], frame after frame -> (N, 1 + K + S + R, 9, 16) logits."""
        hidden = self.down(self.stem(frames_N))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.head(hidden)

    def concepts(self, logits_N: Tensor) -> Tensor:
        """Logits of places -> (N, C) in [0, 1]: the strongest place counts."""
        there_NP, colour_NPK, shape_NPS, role_NPR = self.readings(logits_N)
        parts = (
            colour_NPK[..., None] * role_NPR[:, :, None],
            shape_NPS[..., None] * role_NPR[:, :, None],
            colour_NPK[..., None] * shape_NPS[:, :, None],
        )
        return torch.cat([(there_NP[..., None, None] * part).amax(1).flatten(1) for part in parts], 1)

    def readings(self, logits_N: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits -> probabilities of presence (N, P), colour (N, P, K), shape (N, P, S), roles (N, P, R)."""
        there, colour, shape, role = logits_N.flatten(2).transpose(1, 2).split(self.sizes, -1)
        return there.squeeze(-1).sigmoid(), colour.softmax(-1), shape.softmax(-1), role.sigmoid()


def _conv(inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class TextNet(nn.Module):
    """Words in context.

    Args:
        words: size of the vocabulary; 0 pads, 1 is the unknown word.
        width: E.
        layers, heads: of the transformer.
    """

    def __init__(self, words: int, width: int = 96, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width, padding_idx=0)
        self.position = nn.Parameter(torch.randn(MAX_WORDS, width) * 0.1)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 2 * width, 0.1, batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, words_BL: Tensor) -> Tensor:
        """(B, L) word numbers, 0 = padding -> (B, L, E)."""
        hidden_BLE = self.embedding(words_BL) + self.position[: words_BL.shape[1]]
        for layer in self.layers:
            hidden_BLE = layer(hidden_BLE, src_key_padding_mask=words_BL == 0)
        return self.norm(hidden_BLE)


def split_words(sentence: str) -> list[str]:
    """Words of a sentence as the bundled text encoder sees them: lower case, without marks."""
    return _WORD.findall(sentence.lower())


class TinyFrameEncoder:
    """The bundled frame encoder; see `features.base.FrameEncoder`.

    Args:
        net: the network.
        revision: first digits of its weights' checksum.
    """

    clip_length_s = CLIP_LENGTH_S
    frame_offsets_s: tuple[float, ...] = FRAME_OFFSETS_S
    frame_size: tuple[int, int] | None = FRAME_SIZE

    def __init__(self, net: FrameNet, revision: str) -> None:
        self.net = net.eval().requires_grad_(False)
        _, colours, shapes, roles = net.sizes
        self.contract = StreamContract(
            encoder=FRAMES_NAME,
            revision=revision,
            layer="concepts",
            dim=colours * roles + shapes * roles + colours * shapes,
            fps=len(FRAME_OFFSETS_S) / CLIP_LENGTH_S,
            crop="stretch 72x128",
            dtype="float16",
            normalisation="l2",
        )

    @classmethod
    def bundled(cls) -> Self:
        """The encoder shipped with the package."""
        with resources.as_file(resources.files("momentkit") / "assets" / "tiny_frames.safetensors") as path:
            return cls.read(path)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """An encoder from its weights file.

        Raises:
            WeightsError: damaged, or the weights of something else.
        """
        card, tensors = _read(path, FRAMES_NAME)
        net = FrameNet(
            *(_option(card, name, path) for name in ("colours", "shapes", "roles", "width", "detail"))
        )
        _fill(net, tensors, path)
        return cls(net, _revision(card, tensors))

    @torch.inference_mode()
    def encode_frames(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Four 72 x 128 RGB frames a clip -> (T, C) in [0, 1], rounded to half precision.

        Raises:
            FeatureError: no frames, not four a clip, or frames of another size or type.
        """
        each = len(FRAME_OFFSETS_S)
        if not frames or len(frames) % each:
            raise FeatureError(f"{FRAMES_NAME} takes {each} frames a clip, got {len(frames)} frames")
        wanted = (*FRAME_SIZE, 3)
        for frame in frames:
            if frame.shape != wanted or frame.dtype != np.uint8:
                raise FeatureError(
                    f"{FRAMES_NAME} takes uint8 frames {wanted}, got {frame.dtype} {frame.shape}"
                )
        rows = []
        for first in range(0, len(frames), _CHUNK * each):
            batch = as_input(np.stack(frames[first : first + _CHUNK * each]))
            rows.append(self.net.concepts(self.net(batch)))
        return torch.cat(rows).half().float().numpy()


def as_input(frames: NDArray[np.uint8]) -> Tensor:
    """(4 N, H, W, 3) uint8 -> (N, 12, H, W) float32 in [-1, 1]."""
    clips = len(frames) // len(FRAME_OFFSETS_S)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    return pixels.reshape(clips, -1, *frames.shape[1:3])


class TinyTextEncoder:
    """The bundled text encoder; see `features.base.TextEncoder`.

    Args:
        net: the network.
        vocabulary: its words from number 2 on.
        revision: first digits of its weights' checksum.
    """

    def __init__(self, net: TextNet, vocabulary: Sequence[str], revision: str) -> None:
        self.net = net.eval().requires_grad_(False)
        self.numbers = {word: number + 2 for number, word in enumerate(vocabulary)}
        self.contract = StreamContract(
            encoder=TEXT_NAME,
            revision=revision,
            layer="last_hidden_state",
            dim=net.norm.normalized_shape[0],
            normalisation="l2",
        )

    @classmethod
    def bundled(cls) -> Self:
        """The encoder shipped with the package."""
        with resources.as_file(resources.files("momentkit") / "assets" / "tiny_text.safetensors") as path:
            return cls.read(path)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """An encoder from its weights file.

        Raises:
            WeightsError: damaged, or the weights of something else.
        """
        card, tensors = _read(path, TEXT_NAME)
        vocabulary = _option(card, "vocabulary", path)
        sizes = (_option(card, name, path) for name in ("width", "layers", "heads"))
        net = TextNet(len(vocabulary) + 2, *sizes)
        _fill(net, tensors, path)
        return cls(net, vocabulary, _revision(card, tensors))

    @torch.inference_mode()
    def encode_text(self, sentences: Sequence[str]) -> list[TextFeatures]:
        """One row a word, (L, E) each; words outside the vocabulary share one entry and are named.

        Raises:
            QueryError: a sentence without words, or of more than 32.
        """
        result = []
        for sentence in sentences:
            words = split_words(sentence)
            if not words:
                raise QueryError(
                    f"the sentence {sentence!r} holds no word; write what happens, such as 'a star spins'"
                )
            if len(words) > MAX_WORDS:
                raise QueryError(f"{TEXT_NAME} takes at most {MAX_WORDS} words, got {len(words)}; shorten it")
            # One sentence at a time: what stands beside it in a batch then cannot change the last bits.
            states_LE = self.net(torch.tensor([[self.numbers.get(word, 1) for word in words]]))[0]
            unknown = tuple(dict.fromkeys(word for word in words if word not in self.numbers))
            result.append(TextFeatures(words_LE=states_LE.numpy(), unknown_words=unknown))
        return result


def _read(path: str | Path, name: str) -> tuple[WeightsCard, dict[str, Tensor]]:
    card, tensors = read_weights(path)
    if card.model != name:
        raise WeightsError(f"{path} holds weights of {card.model}, not of {name}")
    return card, tensors


def _option(card: WeightsCard, name: str, path: str | Path) -> Any:
    if name not in card.options:
        raise WeightsError(f"{path}: its card lacks the option {name!r}; train or fetch the weights again")
    return card.options[name]


def _fill(net: nn.Module, tensors: Mapping[str, Any], path: str | Path) -> None:
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(
            f"{path} does not fit its own options: {str(error).splitlines()[-1].strip()}"
        ) from error


def _revision(card: WeightsCard, tensors: Mapping[str, Tensor]) -> str:
    """Short checksum of what decides the features; figures and notes on the card do not."""
    ordered = {name: tensors[name] for name in sorted(tensors)}
    return checksum(json.dumps(card.options, sort_keys=True), ordered)[:12]
