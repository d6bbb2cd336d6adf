"""TVSum's rows: the published file stores the number of clips where a duration is expected."""

from collections.abc import Sequence
from dataclasses import replace

from momentkit.core.errors import DataError
from momentkit.core.types import Query
from momentkit.data.labels import TVSUM_RATERS


def with_true_durations(queries: Sequence[Query], clip_length_s: float) -> list[Query]:
    """Rows whose duration is seconds: one label a clip of `clip_length_s`.

    Raises:
        DataError: a row rated by other than 20 raters, as in the `_sfc` variants: they hold one sum a clip,
            from which neither the labels nor the metric can be computed.
    """
    rows = []
    for query in queries:
        labels = query.clip_labels
        if labels is not None and len(labels[0]) != TVSUM_RATERS:
            raise DataError(
                f"line {query.line}: label holds {len(labels[0])} ratings a clip, TVSum has {TVSUM_RATERS}; "
                "use tvsum_train.jsonl and tvsum_val.jsonl, not their _sfc variants"
            )
        rows.append(query if labels is None else replace(query, duration_s=len(labels) * clip_length_s))
    return rows
