"""MiniLM word-piece states (sentence-transformers/all-MiniLM-L6-v2), through transformers.

States of all tokens after the last layer, start and end included ("last_hidden_state"); a sentence's vector
is their mean, of length one, as sentence-transformers makes it.

Shapes   N sentences   L tokens   E channels
Source   Reimers and Gurevych 2019; Wang et al. 2020
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from momentkit.core.contract import StreamContract
from momentkit.core.types import TextFeatures
from momentkit.features.checkpoint import load_checkpoint, transformers_for, word_pieces

DEFAULT_MINILM = "sentence-transformers/all-MiniLM-L6-v2"


class MiniLmTextEncoder:
    """Sentences -> last_hidden_state; see `momentkit.features.base.TextEncoder`.

    Args:
        model: a transformers `BertModel` in eval mode.
        tokenizer: of its checkpoint.
        name, revision: for the contract.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, revision: str) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._places = int(model.config.max_position_embeddings)
        self.contract = StreamContract(
            encoder=name, revision=revision, layer="last_hidden_state", dim=model.config.hidden_size
        )

    def encode_text(self, sentences: Sequence[str]) -> list[TextFeatures]:
        """One (L, E) float32 array a sentence, raw; L counts the start and the end token.

        Raises:
            QueryError: an empty sentence, or one of more tokens than the encoder has places for.
        """
        return [TextFeatures(words_LE=self._states(sentence)) for sentence in sentences]

    def encode_sentences(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Sentences -> (N, E) float32 of length one.

        Raises:
            QueryError: as `encode_text`.
        """
        means_NE = np.stack([self._states(sentence).mean(0) for sentence in sentences])
        return means_NE / np.maximum(np.linalg.norm(means_NE, axis=1, keepdims=True), np.float32(1e-12))

    @torch.no_grad()
    def _states(self, sentence: str) -> NDArray[np.float32]:
        tokens = word_pieces(self._tokenizer, sentence, self._places, self.contract.encoder)
        ids_BL = torch.tensor([tokens], device=self._model.device)
        states = self._model(input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL)).last_hidden_state
        return states[0].float().cpu().numpy()


def load_minilm(
    source: str | Path = DEFAULT_MINILM,
    *,
    name: str | None = None,
    revision: str = "",
    device: str = "cpu",
) -> MiniLmTextEncoder:
    """Load a MiniLM checkpoint; arguments and errors as `momentkit.features.clip.load_clip`."""
    transformers = transformers_for("MiniLM")
    loaded = load_checkpoint(
        source,
        family="MiniLM",
        kind="bert",
        model_class=transformers.BertModel,
        tokenizer_class=transformers.AutoTokenizer,
        name=name,
        revision=revision,
        device=device,
    )
    return MiniLmTextEncoder(loaded.model, loaded.tokenizer, loaded.name, loaded.revision)
