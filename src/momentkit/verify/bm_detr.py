"""BM-DETR against stored runs of the published code."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from momentkit.core.spans import cw_to_se
from momentkit.core.types import Batch, Targets
from momentkit.models.bm_detr import BMDETR, BMDETRConfig, Shifted, shift
from momentkit.verify.detr import Arrays, Case, batch_of, compare_scaled, run_cases, set_stages
from momentkit.verify.report import CaseResult, StageResult, compare

_NAMES = {
    "loss_span": "span",
    "loss_giou": "giou",
    "loss_label": "label",
    "loss_saliency": "saliency",
    "loss_class": "wrong",
    "loss_contrastive_align": "contrast",
    "loss_prob_guidance": "guidance",
}
NAMES = _NAMES | {f"shifting.{published}": f"{ours}_shifted" for published, ours in _NAMES.items()}


class Stored(BMDETR):
    """The network with the matching clips and the shifted batch of a stored run.

    In the stored runs clips match where their label is above zero, which no rule on windows gives.
    """

    matches_BT: torch.Tensor
    moved: Shifted | None = None

    def matched(self, batch: Batch) -> torch.Tensor:
        """The stored ones."""
        return self.matches_BT

    def shifted(self, batch: Batch, generator: torch.Generator | None = None) -> Shifted:
        """The stored one."""
        assert self.moved is not None
        return self.moved


def run(golden: Path) -> Iterator[CaseResult]:
    """Replay every case of a folder, one result each."""
    cases: list[Case] = []  # the one that is running

    def build_noted(case: Case) -> BMDETR:
        cases[:] = [case]
        return build(case)

    def stages(model: BMDETR, batch: Batch, stored: Arrays) -> list[StageResult]:
        return [*_stages(model, batch, stored), *_training_stages(model, batch, cases[0])]

    yield from run_cases(golden, "bm_detr", build_noted, training_batch, stages, NAMES, (1.0, 8.0, 8.0))


def build(case: Case) -> Stored:
    """The network of a stored case."""
    options = case.config["options"]
    model = Stored(
        BMDETRConfig(
            video_dim=options["v_feat_dim"],
            text_dim=options["t_feat_dim"],
            hidden=options["hidden_dim"],
            heads=options["nheads"],
            feed_forward=options["dim_feedforward"],
            input_layers=options["n_input_proj"],
            encoder_layers=options["enc_layers"],
            decoder_layers=options["dec_layers"],
            queries=options["num_queries"],
            contrast=options["contrastive_hdim"],
            temperature=options["temperature"],
            shifting="shifting" in options["additional_losses"],
            weight_saliency=options["lw_saliency"],
            weight_contrast=options["lw_contrastive_loss_coef"],
            weight_guidance=options["lw_prob_loss_coef"],
            faithful=True,
        )
    )
    model.matches_BT = torch.from_numpy(case.targets["match_labels"]).bool()
    model.moved = stored_shift(case) if model.config.shifting else None
    return model


def training_batch(case: Case) -> Batch:
    """The batch with the sentence that does not belong to it."""
    batch = batch_of(case)
    assert batch.targets is not None
    return replace(batch, targets=_with_words(case, batch.targets))


def _with_words(case: Case, targets: Targets) -> Targets:
    return replace(
        targets,
        negative_text_BLE=torch.from_numpy(case.inputs["neg_src_txt"]),
        negative_text_mask_BL=torch.from_numpy(case.inputs["neg_src_txt_mask"]).bool(),
    )


def stored_shift(case: Case) -> Shifted:
    """The shifted batch of a stored run, and its clips that match."""
    batch, stored = training_batch(case), case.targets
    assert batch.targets is not None
    clips_B = batch.video_mask_BT.sum(1)
    spans_B2 = torch.from_numpy(stored["shifting.spans"])
    targets = replace(
        batch.targets,
        windows_clip=tuple(cw_to_se(s[None]) * n for s, n in zip(spans_B2, clips_B, strict=True)),
        positive_clip_BP=torch.from_numpy(stored["shifting.saliency_pos_labels"]),
        negative_clip_BP=torch.from_numpy(stored["shifting.saliency_neg_labels"]),
    )
    moved = replace(batch, video_BTD=torch.from_numpy(case.inputs["shifted_vid"]), targets=targets)
    return Shifted(moved, torch.from_numpy(stored["shifting.match_labels"]).bool())


def _stages(model: BMDETR, batch: Batch, stored: Arrays) -> list[StageResult]:
    stages = model.stages(batch)
    video_Bd, text_Bd = model.contrasted(stages, batch)
    memory_BMd = torch.cat([stages.encoded.clips_BTd, stages.encoded.words_BLd], 1)
    ours = {
        "mid.vid_proj": stages.video_BTd,
        "mid.txt_proj": stages.text_BLd,
        "mid.pos_vid": stages.positions_BTd,
        "mid.encoder": memory_BMd.transpose(0, 1),
        "mid.decoder.0": stages.decoded.hidden_NBQd,
        "mid.decoder.1": stages.decoded.anchors_Q2.expand(1, len(memory_BMd), -1, -1),
        "mid.transformer.2": memory_BMd,
        "saliency_scores": stages.saliency_BT,
        "vid_logits": stages.match_BT,
        "proj_vid_mem": video_Bd,
        "proj_txt_mem": text_Bd,
    }
    results = [compare_scaled(name, value, stored) for name, value in ours.items() if name in stored]
    return results + set_stages(stages.logits_NBQ2, stages.spans_cw_NBQ2, stored)


def _training_stages(model: BMDETR, batch: Batch, case: Case) -> list[StageResult]:
    """What the training pass gives (no dropout is left in the network), with the wrong sentence."""
    results, passes = [], {"": batch}
    if isinstance(model, Stored) and model.moved is not None:
        passes["shifting."] = model.moved.batch
        results.append(_moved_by_us(batch, case))
    for prefix, given in passes.items():
        stages = model.stages(given, negative=True)
        video_Bd, text_Bd = model.contrasted(stages, given)
        ours = {
            "pred_logits": stages.logits_NBQ2[-1],
            "pred_spans": stages.spans_cw_NBQ2[-1],
            "saliency_scores": stages.saliency_BT,
            "vid_logits": stages.match_BT,
            "proj_vid_mem": video_Bd,
            "proj_txt_mem": text_Bd,
            "hs": stages.decoded.hidden_NBQd,
        }
        stored = {f"train.{name}": value for name, value in case.trained.items()}
        named = {f"train.{prefix}{name}": value for name, value in ours.items()}
        results += [compare_scaled(name, value, stored) for name, value in named.items() if name in stored]
    return results


def _moved_by_us(batch: Batch, case: Case) -> StageResult:
    """Each stored shifted sample is ours for one of the places a moment may go to; the worst difference.

    The stored windows end one past the last clip, as in our rule; the stored time channels move along.
    """
    stored = stored_shift(case)
    assert stored.batch.targets is not None
    samples, clips = batch.video_mask_BT.shape
    best_B = np.full(samples, np.inf)
    for place in range(clips):
        moved = shift(batch, torch.full((samples,), place), time_channels=0, faithful=False)
        assert moved.batch.targets is not None
        for row in range(samples):
            ours, theirs = moved.batch.targets.windows_clip[row], stored.batch.targets.windows_clip[row]
            differences = (
                (moved.batch.video_BTD[row] - stored.batch.video_BTD[row]).abs().max(),
                (moved.matched_BT[row] ^ stored.matched_BT[row]).float().max(),
                (ours - theirs).abs().max() / clips,
            )
            best_B[row] = min(best_B[row], max(float(difference) for difference in differences))
    return compare("shifting: videos, matches and windows", best_B, np.zeros(samples), 2e-5)
