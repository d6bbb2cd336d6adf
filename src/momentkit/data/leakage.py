"""What two splits share: videos, sources that videos were cut from, sentences.

A model that saw a video, or another part of the same film, is measured on what it knows. The same sentence
about another video is common ("a person opens a door") and no fault; it is counted, because a model may have
learnt where such moments lie.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from momentkit.core.types import Query

_SOURCE = re.compile(r"(.+?)_\d+(?:\.\d+)?_\d+(?:\.\d+)?")
_SIGNS = re.compile(r"[^\w\s]")


@dataclass(frozen=True)
class Leakage:
    """What is in both splits.

    Attributes:
        videos: vids -> rows of (first, second).
        sources: what vids "<source>_<start>_<end>" were cut from, where no vid is shared -> rows.
        sentences: sentences -> rows; lower case, without punctuation.
        pairs: rows of the second split whose video and sentence are those of a row of the first.
    """

    videos: dict[str, tuple[int, int]]
    sources: dict[str, tuple[int, int]]
    sentences: dict[str, tuple[int, int]]
    pairs: int


def source_of(vid: str) -> str:
    """The vid, or what is left of it without a trailing "_start_end"."""
    match = _SOURCE.fullmatch(vid)
    return match[1] if match else vid


def plain(sentence: str) -> str:
    """Lower case, no punctuation, single blanks."""
    return " ".join(_SIGNS.sub(" ", sentence.lower()).split())


def leakage(first: Sequence[Query], second: Sequence[Query]) -> Leakage:
    """Compare two splits."""
    videos = _shared([query.vid for query in first], [query.vid for query in second])
    sources = _shared(
        [source_of(query.vid) for query in first if query.vid not in videos],
        [source_of(query.vid) for query in second if query.vid not in videos],
    )
    sentences = _shared([plain(query.text) for query in first], [plain(query.text) for query in second])
    known = {(query.vid, plain(query.text)) for query in first}
    pairs = sum((query.vid, plain(query.text)) in known for query in second)
    return Leakage(videos, sources, sentences, pairs)


def _shared(first: Sequence[str], second: Sequence[str]) -> dict[str, tuple[int, int]]:
    counts, others = Counter(first), Counter(second)
    return {name: (counts[name], others[name]) for name in sorted(counts.keys() & others.keys())}
