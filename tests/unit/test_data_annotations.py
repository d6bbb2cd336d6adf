"""Annotation files: every fault is named with file, line and field; what is mended is counted."""

import gzip
import json
import logging

import pytest

from momentkit.core.errors import ConfigError, DataError
from momentkit.data.annotations import (
    load_annotations,
    read_annotations,
    validate_annotations,
    write_annotations,
)
from momentkit.data.charades import read_lengths, read_text_form
from momentkit.data.row import WindowRules
from momentkit.data.tacos import read_frames_form

GOOD = {
    "qid": 31,
    "query": "a dog jumps",
    "duration": 140,
    "vid": "abcdefghijk_60.0_210.0",
    "relevant_windows": [[8, 14], [20, 22]],
    "relevant_clip_ids": [4, 5, 6, 10],
    "saliency_scores": [[4, 2, 3], [4, 3, 3], [2, 2, 1], [0, 1, 4]],
}
MISSING = object()


def changed(**fields):
    return {name: value for name, value in (GOOD | fields).items() if value is not MISSING}


def write(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


# kind, field named in the message, the row
FAULTS = [
    ("line is no JSON object", "not JSON", '{"qid": 1, "query": "half a li'),
    ("line is no JSON object", "NaN", json.dumps(GOOD).replace("140", "NaN")),
    ("line is no JSON object", "-Infinity", json.dumps(GOOD).replace("140", "-Infinity")),
    ("line is no JSON object", "object", "[1, 2]"),
    ("line is no JSON object", "not a number", json.dumps(GOOD).replace("140", "1" * 5000)),
    ("no qid", "qid", changed(qid=MISSING)),
    ("wrong qid", "qid", changed(qid=1.5)),
    ("wrong qid", "qid", changed(qid=True)),
    ("wrong qid", "qid", changed(qid="")),
    ("no query", "query", changed(query=MISSING)),
    ("wrong query", "query", changed(query=["a", "b"])),
    ("empty query", "query", changed(query=" \n")),
    ("query too long", "query", changed(query="a" * 10_001)),
    ("wrong vid", "vid", changed(vid=7)),
    ("no duration", "duration", changed(duration=MISSING)),
    ("wrong duration", "duration", changed(duration="140")),
    ("wrong duration", "duration", json.dumps(GOOD).replace("140", "1e999")),
    ("wrong duration", "duration", changed(duration=10**400)),
    ("wrong duration", "duration", changed(duration=True)),
    ("duration not positive", "duration", changed(duration=0)),
    ("wrong relevant_windows", "relevant_windows", changed(relevant_windows={"start": 1})),
    ("wrong relevant_windows", r"relevant_windows\[1\]", changed(relevant_windows=[[1, 2], [3]])),
    ("wrong relevant_windows", r"relevant_windows\[0\]", changed(relevant_windows=[[1, None]])),
    ("window does not end after its start", r"relevant_windows\[0\]", changed(relevant_windows=[[14, 8]])),
    ("window does not end after its start", r"relevant_windows\[0\]", changed(relevant_windows=[[8, 8]])),
    ("window outside the video", r"relevant_windows\[0\]", changed(relevant_windows=[[8, 141]])),
    ("window outside the video", r"relevant_windows\[0\]", changed(relevant_windows=[[-1, 3]])),
    ("wrong relevant_clip_ids", "relevant_clip_ids", changed(relevant_clip_ids=[4, 5, 6, -1])),
    ("wrong relevant_clip_ids", "relevant_clip_ids", changed(relevant_clip_ids=[4, 5, 6, 7.0])),
    ("repeated clip id", "relevant_clip_ids", changed(relevant_clip_ids=[4, 4, 5, 6])),
    ("clip ids and scores differ", "saliency_scores", changed(relevant_clip_ids=[4, 5, 6])),
    ("clip ids and scores differ", "saliency_scores", changed(saliency_scores=None)),
    ("wrong saliency_scores", "saliency_scores", changed(saliency_scores=[[4, 2], [1], [1, 2], [1, 2]])),
    ("wrong saliency_scores", "saliency_scores", changed(saliency_scores=[["a"]] * 4)),
    ("rating out of range", "saliency_scores", changed(saliency_scores=[[5, 0, 0]] * 4)),
    ("wrong label", "label", changed(label=[1, 0, 1])),
    ("wrong domain", "domain", changed(domain=3)),
]


@pytest.mark.parametrize(("kind", "field", "row"), FAULTS)
def test_a_fault_is_named_with_file_line_and_field(tmp_path, kind, field, row):
    path = write(tmp_path / "rows.jsonl", GOOD, row, GOOD)
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: .*{field}"):
        read_annotations(path)
    report = validate_annotations(path)
    assert report.counts == {kind: 1}
    assert [problem.line for problem in report.problems] == [2]
    assert (report.rows, len(report.queries)) == (3, 2)


def test_validation_finds_every_planted_fault(tmp_path):
    rows = [row for _, _, row in FAULTS]
    report = validate_annotations(write(tmp_path / "rows.jsonl", *rows))
    assert [problem.line for problem in report.problems] == list(range(1, len(rows) + 1))
    assert [problem.kind for problem in report.problems] == [kind for kind, _, _ in FAULTS]


def test_several_faults_of_one_row_are_all_named(tmp_path):
    row = changed(qid=None, duration=-3, relevant_clip_ids="all", vid="")
    report = validate_annotations(write(tmp_path / "rows.jsonl", row))
    assert sorted(report.counts) == [
        "duration not positive", "wrong qid", "wrong relevant_clip_ids", "wrong vid",
    ]  # fmt: skip


def test_other_encodings_are_refused_and_a_byte_order_mark_is_not(tmp_path):
    text = json.dumps(changed(query="ein Bär"), ensure_ascii=False)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(text.encode("utf-8-sig"))
    assert read_annotations(path)[0].text == "ein Bär"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"rows\.jsonl:1: not UTF-8"):
        read_annotations(path)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_line_ends_final_newline_and_gzip_do_not_matter(tmp_path, end, last, packed):
    data = (end.join([json.dumps(GOOD), json.dumps(changed(qid="31"))]) + end * last).encode()
    path = tmp_path / ("rows.jsonl.gz" if packed else "rows.jsonl")
    path.write_bytes(gzip.compress(data) if packed else data)
    queries = read_annotations(path)
    assert [query.qid for query in queries] == [31, "31"]  # as given, never cast
    assert [query.line for query in queries] == [1, 2]
    assert queries[0].windows_s == ((8.0, 14.0), (20.0, 22.0))
    assert queries[0].saliency_scores[3] == (0.0, 1.0, 4.0)


