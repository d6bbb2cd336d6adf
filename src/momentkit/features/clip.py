"""Image and text encoder of the CLIP family, through transformers, from the hub or a local directory.

Image: one frame a clip, at its start; shorter side to 224 (bicubic), centre crop, mean and deviation of the
checkpoint; pooled and projected ("image_embeds"). Text: states of the valid tokens, start and end included,
after the last layer norm, without the projection ("last_hidden_state"), as the published text features are.

Shapes   N frames   H, W pixels   S side of the crop   D image channels   L tokens   E text channels
Source   Radford et al. 2021; sampling and preprocessing as the extractors of Moment-DETR and UniVTG do them
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from momentkit.core.contract import StreamContract
from momentkit.core.errors import FeatureError
from momentkit.core.types import TextFeatures
from momentkit.features.checkpoint import load_checkpoint, transformers_for, word_pieces
from momentkit.features.pictures import Preprocess, preprocess_of

DEFAULT_CLIP = "openai/clip-vit-base-patch32"


class ClipFrameEncoder:
    """Frames -> image_embeds, one row a frame; see `momentkit.features.base.FrameEncoder`.

    Args:
        model: a transformers `CLIPModel` in eval mode.
        preprocess: of its checkpoint.
        name, revision: for the contract.
        clip_length_s: 1 for one frame a second, 2 for one every two.
    """

    frame_offsets_s: tuple[float, ...] = (0.0,)
    frame_size: tuple[int, int] | None = None  # the crop depends on the film's aspect

    def __init__(
        self, model: Any, preprocess: Preprocess, name: str, revision: str, clip_length_s: float
    ) -> None:
        self._model, self._preprocess = model, preprocess
        self.clip_length_s = clip_length_s
        self.contract = StreamContract(
            encoder=name,
            revision=revision,
            layer="image_embeds",
            dim=model.config.projection_dim,
            fps=1.0 / clip_length_s,
            crop=preprocess.name,
        )

    @torch.no_grad()
    def encode_frames(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Frames (H, W, 3) uint8 RGB -> (N, D) float32, raw."""
        pixels = torch.from_numpy(self._preprocess(frames)).to(self._model.device)
        pooled = self._model.vision_model(pixel_values=pixels).pooler_output
        return self._model.visual_projection(pooled).float().cpu().numpy()


class ClipTextEncoder:
    """Sentences -> last_hidden_state; see `momentkit.features.base.TextEncoder`.

    Args:
        model: a transformers `CLIPModel` in eval mode.
        tokenizer: of its checkpoint.
        name, revision: for the contract.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, revision: str) -> None:
        self._model, self._tokenizer = model, tokenizer
        config = model.config.text_config
        self._max_tokens = int(config.max_position_embeddings)
        self.contract = StreamContract(
            encoder=name, revision=revision, layer="last_hidden_state", dim=config.hidden_size
        )

    @torch.no_grad()
    def encode_text(self, sentences: Sequence[str]) -> list[TextFeatures]:
        """One (L, E) float32 array a sentence, raw; L counts the start and the end token.

        Raises:
            QueryError: an empty sentence, or one of more tokens than the encoder has places for.
        """
        return [TextFeatures(words_LE=self._states(sentence)) for sentence in sentences]

    @torch.no_grad()
    def encode_sentences(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Sentences -> (N, D) float32 in the space of the frames: the end token, projected ("pooler_output").

        Raises:
            QueryError: as `encode_text`.
        """
        pooled = [
            self._model.text_projection(self._model.text_model(**self._tokens(sentence)).pooler_output)
            for sentence in sentences
        ]
        return torch.cat(pooled).float().cpu().numpy()

    def _states(self, sentence: str) -> NDArray[np.float32]:
        states = self._model.text_model(**self._tokens(sentence)).last_hidden_state
        return states[0].float().cpu().numpy()

    def _tokens(self, sentence: str) -> dict[str, torch.Tensor]:
        tokens = word_pieces(self._tokenizer, sentence, self._max_tokens, self.contract.encoder)
        ids_BL = torch.tensor([tokens], device=self._model.device)
        return {"input_ids": ids_BL, "attention_mask": torch.ones_like(ids_BL)}


def load_clip(
    source: str | Path = DEFAULT_CLIP,
    *,
    name: str | None = None,
    revision: str = "",
    clip_length_s: float = 2.0,
    device: str = "cpu",
) -> tuple[ClipFrameEncoder, ClipTextEncoder]:
    """Load both encoders of a CLIP checkpoint; only safetensors are read, nothing is unpickled.

    Args:
        source: hub id, or a directory as `save_pretrained` writes it.
        name: for the contract; None = the hub id, or the directory's name.
        revision: hub commit or branch; "" = the newest. What was loaded stands in the contracts: the commit
            and the checksum of its weights.
        clip_length_s: seconds a clip covers; one frame is encoded for each.
        device: torch device.

    Raises:
        MissingExtraError: transformers is not installed.
        FeatureError: there is no CLIP checkpoint, or it cannot be fetched.
    """
    if not clip_length_s > 0:
        raise FeatureError(f"the clip length must be positive, got {clip_length_s}")
    transformers = transformers_for("CLIP")
    loaded = load_checkpoint(
        source,
        family="CLIP",
        kind="clip",
        model_class=transformers.CLIPModel,
        tokenizer_class=transformers.CLIPTokenizer,
        name=name,
        revision=revision,
        device=device,
    )
    side = loaded.model.config.vision_config.image_size
    preprocess = preprocess_of(loaded.settings, Preprocess(shorter_side=side, crop=side), str(source))
    return (
        ClipFrameEncoder(loaded.model, preprocess, loaded.name, loaded.revision, clip_length_s),
        ClipTextEncoder(loaded.model, loaded.tokenizer, loaded.name, loaded.revision),
    )
