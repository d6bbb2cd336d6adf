"""The frame that is shown at a time, over containers, codecs, odd stamps, turned pictures and colours."""

from fractions import Fraction

import av
import numpy as np
import pytest
from video_clips import (
    FAST_HEVC,
    FAST_X264,
    KINDS,
    draw_number,
    read_number,
    write_film,
    write_kind,
)
from video_figures import changed_clips, offset_error_s, shown_at, wrong_frames

from momentkit.video.limits import VideoLimits
from momentkit.video.probe import _Survey, measure_duration, probe
from momentkit.video.reader import open_video


def read(path, asked, size=None, **options):
    with open_video(path, **options) as reader:
        return [(time_s, frame) for time_s, frame in reader.frames_at(asked, size)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_frame_shown_at_any_time_is_the_right_one(kind, tmp_path):
    path, times = write_kind(tmp_path, kind)
    asked = np.random.default_rng(1).uniform(0, 2.6, 60)
    asked = np.sort([*asked, 0.0, 0.2, 0.2, 0.4, 1.0, 2.0, times[-1], times[-1] + 0.02])
    frames = read(path, asked)
    wanted = [shown_at(times, one) for one in asked]
    assert [read_number(frame) for _, frame in frames] == wanted
    # Matroska stores whole milliseconds.
    np.testing.assert_allclose([time for time, _ in frames], [times[i] for i in wanted], atol=5e-4)


def test_no_frame_is_wrong_forwards_or_backwards(tmp_path):
    figures = wrong_frames(tmp_path, count=10, backward=4, seed=2)
    assert figures == {"asked": 22 * len(KINDS), "wrong": 0}


def test_eight_frames_of_stored_clips_are_as_they_were(tmp_path):
    assert changed_clips()["changed"] == 0


def assert_in_order_and_said(path, times):
    """All 60 frames come in order by guessed times, and a warning says so."""
    with open_video(path) as reader:
        frames = list(reader.frames_at(times))
        assert reader.origin == "guessed"
    assert [read_number(frame) for _, frame in frames] == list(range(60))
    np.testing.assert_allclose([time for time, _ in frames], times, atol=1e-9)
    assert any("order and rate" in warning for warning in probe(path).warnings)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_bare_streams_are_read_in_order_and_it_is_said(codec, tmp_path):
    path, options = tmp_path / f"bare.{codec}", {"h264": FAST_X264, "hevc": FAST_HEVC}[codec]
    times = write_film(path, codec={"h264": "libx264", "hevc": "libx265"}[codec], options=options, mux=codec)
    assert_in_order_and_said(path, times)


@pytest.mark.parametrize("kind", KINDS)
def test_the_duration_is_the_last_frame_s_time_and_its_length(kind, tmp_path):
    path, times = write_kind(tmp_path, kind)
    info = probe(path)
    assert info.duration_s == pytest.approx(2.4, abs=1e-3)
    assert info.last_frame_s == pytest.approx(times[-1], abs=1e-3)
    assert (info.frames, info.width, info.height, info.complete) == (60, 128, 64, True)
    assert info.warnings == ()


def test_b_frames_in_avi_which_has_no_stamps_come_in_order_and_it_is_said(tmp_path):
    path = tmp_path / "b_frames.avi"
    times = write_film(path, options=FAST_X264, time_base=Fraction(1, 25))
    assert_in_order_and_said(path, times)


def test_variable_frame_rate_goes_by_the_stamps(tmp_path):
    stamps = [Fraction(i, 30) for i in range(90)] + [3 + Fraction(i, 2) for i in range(8)]
    path = tmp_path / "vfr.mp4"
    times = write_film(path, times=stamps, rate=30, options=FAST_X264)
    frames = read(path, np.linspace(0, 6.5, 200))
    wanted = [shown_at(times, one) for one in np.linspace(0, 6.5, 200)]
    assert [read_number(frame) for _, frame in frames] == wanted
    assert max(abs(time - times[i]) for (time, _), i in zip(frames, wanted, strict=True)) < 1e-6
    assert probe(path).last_frame_s == pytest.approx(6.5, abs=1e-6)


@pytest.mark.parametrize(
    ("first_s", "name"), [("0.08", "a.ts"), ("3600", "a.mkv"), ("3600", "a.ts"), ("7.5", "a.mp4")]
)
def test_the_first_frame_is_at_zero_and_its_stamp_is_kept(first_s, name, tmp_path):
    path = tmp_path / name
    times = write_film(
        path, times=[Fraction(first_s) + Fraction(i, 25) for i in range(30)], options=FAST_X264
    )
    frames = read(path, times)
    assert [read_number(frame) for _, frame in frames] == list(range(30))
    np.testing.assert_allclose([time for time, _ in frames], times, atol=5e-4)
    info = probe(path)
    assert info.duration_s == pytest.approx(1.2, abs=2e-3)
    reorder_s = 0.08  # a transport stream starts later by the frames that are shown out of order
    assert info.first_stamp_s - float(first_s) == pytest.approx(0, abs=reorder_s + 1e-3)


def test_stamps_before_zero_are_hidden_and_every_offset_is_taken_off(tmp_path):
    figures = offset_error_s(tmp_path)
    assert figures["largest error s"] < 5e-4 and figures["wrong"] == 0


def test_packets_before_the_first_key_frame_are_no_damage(tmp_path):
    path, late = write_kind(tmp_path, "vp9.webm")[0], tmp_path / "late.webm"
    with av.open(str(path)) as film, av.open(str(late), "w") as output:
        stream = output.add_stream_from_template(film.streams.video[0])
        for index, packet in enumerate(film.demux(video=0)):
            if index >= 5 and packet.size:
                packet.stream = stream
                output.mux(packet)
    with open_video(late) as reader:
        frames = list(reader.frames_at([0.0, 0.4]))
        assert reader.complete
    assert [read_number(frame) for _, frame in frames] == [20, 30]
    assert probe(late).complete


def test_a_recording_that_starts_between_two_key_frames_starts_at_the_first_whole_one(tmp_path):
    whole = write_kind(tmp_path, "h264.ts")[0].read_bytes()
    path = tmp_path / "late.ts"
    path.write_bytes(whole[: 2 * 188] + whole[len(whole) // 188 // 3 * 188 :])
    frames = read(path, [0.0, 0.04, 0.08])
    first = read_number(frames[0][1])
    assert first > 0 and frames[0][0] == 0.0
    assert [read_number(frame) for _, frame in frames] == [first, first + 1, first + 2]


def test_a_repeated_stamp_never_gives_a_time_that_does_not_rise(tmp_path):
    path = tmp_path / "repeat.mkv"  # half a millisecond is rounded to the stamp of its neighbour
    times = [Fraction(i, 4000) for i in range(40)]
    write_film(
        path, times=times, rate=25, codec="mpeg4", options={"b": "4000000"}, time_base=Fraction(1, 4000)
    )
    with open_video(path) as reader:
        seen = sorted({time for time, _ in reader.frames_at(np.linspace(0, 2, 400))})
        assert len(seen) > 10 and reader.origin == "guessed"


def test_times_past_the_end_show_the_last_frame(tmp_path):
    path, _ = write_kind(tmp_path, "h264.mp4")
    assert [read_number(frame) for _, frame in read(path, [2.36, 9.0, 1e6])] == [59, 59, 59]


def test_one_reader_can_pass_over_the_file_again_and_abandoned_passes_are_closed(tmp_path):
    path, _ = write_kind(tmp_path, "h264.mp4")
    with open_video(path) as reader:
        half_way = reader.frames_at(np.arange(60) / 25)
        assert read_number(next(half_way)[1]) == 0
        assert [read_number(frame) for _, frame in reader.frames_at([0.4, 2.0])] == [10, 50]
    assert next(half_way, None) is None


@pytest.mark.parametrize("times", [[-0.1], [0.2, 0.1], [float("nan")], [[0.0]], [float("inf")]])
def test_times_that_are_none_are_refused(times, tmp_path):
    path, _ = write_kind(tmp_path, "mpeg4.avi")
    with open_video(path) as reader, pytest.raises(ValueError, match="times must"):
        reader.frames_at(times)


def test_frames_come_in_the_size_asked_for(tmp_path):
    path, _ = write_kind(tmp_path, "h264.mp4")
    for size in [(72, 128), (32, 64), (224, 224), (33, 97)]:
        (_, frame), (_, last) = read(path, [0.0, 2.36], size)
        assert frame.shape == (*size, 3) and frame.dtype == np.uint8 and frame.flags.c_contiguous
        assert (read_number(frame), read_number(last)) == (0, 59)


def test_one_and_four_decoder_threads_give_the_same_frames(tmp_path):
    for kind in ("h264.mp4", "hevc.mp4", "vp9.webm"):
        path, times = write_kind(tmp_path, kind)
        one, four = (read(path, times, limits=VideoLimits(threads=n)) for n in (1, 4))
        for (time, frame), (other_time, other) in zip(one, four, strict=True):
            assert time == other_time
            np.testing.assert_array_equal(frame, other)


CORNERS = {"red": (210, 40, 40), "green": (40, 210, 40), "blue": (40, 40, 210), "white": (220, 220, 220)}


def four_corners(height=96, width=128):
    picture = np.zeros((height, width, 3), np.uint8)
    red, green, blue, white = CORNERS.values()
    picture[: height // 2, : width // 2], picture[: height // 2, width // 2 :] = red, green
    picture[height // 2 :, : width // 2], picture[height // 2 :, width // 2 :] = blue, white
    return picture


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [None, (60, 90)])
def test_turned_and_mirrored_films_come_upright(degrees, mirrored, size, tmp_path):
    assert upright_corners(tmp_path, degrees, mirrored, size) == 4


def upright_corners(folder, degrees, mirrored, size=None):
    """How many of the four corners of a turned film have the right colour; its shape is checked too."""
    path = folder / "turned.mp4"
    write_film(path, pictures=[four_corners()] * 3, frames=3, rotation=(degrees, mirrored), options=FAST_X264)
    upright = np.rot90(four_corners(), degrees // 90)  # turned counter-clockwise, then mirrored
    upright = upright[:, ::-1] if mirrored else upright
    ((_, frame),) = read(path, [0.0], size)
    assert frame.shape[:2] == (upright.shape[:2] if size is None else size)
    info = probe(path)
    assert (info.height, info.width) == upright.shape[:2] and info.mirrored == mirrored
    right = 0
    for across, down in [(0.2, 0.2), (0.8, 0.2), (0.2, 0.8), (0.8, 0.8)]:
        seen = frame[int(down * frame.shape[0]), int(across * frame.shape[1])].astype(int)
        right += np.abs(seen - upright[int(down * len(upright)), int(across * upright.shape[1])]).max() < 25
    return int(right)


COLOURS = {
    "untagged small is 601": (144, "yuv420p", None, False),
    "untagged large is 709": (720, "yuv420p", None, False),
    "small tagged 709": (144, "yuv420p", 1, False),
    "large tagged 601": (720, "yuv420p", 6, False),
    "full range": (144, "yuv420p", 6, True),
    "4:4:4": (144, "yuv444p", 1, False),
    "4:2:2 of 10 bits": (144, "yuv422p10le", 1, False),
    "HEVC of 10 bits": (144, "yuv420p10le", 1, False, "libx265"),
}


@pytest.mark.parametrize("name", COLOURS)
def test_colours_are_within_two_levels(name, tmp_path):
    assert colour_error(tmp_path, *COLOURS[name]) <= 2


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG"), (1, "")])
def test_high_dynamic_range_is_said(transfer, name, tmp_path):
    colour_error(tmp_path, 144, "yuv420p10le", 9, False, "libx265", transfer)
    info = probe(tmp_path / "colour.mp4")
    assert info.hdr == name
    assert any("dynamic range" in warning for warning in info.warnings) == bool(name)


def colour_error(folder, height, pix_fmt, tag, full, codec="libx264", transfer=None):
    """Largest difference of a plain picture from the colour it was made of, in levels of 255."""
    colour = (201, 60, 30)
    kr, kb = (0.2126, 0.0722) if tag == 1 or (tag is None and height >= 720) else (0.299, 0.114)
    red, green, blue = (value / 255 for value in colour)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)
    depth = 4 if "10" in pix_fmt else 1
    scale_y, scale_c, offset = (255, 255, 0) if full else (219, 224, 16)
    levels = [offset + scale_y * luma, 128 + scale_c * chroma[0], 128 + scale_c * chroma[1]]
    path = folder / "colour.mp4"
    with av.open(str(path), "w") as output:
        options = {"preset": "ultrafast", "qp": "1", "x265-params": "log-level=none:pools=1:qp=1"}
        stream = output.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = height, 160, pix_fmt
        if tag is not None:
            stream.codec_context.colorspace = tag
        if transfer is not None:
            stream.codec_context.color_trc = transfer
        if full:
            stream.codec_context.color_range = 2
        frame = av.VideoFrame(160, height, pix_fmt)
        for plane, level in zip(frame.planes, levels, strict=True):
            kind = np.uint16 if depth == 4 else np.uint8
            plane.update(
                np.full(plane.buffer_size // np.dtype(kind).itemsize, round(level * depth), kind).tobytes()
            )
        frame.pts = 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    ((_, seen),) = read(path, [0.0])
    return float(np.abs(seen.reshape(-1, 3).mean(0) - colour).max())


@pytest.mark.parametrize("size", [(121, 161), (2, 2), (64, 1)])
def test_odd_sizes_are_read(size, tmp_path):
    path = tmp_path / "odd.mkv"
    picture = np.full((*size, 3), 90, np.uint8)
    write_film(path, pictures=[picture] * 3, frames=3, codec="libvpx-vp9", options={"cpu-used": "8"})
    ((_, frame),) = read(path, [0.0])
    assert frame.shape == (*size, 3)
    assert abs(frame.mean() - 90) <= 2


def test_wide_pixels_are_shown_wide(tmp_path):
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
        frame = av.VideoFrame.from_ndarray(draw_number(5), format="rgb24")
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    ((_, frame),) = read(path, [0.0])
    assert frame.shape == (64, 256, 3) and read_number(frame) == 5
    assert probe(path).width == 256


def test_measuring_a_duration_decodes_no_more_than_the_first_frame_needs(tmp_path, monkeypatch):
    path, _ = write_kind(tmp_path, "h264.mp4")
    sent = []
    plain = _Survey._decode
    monkeypatch.setattr(_Survey, "_decode", lambda self, packet: sent.append(packet) or plain(self, packet))
    assert measure_duration(path, VideoLimits(sandbox=False)) == pytest.approx(2.4)
    assert 1 <= len(sent) < 20