def test_a_row_may_lack_labels_and_a_row_may_say_that_nothing_matches(tmp_path):
    unlabelled = changed(relevant_windows=MISSING, relevant_clip_ids=MISSING, saliency_scores=MISSING)
    nothing = changed(relevant_windows=[], relevant_clip_ids=[], saliency_scores=[])
    first, second = read_annotations(write(tmp_path / "rows.jsonl", unlabelled, nothing))
    assert first.windows_s is None
    assert second.windows_s == ()


def test_windows_are_cut_to_the_video_on_request_and_counted(tmp_path, caplog):
    path = write(tmp_path / "rows.jsonl", changed(relevant_windows=[[-2, 3.5], [8, 14], [130, 141]]))
    with caplog.at_level(logging.WARNING):
        (query,) = read_annotations(path, clip_windows=True)
    assert query.windows_s == ((0.0, 3.5), (8.0, 14.0), (130.0, 140.0))
    assert "2 windows cut to their video" in caplog.text


def test_windows_outside_are_kept_on_request(tmp_path):
    path = write(tmp_path / "rows.jsonl", changed(relevant_windows=[[-2, 141]]))
    assert read_annotations(path, keep_outside=True)[0].windows_s == ((-2.0, 141.0),)
    with pytest.raises(ConfigError, match="exclude each other"):
        read_annotations(path, keep_outside=True, clip_windows=True)


