"""GloVe word vectors from the published text file (glove.6B.300d.txt), one row a word.

What a word is differs between the recipes, see `momentkit.features.words`; an unknown word is a row of zeros
and is named. Rows are not normalised, as in the published recipes.
"""

from collections.abc import Sequence
from pathlib import Path

from momentkit.core.contract import StreamContract
from momentkit.core.errors import DataError, FeatureError, QueryError
from momentkit.core.files import read_lines, sha256
from momentkit.core.types import TextFeatures
from momentkit.features.words import Tokens, read_word_vectors, sentence_rows, tokenise


class GloveTextEncoder:
    """Sentences -> word vectors; see `momentkit.features.base.TextEncoder`.

    Args:
        path: a word and its numbers a line. Only the words asked for are kept, so the file is read again for
            each call: give many sentences at once.
        rule: what a word is.

    Raises:
        FeatureError: unreadable, or its first line is no word and its vector.
    """

    def __init__(self, path: str | Path, rule: Tokens = "split") -> None:
        self._path, self._rule = Path(path), rule
        try:
            _, first = next(read_lines(path))
        except DataError as error:
            raise FeatureError(str(error)) from error
        except StopIteration as error:
            raise FeatureError(f"{path} is empty; a word and its numbers a line are wanted") from error
        numbers = first.split()[1:]
        dim = int(numbers[0]) if len(numbers) == 1 and numbers[0].isdigit() else len(numbers)
        if dim < 1:
            raise FeatureError(f"{path}: a word and its numbers a line are wanted; its first line has none")
        name = self._path.name.removesuffix(".gz").removesuffix(".txt")
        self.contract = StreamContract(
            encoder=name,
            revision=f"sha256:{sha256(path)[:16]}",
            layer="words" if rule == "split" else f"words {rule}",
            dim=dim,
            normalisation="none",
        )

    def encode_text(self, sentences: Sequence[str]) -> list[TextFeatures]:
        """One (L, E) float32 array a sentence.

        Raises:
            QueryError: a sentence without a word.
            FeatureError: the file is damaged where one of the words stands.
        """
        words = [tokenise(sentence, self._rule) for sentence in sentences]
        for sentence, found in zip(sentences, words, strict=True):
            if not found:
                raise QueryError(f"the sentence {sentence!r} holds no word; say what to look for")
        dim = self.contract.dim
        vectors = read_word_vectors(self._path, {word for found in words for word in found}, dim)
        return [
            TextFeatures(
                words_LE=sentence_rows(found, vectors, dim),
                unknown_words=tuple(dict.fromkeys(word for word in found if word not in vectors)),
            )
            for found in words
        ]
