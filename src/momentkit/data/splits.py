"""Anti-bias splits of Charades-STA: training moments are mostly short (or early), test moments the opposite.

Source   MomentDiff (Li et al. 2023), section 4.1 and its released files. The paper draws the minority at
         random and writes <=; the files take the first rows in file order and strict inequalities, so that a
         moment of exactly 10 s is in neither part. We follow the files; `momentdiff.md` section 10.
         The released files count qids from 0 again for the minority and for each file, so qids repeat:
         `released=True` does the same, otherwise each row keeps its own.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from momentkit.core.errors import ConfigError, DataError
from momentkit.core.types import Query

LENGTH_S, MOMENT_S = 10.0, 15.0
SHARE = 4  # the majority is so many times the minority


def anti_bias(queries: Iterable[Query], rule: str, part: str, *, released: bool = False) -> list[Query]:
    """The rows of one part: the majority, then the minority, each in the order given.

    Args:
        queries: rows of the part's own file (train from train), with one window each.
        rule: "len": training moments are shorter than 10 s, test moments longer. "mom": training moments end
            before 15 s, test moments start after.
        part: which side is the majority.
        released: number the rows as the released files do.

    Raises:
        ConfigError: an unknown rule or part.
        DataError: a row with none or several windows.
    """
    if rule not in _SIDES or part not in ("train", "test"):
        raise ConfigError(f"rule is len or mom and part train or test, got {rule!r} and {part!r}")
    rows = list(queries)
    first, second = ([query for query in rows if side(query)] for side in _SIDES[rule])
    majority, minority = (first, second) if part == "train" else (second, first)
    minority = minority[: len(majority) // SHARE]
    if not released:
        return majority + minority
    return [replace(query, qid=number) for part in (majority, minority) for number, query in enumerate(part)]


def _window(query: Query) -> tuple[float, float]:
    windows_s = query.windows_s or ()
    if len(windows_s) != 1:
        raise DataError(
            f"qid {query.qid!r} (line {query.line}) has {len(windows_s)} windows; "
            f"only rows of one window can be split"
        )
    return windows_s[0]


def _length_s(query: Query) -> float:
    start_s, end_s = _window(query)
    return end_s - start_s


_SIDES: dict[str, tuple[Callable[[Query], bool], Callable[[Query], bool]]] = {
    "len": (lambda query: _length_s(query) < LENGTH_S, lambda query: _length_s(query) > LENGTH_S),
    "mom": (lambda query: _window(query)[1] < MOMENT_S, lambda query: _window(query)[0] > MOMENT_S),
}
