"""What a submission may be, what is refused and how, and what each protocol does."""

import gzip
import json

import numpy as np
import pytest

from momentkit.core.errors import ConfigError, SubmissionError
from momentkit.metrics.rows import UntrustedRowError
from momentkit.metrics.score import score_files
from momentkit.metrics.submission import score_moment_rows


def prediction(qid, *windows, **more):
    return {
        "qid": qid,
        "pred_relevant_windows": [list(window) for window in windows] or [[0, 10, 0.9]],
    } | more


def truth(qid, *windows, **more):
    return {"qid": qid, "duration": 100, "relevant_windows": [list(w) for w in windows] or [[0, 10]]} | more


RATED = {"relevant_clip_ids": [0, 1], "saliency_scores": [[4, 4, 4], [0, 1, 2]], "duration": 8}
SALIENT = {"pred_saliency_scores": [0.9, 0.1, 0.0, -1.0]}


def write(path, rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def score_in_files(tmp_path, predictions, true, **options):
    return score_files(write(tmp_path / "p.jsonl", predictions), write(tmp_path / "t.jsonl", true), **options)


def test_the_dictionary_is_laid_out_as_published():
    figures = score_moment_rows([prediction(1, **SALIENT)], [truth(1, **RATED)]).figures
    assert list(figures) == [
        "brief",
        "HL-min-Fair",
        "HL-min-Good",
        "HL-min-VeryGood",
        "full",
        "long",
        "middle",
        "short",
    ]
    assert list(figures["brief"]) == [
        "MR-full-R1@0.5",
        "MR-full-R1@0.7",
        "MR-full-mAP",
        "MR-full-mAP@0.5",
        "MR-full-mAP@0.75",
        "MR-long-mAP",
        "MR-middle-mAP",
        "MR-short-mAP",
        "HL-min-Fair-mAP",
        "HL-min-Fair-Hit1",
        "HL-min-Good-mAP",
        "HL-min-Good-Hit1",
        "HL-min-VeryGood-mAP",
        "HL-min-VeryGood-Hit1",
    ]
    assert figures["full"]["MR-mAP"]["average"] == 100.0


@pytest.mark.parametrize(
    ("protocol", "empty"),
    [("qvh", None), ("momentdiff", None), ("cgdetr", 0.0), ("univtg", 100.0)],
)
def test_an_empty_range_is_what_the_protocol_makes_of_it(protocol, empty):
    scores = score_moment_rows([prediction(1)], [truth(1)], protocol=protocol)
    assert scores.figures["brief"]["MR-long-mAP"] == empty
    assert (scores.figures["long"] is None) == (empty is None)


def test_charades_under_momentdiff_has_no_long_range_but_names_it():
    figures = score_moment_rows([prediction(1)], [truth(1)], protocol="momentdiff:charades_vgg").figures
    assert "long" not in figures
    assert figures["brief"]["MR-long-mAP"] is None


def test_a_range_drops_true_windows_not_predictions():
    true = [truth(1, [0, 10], [20, 40])]
    figures = score_moment_rows([prediction(1, [20, 40, 0.9], [0, 10, 0.8])], true).figures
    assert figures["full"]["MR-mAP"]["0.5"] == 100.0
    assert figures["short"]["MR-mAP"]["0.5"] == 50.0  # the longer, right prediction is a false positive here


def test_full_is_unfiltered_but_lighthouse_drops_odd_windows():
    rows = [prediction(1), prediction(2)], [truth(1), truth(2, [0, 2000])]
    assert score_moment_rows(*rows).figures["full"]["MR-R1"]["0.5"] == 50.0
    lighthouse = score_moment_rows(*rows, protocol="lighthouse")
    assert lighthouse.figures["full"]["MR-R1"]["0.5"] == 100.0
    assert lighthouse.per_query["full.iou_top1"][0] == 1
    assert (
        lighthouse.per_query["full.iou_top1"][1] != lighthouse.per_query["full.iou_top1"][1]
    )  # NaN: not scored


def test_only_the_first_ten_windows_count_for_map():
    wrong = [[50 + i, 51 + i, 0.1] for i in range(10)]
    figures = score_moment_rows([prediction(1, *wrong, [0, 10, 0.9])], [truth(1)]).figures
    assert figures["full"]["MR-mAP"]["average"] == 0.0


def test_a_repeated_query_merges_for_map_and_its_last_row_counts_for_recall():
    predictions = [prediction(1, [0, 10, 0.9]), prediction(1, [50, 60, 0.1])]
    scores = score_moment_rows(predictions, [truth(1)])
    assert scores.figures["full"]["MR-mAP"]["0.5"] == 100.0
    assert scores.figures["full"]["MR-R1"]["0.5"] == 0.0
    assert "repeat a query" in scores.warnings[0]


def test_a_reversed_window_is_scored_as_published_and_said():
    scores = score_moment_rows([prediction(1, [10, 0, 0.9])], [truth(1)])
    assert scores.figures["full"]["MR-R1"]["0.5"] == 0.0
    # |p| + |g| = -10 + 10: the official program's 0/0 is a hit.
    assert scores.figures["full"]["MR-mAP"]["0.5"] == 100.0
    assert "ends before it starts" in scores.warnings[0]
    assert "0/0" in scores.warnings[1]


def test_shared_queries_alone_can_be_scored():
    predictions, true = [prediction(1), prediction(2)], [truth(2), truth(3)]
    assert score_moment_rows(predictions, true, match_number=False).qids == (2,)


@pytest.mark.parametrize(
    ("predicted", "asked", "message"),
    [
        ([1], [1, 2, 3, 4, 5], r"4 queries have no prediction \(2, 3, 4, ...\)"),
        (
            [1, 2, 9],
            [1],
            r"2 predicted queries are not in the truth \(2 at prediction 2, 9 at prediction 3\)",
        ),
        (["1"], [1], "numbers in one file and strings in the other"),
    ],
)
def test_different_queries_are_refused_with_counts_and_examples(predicted, asked, message):
    with pytest.raises(SubmissionError, match=message):
        score_moment_rows([prediction(qid) for qid in predicted], [truth(qid) for qid in asked])


def test_no_shared_query_is_refused_even_when_differences_are_allowed():
    with pytest.raises(SubmissionError, match="1 queries have no prediction"):
        score_moment_rows([prediction("1")], [truth(1)], match_number=False)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"qid": 1, "pred_relevant_windows": [[0, NaN, 1]]}', r"p.jsonl:2: NaN"),
        (
            '{"qid": 1, "pred_relevant_windows": [[0, 1e999, 1]]}',
            r"p.jsonl:2: pred_relevant_windows: .*not finite",
        ),
        ('{"qid": 1, "pred_relevant_windows": []}', r"p.jsonl:2: pred_relevant_windows: is empty"),
        ('{"qid": 1, "pred_relevant_windows": [[0, 1]]}', r"p.jsonl:2: pred_relevant_windows: .*3 numbers"),
        ('{"qid": 1, "pred_relevant_windows": [[0, 1, "2"]]}', r"p.jsonl:2: pred_relevant_windows: .*'2'"),
        ('{"qid": 1, "pred_relevant_windows": [[0, true, 1]]}', r"p.jsonl:2: pred_relevant_windows: .*True"),
        ('{"qid": 1, "pred_relevant_windows": null}', r"p.jsonl:2: pred_relevant_windows: .*None"),
        ('{"qid": 1.5, "pred_relevant_windows": [[0, 1, 1]]}', r"p.jsonl:2: qid: .*1.5"),
        ('{"pred_relevant_windows": [[0, 1, 1]]}', r"p.jsonl:2: qid: is missing"),
        ('{"qid": 1}', r"p.jsonl:2: pred_relevant_windows: is missing"),
        ("[1, 2]", r"p.jsonl:2: a row must be an object"),
        ('{"qid": 1,', r"p.jsonl:2: not JSON"),
    ],
)
def test_a_bad_prediction_is_named_by_file_line_and_field(tmp_path, row, message):
    with pytest.raises(SubmissionError, match=message):
        score_in_files(tmp_path, [prediction(0), row], [truth(0), truth(1)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relevant_windows": []}, r"t.jsonl:2: relevant_windows: is empty"),
        ({"relevant_clip_ids": [0, 4]}, r"t.jsonl:2: relevant_clip_ids: 4 is outside .* 4 clips"),
        ({"relevant_clip_ids": [0, -1]}, r"t.jsonl:2: relevant_clip_ids: -1 is outside"),
        ({"relevant_clip_ids": [0, 1.0]}, r"t.jsonl:2: relevant_clip_ids: .*whole numbers"),
        ({"relevant_clip_ids": [0]}, r"t.jsonl:2: saliency_scores: 2 entries for 1"),
        ({"saliency_scores": [[4, 4], [1, 1]]}, r"t.jsonl:2: saliency_scores: .*3 numbers"),
        ({"duration": "150"}, r"t.jsonl:2: duration"),
        ({"duration": 1e12}, r"t.jsonl:2: duration"),
        ({"duration": -1}, r"t.jsonl:2: duration"),
    ],
)
def test_a_bad_truth_is_named_by_file_line_and_field(tmp_path, change, message):
    predictions = [prediction(0, **SALIENT), prediction(1, **SALIENT)]
    with pytest.raises(SubmissionError, match=message):
        score_in_files(tmp_path, predictions, [truth(0, **RATED), truth(1, **RATED) | change])


