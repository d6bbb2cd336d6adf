"""Films for the tests of hand-off: each frame carries its number, at any rate, with sound and a time code."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from faults.video_clips import draw_number, read_number
from momentkit.video.grid import frame_grid
from momentkit.video.reader import open_video


def write_numbered(
    path: Path,
    rate: Fraction,
    frames: int = 120,
    *,
    timecode: str = "",
    sound: bool = True,
    codec: str = "libx264",
) -> Path:
    """A film of frames 0, 1, ... with a key frame at least every 25 and two pictures out of order."""
    with av.open(str(path), "w") as output:
        options = {"g": "25", "bf": "2"} if codec == "libx264" else {}
        video = output.add_stream(codec, rate=rate, options=options)
        video.height, video.width, video.pix_fmt = 64, 128, "yuv420p"
        if timecode:
            video.metadata["timecode"] = timecode
        tone = output.add_stream("aac", rate=48000) if sound else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(draw_number(number % 256), format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        if tone is not None:
            for first in range(0, int(frames / rate * 48000), 1024):
                samples = np.sin(np.arange(first, first + 1024) / 20, dtype=np.float32)[None] / 4
                block = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = 48000, first, Fraction(1, 48000)
                output.mux(tone.encode(block))
            output.mux(tone.encode(None))
    return path


def numbers_in(path: Path) -> list[int]:
    """The number of every frame of a film."""
    grid = frame_grid(path)
    times_s = [float((frame + Fraction(1, 4)) / grid.rate) for frame in range(grid.frames)]
    with open_video(path) as reader:
        return [read_number(picture) for _, picture in reader.frames_at(times_s)]
