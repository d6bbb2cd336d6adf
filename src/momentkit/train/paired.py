"""Two runs on the same queries: the difference of each figure and how sure it is."""

from pathlib import Path

from momentkit.core.errors import DataError
from momentkit.metrics.bootstrap import Difference, paired_bootstrap
from momentkit.train.by_query import PerQuery
from momentkit.train.compare import answers_of


def compare_runs(
    first: str | Path,
    second: str | Path,
    data: Path | None = None,
    *,
    draws: int = 10_000,
    batch_size: int = 100,
) -> dict[str, Difference]:
    """Answer the same queries with both and draw videos; see `paired_bootstrap`.

    Args:
        first, second: run directories or weights; each reads its own features, so they may differ.
        data: as in `momentkit eval`, for both; None = the validation set of each.
        draws: of the bootstrap.
        batch_size: queries a forward.

    Returns:
        Figure -> second minus first, in percent.

    Raises:
        DataError: the two do not answer the same queries.
    """
    return paired(*(answers_of(name, data, batch_size=batch_size) for name in (first, second)), draws=draws)


def paired(first: PerQuery, second: PerQuery, *, draws: int = 10_000) -> dict[str, Difference]:
    """As `compare_runs`, of answers in memory.

    Raises:
        DataError: the two do not answer the same queries with the same truth.
    """
    for number, (one, other) in enumerate(zip(first.queries, second.queries, strict=False)):
        if (one.qid, one.vid, one.windows_s) != (other.qid, other.vid, other.windows_s):
            raise DataError(
                f"the runs do not answer the same queries: query {number} is {one.qid!r} on {one.vid} for "
                f"one and {other.qid!r} on {other.vid} for the other; evaluate both on one annotation file"
            )
    if len(first.queries) != len(second.queries):
        raise DataError(
            f"the runs do not answer the same queries: one has {len(first.queries)}, the other "
            f"{len(second.queries)}; evaluate both on one annotation file"
        )
    videos = [query.vid for query in first.queries]
    shared = [name for name in first.values if name in second.values]
    return {
        name: paired_bootstrap(100 * first.values[name], 100 * second.values[name], videos, draws=draws)
        for name in shared
    }
