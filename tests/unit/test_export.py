"""Hand-off to editors: every format is read back, and in and out are the same frames."""

import csv
import io
import json
import subprocess
import sys
from fractions import Fraction
from xml.etree import ElementTree

import av
import opentimelineio as otio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edit_films import numbers_in, write_numbered
from momentkit.core.errors import ConfigError, MissingExtraError, MomentkitError
from momentkit.core.types import Moment
from momentkit.predict.export import Piece, Source, joined, measure_source, save_timeline
from momentkit.predict.result import Result
from momentkit.predict.save import check_writable, save_results
from momentkit.video.cut import cut_film
from momentkit.video.grid import FrameGrid, frame_grid, frame_number

NTSC = Fraction(30000, 1001)
RATES = [Fraction(24000, 1001), Fraction(24), Fraction(25), NTSC, Fraction(30)]
OTHER_RATES = [Fraction(12), Fraction(50), Fraction(60000, 1001), Fraction(60)]
MOMENTS = ((1.0, 2.503, 0.9), (0.2, 0.9, 0.5), (3.337, 3.9, 0.4))


def a_result(film, moments=MOMENTS, query="a dog runs"):
    return Result(
        query=query,
        video=film.name,
        duration_s=4.0,
        clip_length_s=1.0,
        moments=tuple(Moment(start_s=s, end_s=e, score=p) for s, e, p in moments),
        saliency=(0, 1, 0.5, 0),
        model="flashvtg",
        encoder="test",
        film=film,
    )


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """rate -> film, written once each."""
    folder, made = tmp_path_factory.mktemp("films"), {}

    def film(rate, **options):
        key = rate, *options.items()
        if key not in made:
            made[key] = write_numbered(folder / f"film{len(made)} & more.mp4", rate, int(4 * rate), **options)
        return made[key]

    return film


def frames_asked(film):
    """In and out of each moment by the definition: the nearest borders, counted from the first frame."""
    rate = frame_grid(film).rate
    return [(int(s * rate + Fraction(1, 2)), int(e * rate + Fraction(1, 2))) for s, e, _ in MOMENTS]


def read_otio(path, rate, zero):
    timeline = otio.adapters.read_from_file(str(path))
    (track,) = timeline.tracks
    ranges = [clip.source_range for clip in track]
    assert all(Fraction(one.start_time.rate).limit_denominator(1001) == rate for one in ranges)
    return [(one.start_time.value - zero, one.end_time_exclusive().value - zero) for one in ranges]


def read_edl(path, rate, zero):
    """By the letter of the format: event, reel, track, cut, source in and out, record in and out."""
    found, record = [], 0
    for line in path.read_text().splitlines():
        if line[:3].isdigit():
            source_in, source_out, record_in, record_out = (
                frame_number(code, rate) for code in line.split()[-4:]
            )
            assert record_in == record and record_out - record_in == source_out - source_in
            record = record_out
            found.append((source_in - zero, source_out - zero))
    return found


def read_fcpxml(path, rate, zero):
    root = ElementTree.parse(path).getroot()

    def frames(text):
        number = Fraction(text.removesuffix("s")) * rate
        assert number.denominator == 1, f"{text} is no multiple of a frame"
        return int(number)

    asset = root.find("resources/asset")
    assert frames(asset.get("start")) == zero
    found, offset = [], 0
    for clip in root.iter("asset-clip"):
        first, length = frames(clip.get("start")) - zero, frames(clip.get("duration"))
        assert frames(clip.get("offset")) == offset and clip.get("ref") == asset.get("id")
        offset += length
        found.append((first, first + length))
    assert frames(root.find("event/project/sequence").get("duration")) == offset
    return found


READERS = {".otio": read_otio, ".edl": read_edl, ".fcpxml": read_fcpxml}


