"""Films as files: H.264 in mp4, written by PyAV."""

from pathlib import Path

import numpy as np

from momentkit.core.errors import ConfigError
from momentkit.core.files import atomic_write
from momentkit.data.synthetic.draw import Renderer
from momentkit.data.synthetic.world import Film

_CHUNK = 64  # frames alive at once


def write_film(
    film: Film, path: str | Path, *, height: int = 144, width: int = 256, fps: int = 12, quality: int = 23
) -> Path:
    """Draw a film and write it as mp4.

    Args:
        film: what to draw.
        path: the target, ending in .mp4; appears whole or not at all.
        height, width: pixels, even.
        fps: frames a second.
        quality: x264's constant rate factor, 0 (lossless) to 51; 23 is its default.

    Raises:
        ConfigError: a size H.264 with shared colour samples cannot hold, or another ending.
    """
    if not (height > 0 and width > 0 and height % 2 == 0 and width % 2 == 0):
        raise ConfigError(f"a film needs an even height and width above 0, got {height} x {width}")
    if not (0 < fps <= 120 and 0 <= quality <= 51):
        raise ConfigError(f"fps lies in 1..120 and quality in 0..51, got {fps} and {quality}")
    if Path(path).suffix != ".mp4":
        raise ConfigError(f"a film is written as .mp4, got {path}")
    renderer = Renderer(film, height, width)
    return atomic_write(path, lambda temporary: _encode(renderer, temporary, fps, quality))


def _encode(renderer: Renderer, path: Path, fps: int, quality: int) -> None:
    import av

    times_s = np.arange(renderer.film.duration_s * fps) / fps
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        options = {"crf": str(quality), "preset": "veryfast"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width, stream.pix_fmt = renderer.height, renderer.width, "yuv420p"
        stream.thread_count = 2  # fixed: the bytes depend on it
        for first in range(0, len(times_s), _CHUNK):
            for picture in renderer.frames(times_s[first : first + _CHUNK]):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
