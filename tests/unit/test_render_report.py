"""The HTML report: one file, nothing from outside, a stranger's text stays text."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from momentkit.core.errors import MomentkitError
from momentkit.core.types import Moment
from momentkit.predict import report
from momentkit.predict.report import save_report, to_html
from momentkit.predict.result import Result

HOSTILE = '</script><script>alert(1)</script><img src="https://evil.example/x" onerror=alert(1)> {{script}}'
VOID = {"meta", "br", "img", "input", "link"}


class Page(HTMLParser):
    """Tags with their attributes; fails on tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag, kind=""):
        return [a for t, a in self.tags if t == tag and kind in [*(a.get("class") or "").split(), ""]]


def a_result(query="a dog runs", moments=((1, 4, 0.9), (2, 5, 0.4)), absent=None):
    return Result(
        query=query,
        video="park.mp4",
        duration_s=10,
        clip_length_s=1,
        moments=tuple(Moment(start_s=s, end_s=e, score=p) for s, e, p in moments),
        saliency=tuple(range(10)),
        not_found_probability=absent,
        model="flashvtg",
        encoder="momentkit/tiny-frames",
    )


def test_the_page_reaches_for_nothing_outside_itself():
    text = to_html([a_result(HOSTILE)], "data:video/mp4;base64,AAAA")
    page = Page(text)
    for _, attributes in page.tags:
        assert not re.match(r"\s*(https?:)?//", attributes.get("src") or attributes.get("href") or "")
    assert "url(" not in text and "@import" not in text
    policy = next(a["content"] for a in page.all("meta") if "Content-Security-Policy" in a.values())
    assert policy.startswith("default-src 'none'")


def test_a_hostile_sentence_stays_text():
    page = Page(to_html([a_result(HOSTILE)], None, {HOSTILE: [(1, 4)]}))
    assert len(page.all("script")) == 1 and not page.all("img")
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_the_policy_lets_exactly_the_pages_own_script_run():
    text = to_html([a_result()])
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in text and "{{" not in text


def test_without_a_script_every_time_line_is_there():
    page = Page(to_html([a_result("one"), a_result("two")], None, {"one": [(1, 4)], "two": []}))
    assert len(page.all("section", "panel")) == 2 and len(page.all("svg", "curve")) == 2
    assert len(page.all("button", "found")) == 4 and len(page.all("button", "true")) == 1
    assert "hidden" not in page.all("section", "panel")[0]


def test_a_bar_lies_where_its_moment_happens():
    (bar,) = Page(to_html([a_result(moments=((2.5, 5, 0.9),))])).all("button", "found")
    assert "left:25.000%;width:25.000%" in bar["style"]
    assert bar["aria-label"] == "found, 0:02.5 to 0:05.0, score 0.90"


@pytest.mark.parametrize(
    ("result", "truth", "verdict"),
    [
        (a_result(), None, "score 0.90"),
        (a_result(), [(1, 4)], "IoU 1.00"),
        (a_result(absent=0.9), None, "not in this film: 90% sure"),
        (a_result(absent=0.9), [], "not in the film: right"),
        (a_result(moments=()), None, "nothing found"),
    ],
)
def test_a_chip_says_how_the_answer_stands(result, truth, verdict):
    assert f">{verdict}</span>" in to_html([result], None, None if truth is None else {"a dog runs": truth})


def test_a_small_film_is_embedded_byte_for_byte(tmp_path):
    film = tmp_path / "park.mp4"
    film.write_bytes(bytes(range(256)))
    text = save_report([a_result()], tmp_path / "out.html", film=film).read_text()
    (video,) = Page(text).all("video")
    assert base64.b64decode(video["src"].removeprefix("data:video/mp4;base64,")) == bytes(range(256))


def test_a_large_film_is_referenced_beside_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MAX_EMBEDDED_BYTES", 10)
    film = tmp_path / 'my "film" #1.mp4'
    film.write_bytes(b"x" * 11)
    (video,) = Page(save_report([a_result()], tmp_path / "a/out.html", film=film).read_text()).all("video")
    assert video["src"] == "../my%20%22film%22%20%231.mp4"


def test_a_film_that_is_not_there_is_said(tmp_path):
    with pytest.raises(MomentkitError, match="no such file"):
        save_report([a_result()], tmp_path / "out.html", film=tmp_path / "gone.mp4")


def test_a_report_of_nothing_or_of_two_films_is_refused(tmp_path):
    with pytest.raises(MomentkitError, match="at least one result"):
        save_report([], tmp_path / "out.html")
    other = a_result().model_copy(update={"video": "b.mp4"})
    with pytest.raises(MomentkitError, match=r"got 2: b\.mp4, park\.mp4"):
        save_report([a_result(), other], tmp_path / "out.html")