@pytest.mark.parametrize("change", [{"relevant_windows": []}, {"relevant_clip_ids": [0, 4]}])
def test_what_the_official_program_crashes_on_is_marked(change):
    with pytest.raises(UntrustedRowError):
        score_moment_rows([prediction(1, **SALIENT)], [truth(1, **RATED) | change])


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(SubmissionError, match="no rows"):
        score_in_files(tmp_path, [], [truth(1)])


def test_a_video_without_a_highlight_is_fine():
    unrated = {"relevant_clip_ids": [], "saliency_scores": [], "duration": 8}
    figures = score_moment_rows([prediction(1, **SALIENT)], [truth(1, **unrated)]).figures
    assert figures["HL-min-Fair"] == {"HL-mAP": 0.0, "HL-Hit1": 0.0}


def test_a_video_shorter_than_a_clip_has_no_highlight():
    unrated = {"relevant_clip_ids": [], "saliency_scores": [], "duration": 1}
    figures = score_moment_rows([prediction(1, **SALIENT)], [truth(1, **unrated)]).figures
    assert figures["HL-min-Fair"] == {"HL-mAP": 0.0, "HL-Hit1": 0.0}


def test_a_submission_of_saliency_alone_has_highlight_figures_alone():
    figures = score_moment_rows([{"qid": 1} | SALIENT], [truth(1, **RATED)]).figures
    assert list(figures) == ["brief", "HL-min-Fair", "HL-min-Good", "HL-min-VeryGood"]


