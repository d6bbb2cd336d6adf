"""Moment-DETR against stored runs of the published code: forward, training, decoding, inputs and labels.

The stored runs lie in files a set (`a_eval.npz`, `a_train.npz`, `a_weights.safetensors`, `a.json`), as the
README beside them says; the window-length step of `postprocess.json` is no part of our decoding and of no
published result.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from momentkit.convert.keys import our_name, rename
from momentkit.core.spans import cw_to_se
from momentkit.core.types import Batch
from momentkit.data.collate import Sample
from momentkit.data.dataset import GroundingDataset
from momentkit.data.options import DataConfig, StreamConfig
from momentkit.losses.matching import match
from momentkit.models.moment_detr import MomentDETR, MomentDETRConfig
from momentkit.nn.decoder import predict_moments
from momentkit.predict.decode import PostProcess, decode
from momentkit.verify.detr import (
    LOSS_NAMES,
    Arrays,
    Case,
    batch_of,
    compare_losses,
    without_dropout,
)
from momentkit.verify.report import CaseResult, StageResult, compare, compare_relative

SPANS, FORWARD, GRADIENT = 2e-5, 2e-4, 1e-3  # tolerances of moment_detr.md
LOSSES = LOSS_NAMES | {"loss_contrastive_align": "contrast"}


def run(golden: Path) -> Iterator[CaseResult]:
    """Replay every stored set of a folder, one result each."""
    for path in sorted(golden.glob("*_weights.safetensors")):
        case = read_case(golden, path.name.removesuffix("_weights.safetensors"))
        yield _replay(case)
    if (golden / "postprocess.json").is_file():
        yield _post_process(json.loads((golden / "postprocess.json").read_text()))
    if (golden / "features.npz").is_file():
        yield _features(json.loads((golden / "features.json").read_text()), _arrays(golden / "features.npz"))


def read_case(golden: Path, name: str) -> Case:
    """A stored set in the form of the family's cases."""
    facts = json.loads((golden / f"{name}.json").read_text())
    evaluated, trained = _arrays(golden / f"{name}_eval.npz"), _arrays(golden / f"{name}_train.npz")
    spans = [span[:count] for span, count in zip(trained["gt_spans"], trained["gt_count"], strict=True)]
    targets = {
        "spans": np.concatenate(spans),
        "span_offsets": np.concatenate([[0], np.cumsum(trained["gt_count"])]),
        "saliency_all_labels": np.zeros_like(evaluated["src_vid_mask"]),
        "saliency_pos_labels": trained["saliency_pos_labels"],
        "saliency_neg_labels": trained["saliency_neg_labels"],
    }
    losses = dict(facts["losses"])
    told = {"total": losses.pop("total_weighted"), "losses": losses, "trajectory": facts["trajectory"]}
    told["grad_norms"] = dict(zip(facts["grad_norm_names"], trained["grad_norm"].tolist(), strict=True))
    weights = load_file(golden / f"{name}_weights.safetensors")
    return Case(name, facts["config"], weights, evaluated, targets, evaluated, trained, told)


def build(case: Case) -> MomentDETR:
    """The network of a stored set, without dropout, its weights loaded."""
    options = case.config
    model = MomentDETR(
        MomentDETRConfig(
            video_dim=options["v_feat_dim"],
            text_dim=options["t_feat_dim"],
            hidden=options["hidden_dim"],
            heads=options["nheads"],
            feed_forward=options["dim_feedforward"],
            input_layers=options["n_input_proj"],
            encoder_layers=options["enc_layers"],
            decoder_layers=options["dec_layers"],
            queries=options["num_queries"],
            pre_norm=options["pre_norm"],
            text_positions=options["max_q_l"] if options["use_txt_pos"] else 0,
            margin=options["saliency_margin"],
            background=options["eos_coef"],
            contrast=options["contrastive_hdim"] if options["contrastive_align_loss"] else 0,
            temperature=options["temperature"],
            weight_saliency=options["lw_saliency"],
            weight_contrast=options["contrastive_align_loss_coef"],
            faithful=True,
        )
    )
    model.load_state_dict(
        rename(case.weights, "moment_detr")
        | {ours: case.weights[name] for name in case.weights if (ours := _text_position(name, model))}
    )
    without_dropout(model)
    return model


def _text_position(published: str, model: MomentDETR) -> str | None:
    """Our name of a parameter of the text positions, which the key table leaves out; None for others."""
    head, _, tail = published.partition(".")
    return (
        f"text_positions.{tail}"
        if head == "txt_position_embed" and model.text_positions is not None
        else None
    )


def _replay(case: Case) -> CaseResult:
    model, batch = build(case), batch_of(case)
    with torch.no_grad():
        results = _stages(model.eval(), batch, case.evaluated)
    model.train()
    results += _matching(model, batch, case)
    losses = model.losses(batch)
    losses.total.backward()
    results += compare_losses(losses, case.losses, LOSSES)
    results += _gradients(model, case)
    return CaseResult(case.name, tuple(results + _trajectory(build(case).train(), batch, case)))