@pytest.mark.parametrize("ending", READERS)
@pytest.mark.parametrize("rate", RATES, ids=str)
def test_a_timeline_read_back_names_the_same_frames(films, tmp_path, rate, ending):
    film = films(rate)
    path = a_result(film).save(tmp_path / f"cut{ending}")
    assert READERS[ending](path, rate, 0) == frames_asked(film)


@pytest.mark.parametrize("ending", [".otio", ".fcpxml"])
@pytest.mark.parametrize("rate", OTHER_RATES, ids=str)
def test_rates_beyond_time_code_go_where_frames_are_counted(films, tmp_path, rate, ending):
    film = films(rate)
    assert READERS[ending](a_result(film).save(tmp_path / f"cut{ending}"), rate, 0) == frames_asked(film)


@pytest.mark.parametrize("rate", OTHER_RATES, ids=str)
def test_an_edl_of_a_rate_it_cannot_count_is_refused(films, tmp_path, rate):
    with pytest.raises(ConfigError, match=r"write \.otio or \.fcpxml"):
        a_result(films(rate)).save(tmp_path / "cut.edl")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", READERS)
@pytest.mark.parametrize(
    ("rate", "code", "zero"),
    [(NTSC, "00:00:59;28", 1798), (NTSC, "01:00:00;00", 107892), (Fraction(25), "10:00:00:00", 900000)],
)
def test_the_films_own_time_code_is_counted_from(films, tmp_path, ending, rate, code, zero):
    """30 frames behind 59;28 the numbers ;00 and ;01 of the new minute are left out."""
    film = films(rate, timecode=code)
    grid = frame_grid(film)
    assert (grid.first_frame, grid.drop) == (zero, ";" in code)
    assert READERS[ending](a_result(film).save(tmp_path / f"cut{ending}"), rate, zero) == frames_asked(film)


def test_the_edl_and_its_adapter_agree_on_drop_frame(films, tmp_path):
    film = films(NTSC, timecode="00:00:59;28")
    path = a_result(film).save(tmp_path / "cut.edl")
    text = path.read_text()
    assert "FCM: DROP FRAME" in text and "00:01:00;00" not in text
    timeline = otio.adapters.read_from_file(str(path), rate=float(NTSC))
    ranges = [clip.source_range for clip in timeline.find_clips()]
    assert [
        (one.start_time.value - 1798, one.end_time_exclusive().value - 1798) for one in ranges
    ] == frames_asked(film)
    assert [clip.name for clip in timeline.find_clips()] == ["a dog runs"] * 3


@pytest.mark.parametrize("rate", [*RATES, *OTHER_RATES], ids=str)
def test_texts_read_back_name_the_same_frames(films, tmp_path, rate):
    film, result = films(rate), a_result(films(rate))
    grid = frame_grid(film)
    rows = csv.DictReader(io.StringIO(result.save(tmp_path / "a.csv").read_text()))
    assert [grid.stretch(float(row["start_s"]), float(row["end_s"])) for row in rows] == frames_asked(film)
    moments = json.loads(result.save(tmp_path / "a.json").read_text())["moments"]
    assert [grid.stretch(m["start_s"], m["end_s"]) for m in moments] == frames_asked(film)
    times = [line for line in result.save(tmp_path / "a.vtt").read_text().splitlines() if "-->" in line]
    cues = [[_seconds(code) for code in line.split(" --> ")] for line in times]
    assert [grid.stretch(*cue) for cue in cues] == sorted(frames_asked(film))


def _seconds(code):
    hours, minutes, seconds = code.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


@pytest.mark.parametrize("rate", [NTSC, Fraction(25), Fraction(60)], ids=str)
@pytest.mark.parametrize("sound", [True, False])
def test_an_exact_cut_shows_the_frames_and_no_others(films, tmp_path, rate, sound):
    film = films(rate, sound=sound)
    report = cut_film(film, [(33, 60), (80, 81), (83, 96)], tmp_path / "cut.mp4", exact=True)
    assert numbers_in(report.path) == [*range(33, 60), 80, *range(83, 96)]
    assert frame_grid(report.path).rate == rate
    assert "41 frames encoded again, exact to the frame" in report.sentence
    with av.open(str(report.path)) as container:
        assert len(container.streams.audio) == sound
        if sound:
            (stream,) = container.streams.audio
            assert abs(float(stream.duration * stream.time_base) - 41 / rate) < 0.05


