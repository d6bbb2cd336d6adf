"""A result in every format it is written to."""

import csv
import io
import json
import re
from xml.etree import ElementTree

import pytest
from pydantic import ValidationError

from momentkit.core.errors import ConfigError, MomentkitError
from momentkit.core.types import Moment
from momentkit.predict.render import clock, to_csv, to_json, to_table, to_vtt
from momentkit.predict.result import Result
from momentkit.predict.save import DOCUMENT_ENDINGS, check_ending, check_writable, save_results
from momentkit.predict.timeline_svg import ticks, to_svg
from momentkit.predict.windows import best_overlap, lanes, overlap

HOSTILE = "a <script>alert(1)</script> & \"quoted\" 'sentence' --> 00:01\n\n\x00\x1b[31m\u2028end"


def a_result(query="a dog runs", moments=((1.0, 4.5, 0.9), (6.0, 8.0, 0.4)), **changes):
    values = {
        "query": query,
        "video": "park.mp4",
        "duration_s": 10.0,
        "clip_length_s": 2.0,
        "moments": tuple(Moment(start_s=s, end_s=e, score=p) for s, e, p in moments),
        "saliency": (0.1, 0.7, -0.2, 0.3, 0.0),
        "not_found_probability": 0.25,
        "model": "flashvtg",
        "encoder": "momentkit/tiny-frames",
    }
    return Result(**(values | changes))


def test_json_gives_the_result_back():
    result = a_result(unknown_words=("dog",))
    assert Result.model_validate_json(to_json(result)) == result
    assert [Result.model_validate(row) for row in json.loads(to_json([result, result]))] == [result, result]


def test_json_never_names_a_folder_of_this_machine(tmp_path):
    result = a_result(film=tmp_path / "secret" / "park.mp4")
    assert "secret" not in to_json(result)
    assert "film" not in Result.model_json_schema()["properties"]


@pytest.mark.parametrize("field", ["duration_s", "clip_length_s", "not_found_probability"])
def test_a_number_that_is_not_finite_is_refused(field):
    with pytest.raises(ValidationError):
        a_result(**{field: float("nan")})


def test_a_saliency_that_is_not_finite_is_refused():
    with pytest.raises(ValidationError):
        a_result(saliency=(0.0, float("inf")))


def test_moments_out_of_order_are_refused():
    with pytest.raises(ValidationError, match="best first"):
        a_result(moments=((0, 1, 0.1), (2, 3, 0.9)))


def test_a_result_cannot_be_changed():
    with pytest.raises(ValidationError):
        a_result().query = "another"


def test_csv_has_a_row_a_moment_and_one_for_a_sentence_without():
    rows = list(csv.DictReader(io.StringIO(to_csv([a_result(), a_result('x, "y"\nz', moments=())]))))
    assert [(row["rank"], row["start_s"], row["end_s"], row["score"]) for row in rows] == [
        ("1", "1.000", "4.500", "0.900000"),
        ("2", "6.000", "8.000", "0.400000"),
        ("", "", "", ""),
    ]
    assert rows[2]["query"] == 'x, "y"\nz'


def parse_vtt(text):
    """Cues by the rules of the format: a blank line ends a cue, its first line holds the times."""
    header, *blocks = text.rstrip("\n").split("\n\n")
    assert header == "WEBVTT"
    cues = []
    for block in blocks:
        times, *lines = block.split("\n")
        match = re.fullmatch(
            r"(\d\d+):([0-5]\d):([0-5]\d\.\d{3}) --> (\d\d+):([0-5]\d):([0-5]\d\.\d{3})", times
        )
        assert match, times
        assert len(lines) == 1 and "-->" not in lines[0]
        h1, m1, s1, h2, m2, s2 = (float(group) for group in match.groups())
        cues.append((h1 * 3600 + m1 * 60 + s1, h2 * 3600 + m2 * 60 + s2, lines[0]))
    return cues


def test_subtitles_are_in_order_of_time_and_none_is_empty():
    long = a_result(moments=((5, 5, 0.9), (3599.9999, 3700, 0.5), (0, 2, 0.1)), duration_s=4000)
    cues = parse_vtt(to_vtt([long, a_result()]))
    assert [cue[:2] for cue in cues] == [(0, 2), (1, 4.5), (5, 5.001), (6, 8), (3600, 3700)]
    assert all(end > start for start, end, _ in cues)


