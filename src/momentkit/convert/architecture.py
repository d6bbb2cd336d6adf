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


def _cg_detr_options(state: State) -> dict[str, Any]:
    """How many prompts a video uses leaves no trace; it is 1 on QVHighlights, 2 elsewhere."""
    return {
        **_family_options(state),
        "cross_layers": _count(state, "cross."),
        "dummies": state["dummy_tokens"].shape[0],
        "prompts": state["prompts"].shape[0],
        "dummy_layers": _count(state, "dummy_encoder."),
        "sentence_layers": _count(state, "sentence_encoder."),
        "moment_layers": _count(state, "moment_encoder."),
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


def _moment_detr_options(state: State) -> dict[str, Any]:
    contrast = state.get("contrast_query.weight")
    return {
        "video_dim": state["video_in.norms.0.weight"].shape[0],
        "text_dim": state["text_in.norms.0.weight"].shape[0],
        "hidden": state["queries"].shape[1],
        "feed_forward": state["encoder.0.linear1.weight"].shape[0],
        "input_layers": _count(state, "video_in.norms."),
        "encoder_layers": _count(state, "encoder."),
        "decoder_layers": _count(state, "decoder.layers."),
        "queries": state["queries"].shape[0],
        "pre_norm": "encoder_norm.weight" in state,
        "contrast": 0 if contrast is None else contrast.shape[0],
    }


def _ld_detr_options(state: State) -> dict[str, Any]:
    """The order of the fuser's parts leaves no trace; the published one is taken."""
    parts = ("v2t", "t2v", "encoder1", "conv", "encoder2")
    counts = {part: _count(state, f"fuser.{part}.") for part in parts}
    return {
        "video_dim": state["video_in.norms.0.weight"].shape[0],
        "text_dim": state["text_in.norms.0.weight"].shape[0],
        "hidden": state["head.class_embed.weight"].shape[1],
        "feed_forward": state["decoder.layers.0.linear1.weight"].shape[0],
        "input_layers": _count(state, "video_in.norms."),
        "fuser": [part for part in parts if counts[part]],
        "cross_layers": counts["t2v"] or 1,
        "encoder_layers": counts["encoder1"] or counts["encoder2"] or 1,
        "conv_blocks": counts["conv"] or 1,
        "block_convolutions": _count(state, "fuser.conv.0.convs.") or 1,
        "decoder_layers": _count(state, "decoder.layers."),
        "decoder_loops": 1,  # the released decoder makes one pass
        "queries": state["anchors"].shape[0],
        "distill_align": False,
    }


def _tr_detr_options(state: State) -> dict[str, Any]:
    return {**_family_options(state), "cross_layers": _count(state, "cross.")}


def _uvcom_options(state: State) -> dict[str, Any]:
    audio = state.get("audio_in.norms.0.weight")
    return {
        **_family_options(state),
        "audio_dim": 0 if audio is None else audio.shape[0],
        "mlp_width": state["align_video.layers.0.weight"].shape[0],
        "cross_layers": _count(state, "to_words."),
        "text_centres": state["text_centres_Kd"].shape[0],
        "video_centres": state["video_centres_Kd"].shape[0],
        "slots": "slot.project_v.weight" in state,
        "cross_fusion": "centre_attention.in_proj_weight" in state,
    }


def _bm_detr_options(state: State) -> dict[str, Any]:
    return {**_family_options(state), "contrast": state["contrast_video.weight"].shape[0]}


def _momentdiff_options(state: State) -> dict[str, Any]:
    return {
        "video_dim": state["video_in.norms.0.weight"].shape[0],
        "text_dim": state["text_in.norms.0.weight"].shape[0],
        "hidden": state["token"].shape[0],
        "feed_forward": state["encoder.0.linear1.weight"].shape[0],
        "input_layers": _count(state, "video_in.norms."),
        "cross_layers": _count(state, "cross."),
        "encoder_layers": _count(state, "encoder."),
        "decoder_layers": _count(state, "denoiser.layers."),
        "span_embedding": "fc" if "denoiser.span_in.weight" in state else "roi",
    }


def _ms_2d_tan_options(state: State) -> dict[str, Any]:
    """Pooling, resampling and targets leave no trace; a chain of max pooling does not tell its size."""
    both = multi = "sentence.lstm.weight_ih_l0_reverse" in state  # 2D-TAN reads sentences forward only
    per_scale = [_count(state, f"windows.layers.{k}.") for k in range(_count(state, "windows.layers."))]
    gated = "convs.0.layers.0.gate.weight" in state
    return {
        "video_dim": state["clips.conv.weight"].shape[1],
        "text_dim": state["sentence.lstm.weight_ih_l0"].shape[1],
        "hidden": state["windows.layers.0.0.conv.weight"].shape[0],
        "text_hidden": state["sentence.out.weight"].shape[1],
        "text_layers": sum(key.startswith("sentence.lstm.weight_hh") for key in state) // (1 + both),
        "text_pooling": "mean" if both else "last",
        "scales": len(per_scale),
        "columns": per_scale[0],
        "windows": "conv" if "windows.layers.0.0.norm.weight" in state else "plain",
        "geometry": "scales" if multi else "plane",
        "convs": "gated" if gated else "plain" if multi else "counted",
        "map_layers": _count(state, "convs.0.layers."),
        "kernel": state["convs.0.layers.0.conv.weight"].shape[-1],
    }


OPTIONS: dict[str, Callable[[State], dict[str, Any]]] = {
    "bm_detr": _bm_detr_options,
    "uvcom": _uvcom_options,
    "cg_detr": _cg_detr_options,
    "flashvtg": _flashvtg_options,
    "moment_detr": _moment_detr_options,
    "ld_detr": _ld_detr_options,
    "momentdiff": _momentdiff_options,
    "ms_2d_tan": _ms_2d_tan_options,
    "qd_detr": _qd_detr_options,
    "tr_detr": _tr_detr_options,
}


WITHOUT_HEADS = {"ms_2d_tan"}  # models without attention


def read_options(state: State, model: str) -> dict[str, Any]:
    """A model's options, read off the shapes of its tensors (our names).

    Raises:
        WeightsError: a tensor that tells an option is missing.
    """
    try:
        return OPTIONS[model](state)
    except KeyError as error:
        raise WeightsError(f"this is no {model} checkpoint: parameter {error} is missing") from error
