"""What the video tests ask of a file: may it be read, and how far."""

import numpy as np
from video_clips import read_number

from momentkit.core.errors import VideoError
from momentkit.video.limits import VideoLimits
from momentkit.video.probe import probe
from momentkit.video.reader import open_video


def reason_of(path, limits=None):
    """Why a file is refused, or "" where its first frame is shown."""
    try:
        with open_video(path, limits or VideoLimits()) as reader:
            next(reader.frames_at([0.0]))
    except VideoError as error:
        assert str(error).count("\n") == 0
        return error.reason
    return ""


def numbers_until_error(path, times, **options):
    """Numbers of the frames read, and the reason of the error that ended it."""
    numbers = []
    try:
        with open_video(path, **options) as reader:
            for _, frame in reader.frames_at(times):
                numbers.append(read_number(frame))
    except VideoError as error:
        return numbers, error.reason
    return numbers, ""


def verdict(path, limits, tolerate=False):
    """(reason, times, sums of the frames' pixels)."""
    times, sums = [], []
    try:
        probe(path, limits)
        with open_video(path, limits, tolerate_cut=tolerate) as reader:
            for time_s, frame in reader.frames_at(np.arange(0, 3, 0.04)):
                times.append(time_s)
                sums.append(int(frame.sum()))
    except VideoError as error:
        return error.reason, times, sums
    return "", times, sums
