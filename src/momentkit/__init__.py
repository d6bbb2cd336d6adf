"""momentkit finds when something happens in a video.

Give it a video and a sentence; it returns the moments that match and a saliency score for every clip.

Example:
    >>> import momentkit as mk
    >>> grounder = mk.load("flashvtg")            # bundled weights, a local file, or hub id
    >>> video = grounder.encode("match.mp4")      # pay once; any length
    >>> result = grounder.find(video, "a red ball falls")
    >>> result.moments[0].start_s < result.moments[0].end_s <= result.duration_s
    True
    >>> len(result.saliency) == len(video.features.features_TD)
    True
    >>> 0 <= result.not_found_probability <= 1
    True
    >>> result.save("cut.fcpxml").name            # .json .csv .vtt .svg .html .otio .edl .fcpxml .mp4
    'cut.fcpxml'
    >>> [one.query for one in grounder.find(video, ["rain", "a blue square"])]   # one forward
    ['rain', 'a blue square']

Importing this package loads neither torch nor av; the first use of a name below does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from momentkit.version import __version__

if TYPE_CHECKING:
    from momentkit.core.errors import MomentkitError
    from momentkit.core.types import Moment
    from momentkit.models.registry import create_model, list_models
    from momentkit.predict.grounder import EncodedVideo, Grounder, load
    from momentkit.predict.result import Result

_HOMES = {
    "load": "momentkit.predict.grounder",
    "Grounder": "momentkit.predict.grounder",
    "EncodedVideo": "momentkit.predict.grounder",
    "Result": "momentkit.predict.result",
    "Moment": "momentkit.core.types",
    "MomentkitError": "momentkit.core.errors",
    "create_model": "momentkit.models.registry",
    "list_models": "momentkit.models.registry",
}

__all__ = [
    "EncodedVideo",
    "Grounder",
    "Moment",
    "MomentkitError",
    "Result",
    "__version__",
    "create_model",
    "list_models",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'momentkit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