def _stages(model: MomentDETR, batch: Batch, stored: Arrays) -> list[StageResult]:
    stages = model.stages(batch)
    ours = {
        "enc_src": torch.cat([stages.video_BTd, stages.text_BLd], 1),
        "enc_pos": stages.place_BMd,
        "memory": stages.memory_BMd,
        "hs": stages.hidden_NBQd,
        "pred_logits": stages.logits_NBQ2[-1],
        "aux_logits": stages.logits_NBQ2[:-1],
        "confidence": model(batch).score_BQ,
        "saliency_scores": stages.saliency_BT,
    }
    spans = {"pred_spans": stages.spans_cw_NBQ2[-1], "aux_spans": stages.spans_cw_NBQ2[:-1]}
    if model.contrast_query is not None and model.contrast_text is not None:
        unit = nn.functional.normalize
        ours["proj_queries"] = unit(model.contrast_query(stages.hidden_NBQd[-1]), dim=-1)
        ours["proj_txt_mem"] = unit(model.contrast_text(stages.words_BLd), dim=-1)
    return [compare(name, value, stored[name], FORWARD) for name, value in ours.items()] + [
        compare(name, value, stored[name], SPANS) for name, value in spans.items()
    ]


def _matching(model: MomentDETR, batch: Batch, case: Case) -> list[StageResult]:
    with torch.no_grad():
        stages = model.stages(batch)
    logits_BQ2, spans_cw_BQ2, stored = stages.logits_NBQ2[-1], stages.spans_cw_NBQ2[-1], case.trained
    truth_cw = [
        torch.from_numpy(span[:count])
        for span, count in zip(stored["gt_spans"], stored["gt_count"], strict=True)
    ]
    sample_M, query_M, target_M = (x.numpy() for x in match(logits_BQ2, spans_cw_BQ2, truth_cw))
    theirs = stored["match_pred"] >= 0
    return [
        compare("train pred_logits", logits_BQ2, stored["pred_logits"], FORWARD),
        compare("train pred_spans", spans_cw_BQ2, stored["pred_spans"], SPANS),
        compare("match sample", sample_M, theirs.nonzero()[0], 0.0),
        compare("match query", query_M, stored["match_pred"][theirs], 0.0),
        compare("match target", target_M, stored["match_gt"][theirs], 0.0),
    ]


def _gradients(model: MomentDETR, case: Case) -> list[StageResult]:
    """The norm of every gradient; NaN is stored where a parameter has none.

    Relative to the norm plus 0.001: in the first decoder layer some are zero but for rounding.
    """
    ours = dict(model.named_parameters())
    results, squares = [], 0.0
    for published, norm in case.losses["grad_norms"].items():
        name = _text_position(published, model) or our_name(published, "moment_detr")
        gradient = ours[name].grad if name in ours else None
        size = 0.0 if gradient is None else float(gradient.norm())
        squares += size**2
        stored = 0.0 if np.isnan(norm) else norm
        results.append(compare_relative(f"grad_norm {published}", size, stored, GRADIENT, 1e-3))
    total = float(case.trained["grad_norm_total"])
    return [*results, compare_relative("grad_norm total", squares**0.5, total, GRADIENT)]


def _trajectory(model: MomentDETR, batch: Batch, case: Case) -> list[StageResult]:
    """Steps of the optimiser: losses and gradient norms on the way."""
    stored = case.losses["trajectory"]
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=1e-4)
    results = []
    for step, (loss, norm) in enumerate(
        zip(stored["total_loss"], stored["grad_norm_before_clip"], strict=True)
    ):
        total = model.losses(batch).total
        optimiser.zero_grad()
        total.backward()
        size = float(nn.utils.clip_grad_norm_(parameters, 0.1))
        optimiser.step()
        results.append(compare_relative(f"step {step} loss", float(total.detach()), loss, GRADIENT))
        results.append(compare_relative(f"step {step} grad_norm", size, norm, GRADIENT))
    return results


def _post_process(stored: dict[str, Any]) -> CaseResult:
    """From logits and spans to windows in seconds: ranked, on the grid, suppressed."""
    grid = PostProcess(clamp=False, maximum_s=150.0, step_s=2.0)
    wanted: dict[str, tuple[PostProcess, Any]] = {
        "ranked_4_decimals": (PostProcess(clamp=False), stored["ranked_4_decimals"]),
        "final": (grid, stored["final"]),
    }
    for threshold, rows in stored["nms"].items():
        post = replace(grid, nms="temporal", nms_threshold=float(threshold))
        wanted[f"nms {threshold}"] = post, rows
    saliency = [torch.tensor(row) for row in stored["saliency"]]
    prediction = predict_moments(
        torch.tensor(stored["pred_logits"]),
        torch.tensor(stored["pred_spans"]),
        nn.utils.rnn.pad_sequence(saliency, batch_first=True),
    )
    results = []
    for name, (post, rows) in wanted.items():
        decoded = decode(prediction, [len(row) for row in saliency], 2.0, stored["durations"], post)
        results += [
            # float32 against the 4 decimals of a text file; a grid of 2 s leaves no room for less
            compare(f"{name} video {index}", ours.windows_N3, row, 2e-5)
            for index, (ours, row) in enumerate(zip(decoded, rows, strict=True))
        ]
    return CaseResult("postprocess", tuple(results), "the window-length step is not replayed")


