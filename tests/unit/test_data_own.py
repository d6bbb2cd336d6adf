"""Own data: tables, subtitles and JSON lines become rows; what two splits share is named."""

import json

import pytest
from typer.testing import CliRunner

from data_world import rows
from momentkit.cli.main import app
from momentkit.core.errors import DataError
from momentkit.core.types import Query
from momentkit.data.annotations import read_annotations
from momentkit.data.leakage import leakage, plain
from momentkit.data.own import read_own, seconds, video_id
from momentkit.data.row import WindowRules

TABLE = """video;query;start;end
films/Dog.mp4;a dog jumps;0:05;7.5

b;a cat sits;1;2
films/Dog.mp4;a dog jumps;0:00:20,5;00:25
"""
VTT = """WEBVTT

NOTE a remark
of two lines

STYLE
::cue { color: red }

1
00:05.000 --> 00:07.500 align:start
<b>a dog</b>
jumps

00:00:20.500 --> 00:00:25.000
a dog jumps

00:01.000 --> 00:02.000
a cat sits
"""
SRT = VTT.partition("1\n")[2].replace(".", ",").replace("00:05,", "00:00:05,")


def own(tmp_path, name, text, **options):
    (tmp_path / name).write_text(text)
    chosen = {"name": "train", "duration_of": {"Dog": 60.0, "b": 30.0}.get} | options
    return [query for report in read_own([tmp_path / name], **chosen) for query in report.queries]


@pytest.mark.parametrize(
    ("name", "text"), [("rows.csv", TABLE.replace(",", ".").replace(";", ",")), ("rows.csv", TABLE),
                       ("rows.tsv", TABLE.replace(";", "\t")),
                       ("rows.csv", "\ufeff" + TABLE.replace("\n", "\r\n"))],
)  # fmt: skip
def test_a_table_becomes_rows_and_lines_of_one_query_windows_of_one_row(tmp_path, name, text):
    dog, cat = own(tmp_path, name, text)
    assert (dog.vid, dog.text, dog.windows_s, dog.duration_s) == (
        "Dog", "a dog jumps", ((5, 7.5), (20.5, 25)), 60,
    )  # fmt: skip
    assert (cat.vid, cat.windows_s, cat.saliency_scores) == ("b", ((1, 2),), None)
    assert [dog.qid, cat.qid] == ["train-0", "train-1"]


@pytest.mark.parametrize(("name", "text"), [("Dog.vtt", VTT), ("Dog.srt", SRT)])
def test_subtitles_become_rows_of_the_film_of_their_name(tmp_path, name, text):
    dog, cat = own(tmp_path, name, text)
    assert (dog.vid, dog.text, dog.windows_s) == ("Dog", "a dog jumps", ((5, 7.5), (20.5, 25)))
    assert (cat.text, cat.windows_s) == ("a cat sits", ((1, 2),))


