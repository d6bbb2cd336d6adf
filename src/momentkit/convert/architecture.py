"""A model's options, read off the shapes of a published checkpoint's tensors; a function a model.

Only the number of attention heads leaves no trace in them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from momentkit.core.errors import WeightsError

State = Mapping[str, Tensor]


def _count(state: State, prefix: str) -> int:
    """Entries of a list of modules below `prefix`."""
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})


def _flashvtg_options(state: State) -> dict[str, Any]:
    """FlashVTG's options from the shapes of its tensors."""
    strides = [2**k for k in range(state["level_scale"].shape[0])]
    return {
        "video_dim": state["video_in.norms.0.weight"].shape[0],
        "text_dim": state["text_in.norms.0.weight"].shape[0],
        "hidden": state["types"].shape[1],
        "feed_forward": state["encoder.0.linear1.weight"].shape[0],
        "input_layers": _count(state, "video_in.norms."),
        "dummies": state["dummy_tokens"].shape[0],
        "dummy_layers": _count(state, "dummy_encoder."),
        "cross_layers": _count(state, "cross."),
        "encoder_layers": _count(state, "encoder."),
        "strides": strides,
        "kernel": state["intra_head.convs.0.weight"].shape[-1],
        "score_convs": _count(state, "intra_head.convs."),
        "score_layers": _count(state, "intra_head.mlp.layers."),
        "task": "moments" if len(strides) > 1 else "highlights",
    }


def _qd_detr_options(state: State) -> dict[str, Any]:
    return {
        **_family_options(state),
        "cross_layers": _count(state, "cross."),
    }


def _family_options(state: State) -> dict[str, Any]:
    """What the DETR-like models have in common."""
    return {
        "video_dim": state["video_in.norms.0.weight"].shape[0],
        "text_dim": state["text_in.norms.0.weight"].shape[0],
        "hidden": state["head.class_embed.weight"].shape[1],
        "feed_forward": state["encoder.0.linear1.weight"].shape[0],
        "input_layers": _count(state, "video_in.norms."),
        "encoder_layers": _count(state, "encoder."),
        "decoder_layers": _count(state, "decoder.layers."),
        "queries": state["anchors"].shape[0],
    }


OPTIONS: dict[str, Callable[[State], dict[str, Any]]] = {
    "flashvtg": _flashvtg_options,
    "qd_detr": _qd_detr_options,
}


def read_options(state: State, model: str) -> dict[str, Any]:
    """A model's options, read off the shapes of its tensors (our names).

    Raises:
        WeightsError: a tensor that tells an option is missing.
    """
    try:
        return OPTIONS[model](state)
    except KeyError as error:
        raise WeightsError(f"this is no {model} checkpoint: parameter {error} is missing") from error
