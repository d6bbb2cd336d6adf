"""A sentence as one vector in the space of the frames: what a dual encoder was trained for.

Shapes   N sentences   D channels of the shared space
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from momentkit.core.errors import FeatureMismatchError
from momentkit.core.types import TextFeatures
from momentkit.features.base import FrameEncoder, TextEncoder

POOLED = "pooler_output"  # the layer's name in published text features


@runtime_checkable
class DualTextEncoder(Protocol):
    """A text encoder that also gives one vector a sentence."""

    def encode_sentences(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Sentences -> (N, D) float32, raw."""
        ...


def share_space(frames: FrameEncoder, text: TextEncoder) -> bool:
    """Whether frames and pooled sentences can be compared: both come from one dual encoder."""
    return isinstance(text, DualTextEncoder) and text.contract.encoder == frames.contract.encoder


class PooledText:
    """The pooled vector of a dual encoder, as a text encoder that gives one row a sentence.

    Args:
        frames: whose space it must be.
        text: the same dual encoder's text side.

    Raises:
        FeatureMismatchError: the two share no space.
    """

    def __init__(self, frames: FrameEncoder, text: TextEncoder) -> None:
        if not (isinstance(text, DualTextEncoder) and share_space(frames, text)):
            raise FeatureMismatchError(
                f"{frames.contract.encoder} and {text.contract.encoder} share no space, so a sentence "
                f"cannot be compared with a frame; take a dual encoder such as CLIP, or a trained model"
            )
        self._text: DualTextEncoder = text
        update = {"layer": POOLED, "dim": frames.contract.dim}
        self.contract = text.contract.model_copy(update=update)

    def encode_text(self, sentences: Sequence[str]) -> list[TextFeatures]:
        """One row (1, D) a sentence, raw.

        Raises:
            QueryError: an empty sentence, or one too long for the encoder.
            FeatureMismatchError: the vectors are not as wide as the frames'.
        """
        vectors_ND = self._text.encode_sentences(sentences)
        if vectors_ND.shape != (len(sentences), self.contract.dim):
            raise FeatureMismatchError(
                f"{self.contract.encoder} gives sentences of shape {vectors_ND.shape} for frames of "
                f"{self.contract.dim} channels; they share no space"
            )
        return [TextFeatures(words_LE=vector_D[None]) for vector_D in vectors_ND]