def test_scores_without_labels_are_refused_by_qvh_and_passed_over_by_cgdetr():
    rows = [prediction(1, **SALIENT)], [truth(1)]
    with pytest.raises(SubmissionError, match="no row has labels"):
        score_moment_rows(*rows)
    scores = score_moment_rows(*rows, protocol="cgdetr")
    assert "HL-min-Fair" not in scores.figures
    assert "no labels" in scores.warnings[0]


def test_a_field_the_first_row_lacks_is_not_scored_but_said():
    scores = score_moment_rows([prediction(1), prediction(2, **SALIENT)], [truth(1), truth(2)])
    assert scores.warnings == ("1 rows have pred_saliency_scores, not scored since the first row has none",)


def test_an_unknown_protocol_is_refused_with_the_known_ones():
    for name in ("qvhighlights", "momentdiff:nothing"):
        with pytest.raises(ConfigError, match="charades"):
            score_moment_rows([prediction(1)], [truth(1)], protocol=name)


def test_gzip_files_are_read(tmp_path):
    for name, row in (("p.jsonl.gz", prediction(1)), ("t.jsonl.gz", truth(1))):
        (tmp_path / name).write_bytes(gzip.compress(json.dumps(row).encode()))
    assert score_files(tmp_path / "p.jsonl.gz", tmp_path / "t.jsonl.gz").qids == (1,)


def test_tan_ranks_after_suppression_and_says_when_the_file_is_not_sorted(tmp_path):
    predictions = [prediction("a", [50, 60, 0.1], [0, 10, 0.9])]
    scores = score_in_files(tmp_path, predictions, [truth("a")], protocol="tan:charades")
    assert scores.figures["brief"] == {
        "Rank1@0.5": 0.0,
        "Rank5@0.5": 100.0,
        "Rank1@0.7": 0.0,
        "Rank5@0.7": 100.0,
        "mIoU": 0.0,
    }
    assert "not sorted by score" in scores.warnings[0]


