"""Films the video tests ask for: each frame carries its own number, so that a wrong frame cannot hide.

The number is written as eight bars across the picture, bright (235) for 1 and dark (16) for 0.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, BARS = 128, 64, 8


def draw_number(number: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """(height, width, 3) picture of a number 0..255."""
    bits = [(number >> (BARS - 1 - bar)) & 1 for bar in range(BARS)]
    row = np.repeat(np.where(bits, 235, 16), width // BARS).astype(np.uint8)
    return np.repeat(np.tile(row, (height, 1))[:, :, None], 3, axis=2)


def read_number(frame: NDArray[np.uint8]) -> int:
    """The number of a picture drawn by `draw_number`, whatever its size."""
    height, width = frame.shape[:2]
    bar = width // BARS
    middle = [
        frame[height // 4 : -height // 4, i * bar + bar // 4 : (i + 1) * bar - bar // 4] for i in range(BARS)
    ]
    return sum(int(part.mean() > 125) << (BARS - 1 - i) for i, part in enumerate(middle))


def write_film(
    path: Path,
    *,
    codec: str = "libx264",
    times: Sequence[Fraction] | None = None,
    pictures: Sequence[NDArray[np.uint8]] | None = None,
    frames: int = 60,
    rate: int = 25,
    options: Mapping[str, str] | None = None,
    container: Mapping[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    rotation: tuple[float, bool] | None = None,
    time_base: Fraction = Fraction(1, 90000),
    mux: str | None = None,
) -> list[float]:
    """Write a film and return the time of each of its frames from the first one, in seconds.

    Args:
        times: stamp of each frame in seconds; None gives `frames` frames at `rate`.
        pictures: one (H, W, 3) array a frame; None gives the frame's number.
        rotation: counter-clockwise degrees and whether it is mirrored, written as a display matrix.
    """
    stamps = [Fraction(index, rate) for index in range(frames)] if times is None else list(times)
    drawn = [draw_number(index % 256) for index in range(len(stamps))] if pictures is None else pictures
    with av.open(str(path), "w", format=mux, container_options=dict(container or {})) as output:
        stream = output.add_stream(codec, rate=rate, options=dict(options or {}))
        stream.height, stream.width = drawn[0].shape[:2] if len(drawn) else (HEIGHT, WIDTH)
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = time_base
        stream.codec_context.thread_count = 1
        if rotation is not None:
            stream.set_display_rotation(rotation[0], hflip=rotation[1])
        for stamp, picture in zip(stamps, drawn, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = int(stamp / time_base), time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return [float(stamp - stamps[0]) for stamp in stamps]


FAST_X264 = {"preset": "veryfast", "bf": "3", "g": "12", "crf": "12"}
OPEN_GOP = {"preset": "veryfast", "x264-params": "open-gop=1:keyint=12:bframes=3:scenecut=0", "crf": "12"}
FAST_VP9 = {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0", "lag-in-frames": "0", "g": "20"}
FAST_HEVC = {"preset": "ultrafast", "x265-params": "log-level=none:keyint=12:bframes=3:pools=1", "crf": "12"}

KINDS: dict[str, dict[str, object]] = {
    "h264.mp4": {"options": FAST_X264},
    "open_gop.mp4": {"options": OPEN_GOP},
    "index_first.mp4": {"options": FAST_X264, "container": {"movflags": "faststart"}},
    "fragmented.mp4": {
        "options": FAST_X264,
        "container": {"movflags": "frag_keyframe+empty_moov+default_base_moof"},
    },
    "h264.mov": {"options": FAST_X264},
    "h264.mkv": {"options": FAST_X264},
    "live.mkv": {"options": FAST_X264, "container": {"live": "1"}},
    "h264.ts": {"options": FAST_X264, "mux": "mpegts"},
    "hevc.mp4": {"codec": "libx265", "options": FAST_HEVC},
    "vp9.webm": {"codec": "libvpx-vp9", "options": FAST_VP9},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"b": "4000000"}, "time_base": Fraction(1, 25)},
    "h264.avi": {"options": {**FAST_X264, "bf": "0"}, "time_base": Fraction(1, 25)},
}


def write_kind(folder: Path, kind: str) -> tuple[Path, list[float]]:
    """One of `KINDS` and its frames' times."""
    path = folder / kind
    return path, write_film(path, **KINDS[kind])  # type: ignore[arg-type]


def write_noisy(folder: Path, kind: str, frames: int = 60) -> tuple[Path, list[float]]:
    """As `write_kind`, under noise, so that a frame has kilobytes."""
    generator = np.random.default_rng(5)
    noise = generator.integers(-40, 41, (frames, HEIGHT, WIDTH, 1))
    drawn = [
        np.clip(draw_number(index).astype(int) + noise[index], 0, 255).astype(np.uint8)
        for index in range(frames)
    ]
    path = folder / kind
    return path, write_film(path, pictures=drawn, frames=frames, **KINDS[kind])  # type: ignore[arg-type]


def claim_jpeg_size(content: bytearray, side: int) -> None:
    """Overwrite, in a bytearray, the height and width that every JPEG frame states."""
    at = -1
    while (at := content.find(b"\xff\xc0\x00\x11\x08", at + 1)) > 0:
        content[at + 5 : at + 9] = side.to_bytes(2, "big") * 2
