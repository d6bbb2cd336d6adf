"""Broken and odd files: one error class, and a reason from the closed list."""

import os
import struct
import time

import av
import numpy as np
import pytest
from video_clips import FAST_X264, draw_number, read_number, write_film, write_kind
from video_figures import CUT_KINDS, cut_frames, duration_error_s, hole_frames, the_worker
from video_verdicts import numbers_until_error, reason_of

from momentkit.core.errors import VideoError
from momentkit.video.limits import VideoLimits
from momentkit.video.probe import measure_duration, probe
from momentkit.video.reader import open_video


@pytest.mark.parametrize("kind", CUT_KINDS)
@pytest.mark.parametrize("percent", [1, 10, 50, 75, 90, 99])
def test_a_cut_file_gives_the_frames_before_the_cut_and_then_says_truncated(kind, percent, tmp_path):
    path, times = write_kind(tmp_path, kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * percent // 100])
    numbers, reason = numbers_until_error(path, times)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) < 60
    assert reason == "truncated" or (reason == "not_a_video" and percent == 1)
    if numbers:
        info = probe(path)
        assert not info.complete and len(numbers) == round(info.duration_s * 25)
        assert info.last_frame_s == pytest.approx(times[len(numbers) - 1], abs=1e-3)
        assert any("cut off" in warning for warning in info.warnings)


@pytest.mark.parametrize("kind", ["index_first.mp4", "h264.mkv", "h264.ts"])
def test_a_cut_is_read_past_only_when_asked_to_and_then_said(kind, tmp_path):
    path, times = write_kind(tmp_path, kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 90 // 100])
    before, _ = numbers_until_error(path, times)
    with open_video(path, tolerate_cut=True) as reader:
        numbers = [read_number(frame) for _, frame in reader.frames_at(times)]
        assert not reader.complete
    assert len(numbers) == 60
    assert numbers[: len(before)] == before
    assert set(numbers[len(before) :]) <= {before[-1]}


def test_a_damaged_middle_is_refused_from_there_on(tmp_path):
    path, times = write_kind(tmp_path, "index_first.mp4")
    whole = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    position, size = packets[30]
    whole[position : position + size] = b"\x00" * size
    path.write_bytes(bytes(whole))
    numbers, reason = numbers_until_error(path, times)
    assert numbers == list(range(len(numbers))) and 20 <= len(numbers) <= 30
    assert reason == "truncated"
    with open_video(path, tolerate_cut=True) as reader:
        assert len(list(reader.frames_at(times))) == 60
        assert not reader.complete


def test_a_hole_of_zeros_never_gives_a_wrong_frame_and_is_said(tmp_path):
    assert hole_frames(tmp_path) == {"films": 6, "wrong": 0, "not said": 0}


def test_little_is_lost_before_a_cut(tmp_path):
    figures = cut_frames(tmp_path, (50, 90))
    assert figures["wrong"] == 0 and figures["cuts not said"] == 0
    assert figures["of"] > 500 and figures["lost"] <= 0.06 * figures["of"]  # the last packet, and its group


@pytest.mark.parametrize("start", [40, 60, 77])
@pytest.mark.parametrize("tolerate", [False, True])
def test_lost_packets_of_a_transport_stream_are_seen(start, tolerate, tmp_path):
    path, times = write_kind(tmp_path, "h264.ts")
    whole = path.read_bytes()
    path.write_bytes(whole[: start * 188] + whole[(start + 3) * 188 :])
    numbers, reason = numbers_until_error(path, times, tolerate_cut=tolerate)
    if tolerate:
        assert len(numbers) == 60 and reason == ""
    else:
        assert reason == "truncated" and 10 < len(numbers) < 60
        assert numbers == list(range(len(numbers)))
    assert not probe(path).complete


@pytest.mark.parametrize("factor", [1000.0, 0.0])
def test_a_header_that_lies_about_the_duration_is_not_believed(factor, tmp_path):
    path, _ = write_kind(tmp_path, "h264.mkv")
    content = bytearray(path.read_bytes())
    at = content.index(b"\x44\x89\x88") + 3  # the duration, eight bytes long, in milliseconds
    content[at : at + 8] = struct.pack(">d", factor * struct.unpack(">d", content[at : at + 8])[0])
    path.write_bytes(bytes(content))
    info = probe(path)
    assert info.duration_s == pytest.approx(2.4, abs=1e-3)
    if factor:
        assert info.claimed_duration_s == pytest.approx(2400)
        assert any("the header says" in warning for warning in info.warnings)


def test_no_header_makes_the_reader_wrong_or_large(tmp_path):
    figures = duration_error_s(tmp_path)
    assert figures["largest error s"] < 1e-3 and figures["MB"] < 30


def test_a_header_without_a_duration_does_no_harm(tmp_path):
    info = probe(write_kind(tmp_path, "live.mkv")[0])
    assert info.claimed_duration_s is None and info.duration_s == pytest.approx(2.4)


def no_films(folder):
    """Files that are no films, with the reason expected."""
    noise = np.random.default_rng(0).bytes(65536)
    contents = {"empty": b"", "one": b"\x00", "text": b"find the moment\n" * 100, "noise": noise}
    for name, content in contents.items():
        (folder / f"{name}.mp4").write_bytes(content)
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
    (folder / "gone.mp4").symlink_to(folder / "nowhere")
    return {
        "empty.mp4": "empty",
        "one.mp4": "not_a_video",
        "text.mp4": "not_a_video",
        "noise.mp4": "not_a_video",
        "pipe.mp4": "not_a_video",
        "folder.mp4": "not_a_video",
        "gone.mp4": "missing",
        "never.mp4": "missing",
        "nul\x00.mp4": "missing",
        "n" * 5000: "missing",
        "/dev/zero": "not_a_video",
    }


def test_what_is_no_film_is_refused_at_once_with_the_right_reason(tmp_path):
    the_worker()
    for name, wanted in no_films(tmp_path).items():
        start_s = time.monotonic()
        assert reason_of(tmp_path / name) == wanted, name[:40]
        assert time.monotonic() - start_s < 1


def test_a_file_that_may_not_be_read_is_said_so(tmp_path, monkeypatch):
    path, _ = write_kind(tmp_path, "h264.mp4")

    def refuse(_):
        raise PermissionError(13, "Permission denied")  # what any user but root gets after chmod 0

    monkeypatch.setattr("momentkit.video.source.is_cut", refuse)
    with pytest.raises(VideoError, match="Permission denied") as caught:
        open_video(path, VideoLimits(sandbox=False))  # which this process plays a trick on
    assert caught.value.reason == "missing"


def test_a_file_deleted_while_it_is_read_is_read_to_its_end(tmp_path):
    path, times = write_kind(tmp_path, "h264.mkv")
    with open_video(path) as reader:
        frames = reader.frames_at(times)
        numbers = [read_number(next(frames)[1])]
        path.unlink()
        numbers += [read_number(frame) for _, frame in frames]
    assert numbers == list(range(60))


def write_audio(path, picture=False):
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=8000)
        cover = output.add_stream("mjpeg", rate=1) if picture else None
        if cover is not None:
            cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
            cover.disposition = av.stream.Disposition.attached_pic
        for index in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate, frame.pts = 8000, 1024 * index
            output.mux(stream.encode(frame))
        if cover is not None:
            image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            output.mux(cover.encode(image))
            output.mux(cover.encode(None))
        output.mux(stream.encode(None))


