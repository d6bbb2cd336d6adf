"""What a person gets: the moments of one video that answer one sentence."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from momentkit.core.files import atomic_write
from momentkit.core.types import Moment
from momentkit.predict.render import to_json
from momentkit.predict.save import check_ending, save_results
from momentkit.predict.timeline_svg import to_svg


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
    film: SkipJsonSchema[Path | None] = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="after")
    def _best_first(self) -> Self:
        scores = [moment.score for moment in self.moments]
        if scores != sorted(scores, reverse=True):
            raise ValueError("moments must be sorted by score, best first")
        return self

    @property
    def best(self) -> Moment | None:
        """The moment with the highest score, or None where nothing was found."""
        return self.moments[0] if self.moments else None

    def save(self, path: str | Path) -> Path:
        """Write this result in the format of the ending: .json, .csv, .vtt, .svg or .html.

        Several results of one video share one file with `momentkit.predict.save.save_results`.

        Raises:
            MomentkitError: another ending, or a folder that cannot be written.
        """
        if check_ending(path) == ".json":
            return atomic_write(path, to_json(self))
        return save_results([self], path, film=self.film)

    def _repr_html_(self) -> str:
        return to_svg([self])
