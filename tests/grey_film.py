"""A film of plain grey pictures that get brighter, five a second."""

from pathlib import Path

import av
import numpy as np


def write_grey_film(path: Path, frames: int, step: int) -> Path:
    """Frame n has the level n * step."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            picture = np.full((48, 64, 3), step * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path
