"""Files made to harm: codecs and containers off the list, bombs, limits, and texts that point elsewhere."""

import socket
import subprocess
import sys
import threading
import time
from fractions import Fraction

import pytest
from video_clips import write_film, write_kind
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
    with open_video(sys.argv[1], VideoLimits(max_pixels=40_000_000)) as reader:
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
    at = -1
    while (at := content.find(b"\xff\xc0\x00\x11\x08", at + 1)) > 0:  # a JPEG's height and width
        content[at + 5 : at + 9] = (12000).to_bytes(2, "big") * 2
    if claimed:
        at = content.index(b"jpeg", content.index(b"stsd")) + 28  # the container's width and height
        content[at : at + 4] = (12000).to_bytes(2, "big") * 2
    path.write_bytes(bytes(content))
    command = [sys.executable, "-c", _PEAK, str(path)]
    reason, peak_mb = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert reason == "no_frames"  # the decoder takes none of this size, and the binding does not say why
    assert int(peak_mb) < 150


@pytest.fixture
def trap():
    """A server that only counts who comes."""
    visits = []
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.2)
    running = threading.Event()
    running.set()

    def listen():
        while running.is_set():
            try:
                visitor, _ = server.accept()
            except TimeoutError:
                continue
            visits.append(visitor.getpeername())
            visitor.close()

    thread = threading.Thread(target=listen)
    thread.start()
    yield server.getsockname()[1], visits
    running.clear()
    thread.join()
    server.close()


def test_hostile_texts_and_names_reach_neither_the_network_nor_another_file(tmp_path, trap, monkeypatch):
    port, visits = trap
    canary, _ = write_kind(tmp_path, "h264.ts")
    url = f"http://127.0.0.1:{port}/x.ts"
    texts = {
        "hls.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{url}\n#EXT-X-ENDLIST\n",
        "hls_local.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{canary}\n#EXT-X-ENDLIST\n",
        "concat.ffconcat": f"ffconcat version 1.0\nfile '{canary}'\n",
        "concat_net.ffconcat": f"ffconcat version 1.0\nfile '{url}'\n",
        "dash.mpd": f'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{url}</BaseURL></MPD>',
        "rtp.sdp": f"v=0\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
        "asx.asx": f'<asx version="3.0"><entry><ref href="{url}"/></entry></asx>',
        "pls.pls": f"[playlist]\nFile1={url}\nNumberOfEntries=1\n",
        "smil.rm": f'<smil><body><video src="{url}"/></body></smil>',
    }
    monkeypatch.chdir(tmp_path)
    for name, text in texts.items():
        for alias in (name, name + ".mp4"):
            (tmp_path / alias).write_text(text)
            assert reason_of(alias) == "not_a_video", alias
    names = [
        url,
        f"concat:{canary}|{canary}",
        f"subfile,,start,0,end,0,,:{canary}",
        f"file:{canary}",
        "pipe:0",
    ]
    names += [
        "data:video/mp4;base64,AAAA",
        f"async:{canary}",
        f"cache:{canary}",
        f"crypto:{canary}",
        "lavfi",
        "-",
    ]
    for name in names:
        assert reason_of(name) == "missing", name
    (tmp_path / "concat:h264.ts|h264.ts").write_bytes(b"no film " * 100)  # a file of that very name is a file
    assert reason_of("concat:h264.ts|h264.ts") == "not_a_video"
    time.sleep(0.3)
    assert visits == []
