"""What an encoder is: frames, sound or words in, arrays out, and a contract that says which.

Shapes   N frames   H, W pixels   T clips   D channels   S samples   L words   E channels
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from momentkit.core.contract import StreamContract
from momentkit.core.types import TextFeatures


class FrameEncoder(Protocol):
    """Frames of a video -> one feature row a clip.

    Attributes:
        contract: what the features are.
        clip_length_s: seconds a clip covers.
        frame_offsets_s: times within a clip at which the encoder wants a frame; one entry for image encoders.
        frame_size: (height, width) the frames are wanted in, whatever the film's aspect; None = as they are.
    """

    contract: StreamContract
    clip_length_s: float
    frame_offsets_s: tuple[float, ...]
    frame_size: tuple[int, int] | None

    def encode_frames(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Frames (H, W, 3) uint8 RGB, len(frame_offsets_s) for each clip in order -> (T, D) float32, raw.

        Raw means: not normalised here; the model's door normalises as the contract says.
        """
        ...


class TextEncoder(Protocol):
    """Sentences -> word features.

    Attributes:
        contract: what the features are.
    """

    contract: StreamContract

    def encode_text(self, sentences: Sequence[str]) -> list[TextFeatures]:
        """One `TextFeatures` a sentence, raw.

        Raises:
            QueryError: an empty sentence, or one too long for the encoder.
        """
        ...


@runtime_checkable
class SoundEncoder(Protocol):
    """Sound of a video -> one feature row a clip.

    Attributes:
        contract: what the features are.
        clip_length_s: seconds a clip covers.
        sample_rate: samples a second that the encoder wants.
    """

    contract: StreamContract
    clip_length_s: float
    sample_rate: int

    def encode_sound(self, samples_TS: NDArray[np.float32]) -> NDArray[np.float32]:
        """(T, S) samples of T clips, mono, in [-1, 1] -> (T, D) float32, raw."""
        ...
