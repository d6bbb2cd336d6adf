"""CG-DETR against stored runs of the published code."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from momentkit.convert.keys import rename
from momentkit.core.types import Batch
from momentkit.models.cg_detr import CGDETR, CGDETRConfig
from momentkit.verify.detr import (
    LOSS_NAMES,
    Arrays,
    Case,
    batch_of,
    compare_scaled,
    read_cases,
    run_cases,
    set_stages,
    without_dropout,
)
from momentkit.verify.report import CaseResult, StageResult, compare

NAMES = {
    **LOSS_NAMES,
    "loss_ms_align": "alignment",
    "loss_distill": "distillation",
    "loss_orthogonal_dummy": "orthogonal",
}


def run(golden: Path) -> Iterator[CaseResult]:
    """Replay every case of a folder, one result each."""
    results = run_cases(golden, "cg_detr", build, batch, _stages, NAMES)
    for case, result in zip(read_cases(golden), results, strict=True):
        yield replace(result, stages=(*result.stages, *_training_stages(case)))


def build(case: Case) -> CGDETR:
    """The network of a stored case."""
    options = case.config["options"]
    return CGDETR(
        CGDETRConfig(
            video_dim=options["v_feat_dim"],
            text_dim=options["t_feat_dim"],
            hidden=options["hidden_dim"],
            heads=options["nheads"],
            feed_forward=options["dim_feedforward"],
            input_layers=options["n_input_proj"],
            dummies=options["num_dummies"],
            prompts=options["total_prompts"],
            top_prompts=options["num_prompts"],
            dummy_layers=options["dummy_layers"],
            sentence_layers=options["sent_layers"],
            moment_layers=options["moment_layers"],
            cross_layers=options["t2v_layers"],
            encoder_layers=options["enc_layers"],
            decoder_layers=options["dec_layers"],
            queries=options["num_queries"],
            task="moments" if "match.last.query" in case.trained else "highlights",
            weight_saliency=options["lw_saliency"],
            weight_alignment=options["lw_ms_align"],
            weight_distillation=options["lw_distill"],
            weight_orthogonal=options["lw_distill"],
            weight_attention=options["lw_wattn"],
            weight_negative=0.0 if options["dset_name"] == "youtube_uni" else 1.0,
            faithful=True,
        )
    )


def batch(case: Case) -> Batch:
    """Inputs of a case; a QVHighlights name is a video's, then two times."""
    names = case.config["call"]["vids"]
    if case.config["options"]["dset_name"] == "hl":
        names = [name.rsplit("_", 2)[0] for name in names]
    return batch_of(case, video_keys=tuple(names))


def _stages(model: CGDETR, data: Batch, stored: Arrays) -> list[StageResult]:
    stages, dummies = model.stages(data), model.config.dummies
    fused, clips = stages.fused, data.video_BTD.shape[1]
    real_B, negative = model.negative_pass(stages, data)
    ours = {
        "mid.vid_proj": stages.video_BTd,
        "mid.txt_proj": stages.text_BLd,
        "mid.pos_vid": stages.clips.place_BTd,
        "mid.t2v_encoder.1": fused.attention_BTM,
        "mid.encoder": torch.cat([fused.global_Bd[:, None], fused.encoded_BTd], 1).transpose(0, 1),
        "mid.decoder.0": stages.decoded.hidden_NBQD,
        "mid.decoder.1": stages.decoded.entering_NBQ2,
        "mid.transformer.0": stages.decoded.hidden_NBQD,
        "mid.transformer.1": stages.decoded.entering_NBQ2,
        "mid.transformer.2": fused.memory_BTd,
        "mid.transformer.3": fused.global_Bd,
        "mid.transformer.4": fused.attention_BTM,
        "cate_attn_weights": fused.attention_BTM,
        "dummy_tokens": stages.bank.dummies_BKd,
        "saliency_scores": fused.saliency_BT,
        "t2vattnvalues": fused.word_mass_BT,
    }
    results = [compare_scaled(name, value, stored) for name, value in ours.items()]
    # There the words stand behind the dummies, and dummies and words behind the clips.
    results.append(
        compare_scaled(
            "dummies",
            stages.bank.dummies_BKd.transpose(0, 1),
            {"dummies": stored["mid.txtproj_encoder"][:dummies]},
        )
    )
    crossed = {"clips": stored["mid.t2v_encoder.0"][:clips]}
    results.append(compare_scaled("clips", fused.cross_BTd.transpose(0, 1), crossed))
    results.append(compare("real_neg_mask", real_B, stored["real_neg_mask"], 0.0))
    results += set_stages(stages.logits_NBQ2, stages.spans_cw_NBQ2, stored)
    if negative is None:
        return results
    return [
        *results,
        compare_scaled("saliency_scores_neg", negative.saliency_BT, stored),
        compare_scaled("t2vattnvalues_neg", negative.word_mass_BT, stored),
    ]


@torch.no_grad()
def _training_stages(case: Case) -> list[StageResult]:
    """What only a training pass computes."""
    model = build(case)
    model.load_state_dict(rename(case.weights, "cg_detr"))
    without_dropout(model).train()
    data = batch(case)
    assert data.targets is not None
    stages = model.stages(data)
    aligned = model.align(stages, data.targets.saliency_BT)
    words_BLd = aligned.bank_BMd.mT
    ours = {
        "memory_moment": aligned.moment_Bd,
        "nmmemory_moment": aligned.rest_Bd,
        "sentence_txt": aligned.sentence_Bd,
        "sentence_dummy": aligned.dummy_sentence_Bd,
        "moment2txt_similarity": aligned.moment_BTd @ words_BLd,
        "nmoment2txt_similarity": aligned.rest_BTd @ words_BLd,
        "src_vid": torch.where(aligned.inside_BT[..., None], aligned.moment_BTd, aligned.rest_BTd),
        "cate_attn_weights": stages.fused.attention_BTM,
        "saliency_scores": stages.fused.saliency_BT,
        "txt_mask": F.pad(stages.bank.mask_BL, (model.config.dummies, 0), value=True).float(),
    }
    return [
        StageResult(f"train.{result.stage}", result.difference, result.tolerance)
        for result in (compare_scaled(name, value, case.trained) for name, value in ours.items())
    ]
