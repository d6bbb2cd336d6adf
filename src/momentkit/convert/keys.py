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

MOMENT_DETR: list[Rule] = [
    *_PROJECTIONS,
    (r"transformer\.encoder\.layers\.(.+)", r"encoder.\1"),
    (r"transformer\.encoder\.norm\.(.+)", r"encoder_norm.\1"),  # only with pre_norm
    (r"transformer\.decoder\.(.+)", r"decoder.\1"),
    (r"query_embed\.weight", r"queries"),
    (r"(class_embed|span_embed)\.(.+)", r"\1.\2"),
    (r"saliency_proj\.weight", r"saliency.weight"),
    (r"saliency_proj\.bias", r"saliency_bias"),
    *_TEXT_POSITIONS,
    (r"contrastive_align_projection_query\.(.+)", r"contrast_query.\1"),
    (r"contrastive_align_projection_txt\.(.+)", r"contrast_text.\1"),
    (r"contrastive_align_projection_vid\..+", None),  # no loss reads it
]

_FUSER, _BLOCK = r"convolutional_fuser\.", r"convolutional_fuser\.convolutional_block\.blocks\.(\d+)\."
_MOMENTS = r"prediction_heads\.video_moment_retrieval_prediction_head\."
_HIGHLIGHTS = r"prediction_heads\.highlight_detection_prediction_head\."
LD_DETR: list[Rule] = [
    *[
        (rf"(video|text)_encoder\.{layer}{index + 1}\.(.+)", rf"\1_in.{layer}s.{index}.\2")
        for layer in ("norm", "linear")
        for index in (0, 1)
    ],
    (r"momentum_(video|text)_encoder\..+", None),  # Distill Align serves training alone
    (r"distill_align\..+", None),
    (_FUSER + r"v2t_extractor\.w4C", r"fuser.v2t.clip_weight_D1"),
    (_FUSER + r"v2t_extractor\.w4Q", r"fuser.v2t.word_weight_D1"),
    (_FUSER + r"v2t_extractor\.w4mlu", r"fuser.v2t.pair_weight_11D"),
    (_FUSER + r"v2t_extractor\.weight", r"fuser.v2t.pool_weight_D1"),
    (_FUSER + r"v2t_extractor\.cqa_linear\.(.+)", r"fuser.v2t.join.\1"),
    (_FUSER + r"v2t_extractor\.conv1d\.(.+)", r"fuser.v2t.out.\1"),
    (_FUSER + r"t2v_encoder\.layers\.(.+)", r"fuser.t2v.\1"),
    (_FUSER + r"transformer_encoder([12])\.layers\.(.+)", r"fuser.encoder\1.\2"),
    *[(_BLOCK + rf"conv{index + 1}\.(.+)", rf"fuser.conv.\1.convs.{index}.\2") for index in (0, 1)],
    *[(_BLOCK + rf"bn{index + 1}\.(.+)", rf"fuser.conv.\1.norms.{index}.\2") for index in (0, 1)],
    (r"query_embed\.weight", r"anchors"),
    (r"loop_decoder\.transformer_decoder\.(.+)", r"decoder.\1"),
    (_MOMENTS + r"class_embed\.(.+)", r"head.class_embed.\1"),
    *[
        (_MOMENTS + rf"span_embed{index + 1}\.(.+)", rf"head.span_embed.layers.{index}.\1")
        for index in (0, 1, 2)
    ],
    (_HIGHLIGHTS + r"gru\.(.+)", r"gate.gru.\1"),
    (_HIGHLIGHTS + r"saliency_proj\.(.+)", r"saliency.\1"),
    *_TEXT_POSITIONS,
]

TR_DETR: list[Rule] = [
    *_PROJECTIONS,
    (r"fuser\.cq_attention\.w4C", r"refine.clip_weight_D1"),
    (r"fuser\.cq_attention\.w4Q", r"refine.word_weight_D1"),
    (r"fuser\.cq_attention\.w4mlu", r"refine.pair_weight_11D"),
    (r"fuser\.cq_attention\.cqa_linear\.conv1d\.(.+)", r"refine.join.\1"),
    (r"fuser\.cq_concat\.weighted_pool\.weight", r"refine.pool_weight_D1"),
    (r"fuser\.cq_concat\.conv1d\.conv1d\.(.+)", r"refine.out.\1"),
    (r"transformer\.t2v_encoder\.layers\.(.+)", r"cross.\1"),
    (r"transformer\.encoder\.layers\.(.+)", r"encoder.\1"),
    (r"transformer\.decoder\.(.+)", r"decoder.\1"),
    (r"gru_extractor\.gru\.(.+)", r"gate.gru.\1"),
    (r"saliency_proj1\.(.+)", r"saliency.\1"),
    *_SET_HEAD,
    *_TEXT_POSITIONS,
    *_CONTRAST,
]

