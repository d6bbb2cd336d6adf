"""Parameter names of the authors' checkpoints -> ours, a table a model.

A rule is a pattern on the whole published name and its replacement; None = known and not used (said why).
A name that no rule matches is refused by name.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from momentkit.core.errors import WeightsError

Rule = tuple[str, str | None]

FLASHVTG: list[Rule] = [
    (r"input_vid_proj\.(\d+)\.LayerNorm\.(.+)", r"video_in.norms.\1.\2"),
    (r"input_vid_proj\.(\d+)\.net\.1\.(.+)", r"video_in.linears.\1.\2"),
    (r"input_txt_proj\.(\d+)\.LayerNorm\.(.+)", r"text_in.norms.\1.\2"),
    (r"input_txt_proj\.(\d+)\.net\.1\.(.+)", r"text_in.linears.\1.\2"),
    (r"token_type_embeddings\.weight", r"types"),
    (r"dummy_rep_token", r"dummy_tokens"),
    (r"dummy_rep_pos", r"dummy_positions"),
    (r"txtproj_encoder\.layers\.(.+)", r"dummy_encoder.\1"),
    (r"transformer\.t2v_encoder\.layers\.(.+)", r"cross.\1"),
    (r"transformer\.encoder\.layers\.(.+)", r"encoder.\1"),
    (r"saliency_proj1\.(.+)", r"saliency_clip.\1"),
    (r"saliency_proj2\.(.+)", r"saliency_global.\1"),
    (r"pooling\.att\.weight", r"word_weight.weight"),
    (r"class_head\.convs\.(.+)", r"intra_head.convs.\1"),
    (r"class_head\.fc\.layers\.(.+)", r"intra_head.mlp.layers.\1"),
    (r"conf_head\.convs\.(.+)", r"inter_head.convs.\1"),
    (r"conf_head\.fc\.layers\.(.+)", r"inter_head.mlp.layers.\1"),
    (r"x", r"mix"),
    (r"coef", r"level_scale"),
    (r"coord_head\.module\.1\.(.+)", r"distance_head.0.\1"),
    (r"coord_head\.module\.3\.(.+)", r"distance_head.1.\1"),
    (r"pyramid\.blocks\.(\d+)\.(\d+)\.(.+)", r"pyramid.\1.\2.\3"),  # finished by `_pyramid_name`
    (r"txt_position_embed\..+", None),  # in every checkpoint, never reaches the network
]

# What the DETR-like models share (detr_family.md section 10); encoder and decoder blocks keep the published
# names below the block.
_PROJECTIONS: list[Rule] = FLASHVTG[:4]
_SET_HEAD: list[Rule] = [
    (r"class_embed\.(.+)", r"head.class_embed.\1"),
    (r"span_embed\.(.+)", r"head.span_embed.\1"),
    (r"query_embed\.weight", r"anchors"),
]
_TEXT_POSITIONS: list[Rule] = [(r"txt_position_embed\..+", None)]  # in every checkpoint, off in every run
_CONTRAST: list[Rule] = [
    (r"contrastive_align_projection_.+", None)
]  # its loss is constant (detr_family.md 4.7)

QD_DETR: list[Rule] = [
    *_PROJECTIONS,
    (r"global_rep_token", r"token"),
    (r"global_rep_pos", r"token_position"),
    (r"transformer\.t2v_encoder\.layers\.(.+)", r"cross.\1"),
    (r"transformer\.encoder\.layers\.(.+)", r"encoder.\1"),
    (r"transformer\.decoder\.(.+)", r"decoder.\1"),
    (r"saliency_proj1\.(.+)", r"saliency_clip.\1"),
    (r"saliency_proj2\.(.+)", r"saliency_global.\1"),
    *_SET_HEAD,
    *_TEXT_POSITIONS,
    *_CONTRAST,
]

TABLES: dict[str, list[Rule]] = {"flashvtg": FLASHVTG, "qd_detr": QD_DETR}


def our_name(published: str, model: str) -> str | None:
    """Our name of a published parameter; None for one that is known and not used.

    Raises:
        WeightsError: no rule of the model's table matches.
    """
    for pattern, replacement in TABLES[model]:
        if match := re.fullmatch(pattern, published):
            name = match.expand(replacement) if replacement is not None else None
            return _pyramid_name(name) if name and name.startswith("pyramid.") else name
    raise WeightsError(
        f"{published!r} is no parameter of a published {model} checkpoint; nothing was written"
    )


def _pyramid_name(name: str) -> str:
    """Published blocks interleave transpose, convolution, transpose, norm, ReLU: 5 entries a halving."""
    level, entry, rest = re.fullmatch(r"pyramid\.(\d+)\.(\d+)\.(.+)", name).groups()  # type: ignore[union-attr]
    block, place = divmod(int(entry), 5)
    kinds = {1: "convs", 3: "norms"}
    if place not in kinds:
        raise WeightsError(
            f"{name!r}: no parameter is known at this place of the pyramid; nothing was written"
        )
    return f"pyramid.{kinds[place]}.{level}.{block}.{rest}"


def rename(published: Mapping[str, Tensor], model: str) -> dict[str, Tensor]:
    """A published state dictionary under our names and shapes, float32.

    Raises:
        WeightsError: an unknown name.
    """
    renamed = {}
    for name, tensor in published.items():
        ours = our_name(name, model)
        if ours is not None:
            # The score heads' convolutions are stored as 2-D with a height of one.
            reshaped = tensor.squeeze(2) if tensor.ndim == 4 and tensor.shape[2] == 1 else tensor
            renamed[ours] = reshaped.float()
    return renamed
