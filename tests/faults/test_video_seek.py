"""Packets that are left undecoded change no frame: against the number in the picture and reading in order."""

from fractions import Fraction

import av
import numpy as np
import pytest
from video_clips import FAST_HEVC, FAST_X264, KINDS, OPEN_GOP, read_number, write_film, write_noisy
from video_figures import shown_at
from video_mutants import mutants

from momentkit.core.errors import VideoError
from momentkit.video import skip
from momentkit.video.limits import VideoLimits
from momentkit.video.reader import VideoReader

FRAMES = 130
INTRA_REFRESH = {"preset": "veryfast", "x264-params": "intra-refresh=1:keyint=12:scenecut=0", "crf": "12"}
FILMS = {
    **KINDS,
    "open_gop.mkv": {"options": OPEN_GOP},
    "intra_refresh.mp4": {"options": INTRA_REFRESH},
    "interlaced.mp4": {"options": {**FAST_X264, "x264-params": "tff=1"}},
    "closed.mkv": {
        "codec": "libx265",
        "options": {**FAST_HEVC, "x265-params": FAST_HEVC["x265-params"] + ":open-gop=0"},
    },
    "long.mp4": {"options": {**FAST_X264, "g": "250", "bf": "5"}},
    "intra.mp4": {"options": {**FAST_X264, "g": "1"}},
}
ASKED = {
    "one a second": np.arange(0, 5.2, 1.0),
    "every third": np.arange(0, 5.2, 0.12),
    "borders": np.array([0.48, 0.48, 0.92, 0.96, 1.44 - 1e-9, 1.44, 3.84, 4.8]),
    "one": np.array([4.0]),
    "the end": np.array([0.0, 1e6]),
    "any": np.sort(np.random.default_rng(3).uniform(0, 5.3, 9)),
}


@pytest.fixture
def sent(monkeypatch):
    """Packets that went to a decoder."""
    sent, decode = [], VideoReader._decode

    def counted(reader, source, clock, packet):
        sent.extend([packet.pts] if packet is not None else [])
        return decode(reader, source, clock, packet)

    monkeypatch.setattr(VideoReader, "_decode", counted)
    return sent


def read(path, asked, threads=1, tolerate=False, skipping=True):
    """(times and frames, reason, complete, origin)."""
    frames, reason = [], ""
    with pytest.MonkeyPatch.context() as patch:
        if not skipping:
            patch.setattr(skip, "syntax_of", lambda container, stream: None)
        reader = VideoReader(path, VideoLimits(threads=threads, sandbox=False), tolerate)
        try:
            for one in reader.frames_at(asked):
                frames.append(one)
        except VideoError as error:
            reason = error.reason
    return frames, reason, reader.complete, reader.origin


def assert_same(one, other):
    assert one[1:] == other[1:] and [time_s for time_s, _ in one[0]] == [time_s for time_s, _ in other[0]]
    for (_, frame), (_, other_frame) in zip(one[0], other[0], strict=True):
        np.testing.assert_array_equal(frame, other_frame)


@pytest.mark.parametrize("kind", FILMS)
def test_frames_are_the_very_same_as_in_order(kind, tmp_path):
    path = tmp_path / kind
    times = write_film(path, frames=FRAMES, **FILMS[kind])
    for index, asked in enumerate(ASKED.values()):
        threads = 1 + 3 * (index % 2)
        found = read(path, asked, threads)
        assert [read_number(frame) for _, frame in found[0]] == [shown_at(times, one) for one in asked]
        assert found[1:3] == ("", True)
        assert_same(found, read(path, asked, threads, skipping=False))


# One frame a second of 5.2: at most two frames a group of the six asked for, or one in two of a long group.
@pytest.mark.parametrize(
    ("kind", "most"),
    [("h264.mp4", 24), ("h264.mkv", 24), ("vp9.webm", 48), ("hevc.mp4", 55), ("long.mp4", 75)],
)
def test_most_packets_are_left_out(kind, most, sent, tmp_path):
    write_film(tmp_path / kind, frames=FRAMES, **FILMS[kind])
    read(tmp_path / kind, ASKED["one a second"])
    assert 6 <= len(sent) <= most


@pytest.mark.parametrize("kind", ["h264.ts", "mpeg4.avi", "h264.avi", "bare.h264"])
def test_where_stamps_cannot_be_trusted_nothing_is_left_out(kind, sent, tmp_path):
    options = FILMS.get(kind, {"options": FAST_X264, "mux": "h264"})
    write_film(tmp_path / kind, frames=FRAMES, **options)
    read(tmp_path / kind, [5.16])
    assert len(sent) == FRAMES


def test_nothing_is_read_after_the_last_frame_asked_for(sent, tmp_path):
    write_film(tmp_path / "h264.mp4", frames=FRAMES, **FILMS["h264.mp4"])
    read(tmp_path / "h264.mp4", [0.5])
    assert len(sent) < 30


def copy(path, target, change=lambda index, packet: packet, films=None):
    """Write the packets of films one after another, the header that of the first."""
    with av.open(str(target), "w") as output:
        stream, start = None, 0
        for film in films or [path]:
            with av.open(str(film)) as source:
                stream = stream or output.add_stream_from_template(source.streams.video[0])
                for index, packet in enumerate(one for one in source.demux(video=0) if one.size):
                    fresh = change(index, packet) or packet
                    fresh.pts, fresh.dts = packet.pts + start, packet.dts + start
                    fresh.time_base, fresh.stream = packet.time_base, stream
                    output.mux(fresh)
                start += source.streams.video[0].duration
    return target