def test_windows_without_length_are_dropped_on_request_with_rows_that_have_no_other(tmp_path):
    path = write(
        tmp_path / "rows.jsonl",
        changed(relevant_windows=[[5, 5], [8, 14]]),
        changed(relevant_windows=[[9, 3]]),
        changed(relevant_windows=[[150, 160]]),
        changed(relevant_windows=[]),
    )
    report = load_annotations(path, WindowRules(clip_windows=True, drop_bad_windows=True))
    assert [query.line for query in report.queries] == [1, 4]
    assert report.dropped_lines == (2, 3)
    assert report.dropped_windows == 3
    assert report.queries[0].windows_s == ((8.0, 14.0),)


def test_a_repeated_qid_is_legal_and_said(tmp_path):
    report = load_annotations(write(tmp_path / "rows.jsonl", GOOD, changed(qid="31"), GOOD))
    assert report.repeated_qids == 1
    assert any("repeat a qid" in sentence for sentence in report.mended())


def test_a_file_without_rows_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no row"):
        read_annotations(write(tmp_path / "rows.jsonl", "", " "))
    with pytest.raises(DataError, match="cannot read"):
        read_annotations(tmp_path / "none.jsonl")


def test_a_damaged_gzip_is_refused(tmp_path):
    data = bytearray(gzip.compress(json.dumps(GOOD).encode() * 100))
    for place in (10, 14, 40, len(data) - 3):
        broken = bytes(data[:place]) + bytes([data[place] ^ 0xFF]) + bytes(data[place + 1 :])
        (tmp_path / "rows.jsonl.gz").write_bytes(broken)
        with pytest.raises(DataError):
            read_annotations(tmp_path / "rows.jsonl.gz")


def test_written_rows_come_back(tmp_path):
    rows = [GOOD, changed(qid="x", label=[[1.0], [0.0]], domain="dog", relevant_windows=None)]
    queries = read_annotations(write(tmp_path / "a.jsonl", *rows))
    assert read_annotations(write_annotations(tmp_path / "b.jsonl", queries)) == queries


def test_charades_text_lines_are_cut_dropped_and_numbered(tmp_path):
    (tmp_path / "lengths.csv").write_text("video_id,split,length_seconds\nAB,train,30.5\n")
    lines = [
        "AB 1.0 6.9##a person sits.",
        "AB 20.0 33.0##a.",
        "AB 31.0 33.0##b.",
        "AB 7.0 3.0##c.",
        "AB 2 3##d.",
    ]
    path = tmp_path / "rows.txt"
    path.write_text("\n".join(lines))
    report = read_text_form(path, read_lengths(tmp_path / "lengths.csv"), first_qid=100)
    assert [(query.qid, query.line, query.windows_s) for query in report.queries] == [
        (100, 1, ((1.0, 6.9),)),
        (101, 2, ((20.0, 30.5),)),
        (102, 5, ((2.0, 3.0),)),
    ]
    assert report.dropped_lines == (3, 4)
    path.write_text("AB 1.0 6.9 a person sits.")
    with pytest.raises(DataError, match=r"rows\.txt:1"):
        read_text_form(path, {"AB": 30.5})
    path.write_text("CD 1.0 6.9##a person sits.")
    with pytest.raises(DataError, match="'CD'"):
        read_text_form(path, {"AB": 30.5})


def test_tacos_frame_numbers_become_seconds(tmp_path):
    video = {"timestamps": [[10, 20], [30, 999]], "sentences": ["a", "b"], "fps": 10.0, "num_frames": 50}
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"s1.avi": video}))
    report = read_frames_form(path)
    assert [(query.qid, query.vid, query.duration_s) for query in report.queries] == [
        ("s1_0", "s1", 5.0),
        ("s1_1", "s1", 5.0),
    ]
    assert [query.windows_s for query in report.queries] == [((1.0, 2.0),), ((3.0, 5.0),)]
    assert report.clipped_windows == 1
    path.write_text(json.dumps({"s1.avi": {"fps": 0}}))
    with pytest.raises(DataError, match=r"s1\.avi"):
        read_frames_form(path)