def _features(facts: dict[str, Any], stored: Arrays) -> CaseResult:
    """Inputs and labels of rated rows and of captions, read from files by our data code."""
    with TemporaryDirectory() as folder:
        return CaseResult("features", tuple(_read_back(Path(folder), facts, stored)))


def _read_back(root: Path, facts: dict[str, Any], stored: Arrays) -> Iterator[StageResult]:
    rows = facts["rows"]
    for folder in ("video0", "video1", "text"):
        (root / folder).mkdir()
    for name in (name for name in stored if name.startswith("raw_")):
        _, number, folder = name.split("_")
        if folder == "text":
            np.savez(root / folder / f"qid{number}.npz", last_hidden_state=stored[name])
        else:
            np.savez(root / folder / f"v{number}.npz", features=stored[name])
    _write_rows(root / "rated.jsonl", rows)
    _write_rows(root / "captions.jsonl", [_caption(row, stored, index) for index, row in enumerate(rows)])
    for kind, name, layout in (("sup", "rated", "qvhighlights"), ("asr", "captions", "subtitles")):
        data = GroundingDataset(_data_config(root, f"{name}.jsonl", layout, stored), "train")
        for index in range(len(rows)):
            yield from _sample_stages(f"{kind}_{index}", data.sample(index), stored)


def _caption(row: dict[str, Any], stored: Arrays, index: int) -> dict[str, Any]:
    """A row as a caption: the published rule reads the first of its windows (after they were shuffled)."""
    first_cw = torch.from_numpy(stored[f"asr_{index}_span_labels"][:1])
    seconds = cw_to_se(first_cw) * len(stored[f"asr_{index}_video_feat"]) * 2
    windows = seconds.double().numpy().round(3).tolist()
    return row | {"saliency_scores": None, "relevant_windows": windows}


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def _data_config(root: Path, rows: str, layout: Any, stored: Arrays) -> DataConfig:
    def stream(folder: str) -> StreamConfig:
        return StreamConfig(
            folder=folder, encoder="stored", layer="stored", dim=stored[f"raw_0_{folder}"].shape[1]
        )

    return DataConfig(
        root=str(root),
        layout=layout,
        train=rows,
        val=rows,
        video=(stream("video0"), stream("video1")),
        text=stream("text"),
        clip_length_s=2.0,
        max_clips=75,
        max_words=32,
        max_windows=5,
    )


def _sample_stages(name: str, sample: Sample, stored: Arrays) -> Iterator[StageResult]:
    """Arrays are equal; random picks are drawn from the clips that our rule draws from."""
    clips = len(sample.video_TD)
    yield compare(f"{name} video", sample.video_TD, stored[f"{name}_video_feat"], 1e-6)
    yield compare(f"{name} text", sample.text_LE, stored[f"{name}_query_feat"], 1e-6)
    spans_cw, positive, negative = (stored[f"{name}_{part}"] for part in ("span_labels", "pos", "neg"))
    inside = sample.saliency_T > 0
    if name.startswith("sup"):
        ours, theirs = [sample.positive_clip_P[0], sample.negative_clip_P[0]], [positive[0], negative[0]]
        # Which of equally rated clips it is, theirs leaves to an unstable sort: ratings are compared.
        sums_T = sample.saliency_T
        yield compare(f"{name} highest and lowest rating", sums_T[ours], sums_T[theirs], 0.0)
        positive, negative = positive[1:], negative[1:]
        inside = np.isin(np.arange(clips), sample.query.relevant_clips or ())
    else:
        spans_cw = spans_cw[:1]
        different = [len(set(sample.positive_clip_P)), len(set(sample.negative_clip_P))]
        yield compare(f"{name} different clips", different, [len(set(positive)), len(set(negative))], 0.0)
    theirs_G2 = cw_to_se(torch.from_numpy(spans_cw)).numpy() * clips
    known_G2 = np.array(sample.query.windows_s) / sample.clip_length_s
    yield compare(f"{name} number of windows", len(sample.windows_clip), len(theirs_G2), 0.0)
    yield compare(f"{name} windows", _distance(theirs_G2, known_G2), 0.0, 1e-4)
    yield compare(f"{name} our windows", _distance(sample.windows_clip, known_G2), 0.0, 1e-4)
    picks = np.concatenate([inside[positive], ~inside[negative]])
    yield compare(f"{name} picks", picks, np.ones(len(picks)), 0.0)


def _distance(some_N2: np.ndarray, others_N2: np.ndarray) -> float:
    """Largest distance of a window to the nearest of the others; which five of seven are kept is chance."""
    return float(np.abs(some_N2[:, None] - others_N2[None]).max(2).min(1).max())


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)
