"""Files made to harm: codecs and containers off the list, bombs, limits, and texts that point elsewhere."""

import subprocess
import sys
from fractions import Fraction

import pytest
from video_clips import claim_jpeg_size, write_film, write_kind
from video_figures import bombs, hostile_texts
from video_verdicts import numbers_until_error, reason_of

from momentkit.core.errors import VideoError
from momentkit.video.limits import VideoLimits
from momentkit.video.probe import probe


@pytest.mark.parametrize(
    ("codec", "name", "pix_fmt"),
    [("ffv1", "a.mkv", "yuv420p"), ("magicyuv", "b.avi", "yuv422p"), ("rawvideo", "c.avi", "yuv420p")],
)
def test_codecs_off_the_list_are_refused_before_decoding(codec, name, pix_fmt, tmp_path):
    path = tmp_path / name
    write_film(path, codec=codec, frames=3, pix_fmt=pix_fmt, time_base=Fraction(1, 25))
    assert reason_of(path) == "unsupported_codec"


@pytest.mark.parametrize(
    ("mux", "codec"), [("flv", "libx264"), ("nut", "mpeg4"), ("asf", "mpeg4"), ("gif bomb", None)]
)
def test_containers_off_the_list_are_refused_whatever_their_name(mux, codec, tmp_path):
    path = tmp_path / "film.mp4"
    if codec is None:
        gif = b"GIF89a" + (12000).to_bytes(2, "little") * 2 + b"\x00\x00\x00,\x00\x00\x00\x00"
        path.write_bytes(gif + b"\xe0.\xe0.\x00\x02\x02D\x01\x00;")
    else:
        write_film(path, codec=codec, frames=3, mux=mux, time_base=Fraction(1, 25))
    assert reason_of(path) == "not_a_video"


def test_limits_are_kept(tmp_path):
    path, _ = write_kind(tmp_path, "h264.mp4")
    assert reason_of(path, VideoLimits(max_bytes=100)) == "too_many_bytes"
    assert reason_of(path, VideoLimits(max_pixels=128 * 64 - 1)) == "too_many_pixels"
    for limits, reason in [
        (VideoLimits(max_duration_s=1.0), "too_long"),
        (VideoLimits(max_frames=30), "too_many_frames"),
        (VideoLimits(deadline_s=1e-9), "deadline"),
    ]:
        assert numbers_until_error(path, [2.3], limits=limits)[1] == reason
        with pytest.raises(VideoError) as caught:
            probe(path, limits)
        assert caught.value.reason == reason


def test_frames_larger_than_the_header_says_are_refused_too(tmp_path):
    path, _ = write_kind(tmp_path, "vp9.webm")
    content = path.read_bytes()
    for element, size in ((b"\xb0\x81\x80", 64), (b"\xba\x81\x40", 32)):  # PixelWidth 128, PixelHeight 64
        assert content.count(element) == 1
        content = content.replace(element, element[:2] + bytes([size]))
    path.write_bytes(content)
    assert reason_of(path, VideoLimits(max_pixels=64 * 32)) in ("too_many_pixels", "no_frames")


_PEAK = """
import resource, sys
from momentkit.core.errors import VideoError
from momentkit.video.limits import VideoLimits
from momentkit.video.reader import open_video
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    with open_video(sys.argv[1], VideoLimits(max_pixels=40_000_000, sandbox=False)) as reader:
        next(reader.frames_at([0.0]))
    reason = "read"
except VideoError as error:
    reason = error.reason
print(reason, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("claimed", [True, False])
def test_a_frame_of_12000_pixels_squared_is_refused_in_little_memory(claimed, tmp_path):
    path = tmp_path / "bomb.mov"
    write_film(path, codec="mjpeg", frames=3, pix_fmt="yuvj420p", time_base=Fraction(1, 25))
    content = bytearray(path.read_bytes())
    claim_jpeg_size(content, 12000)
    if claimed:
        at = content.index(b"jpeg", content.index(b"stsd")) + 28  # the container's width and height
        content[at : at + 4] = (12000).to_bytes(2, "big") * 2
    path.write_bytes(bytes(content))
    command = [sys.executable, "-c", _PEAK, str(path)]
    reason, peak_mb = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert reason == "no_frames"  # the decoder takes none of this size, and the binding does not say why
    assert int(peak_mb) < 150


def test_bombs_are_refused_in_little_memory(tmp_path):
    figures = bombs(tmp_path)
    assert figures["reasons"] == ["not_a_video", "not_a_video", "no_frames", "no_frames"]
    assert figures["peak MB"] < 150 and figures["same worker"]


def test_hostile_texts_and_names_reach_neither_the_network_nor_another_file(tmp_path):
    figures = hostile_texts(tmp_path)
    assert figures == {"texts": 18, "names": 12, "requests": 0, "not refused": []}
