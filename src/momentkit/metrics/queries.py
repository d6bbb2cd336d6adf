"""Which queries predictions and truth share, how they differ, and the rows of each."""

from collections.abc import Mapping, Set

from momentkit.core.errors import SubmissionError
from momentkit.metrics.rows import PredictionRow, QueryId, TruthRow


def match_queries(
    predicted: list[PredictionRow], true: list[TruthRow], *, match_number: bool
) -> tuple[list[PredictionRow], list[TruthRow]]:
    """Both lists over the same queries; see `require_same_queries`."""
    wheres = {row.qid: row.where for row in reversed(predicted)}
    asked = dict.fromkeys(row.qid for row in true)
    shared = require_same_queries(
        {row.qid: wheres[row.qid] for row in predicted}, asked.keys(), match_number=match_number
    )
    return [row for row in predicted if row.qid in shared], [row for row in true if row.qid in shared]


def require_same_queries(
    answered: Mapping[QueryId, str], asked: Set[QueryId], *, match_number: bool
) -> frozenset[QueryId]:
    """The queries that predictions and truth share.

    Args:
        answered: predicted query -> where its row stands.
        asked: queries of the truth.
        match_number: refuse if the two differ at all.

    Raises:
        SubmissionError: they differ and `match_number` is set, or none is shared.
    """
    shared = frozenset(asked & answered.keys())
    if len(shared) == len(asked) == len(answered) or (shared and not match_number):
        return shared
    parts = []
    if missing := [repr(qid) for qid in asked if qid not in shared]:
        parts.append(f"{len(missing)} queries have no prediction ({examples(missing)})")
    if unknown := [f"{qid!r} at {where}" for qid, where in answered.items() if qid not in shared]:
        parts.append(f"{len(unknown)} predicted queries are not in the truth ({examples(unknown)})")
    if {str(qid) for qid in asked - shared} & {str(qid) for qid in answered.keys() - shared}:
        parts.append("qids are numbers in one file and strings in the other")
    hint = "; --shared-only (match_number=False) scores the shared ones" if shared else ""
    raise SubmissionError(f"qid: {' and '.join(parts)}{hint}")


def examples(names: list[str]) -> str:
    """The first three, for a message."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


class QueryGroups:
    """Rows by query. A repeated query merges for mAP; its last row counts for the rest (metrics.md 2.4).

    Args:
        predicted: prediction rows.
        true: ground-truth rows of the same queries.

    Attributes:
        qids: the distinct queries in submission order.
        predicted, true: rows of each of them.
    """

    def __init__(self, predicted: list[PredictionRow], true: list[TruthRow]) -> None:
        self.qids: tuple[QueryId, ...] = tuple(dict.fromkeys(row.qid for row in predicted))
        index = {qid: query for query, qid in enumerate(self.qids)}
        self.predicted: list[list[PredictionRow]] = [[] for _ in self.qids]
        self.true: list[list[TruthRow]] = [[] for _ in self.qids]
        for row in predicted:
            self.predicted[index[row.qid]].append(row)
        for truth in true:
            self.true[index[truth.qid]].append(truth)
