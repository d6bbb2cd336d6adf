"""Models by name."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from momentkit.core.config import build
from momentkit.core.errors import ConfigError
from momentkit.models.bm_detr import BMDETR, BMDETRConfig
from momentkit.models.cg_detr import CGDETR, CGDETRConfig
from momentkit.models.diffusion_vmr import DiffusionVMR, DiffusionVMRConfig
from momentkit.models.flashvtg import FlashVTG, FlashVTGConfig
from momentkit.models.ld_detr import LDDETR, LDDETRConfig
from momentkit.models.map_diffusion import MapDiffusion, MapDiffusionConfig
from momentkit.models.moment_detr import MomentDETR, MomentDETRConfig
from momentkit.models.momentdiff import MomentDiff, MomentDiffConfig
from momentkit.models.ms_2d_tan import MS2DTAN, MS2DTANConfig
from momentkit.models.qd_detr import QDDETR, QDDETRConfig
from momentkit.models.tr_detr import TRDETR, TRDETRConfig
from momentkit.models.uvcom import UVCOM, UVCOMConfig
from momentkit.models.zeroshot import ZeroShot, ZeroShotConfig

_MODELS: dict[str, tuple[type, type[nn.Module]]] = {
    "bm_detr": (BMDETRConfig, BMDETR),
    "cg_detr": (CGDETRConfig, CGDETR),
    "diffusion_vmr": (DiffusionVMRConfig, DiffusionVMR),
    "flashvtg": (FlashVTGConfig, FlashVTG),
    "map_diffusion": (MapDiffusionConfig, MapDiffusion),
    "moment_detr": (MomentDETRConfig, MomentDETR),
    "ld_detr": (LDDETRConfig, LDDETR),
    "ms_2d_tan": (MS2DTANConfig, MS2DTAN),
    "momentdiff": (MomentDiffConfig, MomentDiff),
    "qd_detr": (QDDETRConfig, QDDETR),
    "uvcom": (UVCOMConfig, UVCOM),
    "tr_detr": (TRDETRConfig, TRDETR),
    "zeroshot": (ZeroShotConfig, ZeroShot),
}


# What a file may ask for. The largest published model has 5e8 numbers.
MAX_NUMBERS = 2**31
MAX_REPEATED = 256
MAX_OPTION = 2**20
_REPEATED = ("layers", "loops", "blocks", "convs", "convolutions", "scales", "levels", "rounds")


def list_models() -> list[str]:
    """Names of all models, sorted."""
    return sorted(_MODELS)


def is_trainable(name: str) -> bool:
    """Whether a model has anything to train; one that says `trainable = False` answers as it is built.

    Example:
        >>> is_trainable("flashvtg"), is_trainable("zeroshot")
        (True, False)

    Raises:
        ConfigError: no such model.
    """
    if name not in _MODELS:
        raise ConfigError(f"no model {name!r}; there are {', '.join(list_models())}")
    return bool(getattr(_MODELS[name][1], "trainable", True))


def build_model(name: str, options: Mapping[str, Any], where: str = "model") -> nn.Module:
    """Build a model from options as a file gives them; its weights are drawn from torch's generator.

    Args:
        name: one of `list_models()`.
        options: fields of the model's config; the rest keep their defaults.
        where: what an error message names.

    Raises:
        ConfigError: no such model, no such option, a bad value, or a model that is too large.
    """
    if name not in _MODELS:
        raise ConfigError(f"{where}: no model {name!r}; there are {', '.join(list_models())}")
    config, model = _MODELS[name]
    chosen: Any = build(config, options, f"{where} ({name})")
    _check_size(chosen, model, f"{where} ({name})")
    return model(chosen)


def _check_size(options: Any, model: type[nn.Module], where: str) -> None:
    """Refuse a model that is too large before any memory is asked for."""
    for name, value in asdict(options).items():
        most = MAX_REPEATED if name.endswith(_REPEATED) else MAX_OPTION
        numbers = value if isinstance(value, tuple) else (value,)
        largest = max([len(numbers), *(number for number in numbers if isinstance(number, int))])
        if largest > most:
            raise ConfigError(f"{where}: {name} is {largest}; at most {most} is built")
    with torch.device("meta"):  # shapes without storage
        planned = model(options)
    count = sum(value.numel() for value in (*planned.parameters(), *planned.buffers()))
    if count > MAX_NUMBERS:
        raise ConfigError(f"{where}: the model would have {count} numbers; at most {MAX_NUMBERS} are built")


def create_model(name: str, **options: Any) -> nn.Module:  # the one `**`: `build` checks each key
    """Build a model by name, with options as keywords.

    Example:
        >>> create_model("flashvtg", hidden=64, heads=4).config.hidden
        64
    """
    return build_model(name, options)