@pytest.mark.parametrize("rate", [NTSC, Fraction(25)], ids=str)
def test_a_copy_holds_the_frames_from_the_key_frame_before_and_says_so(films, tmp_path, rate):
    film, asked = films(rate), [(33, 60), (82, 90)]
    report = cut_film(film, asked, tmp_path / "cut.mp4")
    numbers, position = numbers_in(report.path), 0
    for (first, end), (start_s, end_s) in zip(asked, report.taken_s, strict=True):
        taken = range(round(start_s * rate), round(end_s * rate))
        assert taken.start <= first and end <= taken.stop <= end + 3
        assert numbers[position : position + len(taken)] == list(taken)
        position += len(taken)
    assert position == len(numbers)
    early = max(
        float(first / rate) - start for (first, _), (start, _) in zip(asked, report.taken_s, strict=True)
    )
    assert f"{early:.2f} s early" in report.sentence and "copied without loss" in report.sentence


def test_a_copy_keeps_the_bytes_of_the_pictures(films, tmp_path):
    film = films(Fraction(25))
    report = cut_film(film, [(30, 60)], tmp_path / "cut.mp4")
    packets = []
    for path in (film, report.path):
        with av.open(str(path)) as container:
            packets.append([bytes(packet) for packet in container.demux(video=0) if packet.size])
    assert packets[1] and set(packets[1]) <= set(packets[0])


def test_a_save_as_mp4_holds_the_best_moment_of_each_sentence(films, tmp_path):
    film = films(Fraction(25))
    said = []
    other = a_result(film, ((0.4, 0.8, 0.7), (3.0, 3.2, 0.6)), "rain")
    path = save_results([a_result(film), other], tmp_path / "cut.mp4", film, exact=True, say=said.append)
    assert numbers_in(path) == [*range(10, 20), *range(25, 63)]
    assert said == ["cut.mp4: 2 stretches, 48 frames encoded again, exact to the frame"]


def test_sound_that_mp4_does_not_take_is_left_out_and_said(films, tmp_path):
    film = tmp_path / "film.mkv"
    with av.open(str(films(Fraction(25), sound=False))) as source, av.open(str(film), "w") as output:
        video = output.add_stream_from_template(source.streams.video[0])
        tone = output.add_stream("pcm_s16le", rate=8000)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                output.mux(packet)
        output.mux(tone.encode(None))
    report = cut_film(film, [(5, 50)], tmp_path / "cut.mp4")
    assert "without sound: pcm_s16le" in report.sentence