CG_DETR: list[Rule] = [
    *_PROJECTIONS,
    (r"token_type_embeddings\.weight", r"types"),
    (r"dummy_rep_token", r"dummy_tokens"),
    (r"dummy_rep_pos", r"dummy_positions"),
    (r"global_rep_token", r"prompts"),
    (r"global_rep_pos", r"token_position"),
    (r"sent_rep_token", r"sentence_token"),
    (r"sent_rep_pos", r"sentence_position"),
    (r"moment_rep_token", r"moment_token"),
    (r"moment_rep_pos", r"moment_position"),
    (r"txtproj_encoder\.layers\.(.+)", r"dummy_encoder.\1"),
    (r"scls_encoder\.layers\.(.+)", r"sentence_encoder.\1"),
    (r"transformer\.mcls_encoder\.layers\.(.+)", r"moment_encoder.\1"),
    (r"transformer\.t2v_encoder\.layers\.(.+)", r"cross.\1"),
    (r"transformer\.encoder\.layers\.(.+)", r"encoder.\1"),
    (r"transformer\.decoder\.(.+)", r"decoder.\1"),
    (r"saliency_proj1\.(.+)", r"saliency_clip.\1"),
    (r"saliency_proj2\.(.+)", r"saliency_global.\1"),
    (r"txt_proj_linear\..+", None),  # in every checkpoint, nothing reads it
    *_SET_HEAD,
    *_TEXT_POSITIONS,
    *_CONTRAST,
]

UVCOM: list[Rule] = [
    *_PROJECTIONS,
    (r"input_audio_proj\.(\d+)\.LayerNorm\.(.+)", r"audio_in.norms.\1.\2"),
    (r"input_audio_proj\.(\d+)\.net\.1\.(.+)", r"audio_in.linears.\1.\2"),
    (r"global_rep_token", None),  # overwritten by the video centre most like the sentence
    (r"global_rep_pos", r"token_position"),
    (r"CIM\.t2v_encoder\.layers\.(.+)", r"to_words.\1"),
    (r"CIM\.v2t_encoder\.layers\.(.+)", r"to_clips.\1"),
    (r"CIM\.GKA_Module\.layers\.(.+)", r"encoder.\1"),
    (r"CIM\.decoder\.span_embed\.weight", r"content_Qd"),
    (r"CIM\.decoder\.(.+)", r"decoder.\1"),
    (r"CIM\.txt_mu", r"text_centres_Kd"),
    (r"CIM\.vid_mu", r"video_centres_Kd"),
    (r"CIM\.feature_proj\.0\.(.+)", r"sentence_in.\1"),
    (r"CIM\.feature_proj\.1\.(.+)", r"sentence_norm.\1"),
    (r"CIM\.conv_local\.(.+)", r"local.\1"),
    (r"CIM\.moment_fusion\.multihead_attn\.(.+)", r"centre_attention.\1"),
    # The softmax over slots is uniform whatever these are (uvcom.md 1).
    (r"CIM\.processer_for_tgt\.(norm_slots|project_q|project_k)\..+", None),
    (r"CIM\.processer_for_tgt\.(.+)", r"slot.\1"),
    (r"CIM\.sim_vid\.(.+)", r"align_video.\1"),
    (r"CIM\.sim_txt\.(.+)", r"align_text.\1"),
    (r"saliency_proj1\.(.+)", r"saliency_clip.\1"),
    (r"saliency_proj2\.(.+)", r"saliency_global.\1"),
    *_SET_HEAD,
    *_TEXT_POSITIONS,
]

BM_DETR: list[Rule] = [
    *_PROJECTIONS,
    (r"transformer\.encoder\.layers\.(.+)", r"encoder.\1"),
    (r"transformer\.encoder\.query_scale\.(.+)", r"position_scale.\1"),
    (r"transformer\.decoder\.(.+)", r"decoder.\1"),
    (r"saliency_proj\.weight", r"saliency.weight"),
    (r"saliency_proj\.bias", r"saliency_bias"),
    (r"FPM\.0\.(.+)", r"match_hidden.\1"),
    (r"FPM\.2\.(.+)", r"match_out.\1"),
    (r"vid_att_pooling\.(.+)", r"video_pool.\1"),
    (r"txt_att_pooling\.(.+)", r"text_pool.\1"),
    (r"contrastive_align_vid_proj\.(.+)", r"contrast_video.\1"),
    (r"contrastive_align_txt_proj\.(.+)", r"contrast_text.\1"),
    *_SET_HEAD,
    *_TEXT_POSITIONS,
]

