"""DiDeMo's official protocol, and the single target that later work scores against.

A moment is a pair of five-second chunks (first, last), both inclusive; there are 21.

Shapes   Q sentences   A annotators (4 to 7)   P = 21 chunk pairs
Source   metrics.md section 5; LocalizingMoments utils/eval.py.   Target: VLG-Net, datasets.md section 6
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from momentkit.core.errors import SubmissionError
from momentkit.metrics.arrays import pad_rows
from momentkit.metrics.overlap import Floats, iou_cross

Pairs = NDArray[np.int64]

CHUNKS = 6
CHUNK_LENGTH_S = 5.0
COUNTED = 3  # annotators that count: the three that agree best
SEGMENTS = tuple((i, i) for i in range(CHUNKS)) + tuple(
    (i, j) for i in range(CHUNKS) for j in range(i + 1, CHUNKS)
)


@dataclass(frozen=True)
class DidemoScores:
    """Rank and overlap of each sentence.

    Attributes:
        rank_Q: mean of the three smallest 1-based ranks of the annotators' pairs.
        iou_Q: mean of the three largest overlaps of the first-ranked pair with the annotators' pairs.
    """

    rank_Q: Floats
    iou_Q: Floats

    @property
    def rank1(self) -> float:
        return float((self.rank_Q <= 1).mean())

    @property
    def rank5(self) -> float:
        return float((self.rank_Q <= 5).mean())

    @property
    def miou(self) -> float:
        return float(self.iou_Q.mean())


def chunk_ranking(windows_N3: Floats) -> Pairs:
    """All 21 chunk pairs, best first, as a list of scored windows ranks them.

    Each window, in its order, stands for the pair it overlaps most; a pair that is there already is passed
    over. Pairs that no window stands for follow, by their largest product of score and overlap.

    Args:
        windows_N3: (N, 3) start_s, end_s, score in [0, 1], best first.

    Returns:
        (21, 2) first and last chunk.
    """
    segments_P2 = np.array(SEGMENTS)
    seconds_P2 = (segments_P2 + np.array([0, 1])) * CHUNK_LENGTH_S
    iou_NP = np.nan_to_num(iou_cross(windows_N3[:, :2], seconds_P2))
    named = [int(iou_P.argmax()) for iou_P in iou_NP if iou_P.max() > 0]
    rest = (-(iou_NP * windows_N3[:, 2:]).max(0, initial=0.0)).argsort(kind="stable")
    return segments_P2[list(dict.fromkeys([*named, *rest.tolist()]))]


def chunk_iou(a_2: Pairs, b_2: Pairs) -> Floats:
    """Overlap of inclusive chunk pairs (..., 2), in [0, 1]."""
    shared = np.minimum(a_2[..., 1], b_2[..., 1]) + 1 - np.maximum(a_2[..., 0], b_2[..., 0])
    hull = np.maximum(a_2[..., 1], b_2[..., 1]) + 1 - np.minimum(a_2[..., 0], b_2[..., 0])
    return np.maximum(shared, 0) / hull


def didemo_scores(ranking_QP2: Pairs, annotations: Sequence[Pairs]) -> DidemoScores:
    """Score full rankings.

    Args:
        ranking_QP2: (Q, 21, 2) the chunk pairs of each sentence, best first.
        annotations: for each sentence (A, 2), one pair an annotator, three or more.

    Raises:
        SubmissionError: a ranking that is not a permutation of the 21 pairs, fewer than three annotators,
            or a pair that does not exist.
    """
    if not len(annotations) or len(ranking_QP2) != len(annotations):
        raise SubmissionError(
            f"{len(ranking_QP2)} rankings for {len(annotations)} sentences; one each is needed"
        )
    code_QP = _codes(np.asarray(ranking_QP2), "ranking")
    wrong = np.flatnonzero((np.sort(code_QP, axis=1) != np.sort(_code(np.array(SEGMENTS)))).any(1))
    if len(wrong):
        raise SubmissionError(
            f"ranking {wrong[0] + 1}: must hold each of the {len(SEGMENTS)} chunk pairs once"
        )
    if fewest := [number for number, pairs in enumerate(annotations, 1) if len(pairs) < COUNTED]:
        raise SubmissionError(
            f"sentence {fewest[0]}: needs {COUNTED} annotators, has {len(annotations[fewest[0] - 1])}"
        )
    true_QA2, mask_QA = pad_rows([np.asarray(pairs) for pairs in annotations])
    place_QAP = code_QP[:, None, :] == np.where(mask_QA, _codes(true_QA2, "annotation"), -1)[..., None]
    rank_QA = np.where(mask_QA, place_QAP.argmax(-1) + 1.0, np.inf)
    iou_QA = np.where(mask_QA, chunk_iou(np.asarray(ranking_QP2)[:, :1], true_QA2), -np.inf)
    return DidemoScores(
        np.sort(rank_QA, axis=1)[:, :COUNTED].mean(1), np.sort(iou_QA, axis=1)[:, : -COUNTED - 1 : -1].mean(1)
    )


def _codes(pairs: Pairs, kind: str) -> NDArray[np.int64]:
    first, last = pairs[..., 0], pairs[..., 1]
    exists = (first >= 0) & (first <= last) & (last < CHUNKS)
    if not exists.all():
        bad = np.argwhere(~exists)[0]
        seen = pairs[tuple(bad)].tolist()
        raise SubmissionError(f"{kind} {bad[0] + 1}: {seen} is no pair 0 <= first <= last < {CHUNKS}")
    return _code(pairs)


def _code(pairs: Pairs) -> NDArray[np.int64]:
    return pairs[..., 0].astype(np.int64) * CHUNKS + pairs[..., 1]


def single_target(pairs: Pairs) -> tuple[float, float]:
    """The annotation that agrees best with the others, as (start_s, end_s); the first of equals.

    Args:
        pairs: (A, 2), one chunk pair an annotator, two or more.
    """
    iou_AA = chunk_iou(pairs[:, None], pairs[None])
    best = int(((iou_AA.sum(1) - 1) / (len(pairs) - 1)).argmax())
    return float(pairs[best, 0] * CHUNK_LENGTH_S), float((pairs[best, 1] + 1) * CHUNK_LENGTH_S)
