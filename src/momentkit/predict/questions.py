"""What may be asked: checked before a film is read, so that a typing error costs nothing."""

from momentkit.core.errors import QueryError

MAX_LETTERS = 1000


def checked_sentences(sentences: str | list[str] | tuple[str, ...]) -> list[str]:
    """Sentences as a list, each of them text that can be asked.

    Raises:
        QueryError: no sentence, or one that is empty, too long, or no valid text.
    """
    asked = list(sentences) if isinstance(sentences, list | tuple) else [sentences]
    if not asked:
        raise QueryError("no sentence to look for; give at least one")
    for sentence in asked:
        _check(sentence)
    return asked


def _check(sentence: object) -> None:
    if not isinstance(sentence, str):
        raise QueryError(f"a sentence must be text, got {type(sentence).__name__}")
    if not sentence.strip():
        raise QueryError("a sentence is empty; say what happens, such as 'a red ball falls'")
    if len(sentence) > MAX_LETTERS:
        raise QueryError(f"a sentence has {len(sentence)} letters; at most {MAX_LETTERS} are read")
    if any("\ud800" <= letter <= "\udfff" for letter in sentence):
        raise QueryError(f"the sentence {sentence!r} is not valid text; check how it was decoded")


def check_thresholds(top: int, min_confidence: float) -> None:
    """Refuse a number of moments below 1 and a confidence outside [0, 1].

    Raises:
        QueryError: names the value.
    """
    if not top >= 1:
        raise QueryError(f"top must be at least 1, got {top}")
    if not 0 <= min_confidence <= 1:
        raise QueryError(f"the least confidence must lie in [0, 1], got {min_confidence}")
