"""momentkit finds when something happens in a video.

Give it a video and a sentence; it returns the moments that match and a saliency score for every clip.

Example:
    >>> import momentkit as mk
    >>> grounder = mk.load("flashvtg")                       # doctest: +SKIP
    >>> video = grounder.encode("match.mp4")                 # doctest: +SKIP
    >>> grounder.find(video, "a dog pulls a sled").moments   # doctest: +SKIP

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
