"""UVCOM against stored runs of the published code."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from momentkit.core.spans import cw_to_se
from momentkit.core.types import Batch
from momentkit.models.uvcom import UVCOM, UVCOMConfig
from momentkit.verify.detr import LOSS_NAMES, Arrays, Case, batch_of, compare_scaled, run_cases, set_stages
from momentkit.verify.report import CaseResult, StageResult, compare

NAMES = {**LOSS_NAMES, "loss_sim": "contrast"}


def run(golden: Path) -> Iterator[CaseResult]:
    """Replay every case of a folder, one result each."""
    epochs: list[float] = []  # negatives depend on it: of the case that is running

    def build_noted(case: Case) -> UVCOM:
        epochs[:] = [case.config["call"]["epoch"]]
        return build(case)

    def stages(model: UVCOM, batch: Batch, stored: Arrays) -> list[StageResult]:
        return _stages(model, batch, stored, epochs[0])

    yield from run_cases(golden, "uvcom", build_noted, batch_exact, stages, NAMES)


def build(case: Case) -> UVCOM:
    """The network of a stored case."""
    options = case.config["options"]
    return UVCOM(
        UVCOMConfig(
            video_dim=options["v_feat_dim"],
            text_dim=options["t_feat_dim"],
            hidden=options["hidden_dim"],
            heads=options["nheads"],
            feed_forward=options["dim_feedforward"],
            mlp_width=options["slot_and_similarity_mlp_width"],
            input_layers=options["n_input_proj"],
            cross_layers=options["enc_layers"],
            encoder_layers=options["enc_layers"],
            decoder_layers=options["dec_layers"],
            queries=options["num_queries"],
            text_centres=options["n_txt_mu"],
            video_centres=options["n_visual_mu"],
            rounds=options["em_iter"],
            task="moments" if "match.last.query" in case.trained else "highlights",
            negative_epoch=options["neg_choose_epoch"],
            cross_fusion=options["cross_fusion"],
            weight_saliency=options["lw_saliency"],
            weight_contrast=options["sim_loss_coef"],
            faithful=True,
        )
    )


def batch_exact(case: Case) -> Batch:
    """The batch with windows in float64: their way back to the stored float32 fractions loses nothing."""
    batch = batch_of(case)
    assert batch.targets is not None
    spans = [
        torch.from_numpy(case.targets["spans"][a:b]).double()
        for a, b in pairwise(case.targets["span_offsets"])
    ]
    clips_B = batch.video_mask_BT.sum(1)
    windows_clip = tuple(cw_to_se(span) * clips for span, clips in zip(spans, clips_B, strict=True))
    return replace(batch, targets=replace(batch.targets, windows_clip=windows_clip))


def _stages(model: UVCOM, batch: Batch, stored: Arrays, epoch: float) -> list[StageResult]:
    stages = model.stages(batch)
    fused, clips, queries = stages.fused, batch.video_BTD.shape[1], model.config.queries
    video_Bd, clips_BTd, sentence_Bd = model.alignment(stages)
    ours = {
        "mid.vid_proj": stages.video_BTd,
        "mid.txt_proj": stages.text_BLd,
        "mid.pos_vid": stages.positions_BTd,
        "mid.conv_local": fused.local_BTd.transpose(1, 2),
        "mid.gka": torch.cat([fused.global_Bd[:, None], fused.memory_BTd], 1).transpose(0, 1),
        "mid.slots": stages.slot_Bd[:, None].expand(-1, queries, -1),
        "mid.decoder.0": stages.decoded.hidden_NBQD,
        "mid.decoder.1": stages.decoded.leaving_NBQ2,
        "mid.cim.2": fused.memory_BTd,
        "mid.cim.3": fused.global_Bd,
        "sim.VLA": video_Bd @ sentence_Bd.T,
        "sim.CTA": torch.einsum("btd,bd->bt", clips_BTd, sentence_Bd),
        "saliency_scores": fused.saliency_BT,
        "saliency_scores_neg": model.negative_pass(stages, batch, epoch).saliency_BT,
    }
    results = [compare_scaled(name, value, stored) for name, value in ours.items() if name in stored]
    if "sim.negative_idx" in stored:
        rows_B = model.negative_rows(stages, batch, epoch)
        results.append(compare("sim.negative_idx", rows_B, stored["sim.negative_idx"], 0.0))
    if "mid.t2v_encoder" in stored:  # there the token stands in front of the clips and the words behind them
        sequences = stored["mid.t2v_encoder"], stored["mid.v2t_encoder"]
        crossed = {"clips": sequences[0][1 : 1 + clips], "words": sequences[1][1 + clips :]}
        results.append(compare_scaled("clips", fused.cross_BTd.transpose(0, 1), crossed))
        results.append(compare_scaled("words", fused.words_BLd.transpose(0, 1), crossed))
    return results + set_stages(stages.logits_NBQ2, stages.spans_cw_NBQ2, stored)