def test_json_lines_need_no_more_than_a_video_a_query_and_windows_and_keep_ratings(tmp_path):
    bare = {"video": "b.mp4", "query": "a", "windows": [[1, 2]]}
    rated = {"vid": "Dog", "query": "b", "relevant_windows": [[2, 4]], "duration": 9.0, "qid": 5}
    rated |= {"relevant_clip_ids": [1], "saliency_scores": [[4, 3, 2]]}
    first, second = own(tmp_path, "rows.jsonl", f"{json.dumps(bare)}\n{json.dumps(rated)}\n")
    assert (first.vid, first.duration_s, first.windows_s) == ("b", 30, ((1, 2),))
    assert (second.duration_s, second.saliency_scores) == (9, ((4, 3, 2),))
    assert [first.qid, second.qid] == ["train-0", "train-1"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("rows.csv", "video,query,begins,end\n", "no column start; the header names video, query"),
        ("rows.csv", "video,query,start,end\nb,a,one,2\n", r"rows\.csv:2: start: 'one' is no time"),
        ("rows.csv", "video,query,start,end\nz,a,1,2\n", r"rows\.csv:2: nothing says how long 'z' is"),
        ("rows.csv", "query,start,end\na,1,2\n", r"rows\.csv:2: no video is named"),
        ("rows.csv", "video,query,start,end\nb,a,1,99\n", r"rows\.csv:2: .* not inside the video's 30"),
        ("rows.csv", "video,query,start,end\nb,,1,9\n", r"rows\.csv:2: query is empty"),
        ("rows.csv", "video,query,start,end\n", "holds no row"),
        ("Dog.srt", "1\n00:00:01,0 --> later\nx\n", r"Dog\.srt:2: 'later' is no time"),
        ("rows.xlsx", "", "files are imported, got .xlsx"),
        ("rows.jsonl", '{"video": 3, "query": "a", "windows": [[0, 1]]}\n', "video must be a text"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named_with_its_line(tmp_path, name, text, said):
    with pytest.raises(DataError, match=said):
        own(tmp_path, name, text)


def test_windows_are_cut_where_it_is_asked_for_and_counted(tmp_path):
    (tmp_path / "rows.csv").write_text("video,query,start,end\nb,a,1,99\n")
    report = read_own([tmp_path / "rows.csv"], "x", {"b": 30.0}.get, rules=WindowRules(clip_windows=True))[0]
    assert report.queries[0].windows_s == ((1, 30),)
    assert report.clipped_windows == 1


def test_times_and_names():
    assert [seconds(text) for text in ("12.5", " 1:02 ", "0:01:02,5", "2:00:00")] == [12.5, 62, 62.5, 7200]
    for text in ("", "-1", "1:2:3:4", "nan"):
        with pytest.raises(ValueError, match="is no time"):
            seconds(text)
    names = ("a/b/c.MP4", r"d:\x\y.mkv", "id_60.0_210.0", "v1.2")
    assert [video_id(name) for name in names] == ["c", "y", "id_60.0_210.0", "v1.2"]


def query(vid: str, text: str) -> Query:
    return Query(qid=0, text=text, vid=vid, duration_s=10, windows_s=((0, 1),))


def test_shared_videos_films_and_sentences_are_found():
    first = [query("x_0_10", "A dog jumps."), query("y", "B"), query("y", "C"), query("z_1_2", "D")]
    second = [query("x_10_20", "a dog, jumps"), query("y", "b"), query("w", "E")]
    found = leakage(first, second)
    assert found.videos == {"y": (2, 1)}
    assert found.sources == {"x": (1, 1)}
    assert found.sentences == {"a dog jumps": (1, 1), "b": (1, 1)}
    assert found.pairs == 1
    assert plain("It's  A-dog!") == "it s a dog"
    clean = leakage(first, [query("w", "F")])
    assert (clean.videos, clean.sources, clean.sentences, clean.pairs) == ({}, {}, {}, 0)


@pytest.fixture
def run():
    return lambda *words: CliRunner().invoke(app, ["data", *map(str, words)])


def test_the_command_imports_several_files_into_one(run, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nhello\n")
    output = tmp_path / "own" / "train.jsonl"
    result = run("import", tmp_path / "a.srt", tmp_path / "b.srt", "-o", output, "--duration", 9)
    assert result.exit_code == 0
    assert "2 rows, 2 videos" in result.stdout
    assert [(each.qid, each.vid) for each in read_annotations(output)] == [("train-0", "a"), ("train-1", "b")]


def test_a_folder_of_films_that_lacks_one_is_named(run, tmp_path):
    (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nhello\n")
    result = run("import", tmp_path / "a.srt", "-o", tmp_path / "rows.jsonl", "--videos", tmp_path)
    assert "no film of 'a' in" in str(result.exception)


def test_the_leakage_command_exits_2_where_a_video_is_shared(run, tmp_path):
    for name, kept in (("train", rows()[:2]), ("val", rows()[2:]), ("other", rows()[1:2])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    result = run("leakage", tmp_path / "train.jsonl", tmp_path / "val.jsonl")
    assert (result.exit_code, result.stdout.count("0 of 3 rows")) == (0, 3)
    result = run("leakage", tmp_path / "train.jsonl", tmp_path / "other.jsonl")
    assert result.exit_code == 2
    assert "1 videos in both, 1 of 1 rows" in result.stdout
