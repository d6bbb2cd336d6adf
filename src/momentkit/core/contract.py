"""The feature contract: what features are, field by field, and whether two agree.

Weights carry the contract they were trained with and refuses features that differ, naming the field:
features of another encoder, layer or order run without any error and give nonsense.
"""

from pydantic import BaseModel, ConfigDict, Field

from momentkit.core.errors import FeatureMismatchError


class StreamContract(BaseModel):
    """One stream of features: an encoder and how it was used.

    Attributes:
        encoder: name, such as "openai/clip-vit-base-patch32".
        revision: version or checksum of the encoder's weights; "" where the publisher gives none.
        layer: which output, such as "image_embeds" or "last_hidden_state".
        dim: channels.
        fps: frames per second the encoder saw; 0 for text.
        crop: how a frame became the input, such as "centre 224"; "" for text.
        dtype: precision the features were stored in.
        normalisation: "l2" or "unit" rows of unit length at the model's door (`features.store.prepare_rows`),
            or "none".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str
    revision: str = ""
    layer: str
    dim: int = Field(gt=0)
    fps: float = Field(default=0.0, ge=0)
    crop: str = ""
    dtype: str = "float32"
    normalisation: str = "l2"


class FeatureContract(BaseModel):
    """All that decides whether features fit weights: the video streams in order, the text, the clip length.

    Attributes:
        video: streams in the order they are concatenated.
        text: the word features.
        clip_length_s: seconds a clip covers.
        tef: whether the two time channels (i/T, (i+1)/T) are appended.
        audio: the stream of sound, or None.
        audio_apart: whether audio is an input of its own (UVCOM); else it lies behind the video's channels,
            its own time channels included (the DETR family).
        clips: rows each video is averaged to, whatever its length; 0 = none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    video: tuple[StreamContract, ...] = Field(min_length=1)
    text: StreamContract
    clip_length_s: float = Field(gt=0)
    tef: bool = True
    audio: StreamContract | None = None
    audio_apart: bool = False
    clips: int = Field(default=0, ge=0)

    @property
    def video_dim(self) -> int:
        """Channels of the model's video input, time channels included."""
        video_dim = sum(stream.dim for stream in self.video) + 2 * self.tef
        return video_dim + (0 if self.audio is None or self.audio_apart else self.audio.dim + 2 * self.tef)

    @property
    def audio_dim(self) -> int:
        """Channels of the model's audio input, time channels included; 0 where it has none."""
        return self.audio.dim + 2 * self.tef if self.audio is not None and self.audio_apart else 0

    def require(self, seen: "FeatureContract") -> None:
        """Refuse features that differ from this contract.

        Raises:
            FeatureMismatchError: names the first field that differs, what was expected and what was seen.
        """
        wanted_fields, seen_fields = _flatten(self), _flatten(seen)
        for field in {**wanted_fields, **seen_fields}:
            wanted, got = wanted_fields.get(field, "nothing"), seen_fields.get(field, "nothing")
            if wanted != got:
                raise FeatureMismatchError(
                    f"these features do not fit the weights: {field} is {got!r}, the weights were trained "
                    f"with {wanted!r}; encode the video with that encoder or use other weights"
                )


def _flatten(contract: FeatureContract) -> dict[str, object]:
    flat: dict[str, object] = {"clip_length_s": contract.clip_length_s, "tef": contract.tef}
    flat |= {"clips": contract.clips, "audio_apart": contract.audio_apart}
    flat["number of video streams"] = len(contract.video)
    audio = contract.audio.model_dump() if contract.audio is not None else {}
    flat |= {f"audio {key}": value for key, value in audio.items()}
    for index, stream in enumerate(contract.video):
        flat |= {f"video stream {index + 1} {key}": value for key, value in stream.model_dump().items()}
    return flat | {f"text {key}": value for key, value in contract.text.model_dump().items()}