@pytest.mark.parametrize("kind", ["h264.mp4", "open_gop.mp4", "intra_refresh.mp4", "hevc.mp4", "vp9.webm"])
def test_a_container_that_calls_every_frame_a_key_frame_is_not_believed(kind, tmp_path):
    path = tmp_path / f"plain_{kind.partition('.')[0]}.mp4"
    times = write_film(path, frames=FRAMES, **FILMS[kind])

    def lie(_, packet):
        packet.is_keyframe = True

    lying = copy(path, tmp_path / "lying.mp4", lie)
    for asked in ASKED.values():
        found = read(lying, asked)
        assert [read_number(frame) for _, frame in found[0]] == [shown_at(times, one) for one in asked]


def test_parameter_sets_that_change_are_not_left_out(tmp_path):
    other = {**FAST_X264, "x264-params": "cabac=0:ref=1", "profile": "main"}
    for name, options in (("a", FAST_X264), ("b", other)):
        write_film(tmp_path / f"{name}.mp4", frames=60, options=options)
    with av.open(str(tmp_path / "b.mp4")) as film:
        extra = film.streams.video[0].codec_context.extradata
    sets, at = [], 6
    for count in (1, 1):
        for _ in range(count):
            length = int.from_bytes(extra[at : at + 2], "big")
            sets.append(b"\0\0" + extra[at : at + 2 + length])
            at += 2 + length
        at += 1
    heads = iter([b"", b"".join(sets)])

    def with_sets(index, packet):
        if index == 0 and (head := next(heads)):
            fresh = av.Packet(head + bytes(packet))
            fresh.is_keyframe = True
            return fresh
        return None

    joined = copy(None, tmp_path / "joined.mp4", with_sets, [tmp_path / "a.mp4", tmp_path / "b.mp4"])
    asked = [0.0, 1.0, 2.2, 4.4]  # the second film's first group is between the last two
    found = read(joined, asked)
    assert [read_number(frame) for _, frame in found[0]] == [0, 25, 55, 50]
    assert_same(found, read(joined, asked, skipping=False))


def test_stamps_that_repeat_between_the_times_asked_for_give_the_same_times_as_in_order(tmp_path):
    stamps = [Fraction(i, 25) for i in range(40)] + [Fraction(8, 5) + Fraction(i, 4000) for i in range(60)]
    stamps += [Fraction(9, 5) + Fraction(i, 25) for i in range(80)]
    options = {**FAST_X264, "bf": "0"}
    path = tmp_path / "repeat.mkv"  # which stores whole milliseconds
    write_film(path, times=stamps, options=options, time_base=Fraction(1, 4000))
    found = read(path, [0.0, 1.0, 3.0, 4.5])
    assert found[3] == "guessed"
    assert_same(found, read(path, [0.0, 1.0, 3.0, 4.5], skipping=False))


@pytest.mark.parametrize("kind", ["index_first.mp4", "h264.mkv", "vp9.webm", "hevc.mp4"])
@pytest.mark.parametrize("tolerate", [False, True])
def test_a_hole_in_a_group_that_is_left_out_is_said_as_in_order(kind, tolerate, tmp_path):
    path, _ = write_noisy(tmp_path, kind)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = bytes(4096)
    path.write_bytes(content)
    for asked in ([0.0, 0.5, 2.2], [0.0, 2.36]):
        found = read(path, asked, tolerate=tolerate)
        assert not found[2] and found[1] == ("" if tolerate else "truncated")
        assert_same(found, read(path, asked, tolerate=tolerate, skipping=False))


def test_damage_that_only_a_decoder_sees_is_said_where_its_frames_are_asked_for(tmp_path):
    path = tmp_path / "film.mp4"
    times = write_film(path, options={**FAST_X264, "bf": "0", "sc_threshold": "0"})
    with av.open(str(path)) as film:
        place = [packet.pos for packet in film.demux(video=0) if packet.size][25]
    content = bytearray(path.read_bytes())  # the group from 0.96 to 1.44 s: its second frame
    content[place + 5 : place + 7] = b"\xc0\x7f"  # its slice names parameters that are not there
    path.write_bytes(content)
    frames, *said = read(path, [0.0, 0.5, 1.6, 2.2])
    assert [read_number(frame) for _, frame in frames] == [shown_at(times, one) for one in (0, 0.5, 1.6, 2.2)]
    assert said == ["", True, "stamped"]
    for tolerate in (False, True):
        for asked in ([0.0, 1.4, 2.2], [0.0, 0.5, 1.4]):
            found = read(path, asked, tolerate=tolerate)
            assert found[1:3] == ("" if tolerate else "truncated", False)
            assert_same(found, read(path, asked, tolerate=tolerate, skipping=False))


def test_damaged_films_give_the_frames_that_reading_in_order_gives_as_far_as_that_gets(tmp_path):
    films = [
        write_noisy(tmp_path, kind)[0].read_bytes()
        for kind in ("index_first.mp4", "fragmented.mp4", "h264.mkv", "vp9.webm", "hevc.mp4")
    ]
    path, same = tmp_path / "mutant", 0
    for index, content in enumerate(mutants(films, 60, seed=5)):
        path.write_bytes(content)
        asked, tolerate = [0.0, 0.6, 1.3, 2.2], index % 2 == 1
        try:
            plain = read(path, asked, tolerate=tolerate, skipping=False)
        except VideoError:
            continue
        found = read(path, asked, tolerate=tolerate)
        same += found[1:] == plain[1:]
        more = [read_number(frame) for _, frame in found[0][len(plain[0]) :]]  # damage was left out, unseen
        assert more == [0, 15, 32, 55][len(plain[0]) : len(found[0])]
        assert_same((found[0][: len(plain[0])],), (plain[0],))
    assert same > 30
