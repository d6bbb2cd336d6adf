"""MomentDiff against stored runs of the published code: its parts, its sampler step by step, its training.

Layout and tolerances are those of the README beside the stored runs. `splits.json` is compared where the
annotation files lie beside the folder of stored runs, as `data/charades_sta`.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from momentkit.convert.keys import our_name, rename
from momentkit.core.spans import cw_to_se
from momentkit.core.types import Batch, Prediction, Query, Targets
from momentkit.data.annotations import read_annotations
from momentkit.data.splits import anti_bias
from momentkit.diffusion.samplers import Step, ddim_coefficients
from momentkit.diffusion.schedules import cosine_betas, signal_share, step_times
from momentkit.diffusion.spans import to_signal, to_spans
from momentkit.losses.matching import match
from momentkit.losses.spans import targets_as_fractions
from momentkit.models.momentdiff import Denoised, Draws, MomentDiff, MomentDiffConfig
from momentkit.nn.decoder import logit, predict_moments, span_positions
from momentkit.nn.positions import step_code
from momentkit.predict.decode import PostProcess, decode
from momentkit.predict.suppress import temporal_nms
from momentkit.verify.detr import Arrays
from momentkit.verify.report import CaseResult, StageResult, compare, compare_relative

SPAN, HIDDEN, LOSS, GRADIENT = 2e-5, 2e-4, 1e-5, 1e-3  # momentdiff.md section 15
TABLE = 1e-9  # float64 tables; the smallest root loses half of its digits
SIGNAL = 4.0  # length of the signal's scale, -2..2: what a fraction of the video is multiplied by
LOSS_NAMES = {"span": "span", "giou": "giou", "label": "label", "sim": "similarity"}
POST = {  # momentdiff.md section 8
    "hl": PostProcess(clamp=False, maximum_s=150.0, step_s=2.0),
    "charades": PostProcess(clamp=False, maximum_s=150.0, step_s=1.0),
    "charades_vgg": PostProcess(clamp=False, maximum_s=150.0, step_s=0.166666),
    "tacos": PostProcess(clamp=False, maximum_s=1500.0, step_s=2.0),
    "activity": PostProcess(clamp=False, maximum_s=1500.0),
}


def run(golden: Path) -> Iterator[CaseResult]:
    """Replay every case of a folder, one result each."""
    for path in sorted(golden.glob("*_weights.safetensors")):
        name = path.name.removesuffix("_weights.safetensors")
        model, batch = _model(golden, name), _batch(dict(np.load(golden / f"{name}_eval.npz")))
        yield CaseResult(f"{name} one call", tuple(_one_call(golden, name, model, batch)))
        yield CaseResult(f"{name} embeddings", tuple(_embeddings(golden, name, model)))
        for run in sorted(golden.glob(f"{name}_ddim*.npz"), key=lambda file: len(file.name)):
            steps = run.stem.partition("ddim")[2]
            yield CaseResult(f"{name} {steps} steps", tuple(_sampler(dict(np.load(run)), model, batch)))
        yield CaseResult(f"{name} training", tuple(_training(golden, name, batch)))
    for file, stages in (
        ("schedule.npz", _schedule),
        ("postprocess.json", _post_process),
        ("splits.json", _splits),
    ):
        if (golden / file).exists():
            yield CaseResult(Path(file).stem, tuple(stages(golden / file)))


def _model(golden: Path, name: str, **more: Any) -> MomentDiff:
    """The network of a stored set; its dropout rates are 0."""
    described = json.loads((golden / f"{name}.json").read_text())
    options, weights = described["config"], described["weights"]
    config = MomentDiffConfig(
        video_dim=options["v_feat_dim"] + options["audio_dim"],
        text_dim=options["t_feat_dim"],
        hidden=options["hidden_dim"],
        heads=options["nheads"],
        feed_forward=options["dim_feedforward"],
        input_layers=options["n_input_proj"],
        cross_layers=options["enc_layers"],
        encoder_layers=options["enc_layers"],
        decoder_layers=options["dec_layers"],
        queries=options["num_queries"],
        dropout=options["dropout"],
        input_dropout=options["input_dropout"],
        margin=options["saliency_margin"],
        background=options["eos_coef"],
        weight_span=weights["loss_span"],
        weight_giou=weights["loss_giou"],
        weight_label=weights["loss_label"],
        weight_similarity=weights["loss_sim"],
        faithful=True,
    )
    model = MomentDiff(replace(config, **more)).eval()
    model.load_state_dict(rename(load_file(golden / f"{name}_weights.safetensors"), "momentdiff"))
    return model


def _batch(inputs: Arrays, targets: Targets | None = None) -> Batch:
    video, video_mask, text, text_mask = (
        torch.from_numpy(inputs[f"src_{key}"]) for key in ("vid", "vid_mask", "txt", "txt_mask")
    )
    return Batch(
        video_BTD=video,
        video_mask_BT=video_mask.bool(),
        text_BLE=text,
        text_mask_BL=text_mask.bool(),
        targets=targets,
    )


@torch.no_grad()
def _one_call(golden: Path, name: str, model: MomentDiff, batch: Batch) -> Iterator[StageResult]:
    stored = dict(np.load(golden / f"{name}_eval.npz"))
    given = model.project(batch)
    seen, other = model.condition(given, batch), model.condition(given, batch, other_text=True)
    samples = len(batch.video_BTD)
    token, place = (x.expand(samples, 1, -1) for x in (model.token, model.token_position))
    x_BQ2, time_B = torch.from_numpy(stored["den_x"]), torch.from_numpy(stored["den_t"])
    denoised = model.denoiser(x_BQ2, time_B, seen)
    x0_BQ2 = to_signal(denoised.spans_cw_NBQ2[-1], model.config.signal_scale)
    share_B11 = model.share_T[time_B][:, None, None]
    noise_BQ2 = (x_BQ2 - share_B11.sqrt() * x0_BQ2) / (1 - share_B11).sqrt()
    for stage, ours, tolerance in (
        ("enc_src", torch.cat([token, given.video_BTd, given.text_BLd], 1), HIDDEN),
        ("enc_pos", torch.cat([place, given.positions_BTd, given.place_BLd], 1), HIDDEN),
        ("t2v_out", torch.cat([token, seen.cross_BTd, given.text_BLd], 1), HIDDEN),
        ("memory", seen.memory_BTd, HIDDEN),
        ("memory_global", seen.global_Bd, HIDDEN),
        ("memory_neg", other.memory_BTd, HIDDEN),
        ("saliency_scores", seen.similarity_BT, HIDDEN),
        ("saliency_scores_neg", other.similarity_BT, HIDDEN),
        ("den_spans01", to_spans(x_BQ2, model.config.signal_scale), SPAN),
        ("den_hs", denoised.hidden_NBQd, HIDDEN),
        ("den_logits", denoised.logits_NBQ2, HIDDEN),
        ("den_spans", denoised.spans_cw_NBQ2, SPAN),
    ):
        yield compare(stage, ours, stored[stage], tolerance)
    yield compare("den_x0", x0_BQ2 / SIGNAL, stored["den_x0"] / SIGNAL, SPAN)
    yield compare("den_eps", _bounded(noise_BQ2.numpy()), _bounded(stored["den_eps"]), HIDDEN)
    clean = _model(golden, name, faithful=False)
    real_BT = batch.video_mask_BT.numpy()
    memory_BTd = clean.condition(clean.project(batch), batch).memory_BTd.numpy()
    yield compare("memory_unmixed", memory_BTd[real_BT], stored["memory_unmixed"][real_BT], HIDDEN)


@torch.no_grad()
def _embeddings(golden: Path, name: str, model: MomentDiff) -> Iterator[StageResult]:
    stored = dict(np.load(golden / f"{name}_embed.npz"))
    hidden = model.config.hidden
    code = step_code(torch.from_numpy(stored["t"]), hidden)
    # One unit in the last place of a float32 frequency, times step 999, is 6e-5.
    yield compare("time_emb", code, stored["time_emb"], HIDDEN)
    spans = logit(torch.from_numpy(stored["spans01"])).sigmoid()
    yield compare("sine_emb", span_positions(spans, hidden), stored["sine_emb"], SPAN)


@torch.no_grad()
def _sampler(stored: Arrays, model: MomentDiff, batch: Batch) -> Iterator[StageResult]:
    """Every state on the way from the stored noise to the answer."""
    steps = len(stored["times"]) - 1
    seen, trace = model.sample(
        batch,
        steps=steps,
        start_BQ2=torch.from_numpy(stored["x_T"]),
        fresh=tuple(torch.from_numpy(stored["step_noise"])),
    )
    yield compare("times", [*(step.time for step in trace), -1], stored["times"], 0.0)
    yield from _coefficients(model.share_T, steps, stored["sigma"], stored["c"])
    share_S = model.share_T[torch.tensor([step.time for step in trace])]
    yield compare("alpha", share_S, stored["alpha"], TABLE)
    yield compare("alpha_next", [*share_S[1:], np.nan], stored["alpha_next"], TABLE)
    for index, step in enumerate(trace):
        yield from _step(index, step, stored)
    final = trace[-1].aside
    answer = predict_moments(final.logits_NBQ2[-1], final.spans_cw_NBQ2[-1], seen.similarity_BT)
    yield compare("final_spans", answer.spans_BQ2, cw_to_se(torch.from_numpy(stored["final_spans"])), SPAN)
    yield compare("final_logits", final.logits_NBQ2[-1], stored["final_logits"], HIDDEN)
    yield compare("final_conf", answer.score_BQ, stored["final_conf"], SPAN)
    if "aux_spans" in stored:
        yield compare("aux_spans", final.spans_cw_NBQ2[:-1], stored["aux_spans"], SPAN)
        yield compare("aux_logits", final.logits_NBQ2[:-1], stored["aux_logits"], HIDDEN)


def _step(index: int, step: Step[Denoised], stored: Arrays) -> Iterator[StageResult]:
    yield compare(f"x {index}", step.x / SIGNAL, stored["x_in"][index] / SIGNAL, SPAN)
    yield compare(f"x0 {index}", step.start / SIGNAL, stored["x0"][index] / SIGNAL, SPAN)
    yield compare(f"eps {index}", _bounded(step.noise.numpy()), _bounded(stored["eps"][index]), HIDDEN)
    yield compare(f"spans {index}", step.aside.spans_cw_NBQ2, stored["spans"][index], SPAN)


def _bounded(values: np.ndarray) -> np.ndarray:
    """Implied noise is unbounded where nearly all is signal."""
    bounded: np.ndarray = values / (1 + np.abs(values))
    return bounded


def _coefficients(share_T: Tensor, steps: int, sigma: np.ndarray, c: np.ndarray) -> Iterator[StageResult]:
    times = step_times(len(share_T), steps)
    ours = [ddim_coefficients(share_T, times[i], times[i + 1], 1.0) for i in range(steps - 1)]
    yield compare(f"sigma {steps}", [*(step.fresh for step in ours), np.nan], sigma, TABLE)
    yield compare(f"c {steps}", [*(step.noise for step in ours), np.nan], c, TABLE)


def _training(golden: Path, name: str, plain: Batch) -> Iterator[StageResult]:
    """Losses and their variants, matching, gradients, and six steps of AdamW on the same draws."""
    stored = dict(np.load(golden / f"{name}_train.npz"))
    described = json.loads((golden / f"{name}.json").read_text())
    batch = replace(plain, targets=_targets(stored, plain))
    # Theirs are taken from the front, ours from behind the true moments.
    counted = zip(stored["placeholder_normal"], stored["gt_count"], strict=True)
    placeholder = np.stack([np.roll(rows, count, 0) for rows, count in counted])
    draws = Draws(*(torch.from_numpy(array) for array in (stored["t"], stored["noise"], placeholder)))
    model = _model(golden, name).train()
    with torch.no_grad():
        yield from _outputs(model, batch, draws, stored)
        yield from _variants(golden, name, batch, draws, described["losses"])
    losses = model.losses(batch, draws=draws)
    for published, value in described["losses"].items():
        term, _, layer = published.removeprefix("loss_").partition("_")
        if published.startswith("loss_"):
            ours = losses.terms[LOSS_NAMES[term] + (f"_{layer}" if layer else "")]
            yield compare_relative(published, float(ours.detach()), value, LOSS)
    total = float(losses.total.detach())
    yield compare_relative("total", total, described["losses"]["total_weighted"], LOSS)
    losses.total.backward()
    yield from _gradients(model, described["grad_norm_names"], stored)
    yield from _trajectory(model, batch, draws, described["trajectory"])


def _targets(stored: Arrays, batch: Batch) -> Targets:
    clips_B = batch.video_mask_BT.sum(1)
    counted = zip(stored["gt_spans"], stored["gt_count"], clips_B, strict=True)
    return Targets(
        windows_clip=tuple(
            cw_to_se(torch.from_numpy(spans[:count])) * clips for spans, count, clips in counted
        ),
        saliency_BT=torch.from_numpy(stored["saliency_all_labels"]),
        positive_clip_BP=torch.from_numpy(stored["saliency_pos_labels"]),
        negative_clip_BP=torch.from_numpy(stored["saliency_neg_labels"]),
    )


def _outputs(model: MomentDiff, batch: Batch, draws: Draws, stored: Arrays) -> Iterator[StageResult]:
    assert batch.targets is not None
    truth_cw = targets_as_fractions(batch.targets.windows_clip, batch.video_mask_BT)
    given = model.project(batch)
    seen, other = model.condition(given, batch), model.condition(given, batch, other_text=True)
    noisy_BQ2 = model.noisy_spans(truth_cw, draws)
    denoised = model.denoiser(noisy_BQ2, draws.time_B, seen)
    yield compare("x_t", to_spans(noisy_BQ2, model.config.signal_scale), stored["x_t"], SPAN)
    yield compare("pred_spans", denoised.spans_cw_NBQ2[-1], stored["pred_spans"], SPAN)
    yield compare("pred_logits", denoised.logits_NBQ2[-1], stored["pred_logits"], HIDDEN)
    yield compare("aux_spans", denoised.spans_cw_NBQ2[:-1], stored["aux_spans"], SPAN)
    yield compare("aux_logits", denoised.logits_NBQ2[:-1], stored["aux_logits"], HIDDEN)
    yield compare("saliency_scores", seen.similarity_BT, stored["saliency_scores"], HIDDEN)
    yield compare("saliency_scores_neg", other.similarity_BT, stored["saliency_scores_neg"], HIDDEN)
    c = model.config
    costs = c.weight_span, c.weight_giou, c.weight_label
    ours = match(denoised.logits_NBQ2[-1], denoised.spans_cw_NBQ2[-1], truth_cw, costs)
    for key, index in (("match_pred", ours.query_M), ("match_gt", ours.target_M)):
        yield compare(key, index, stored[key][stored[key] >= 0], 0.0)


def _variants(
    golden: Path, name: str, batch: Batch, draws: Draws, stored: dict[str, float]
) -> Iterator[StageResult]:
    """The other two similarity losses, against the stored parts."""
    expected = {
        "scaled": stored["sim_variant_scaled"],
        "paper": stored["sim_bce"] + stored["sim_margin"] / 2,
        "plain": stored["sim_bce"] + stored["sim_margin"] + stored["sim_rank"],
    }
    for kind, value in expected.items():
        terms = _model(golden, name, similarity=kind).losses(batch, draws=draws).terms
        yield compare_relative(f"similarity {kind}", float(terms["similarity"]), value, LOSS)


def _gradients(model: MomentDiff, names: list[str], stored: Arrays) -> Iterator[StageResult]:
    """Norms of all gradients; a parameter that we drop must be one that never had any."""
    ours = dict(model.named_parameters())
    squares = 0.0
    for published, norm in zip(names, stored["grad_norm"], strict=True):
        renamed = our_name(published, "momentdiff")
        if renamed is None:
            yield compare(f"no gradient {published}", np.nan, norm, 0.0)
            continue
        gradient = ours[renamed].grad
        size = float("nan") if gradient is None else float(gradient.norm())
        squares += size**2
        yield compare_relative(f"grad_norm {published}", size, norm, GRADIENT, 0.1)
    yield compare_relative("grad_norm_total", squares**0.5, float(stored["grad_norm_total"]), GRADIENT)


def _trajectory(
    model: MomentDiff, batch: Batch, draws: Draws, stored: dict[str, Any]
) -> Iterator[StageResult]:
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)
    for index, (loss, norm) in enumerate(
        zip(stored["total_loss"], stored["grad_norm_before_clip"], strict=True)
    ):
        optimiser.zero_grad()
        total = model.losses(batch, draws=draws).total
        total.backward()
        before = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimiser.step()
        yield compare_relative(f"loss at step {index}", float(total.detach()), loss, GRADIENT)
        yield compare_relative(f"gradient at step {index}", float(before), norm, GRADIENT)


def _schedule(path: Path) -> Iterator[StageResult]:
    """The twelve tables of a published checkpoint (eight follow from the two we keep), and the steps."""
    stored = dict(np.load(path))
    betas = cosine_betas()
    share = signal_share(betas)
    before = torch.cat([torch.ones(1, dtype=torch.float64), share[:-1]])
    variance = betas * (1 - before) / (1 - share)
    ours = {
        "betas": betas,
        "alphas_cumprod": share,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": share.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - share).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - share).log(),
        "sqrt_recip_alphas_cumprod": share.rsqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / share - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - share),
        "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - share),
    }
    for name, table in ours.items():
        scale = np.maximum(1.0, np.abs(stored[name]))
        yield compare(name, table.numpy() / scale, stored[name] / scale, TABLE)
    for steps in sorted(int(key.removeprefix("times_")) for key in stored if key.startswith("times_")):
        yield compare(f"times {steps}", step_times(len(share), steps), stored[f"times_{steps}"], 0.0)
        yield from _coefficients(share, steps, stored[f"sigma_{steps}"], stored[f"c_{steps}"])


def _post_process(path: Path) -> Iterator[StageResult]:
    """Logits and spans to windows in seconds, sorted; clamped and rounded; suppressed."""
    for case in json.loads(path.read_text()):
        name, post = case["dset_name"], POST[case["dset_name"]]
        logits, spans = torch.tensor(case["pred_logits"]), torch.tensor(case["pred_spans"])
        prediction = predict_moments(logits, spans, logits.new_zeros(logits.shape[:2]))
        ranked = _windows(prediction, case["durations"], PostProcess(clamp=False))
        final = _windows(prediction, case["durations"], post)
        kept = [temporal_nms(torch.from_numpy(windows), 0.5).numpy() for windows in final]
        for key, ours in (("ranked_4_decimals", ranked), ("final", final), ("after_nms_0_5", kept)):
            for row, (windows, expected) in enumerate(zip(ours, case[key], strict=True)):
                yield compare(f"{name} {key} {row}", windows, np.asarray(expected, np.float32), 0.0)


def _windows(prediction: Prediction, durations_s: list[float], post: PostProcess) -> list[np.ndarray]:
    clips = [prediction.saliency_BT.shape[1]] * len(durations_s)
    return [answer.windows_N3 for answer in decode(prediction, clips, 1.0, durations_s, post)]


def _splits(path: Path) -> Iterator[StageResult]:
    """The anti-bias files, made again from the rows of Charades-STA."""
    stored = json.loads(path.read_text())
    source = path.parents[2] / "data" / "charades_sta"
    for part in ("train", "test"):
        file = source / f"charades_sta_{part}_tvr_format.jsonl.gz"
        if not file.exists():
            yield StageResult(f"annotations are not present: {file}", float("inf"), 0.0)
            continue
        rows = read_annotations(file)
        yield from _split_stages(f"charades/charades_sta_{part}_tvr_format.jsonl", rows, stored)
        for rule in ("len", "mom"):
            name = f"charades_{rule}/{part}_{rule}_80.jsonl"
            yield from _split_stages(name, anti_bias(rows, rule, part, released=True), stored)


def _split_stages(name: str, rows: list[Query], stored: dict[str, Any]) -> Iterator[StageResult]:
    lines = "".join(f"{row.vid}\t{start!r}\t{end!r}\n" for row in rows for start, end in row.windows_s or ())
    same = sha256(lines.encode()).hexdigest() == stored[name]["sha256_vid_start_end"]
    yield StageResult(f"{name} windows", 0.0 if same else float("inf"), 0.0)
    yield compare(f"{name} rows", len(rows), stored[name]["rows"], 0.0)
    yield compare(f"{name} videos", len({row.vid for row in rows}), stored[name]["videos"], 0.0)
    yield compare(f"{name} qids", len({row.qid for row in rows}), stored[name]["unique_qids"], 0.0)
