"""A model's answers to a data set, and the figures they reach.

Several processes (torchrun) share the batches of one process: process r takes batches r, r + world, ...,
whole. Each query is answered once, in the batch that one process would have put it in: the figures are the
same to the bit.

A model that draws noise gets the same generator for every batch, and each query its own noise by its key: an
answer depends on the seed and the query alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from momentkit.core.errors import DataError
from momentkit.core.types import Query
from momentkit.data.collate import Sample, collate
from momentkit.data.options import DataConfig
from momentkit.data.sampler import batches
from momentkit.metrics.highlights import domain_figure, tvsum_ap, youtube_ap
from momentkit.metrics.submission import score_moment_rows
from momentkit.predict.decode import PostProcess, decode
from momentkit.train.printed import printed_figures

PROTOCOL = "cgdetr"  # R1@0.3, 0.5, 0.7, mAP, mIoU, lengths; as CG-DETR, LD-DETR and FlashVTG report
HIGHLIGHT_CLIP_S = 2.0  # the highlight evaluator of QVHighlights knows no other clip length
Row = dict[str, Any]


class QuerySource(Protocol):
    """Samples and the queries they belong to, in the same order."""

    @property
    def queries(self) -> Sequence[Query]: ...

    def __len__(self) -> int: ...

    def sample(self, index: int, epoch: int) -> Sample:
        """Sample `index`."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """What a model said and what that is worth.

    Attributes:
        rows: submission rows, one a query, in the order of the data set.
        metrics: figure -> percent, unavailable ones left out.
        unlabelled: queries without truth; answered but not scored.
    """

    rows: list[Row]
    metrics: dict[str, float]
    unlabelled: int


@dataclass(frozen=True)
class Repeats:
    """The same evaluation with several seeds.

    Attributes:
        first: that of seed 0.
        mean: of each figure.
        deviation: of each figure, of the population; empty where the seed changes nothing.
        count: how many seeds.
    """

    first: Evaluation
    mean: dict[str, float]
    deviation: dict[str, float]
    count: int


def evaluate(
    model: nn.Module,
    source: QuerySource,
    data: DataConfig,
    post: PostProcess,
    *,
    batch_size: int = 100,
    seed: int = 0,
) -> Evaluation:
    """Answer every query of a data set and score the answers.

    Args:
        model: left in the mode it came in.
        source: a data set, or a probe of one.
        data: its options; the layout decides which figures there are.
        post: how moments are read off.
        batch_size: queries a forward; changes no answer by more than rounding.
        seed: of the noise of models that draw any.

    Raises:
        DataError: no query has a truth.
    """
    rows = answer(model, source, post, batch_size=batch_size, seed=seed)
    metrics, unlabelled = figures(rows, source.queries, data)
    return Evaluation(rows, metrics, unlabelled)


def evaluate_repeatedly(
    model: nn.Module,
    source: QuerySource,
    data: DataConfig,
    post: PostProcess,
    *,
    repeats: int,
    batch_size: int = 100,
) -> Repeats:
    """Evaluate with the seeds 0 to repeats - 1; a model that answers two of them alike draws no noise.

    Args:
        model, source, data, post, batch_size: as in `evaluate`.
        repeats: at least 1.
    """
    runs: list[Evaluation] = []
    for seed in range(repeats):
        runs.append(evaluate(model, source, data, post, batch_size=batch_size, seed=seed))
        if seed == 1 and runs[0].rows == runs[1].rows:
            return Repeats(runs[0], runs[0].metrics, {}, 1)
    columns = {name: [run.metrics[name] for run in runs] for name in runs[0].metrics}
    mean = {name: float(np.mean(values)) for name, values in columns.items()}
    deviation = {name: float(np.std(values)) for name, values in columns.items()}
    return Repeats(runs[0], mean, deviation if repeats > 1 else {}, repeats)


def answer(
    model: nn.Module, source: QuerySource, post: PostProcess, *, batch_size: int, seed: int = 0
) -> list[Row]:
    """Submission rows of every query, the same in every process."""
    rank, world = _place()
    lengths_ms = np.array([round(1000 * query.duration_s) for query in source.queries], np.int64)
    plan = batches(np.arange(len(source)), batch_size, lengths_N=lengths_ms)
    found: dict[int, Row] = {}
    with _evaluating(model):
        for number in range(rank, len(plan), world):
            found |= _answer_batch(model, source, plan[number], seed, post)
    if world > 1:
        parts: list[dict[int, Row]] = [{} for _ in range(world)]
        torch.distributed.all_gather_object(parts, found)
        found = {index: row for part in parts for index, row in part.items()}
    return [found[index] for index in range(len(source))]


def _answer_batch(
    model: nn.Module, source: QuerySource, indices: NDArray[np.int64], seed: int, post: PostProcess
) -> dict[int, Row]:
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))  # zeroshot has none
    samples = [source.sample(int(index), 0) for index in indices]
    generator = torch.Generator(device).manual_seed(seed)
    prediction = model(collate(samples, with_targets=False).to(device), generator=generator)
    decoded = decode(
        prediction,
        [len(sample.video_TD) for sample in samples],
        [sample.clip_length_s for sample in samples],
        [sample.duration_s for sample in samples],
        post,
    )
    return {
        int(index): {
            "qid": sample.query.qid,
            "query": sample.query.text,
            "vid": sample.query.vid,
            "pred_relevant_windows": np.round(answered.windows_N3.astype(np.float64), 4).tolist(),
            "pred_saliency_scores": answered.saliency_T.tolist(),  # unrounded: close scores must not tie
        }
        for index, sample, answered in zip(indices, samples, decoded, strict=True)
    }


def _place() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def figures(rows: Sequence[Row], queries: Sequence[Query], data: DataConfig) -> tuple[dict[str, float], int]:
    """Figures of submission rows by name, and how many queries have no truth.

    Args:
        rows: one a query, in the same order; rows without saliency get no highlight figures.
        queries: with their truth.
        data: the layout decides the protocol.

    Raises:
        DataError: no query has a truth.
    """
    if data.layout in ("tvsum", "youtube"):
        pairs = [(row, query) for row, query in zip(rows, queries, strict=True) if query.clip_labels]
    else:
        pairs = [(row, query) for row, query in zip(rows, queries, strict=True) if query.windows_s]
    if not pairs:
        raise DataError(
            "no query has a truth to be scored against; evaluate on an annotation file with labels"
        )
    unlabelled = len(rows) - len(pairs)
    if data.layout in ("tvsum", "youtube"):
        return _highlight_figures(pairs, data), unlabelled
    highlights = data.clip_length_s == HIGHLIGHT_CLIP_S and all(
        query.saliency_scores is not None and "pred_saliency_scores" in row for row, query in pairs
    )
    kept = {"qid", "pred_relevant_windows"} | ({"pred_saliency_scores"} if highlights else set())
    scores = score_moment_rows(
        [{key: row[key] for key in kept} | {"qid": number} for number, (row, _) in enumerate(pairs)],
        [_truth_row(query, number) for number, (_, query) in enumerate(pairs)],
        protocol=PROTOCOL,
    )
    # The protocol writes zeros for a range of lengths that no true window has; here it is left out.
    empty = {
        f"MR-{name.removesuffix('.mr_ap')}-mAP"
        for name, array in scores.per_query.items()
        if name.endswith(".mr_ap") and np.isnan(array).all()
    }
    brief = {name: value for name, value in scores.figures["brief"].items() if name not in empty}
    measured = {name: value for name, value in brief.items() if value is not None}
    return measured | printed_figures(pairs, data), unlabelled


def _truth_row(query: Query, number: int) -> Row:
    """Keyed by position: a file may hold one qid twice."""
    return {
        "qid": number,
        "duration": query.duration_s,
        "relevant_windows": [list(window) for window in query.windows_s or ()],
        "relevant_clip_ids": list(query.relevant_clips or ()),
        "saliency_scores": [list(scores) for scores in query.saliency_scores or ()],
    }


def _highlight_figures(pairs: Sequence[tuple[Row, Query]], data: DataConfig) -> dict[str, float]:
    """TVSum's top-5 mAP, or YouTube Highlights' mAP; the mean over domains where there are several."""
    by_domain: dict[str, list[NDArray[np.float64]]] = {}
    for row, query in pairs:
        labels_CR = np.array(query.clip_labels, dtype=np.float64)
        score_T = np.array(row["pred_saliency_scores"])[: len(labels_CR)]
        if data.layout == "tvsum":
            area_R = tvsum_ap(score_T, labels_CR)
        else:
            area_R = np.array([youtube_ap(score_T, labels_CR[:, 0])])
        by_domain.setdefault(query.domain, []).append(area_R)
    domains = {name: 100 * domain_figure(areas) for name, areas in by_domain.items()}
    return {"mAP": sum(domains.values()) / len(domains)} | {
        f"mAP-{name}": v for name, v in domains.items() if name
    }