def test_a_codec_that_mp4_does_not_take_is_refused_with_the_way_out(tmp_path):
    film = write_numbered(tmp_path / "film.webm", Fraction(25), 30, sound=False, codec="libvpx")
    with pytest.raises(MomentkitError, match=r"vp8.*--exact"):
        cut_film(film, [(5, 20)], tmp_path / "cut.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["film.webm"]
    assert numbers_in(cut_film(film, [(5, 20)], tmp_path / "cut.mp4", exact=True).path) == list(range(5, 20))


def test_a_cut_never_overwrites_its_film(films, tmp_path):
    film = films(Fraction(25))
    before = film.read_bytes()
    with pytest.raises(MomentkitError, match="the film itself"):
        cut_film(film, [(5, 20)], film)
    assert film.read_bytes() == before


@pytest.mark.parametrize("ending", [".otio", ".edl", ".fcpxml", ".mp4"])
def test_an_empty_answer_and_a_film_that_is_not_known_are_refused(films, tmp_path, ending):
    film = films(Fraction(25))
    with pytest.raises(MomentkitError, match="no moment"):
        a_result(film, ()).save(tmp_path / f"a{ending}")
    with pytest.raises(ConfigError, match="give film="):
        a_result(film).model_copy(update={"film": None}).save(tmp_path / f"a{ending}")
    assert not list(tmp_path.iterdir())


HOSTILE = 'x <b>&"\n001  AX V C 00:00:00:00 00:00:01:00 00:00:00:00 00:00:01:00\n\x00\x1b'


@pytest.mark.parametrize("ending", READERS)
def test_a_hostile_sentence_adds_no_event_and_breaks_no_document(films, tmp_path, ending):
    film = films(Fraction(25))
    path = a_result(film, query=HOSTILE).save(tmp_path / f"cut{ending}")
    assert READERS[ending](path, Fraction(25), 0) == frames_asked(film)


def test_without_the_extra_the_ending_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentimelineio", None)
    for ending in (".otio", ".edl"):
        with pytest.raises(MissingExtraError, match=r"pip install 'momentkit\[export\]'"):
            check_writable(tmp_path / f"cut{ending}")
    check_writable(tmp_path / "cut.fcpxml")
    check_writable(tmp_path / "cut.mp4")


def test_opentimelineio_is_loaded_by_those_who_need_it_alone():
    probe = "import sys, momentkit.predict.save; print('opentimelineio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@settings(max_examples=60, deadline=None)
@given(
    rate=st.sampled_from(RATES),
    zero=st.integers(0, 24 * 3600 * 23),
    first=st.integers(0, 400_000),
    length=st.integers(1, 5000),
)
def test_any_stretch_survives_every_timeline(tmp_path_factory, films, rate, zero, first, length):
    """Hours into a film, across dropped numbers: not a frame off."""
    source = measure_source(films(Fraction(25)))
    drop = rate == NTSC
    grid = FrameGrid(rate=rate, frames=500_000, first_frame=zero, drop=drop)
    piece = Piece(name="x", start_s=grid.seconds(first), end_s=grid.seconds(first + length), score=0.5)
    folder = tmp_path_factory.mktemp("any")
    for ending, read in READERS.items():
        path = save_timeline(
            [piece], Source(path=source.path, info=source.info, grid=grid), folder / f"a{ending}"
        )
        assert read(path, rate, zero) == [(first, first + length)], ending


@pytest.mark.parametrize(
    ("code", "rate", "number"),
    [
        ("00:00:59;29", NTSC, 1799),
        ("00:01:00;02", NTSC, 1800),
        ("00:10:00;00", NTSC, 17982),
        ("01:00:00;00", NTSC, 107892),
        ("00:01:00;04", Fraction(60000, 1001), 3600),
        ("01:00:00:00", Fraction(24000, 1001), 86400),
    ],
)
def test_drop_frame_numbers_follow_the_standard(code, rate, number):
    assert frame_number(code, rate) == number


def test_a_stretch_is_never_empty_and_never_outside():
    grid = FrameGrid(rate=NTSC, frames=100)
    assert grid.stretch(1.0, 1.0) == (30, 31)
    assert grid.stretch(50, 60) == (99, 100)
    assert grid.stretch(0, 60) == (0, 100)


def test_a_film_of_uneven_frames_is_said_to_be_one(tmp_path):
    film = tmp_path / "uneven.mp4"
    with av.open(str(film), "w") as output:
        video = output.add_stream("libx264", rate=30)
        video.height, video.width, video.pix_fmt = 64, 128, "yuv420p"
        time = 0
        for number in range(40):
            frame = av.VideoFrame(128, 64, "yuv420p")
            frame.pts, frame.time_base = time, Fraction(1, 90000)
            time += 3000 if number % 2 else 7500
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    assert not frame_grid(film).steady


def test_joined_stretches_show_nothing_twice():
    assert joined([(0, 5), (5, 8), (3, 4), (10, 12), (11, 15)]) == [(0, 8), (10, 15)]