MOMENTDIFF: list[Rule] = [
    *_PROJECTIONS,
    (r"global_rep_token", r"token"),
    (r"global_rep_pos", r"token_position"),
    (r"transformer\.t2v_encoder\.layers\.\d+\.self_attn_new\..+", None),  # an attention that is never called
    (r"transformer\.t2v_encoder\.layers\.(.+)", r"cross.\1"),
    (r"transformer\.encoder\.layers\.(.+)", r"encoder.\1"),
    # Spans neither look at each other nor are refined between layers: what is left of both is never called.
    (r"transformer\.diffusion_decoder\.layers\.\d+\.(sa_\w+_proj|self_attn|norm1)\..+", None),
    (r"transformer\.diffusion_decoder\.(bbox_embed|ref_anchor_head)\..+", None),
    (r"transformer\.diffusion_decoder\.noise_embed\.layers\.0\.(.+)", r"denoiser.span_in.\1"),
    (r"transformer\.diffusion_decoder\.ref_point_head\.layers\.0\.(.+)", r"denoiser.place_in.\1"),
    (r"transformer\.diffusion_decoder\.(.+)", r"denoiser.\1"),
    (r"transformer\.diff_span_embed\.layers\.0\.(.+)", r"denoiser.span_head.\1"),
    (r"transformer\.diff_class_embed\.(.+)", r"denoiser.class_head.\1"),
    (r"transformer\.(betas|\w*alphas_cumprod\w*|posterior_\w+)", None),  # tables, which we compute
    (r"contrastive_align_projection_vid\.(.+)", r"similarity.\1"),
    (r"contrastive_align_projection_(query|txt)\..+", None),  # of a loss that no published run switches on
    *_TEXT_POSITIONS,
]

MS_2D_TAN: list[Rule] = [  # 2D-TAN's names beside MS-2D-TAN's
    (r"(?:clip_module|frame_layer)\.vis_conv\.(.+)", r"clips.conv.\1"),
    (r"prop_(?:module|layer)\.layers\.(\d+)\.(\d+)\.(?:0\.)?(weight|bias)", r"windows.layers.\1.\2.conv.\3"),
    (r"prop_module\.layers\.\d+\.\d+\.1\.num_batches_tracked", None),  # only counts training steps
    (r"prop_module\.layers\.(\d+)\.(\d+)\.1\.(.+)", r"windows.layers.\1.\2.norm.\3"),
    (r"fusion_(?:module|layer)\.textual_encoder\.(.+)", r"sentence.lstm.\1"),
    (r"fusion_(?:module|layer)\.tex_linear\.(.+)", r"sentence.out.\1"),
    (r"fusion_(?:module|layer)\.vis_conv\.(.+)", r"fusion.conv.\1"),
    (r"map_modules\.(\d+)\.blocks\.(\d+)\.0\.(.+)", r"convs.\1.layers.\2.conv.\3"),
    (r"map_modules\.(\d+)\.blocks\.(\d+)\.1\.(.+)", r"convs.\1.layers.\2.gate.\3"),
    (r"pred_modules\.(\d+)\.predictor\.(.+)", r"heads.\1.\2"),
    (r"map_layer\.convs\.(\d+)\.(.+)", r"convs.0.layers.\1.conv.\2"),
    (r"pred_layer\.(.+)", r"heads.0.\1"),
]

TABLES: dict[str, list[Rule]] = {
    "bm_detr": BM_DETR,
    "uvcom": UVCOM,
    "cg_detr": CG_DETR,
    "flashvtg": FLASHVTG,
    "ld_detr": LD_DETR,
    "moment_detr": MOMENT_DETR,
    "momentdiff": MOMENTDIFF,
    "ms_2d_tan": MS_2D_TAN,
    "qd_detr": QD_DETR,
    "tr_detr": TR_DETR,
}


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
            # The refinement's linear maps are stored as convolutions of width one.
            if re.search(r"(v2t|refine)\.(join|out)\.weight$", ours):
                reshaped = reshaped.squeeze(-1)
            renamed[ours] = reshaped.float() if reshaped.is_floating_point() else reshaped
    return renamed