@pytest.mark.parametrize(
    ("predicted", "true", "message"),
    [
        ([prediction(1, [5, 5, 0.9])], [truth(1)], "p.jsonl:1: pred_relevant_windows: a window does not end"),
        ([prediction(1)], [truth(1, [0, 1], [2, 3])], "t.jsonl:1: relevant_windows: must hold one window"),
        ([prediction(1), prediction(1)], [truth(1)], "p.jsonl:2: qid: 1 was at .*p.jsonl:1 already"),
        ([prediction(1)], [truth(2)], "1 queries have no prediction"),
    ],
)
def test_tan_refuses_what_it_cannot_rank(tmp_path, predicted, true, message):
    with pytest.raises(SubmissionError, match=message):
        score_in_files(tmp_path, predicted, true, protocol="tan")


def test_highlight_sets_are_averaged_by_domain(tmp_path):
    labels = {"a": [[1], [0], [0]], "b": [[0], [0], [1]], "c": [[0], [1], [0]]}
    true = [
        {"qid": qid, "label": label, "domain": "x" if qid == "c" else "y"} for qid, label in labels.items()
    ]
    predictions = [{"qid": qid, "pred_saliency_scores": [3.0, 2.0, 1.0, 0.5]} for qid in labels]
    scores = score_in_files(tmp_path, predictions, true, protocol="youtube")
    assert scores.figures == {"brief": {"mAP": 41.67}, "x": {"mAP": 25.0}, "y": {"mAP": 58.333}}
    assert "surplus is cut" in scores.warnings[0]


def test_ties_that_decide_a_tvsum_figure_are_said(tmp_path):
    true = [{"qid": "v", "label": [[clip] * 20 for clip in range(7)], "domain": "BK"}]
    predictions = [{"qid": "v", "pred_saliency_scores": [1.0] * 7}]
    scores = score_in_files(tmp_path, predictions, true, protocol="tvsum")
    assert "1 videos have ties" in scores.warnings[0]
    assert scores.per_query["ap"].shape == (1, 20)


def test_didemo_reads_the_published_list(tmp_path):
    pairs = [[i, j] for i in range(6) for j in range(i, 6)]
    sentence = {"annotation_id": 7, "times": [[0, 0], [0, 0], [0, 0], [5, 5]]}
    (tmp_path / "t.json").write_text(json.dumps([sentence]))
    predictions = write(tmp_path / "p.jsonl", [{"qid": 7, "pred_segments": pairs}])
    figures = score_files(predictions, tmp_path / "t.json", protocol="didemo").figures
    assert figures == {"brief": {"Rank1": 100.0, "Rank5": 100.0, "mIoU": 100.0}}
    write(predictions, [{"qid": 7, "pred_segments": pairs[:20]}])
    with pytest.raises(SubmissionError, match=r"p.jsonl:1: pred_segments: .*21 chunk pairs"):
        score_files(predictions, tmp_path / "t.json", protocol="didemo")
    (tmp_path / "t.json").write_text(json.dumps(sentence))
    with pytest.raises(SubmissionError, match="JSON list"):
        score_files(predictions, tmp_path / "t.json", protocol="didemo")


def test_a_crowded_query_beside_a_plain_one_changes_neither():
    many = [[3 * i, 3 * i + 2] for i in range(40)]
    long_video = {"relevant_clip_ids": [60, 3], "saliency_scores": [[4, 3, 0], [2, 4, 4]], "duration": 140}
    predictions = [prediction(1, *([*w, 0.5] for w in many), **SALIENT), prediction(2, **SALIENT)]
    true = [truth(1, *many) | long_video, truth(2, **RATED)]
    together = score_moment_rows(predictions, true, protocol="univtg").per_query
    alone = [
        score_moment_rows([p], [t], protocol="univtg").per_query
        for p, t in zip(predictions, true, strict=True)
    ]
    for name, array in together.items():
        if not name.startswith(("middle", "long")):  # empty ranges, which univtg fills
            np.testing.assert_array_equal(array, np.concatenate([part[name] for part in alone]))
