"""Answers, figures, the location prior and the probes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from momentkit.core.errors import DataError
from momentkit.core.types import Query
from momentkit.data.annotations import read_annotations
from momentkit.data.options import DataConfig, StreamConfig
from momentkit.predict.decode import PostProcess
from momentkit.train.baselines import (
    OtherText,
    OtherVideo,
    fit_location_prior,
    other_sentence,
    other_video,
    prior_rows,
)
from momentkit.train.evaluate import answer, evaluate, figures
from train_toy import ToyModel, ToySource

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "charades_clip"
PUBLISHED_STARTS = [0, 0.7, 0.2, 0.5, 0, 0.325, 0.825, 0.6, 0.1, 0]
PUBLISHED_ENDS = [0.35, 1, 0.475, 0.8, 0.2, 0.65, 1, 1, 0.325, 0.45]
PUBLISHED_PRIOR = np.stack([PUBLISHED_STARTS, PUBLISHED_ENDS], 1)
STREAM = StreamConfig(folder="f", encoder="toy", layer="last", dim=4)
DATA = DataConfig(
    root=".", layout="charades", train="t", val="v", video=(STREAM,), text=STREAM, clip_length_s=1.0, tef=True
)  # fmt: skip


def queries(*windows_s: tuple[tuple[float, float], ...] | None) -> list[Query]:
    return [
        Query(qid=index, text="x", vid=f"v{index}", duration_s=10.0, windows_s=windows)
        for index, windows in enumerate(windows_s)
    ]


def test_every_query_is_answered_once_in_order_whatever_the_batch_size():
    model, source = ToyModel().eval(), ToySource()
    one, five, all_at_once = (answer(model, source, PostProcess(), batch_size=size) for size in (1, 5, 99))
    assert [row["qid"] for row in one] == list(range(24))
    assert [len(row["pred_saliency_scores"]) for row in one] == [int(q.duration_s) for q in source.queries]
    for row, *others in zip(one, five, all_at_once, strict=True):
        for other in others:
            assert row["pred_relevant_windows"] == pytest.approx(
                np.array(other["pred_relevant_windows"]), abs=2e-4
            )


def test_clips_whose_scores_are_close_keep_their_order():
    class Close(ToyModel):
        def forward(self, batch, *, generator=None):
            prediction = super().forward(batch, generator=generator)
            rank_BT = torch.arange(prediction.saliency_BT.shape[1], dtype=torch.float32).expand_as(
                prediction.saliency_BT
            )
            return replace(prediction, saliency_BT=rank_BT * 1e-5 - 1)

    for row in answer(Close().eval(), ToySource(), PostProcess(), batch_size=99):
        assert (np.diff(row["pred_saliency_scores"]) > 0).all()


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_leaves_the_model_as_it_was(training: bool):
    model = ToyModel().train(training)
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    evaluate(model, ToySource(), DATA, PostProcess())
    assert model.training == training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_queries_without_a_window_are_answered_but_not_scored():
    truth = queries(((0.0, 5.0),), None, (), ((5.0, 10.0),))
    rows = prior_rows(truth, np.array([[0, 0.5]]))
    metrics, unlabelled = figures(rows, truth, DATA)
    assert unlabelled == 2 and metrics["MR-full-R1@0.5"] == 50.0
    with pytest.raises(DataError, match="no query has a truth"):
        figures(rows[1:2], truth[1:2], DATA)


def test_a_range_of_lengths_that_no_true_window_has_is_left_out():
    metrics, _ = figures(
        prior_rows(queries(((0.0, 5.0),)), np.array([[0, 0.5]])), queries(((0.0, 5.0),)), DATA
    )
    assert metrics["MR-short-mAP"] == 100.0
    assert "MR-long-mAP" not in metrics and "MR-middle-mAP" not in metrics


def test_highlights_are_scored_where_clips_and_ratings_are_those_of_qvhighlights():
    rated = {"relevant_clips": (1,), "saliency_scores": ((4, 4, 4),)}
    query = replace(queries(((2.0, 4.0),))[0], **rated)
    row = prior_rows([query], np.array([[0.2, 0.4]]))[0] | {"pred_saliency_scores": [0.0, 1.0, 0.0, 0.0, 0.0]}
    assert figures([row], [query], replace(DATA, clip_length_s=2.0))[0]["HL-min-VeryGood-Hit1"] == 100.0
    assert not any(name.startswith("HL") for name in figures([row], [query], DATA)[0])


def test_tvsum_and_youtube_are_scored_by_domain():
    labelled = [
        replace(
            query, clip_labels=tuple((float(clip < 3),) for clip in range(8)), domain=domain, windows_s=None
        )
        for query, domain in zip(queries(None, None), ("BK", "DS"), strict=True)
    ]
    good, bad = ([-float(clip) for clip in range(8)], [float(clip) for clip in range(8)])
    rows = [{"qid": 0, "pred_saliency_scores": good}, {"qid": 1, "pred_saliency_scores": bad}]
    for layout in ("tvsum", "youtube"):
        metrics, _ = figures(rows, labelled, replace(DATA, layout=layout))
        assert metrics["mAP-BK"] == 100.0 > metrics["mAP-DS"]
        assert metrics["mAP"] == pytest.approx((metrics["mAP-BK"] + metrics["mAP-DS"]) / 2)


def test_the_location_prior_finds_the_windows_that_all_queries_share():
    shared = ((0.0, 2.5),), ((7.5, 10.0),)
    prior = fit_location_prior(queries(*(shared[0],) * 5, *(shared[1],) * 3))
    assert prior.shape == (10, 2)
    # Equally good windows around them exist for R1@0.7; mAP decides the second exactly.
    assert prior[0] == pytest.approx([0, 0.25], abs=0.1) and prior[1].tolist() == [0.75, 1.0]
    with pytest.raises(DataError, match="no training query has a window"):
        fit_location_prior(queries(None, ()))


def test_the_published_location_prior_gets_its_published_figures_and_ours_is_as_good():
    if not SHARED.exists():
        pytest.skip(f"the Charades CLIP data are not present: {SHARED}")
    train, val = (read_annotations(SHARED / f"{split}.jsonl") for split in ("train", "val"))
    fitted = fit_location_prior(train)
    names = ("MR-full-R1@0.3", "MR-full-R1@0.5", "MR-full-R1@0.7", "MR-full-mIoU", "MR-full-mAP")
    published, ours = (figures(prior_rows(val, prior), val, DATA)[0] for prior in (PUBLISHED_PRIOR, fitted))
    assert [published[name] for name in names] == pytest.approx([42.7, 28.8, 14.8, 27.9, 25.5], abs=0.05)
    assert [ours[name] for name in names] == pytest.approx([published[name] for name in names], abs=0.1)
    assert np.abs(fitted - PUBLISHED_PRIOR).max() <= 0.025 + 1e-9  # one step of the grid, in one window


def test_a_probe_takes_its_words_or_frames_from_another_video_and_always_the_same():
    source = ToySource(video_dim=8)
    partner = other_video(source.queries, seed=0)
    assert all(source.queries[a].vid != source.queries[b].vid for a, b in enumerate(partner))
    assert np.array_equal(partner, other_video(source.queries, seed=0))
    assert not np.array_equal(partner, other_video(source.queries, seed=1))
    said = other_sentence(source.queries, [query.vid for query in source.queries], seed=0)
    assert all(source.queries[a].vid != source.queries[b].vid for a, b in enumerate(said))
    text, video = OtherText(source, source.queries), OtherVideo(source, source.queries, time_channels=2)
    for index in range(len(source)):
        own, foreign = source.sample(index, 0), source.sample(int(partner[index]), 0)
        assert np.array_equal(text.sample(index, 0).text_LE, source.sample(int(said[index]), 0).text_LE)
        assert np.array_equal(text.sample(index, 0).video_TD, own.video_TD)
        seen_TD = video.sample(index, 0).video_TD
        assert seen_TD.shape == own.video_TD.shape
        assert np.array_equal(seen_TD[:, -2:], own.video_TD[:, -2:])
        assert np.array_equal(seen_TD[0, :-2], foreign.video_TD[0, :-2]) or len(foreign.video_TD) > len(
            seen_TD
        )
        assert {row.tobytes() for row in seen_TD[:, :-2]} <= {
            row.tobytes() for row in foreign.video_TD[:, :-2]
        }
        assert np.array_equal(video.sample(index, 0).text_LE, own.text_LE)


def test_the_probes_need_two_videos():
    with pytest.raises(DataError, match="two videos at least"):
        other_video(ToySource(count=2).queries, seed=0)
