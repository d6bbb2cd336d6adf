"""What a person gets: the moments of one video that answer one sentence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from momentkit.core.files import atomic_write
from momentkit.core.types import Moment
from momentkit.predict.render import to_json
from momentkit.predict.save import check_ending, save_results
from momentkit.predict.timeline_svg import to_svg
from momentkit.predict.windows import Window


class Trace(BaseModel):
    """How random spans became the answer.

    Attributes:
        start: spans in seconds that the first step was given: noise.
        steps: spans that each step estimates; the last are the answer before suppression and thresholds.
            Place i of every step is the same span on its way, best first; of models that denoise a map it is
            the i-th best moment of that step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    start: tuple[Window, ...]
    steps: tuple[tuple[Window, ...], ...]

    @classmethod
    def of(cls, spans: Sequence[Sequence[Sequence[float]]]) -> Self:
        """From spans of the start and of each step; one that ends before it starts is empty."""
        rows = [
            tuple((round(start_s, 3), round(max(start_s, end_s), 3)) for start_s, end_s in row)
            for row in spans
        ]
        return cls(start=rows[0], steps=tuple(rows[1:]))


class Result(BaseModel):
    """The answer to one sentence about one video.

    Attributes:
        query: the sentence, as it was asked.
        video: name of the film, without its folder.
        duration_s: seconds.
        clip_length_s: seconds that one entry of `saliency` covers.
        moments: best first, after suppression and thresholds; empty where nothing clears them.
        saliency: one score a clip, as the model gives it: unbounded, comparable within this result only.
        not_found_probability: chance that the video does not show this at all; None where the weights were
            not calibrated to say so.
        model: registry name of the model, or the name its weights were loaded by.
        encoder: what encoded the frames.
        unknown_words: words of the sentence that the text encoder has no entry for.
        trace: the spans of every denoising step, where that was asked for; without it the JSON has no such
            field.
        film: the file, where it is known; never written to JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    query: str
    video: str
    duration_s: float = Field(gt=0)
    clip_length_s: float = Field(gt=0)
    moments: tuple[Moment, ...]
    saliency: tuple[float, ...]
    not_found_probability: float | None = Field(default=None, ge=0, le=1)
    model: str
    encoder: str
    unknown_words: tuple[str, ...] = ()
    trace: Trace | None = None
    film: SkipJsonSchema[Path | None] = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="after")
    def _best_first(self) -> Self:
        scores = [moment.score for moment in self.moments]
        if scores != sorted(scores, reverse=True):
            raise ValueError("moments must be sorted by score, best first")
        return self

    @model_serializer(mode="wrap")
    def _without_empty_trace(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        if self.trace is None:
            content.pop("trace", None)
        return content

    @property
    def best(self) -> Moment | None:
        """The moment with the highest score, or None where nothing was found."""
        return self.moments[0] if self.moments else None

    @property
    def absent(self) -> bool:
        """Whether it is likelier that the video does not show this; False where the weights do not say."""
        return self.not_found_probability is not None and self.not_found_probability > 0.5

    def save(self, path: str | Path, *, exact: bool = False) -> Path:
        """Write this result in the format of the ending.

        .json, .csv, .vtt, .svg and .html hold the answer; .otio, .edl and .fcpxml its moments for an editor;
        .mp4 the best moment itself. The last four need the film, which `film` names.

        Example:
            >>> answer = Result(
            ...     query="a dog runs",
            ...     video="park.mp4",
            ...     duration_s=4,
            ...     clip_length_s=2,
            ...     moments=(Moment(start_s=1.0, end_s=2.5, score=0.9),),
            ...     saliency=(0.1, 0.7),
            ...     model="flashvtg",
            ...     encoder="tiny",
            ... )
            >>> answer.best.end_s
            2.5
            >>> print(answer.save("answer.vtt").read_text())
            WEBVTT
            <BLANKLINE>
            00:00:01.000 --> 00:00:02.500
            a dog runs (0.90)
            <BLANKLINE>

        Args:
            path: where to; an ending of that list.
            exact: an .mp4 is encoded again, exact to the frame; else copied from the key frame before.

        Several results of one video share one file with `momentkit.predict.save.save_results`.

        Raises:
            MomentkitError: another ending, a missing film or extra, or a folder that cannot be written.
        """
        if check_ending(path) == ".json":
            return atomic_write(path, to_json(self))
        return save_results([self], path, film=self.film, exact=exact)

    def _repr_html_(self) -> str:
        """The time line, where a notebook shows the result."""
        return to_svg([self])
