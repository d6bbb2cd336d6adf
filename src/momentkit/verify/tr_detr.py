"""TR-DETR against stored runs of the published code."""

from collections.abc import Iterator
from pathlib import Path

from momentkit.core.types import Batch
from momentkit.models.tr_detr import TRDETR, TRDETRConfig, relevant_clips
from momentkit.verify.detr import (
    LOSS_NAMES,
    Arrays,
    Case,
    batch_of,
    compare_scaled,
    read_cases,
    run_cases,
    set_stages,
)
from momentkit.verify.report import CaseResult, StageResult, compare

NAMES = LOSS_NAMES | {"loss_vtc": "global", "loss_ctc": "local"}


def run(golden: Path) -> Iterator[CaseResult]:
    """Replay every case of a folder, one result each."""
    results = run_cases(golden, "tr_detr", build, batch_of, _stages, NAMES)
    for result, case in zip(results, read_cases(golden), strict=True):
        yield CaseResult(result.case, (*result.stages, _relevant(case)), result.note)


def build(case: Case) -> TRDETR:
    """The network of a stored case."""
    options = case.config["options"]
    return TRDETR(
        TRDETRConfig(
            video_dim=options["v_feat_dim"],
            text_dim=options["t_feat_dim"],
            hidden=options["hidden_dim"],
            heads=options["nheads"],
            feed_forward=options["dim_feedforward"],
            input_layers=options["n_input_proj"],
            cross_layers=options["enc_layers"],
            encoder_layers=options["enc_layers"],
            decoder_layers=options["dec_layers"],
            queries=options["num_queries"],
            temperature=options["temperature"],
            weight_saliency=options["lw_saliency"],
            weight_global=options["VTC_loss_coef"],
            weight_local=options["CTC_loss_coef"],
            faithful=True,
        )
    )


def _relevant(case: Case) -> StageResult:
    """Clips inside a moment, read off the labels."""
    batch = batch_of(case)
    assert batch.targets is not None
    ours = relevant_clips(batch.targets.saliency_BT, batch.video_mask_BT, "moments")
    return compare("src_pos_mask", ours, case.targets["src_pos_mask"], 0.0)


def _stages(model: TRDETR, batch: Batch, stored: Arrays) -> list[StageResult]:
    stages = model.stages(batch)
    chosen_BTd, length_B = model.gate.clips_of_best(
        stages.video_BTd, batch.video_mask_BT, stages.logits_NBQ2[-1], stages.spans_cw_NBQ2[-1]
    )
    ours = {
        "mid.vid_proj": stages.video_BTd,
        "mid.txt_proj": stages.text_BLd,
        "mid.pos_vid": stages.positions_BTd,
        "mid.vfr": stages.refined_BTd,
        "mid.encoder": stages.encoded_BTd.transpose(0, 1),
        "mid.decoder.0": stages.decoded.hidden_NBQD,
        "mid.decoder.1": stages.decoded.entering_NBQ2,
        "mid.transformer.2": stages.memory_BTd,
        "mid.gru": model.gate.moment(chosen_BTd, length_B),
        "saliency_scores": stages.saliency_BT,
    }
    results = [compare_scaled(name, value, stored) for name, value in ours.items()]
    clips = {"clips": stored["mid.t2v_encoder"][: batch.video_BTD.shape[1]]}  # the words stand behind them
    results.append(compare_scaled("clips", stages.cross_BTd.transpose(0, 1), clips))
    return results + set_stages(stages.logits_NBQ2, stages.spans_cw_NBQ2, stored)
