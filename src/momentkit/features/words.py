"""Word vectors of a text file (GloVe, fastText): sentence -> words -> one row a word.

An unknown word becomes a row of zeros, as in every published recipe, and is counted, so that it can be said.
The recipes differ in what a word is:

split     lower case, cut at blanks: punctuation stays, so "light." is unknown (FlashVTG, CG-DETR, lighthouse)
no_stop   the same after the final full stop was taken off (2D-TAN, MS-2D-TAN on Charades, UMT)
treebank  lower case, cut as the Penn Treebank does: punctuation and "'s", "n't" are words of their own
          (MS-2D-TAN on ActivityNet Captions and TACoS, by NLTK's word tokenizer)

Shapes   L words   E channels
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from momentkit.core.errors import DataError, FeatureError
from momentkit.core.files import read_lines

Tokens = Literal["split", "no_stop", "treebank"]

# The rules of NLTK's word tokenizer (which first cuts a text into sentences; here a query is one), in order.
_TREEBANK = [
    (re.compile(pattern), put)
    for pattern, put in (
        (r"([«“‘„]|[`]+)", r" \1 "),
        (r'^"', r"`` "),
        (r"(``)", r" \1 "),
        (r'([ (\[{<])("|\'{2})', r"\1 `` "),
        (r"(?<!\w)(\')(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", r"\1 "),
        (r"([^.])(\.)([\]\)}>\"\'»”’ ]*)\s*$", r"\1 \2 \3 "),
        (r"([:,])([^\d])", r" \1 \2"),
        (r"([:,])$", r" \1 "),
        (r"\.{2,}", r" \g<0> "),
        (r"[;@#$%&]", r" \g<0> "),
        (r"([»”’])", r" \1 "),
        (r"([?!])", r" \1 "),
        (r"([^'])' ", r"\1 ' "),
        (r"[*]", r" \g<0> "),
        (r"[\]\[\(\)\{\}\<\>]", r" \g<0> "),
        (r"--", r" -- "),
        (r"^|$", " "),  # the rules below look for blanks
        (r"''", " '' "),
        (r'"', " '' "),
        (r"([^' ])('s|'m|'d|') ", r"\1 \2 "),
        (r"([^' ])('ll|'re|'ve|n't) ", r"\1 \2 "),
        (r"\b(can)(not)\b", r" \1 \2 "),
        (r"\b(gon|wan)(na)\b", r" \1 \2 "),
        (r"\b(got)(ta)\b", r" \1 \2 "),
        (r"\b(gim|lem)(me)\b", r" \1 \2 "),
    )
]


def is_word_file(path: str | Path) -> bool:
    """Whether a path is that of a file of word vectors, by its ending."""
    return str(path).endswith((".txt", ".txt.gz", ".vec"))


def tokenise(sentence: str, rule: Tokens) -> list[str]:
    """Words of a sentence, lower case; see the head of the file."""
    lower = sentence.strip().lower()
    if rule == "split":
        return lower.split()
    if rule == "no_stop":
        return lower.removesuffix(".").split()
    for pattern, put in _TREEBANK:
        lower = pattern.sub(put, lower)
    return lower.split()


def read_word_vectors(path: str | Path, wanted: Collection[str], dim: int) -> dict[str, NDArray[np.float32]]:
    """Vectors of the wanted words that the file has.

    Args:
        path: a word and `dim` numbers a line, separated by single blanks; a first line "count dim" is passed
            over. Plain or gzip.
        wanted: words.
        dim: numbers a word.

    Raises:
        FeatureError: unreadable, or a wanted word with another count of numbers; names the line.
    """
    sought = {word.encode() for word in wanted}
    found: dict[str, NDArray[np.float32]] = {}
    try:
        for number, line in read_lines(path):
            word, _, rest = line.rstrip().partition(b" ")
            if number == 1 and rest.count(b" ") != dim - 1 and rest.strip().isdigit():
                continue
            if word not in sought or word.decode() in found:
                continue
            found[word.decode()] = _vector(rest, dim, f"{path}:{number}")
    except DataError as error:
        raise FeatureError(str(error)) from error
    return found


def _vector(numbers: bytes, dim: int, where: str) -> NDArray[np.float32]:
    try:
        vector = np.array(numbers.split(), np.float32)
    except ValueError as error:
        raise FeatureError(f"{where}: a word and {dim} numbers are wanted: {error}") from error
    if vector.shape != (dim,) or not np.isfinite(vector).all():
        raise FeatureError(f"{where}: a word and {dim} finite numbers are wanted, got {vector.size} numbers")
    return vector


def sentence_rows(
    words: Collection[str], vectors: dict[str, NDArray[np.float32]], dim: int
) -> NDArray[np.float32]:
    """(L, E) float32, zeros for unknown words; a sentence without a word is one row of zeros."""
    nothing = np.zeros(dim, np.float32)
    return np.stack([vectors.get(word, nothing) for word in words] or [nothing])
