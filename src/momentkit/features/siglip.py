"""Image and text encoder of the SigLIP family (SigLIP, SigLIP2 of fixed size), through transformers.

Image: one frame a clip, at its start, squeezed to the square the network takes (SigLIP2: bilinear, mean and
deviation 0.5); states pooled by the attention head ("pooler_output"), which is the space shared with text.
Text: lower case, padded to all places as in training, where padding is attended to; states of the valid
tokens after the last layer norm ("last_hidden_state"). SigLIP2 with a varying number of patches (NaFlex) is
not read.

Shapes   N frames   H, W pixels   D image channels   L tokens   E text channels
Source   Zhai et al. 2023; Tschannen et al. 2025
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from momentkit.core.contract import StreamContract
from momentkit.core.errors import FeatureError, QueryError
from momentkit.core.types import TextFeatures
from momentkit.features.checkpoint import load_checkpoint, transformers_for
from momentkit.features.pictures import BILINEAR, Preprocess, preprocess_of

DEFAULT_SIGLIP = "google/siglip2-base-patch16-224"


class SiglipFrameEncoder:
    """Frames -> pooler_output, one row a frame; see `momentkit.features.base.FrameEncoder`.

    Args:
        model: a transformers `SiglipModel` in eval mode.
        preprocess: of its checkpoint.
        name, revision: for the contract.
        clip_length_s: seconds a clip covers.
    """

    frame_offsets_s: tuple[float, ...] = (0.0,)
    frame_size: tuple[int, int] | None = None  # resized here, as the checkpoint's own preprocessing does it

    def __init__(
        self, model: Any, preprocess: Preprocess, name: str, revision: str, clip_length_s: float
    ) -> None:
        self._model, self._preprocess = model, preprocess
        self.clip_length_s = clip_length_s
        self.contract = StreamContract(
            encoder=name,
            revision=revision,
            layer="pooler_output",
            dim=model.config.vision_config.hidden_size,
            fps=1.0 / clip_length_s,
            crop=preprocess.name,
        )

    @torch.no_grad()
    def encode_frames(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Frames (H, W, 3) uint8 RGB -> (N, D) float32, raw."""
        pixels = torch.from_numpy(self._preprocess(frames)).to(self._model.device)
        return self._model.vision_model(pixel_values=pixels).pooler_output.float().cpu().numpy()


class SiglipTextEncoder:
    """Sentences -> last_hidden_state; see `momentkit.features.base.TextEncoder`.

    Args:
        model: a transformers `SiglipModel` in eval mode.
        tokenizer: of its checkpoint.
        name, revision: for the contract.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, revision: str) -> None:
        self._model, self._tokenizer = model, tokenizer
        config = model.config.text_config
        self._places = int(config.max_position_embeddings)
        self.contract = StreamContract(
            encoder=name, revision=revision, layer="last_hidden_state", dim=config.hidden_size
        )

    def encode_text(self, sentences: Sequence[str]) -> list[TextFeatures]:
        """One (L, E) float32 array a sentence, raw; L counts the end token, no padding.

        Raises:
            QueryError: an empty sentence, or one of more tokens than the encoder has places for.
        """
        made = []
        for sentence in sentences:
            output, tokens = self._run(sentence)
            made.append(TextFeatures(words_LE=output.last_hidden_state[0, :tokens].float().cpu().numpy()))
        return made

    def encode_sentences(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Sentences -> (N, D) float32 in the space of the frames.

        Raises:
            QueryError: as `encode_text`.
        """
        pooled = [self._run(sentence)[0].pooler_output for sentence in sentences]
        return torch.cat(pooled).float().cpu().numpy()

    @torch.no_grad()
    def _run(self, sentence: str) -> tuple[Any, int]:
        if not sentence.strip():
            raise QueryError("the sentence is empty; say what to look for")
        lower = sentence.lower()
        tokens = len(self._tokenizer(lower)["input_ids"])
        if tokens > self._places:
            raise QueryError(
                f"the sentence has {tokens} word pieces, the encoder {self.contract.encoder} takes "
                f"{self._places}; say it shorter: {sentence[:60]!r}"
            )
        padded = self._tokenizer(lower, padding="max_length", max_length=self._places)["input_ids"]
        ids_BL = torch.tensor([padded], device=self._model.device)
        return self._model.text_model(input_ids=ids_BL), tokens


def load_siglip(
    source: str | Path = DEFAULT_SIGLIP,
    *,
    name: str | None = None,
    revision: str = "",
    clip_length_s: float = 2.0,
    device: str = "cpu",
) -> tuple[SiglipFrameEncoder, SiglipTextEncoder]:
    """Load a SigLIP checkpoint's encoders; arguments and errors as `momentkit.features.clip.load_clip`."""
    if not clip_length_s > 0:
        raise FeatureError(f"the clip length must be positive, got {clip_length_s}")
    transformers = transformers_for("SigLIP")
    loaded = load_checkpoint(
        source,
        family="SigLIP",
        kind="siglip",
        model_class=transformers.SiglipModel,
        tokenizer_class=transformers.AutoTokenizer,
        name=name,
        revision=revision,
        device=device,
    )
    side, half = loaded.model.config.vision_config.image_size, (0.5, 0.5, 0.5)
    default = Preprocess(shorter_side=side, crop=side, mean=half, std=half, resample=BILINEAR, stretch=True)
    preprocess = preprocess_of(loaded.settings, default, str(source))
    return (
        SiglipFrameEncoder(loaded.model, preprocess, loaded.name, loaded.revision, clip_length_s),
        SiglipTextEncoder(loaded.model, loaded.tokenizer, loaded.name, loaded.revision),
    )