@pytest.mark.parametrize("picture", [False, True])
def test_sound_without_a_film_is_refused_even_with_a_cover_picture(picture, tmp_path):
    write_audio(tmp_path / "song.mp4", picture)
    assert reason_of(tmp_path / "song.mp4") == "no_video_stream"


@pytest.mark.parametrize("frames", [1, 2])
def test_films_of_one_and_two_frames_are_read(frames, tmp_path):
    path = tmp_path / "short.mp4"
    write_film(path, frames=frames, options=FAST_X264)
    with open_video(path) as reader:
        assert [read_number(frame) for _, frame in reader.frames_at([0.0, 5.0])] == [0, frames - 1]
    assert measure_duration(path) == pytest.approx(frames / 25)


def test_a_video_stream_without_frames_is_refused(tmp_path):
    path, _ = write_kind(tmp_path, "fragmented.mp4")
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"moof") - 4])  # the index alone, which is whole
    assert reason_of(path) == "no_frames"
    with pytest.raises(VideoError) as caught:
        probe(path)
    assert caught.value.reason == "no_frames"


def test_the_largest_of_two_films_is_read_and_it_is_said(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as output:
        streams = [output.add_stream("mpeg4", rate=25) for _ in range(2)]
        for stream, (width, height) in zip(streams, [(64, 32), (128, 64)], strict=True):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for stream, number in zip(streams, (1, 2), strict=True):
            picture = draw_number(number, stream.width, stream.height)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            output.mux(stream.encode(None))
    with open_video(path) as reader:
        assert read_number(next(reader.frames_at([0.0]))[1]) == 2
    assert any("largest of 2" in warning for warning in probe(path).warnings)
