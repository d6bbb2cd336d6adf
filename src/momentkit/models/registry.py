"""Models by name."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from momentkit.core.config import build
from momentkit.core.errors import ConfigError
from momentkit.models.flashvtg import FlashVTG, FlashVTGConfig
from momentkit.models.qd_detr import QDDETR, QDDETRConfig

_MODELS: dict[str, tuple[type, type[nn.Module]]] = {
    "flashvtg": (FlashVTGConfig, FlashVTG),
    "qd_detr": (QDDETRConfig, QDDETR),
}


def list_models() -> list[str]:
    """Names of all models, sorted."""
    return sorted(_MODELS)


def build_model(name: str, options: Mapping[str, Any], where: str = "model") -> nn.Module:
    """Build a model from options as a file gives them; its weights are drawn from torch's generator.

    Args:
        name: one of `list_models()`.
        options: fields of the model's config; the rest keep their defaults.
        where: what an error message names.

    Raises:
        ConfigError: no such model, no such option, or a bad value.
    """
    if name not in _MODELS:
        raise ConfigError(f"{where}: no model {name!r}; there are {', '.join(list_models())}")
    config, model = _MODELS[name]
    return model(build(config, options, f"{where} ({name})"))


def create_model(name: str, **options: Any) -> nn.Module:  # the one `**`: `build` checks each key
    """Build a model by name, with options as keywords.

    Example:
        >>> create_model("flashvtg", hidden=64, heads=4).config.hidden
        64
    """
    return build_model(name, options)