def test_a_hostile_sentence_stays_text_in_subtitles():
    ((_, _, line),) = parse_vtt(to_vtt([a_result(HOSTILE, moments=((0, 1, 0.5),))]))
    assert "<" not in line and line.startswith("a &lt;script&gt;") and "\x1b" not in line


def test_svg_is_one_drawing_whatever_the_sentence_says():
    tree = ElementTree.fromstring(to_svg([a_result(HOSTILE), a_result()], {HOSTILE: [(1, 4)]}))
    names = {element.tag.split("}")[1] for element in tree.iter()}
    assert names == {"svg", "title", "rect", "g", "text", "path", "polyline", "polygon"}


def test_svg_places_a_moment_where_it_happens():
    tree = ElementTree.fromstring(to_svg([a_result(moments=((5, 10, 0.9),))]))
    bar = next(rect for rect in tree.iter("{http://www.w3.org/2000/svg}rect") if rect.get("stroke"))
    left, width = float(bar.get("x")), float(bar.get("width"))
    assert left == pytest.approx(92 + (960 - 92 - 24) / 2)
    assert left + width == pytest.approx(960 - 24)


@pytest.mark.parametrize("duration_s", [0.04, 1, 59.9, 3600, 3 * 86400])
def test_the_axis_has_a_handful_of_ticks_however_long_the_film(duration_s):
    marks = ticks(duration_s, 12)
    assert 1 <= len(marks) <= 13 and marks[0] == 0 and marks[-1] <= duration_s


def test_a_notebook_shows_the_time_line():
    assert a_result()._repr_html_().startswith("<svg")


def test_the_table_says_overlap_only_where_the_truth_is_known():
    assert [str(column.header) for column in to_table(a_result()).columns] == [
        "#", "start", "end", "seconds", "score"
    ]  # fmt: skip
    assert list(to_table(a_result(), [(1, 4.5)]).columns[-1].cells) == ["1.00", "0.00"]


@pytest.mark.parametrize("ending", DOCUMENT_ENDINGS)
def test_every_ending_is_written(tmp_path, ending):
    path = a_result().save(tmp_path / f"new folder/out{ending.upper()}")
    assert path.stat().st_size > 100


@pytest.mark.parametrize("name", ["out.mp5", "out", ".json"])
def test_another_ending_is_refused_with_the_list(tmp_path, name):
    with pytest.raises(ConfigError, match=r"\.json, \.csv, \.vtt, \.svg, \.html"):
        a_result().save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_several_results_share_a_json_array_one_result_is_an_object(tmp_path):
    assert isinstance(json.loads(save_results([a_result()], tmp_path / "a.json").read_text()), list)
    assert isinstance(json.loads(a_result().save(tmp_path / "b.json").read_text()), dict)


def test_an_unwritable_place_is_found_before_the_work_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MomentkitError, match="cannot write"):
        check_writable(tmp_path / "file" / "out.json")
    with pytest.raises(MomentkitError, match="it is a folder"):
        (tmp_path / "x.csv").mkdir()
        check_writable(tmp_path / "x.csv")
    check_writable(tmp_path / "new" / "deep" / "out.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "x.csv"]


def test_checking_a_path_leaves_an_older_result_alone(tmp_path):
    (tmp_path / "a.json").write_text("old")
    check_writable(tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == "old"
    assert check_ending(tmp_path / "A.JSON") == ".json"


def test_overlap_is_intersection_over_union():
    assert overlap((0, 4), (2, 6)) == pytest.approx(1 / 3)
    assert overlap((0, 1), (2, 3)) == 0 and overlap((2, 2), (2, 2)) == 0
    assert best_overlap(Moment(start_s=2, end_s=4, score=1), [(9, 10), (2, 6)]) == 0.5


def test_windows_that_overlap_never_share_a_lane():
    assert lanes([(0, 4), (2, 6), (4, 5), (1, 3), (8, 9), (5, 8)]) == [0, 1, 0, 2, 0, 0]


def test_clock_reads_as_people_write_it():
    assert [clock(0), clock(59.96, 1), clock(59.4), clock(3600), clock(7325.04, 1)] == [
        "0:00", "1:00.0", "0:59", "1:00:00", "2:02:05.0"
    ]  # fmt: skip
