"""The other stored metric cases: rankings, score maps, highlight sets, DiDeMo, post-processing.

Shapes   V videos   T clips   R raters   N windows
"""

import gzip
import json
from collections.abc import Mapping
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from momentkit.metrics.didemo import didemo_scores
from momentkit.metrics.highlights import clip_order, domain_figure, mean_over_domains, tvsum_ap, youtube_ap
from momentkit.metrics.overlap import Floats
from momentkit.metrics.postprocess import limit_lengths
from momentkit.metrics.ranking import RankProtocol, joint_map, map_rankings, rank_scores, suppress
from momentkit.verify.report import CaseResult, StageResult, compare

Arrays = Mapping[str, NDArray[Any]]
FRACTION_TOLERANCE = 1e-12
FLOAT32_TOLERANCE = 1e-6
ALL_WINDOWS = 2**31  # the stored suppression was called without a limit on what it looks at


class NotRun(Exception):
    """Why a case could not be replayed."""


class CaseFolder:
    """A folder of stored cases and the annotation files that `data:` names.

    Args:
        golden: the folder.
    """

    def __init__(self, golden: Path) -> None:
        self.golden = golden
        places = (golden / "../../data", golden / "../data", golden / "data")
        self.data = next((place for place in places if place.is_dir()), places[0])

    def cases(self, name: str) -> Any:
        """The content of a list of cases; empty where the folder has none."""
        path = self.golden / name
        return json.loads(path.read_text()) if path.is_file() else []

    def path(self, name: str) -> Path:
        """A file that a case names.

        Raises:
            NotRun: it is absent.
        """
        path = self.data / name.removeprefix("data:") if name.startswith("data:") else self.golden / name
        if not path.is_file():
            raise NotRun(f"not present: {path}")
        return path

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """All arrays of an npz file."""
        with np.load(self.path(name), allow_pickle=False) as file:
            return {key: file[key] for key in file.files}

    def annotations(self, name: str) -> Any:
        """A JSON annotation file."""
        return _read_json(self.path(f"data:{name.removeprefix('data:')}"))

    def annotation_rows(self, name: str) -> list[dict[str, Any]]:
        """A JSON-lines annotation file."""
        return [json.loads(line) for line in gzip.open(self.path(f"data:{name}"), "rt") if line.strip()]


@cache
def _read_json(path: Path) -> Any:
    return json.loads(gzip.decompress(path.read_bytes()))


def rank_case(folder: CaseFolder, case: dict[str, Any]) -> CaseResult:
    """Rank n@m and mIoU of stored candidates, and the windows that suppression leaves."""
    stored = folder.arrays(case["file"])
    candidates = np.split(stored["segments"], stored["offsets"][1:-1])
    protocol = RankProtocol(
        tuple(stored["tiou"].tolist()), tuple(stored["recall"].tolist()), float(stored["nms_thresh"])
    )
    scores = rank_scores(candidates, stored["gt"], protocol)
    kept, real = suppress(candidates, protocol)
    percent = np.round(100 * scores.rank, 2)
    return CaseResult(
        case["id"],
        (
            compare("kept windows", kept[real], stored["kept"], FRACTION_TOLERANCE),
            compare("kept counts", real.sum(1), np.diff(stored["kept_offsets"]), 0.0),
            compare("rank", scores.rank, stored["rank"], FRACTION_TOLERANCE),
            compare("mIoU", scores.miou, stored["miou"], FRACTION_TOLERANCE),
            compare("rank, percent", percent, case["rank_percent_by_tiou_then_recall"], 0.0),
            compare("mIoU, percent", np.round(100 * scores.miou, 2), case["miou_percent"], 0.0),
        ),
    )


def score_map_case(folder: CaseFolder, case: dict[str, Any]) -> CaseResult:
    """Maps of several scales -> one map -> windows."""
    stored = folder.arrays(case["file"])
    scales = range(len(case["scales"]))
    joint = joint_map([stored[f"prob_{scale}"][:, 0] for scale in scales])
    mask = joint_map([stored[f"mask_{scale}"][:, 0] for scale in scales])
    unit_s = stored["durations"] / joint.shape[1]
    if case["sliding_window"]:
        unit_s = np.full(len(joint), case["time_unit"])
    protocol = RankProtocol(ranks=tuple(case["recall"]), suppress_above=case["nms_thresh"])
    kept, real = suppress(map_rankings(joint, mask, unit_s), protocol)
    stages = [
        _compare_relative("joint map", joint, stored["joint"][:, 0]),
        _compare_relative("joint mask", mask, stored["joint_mask"][:, 0]),
    ]
    for video, windows in enumerate(np.split(stored["kept"], stored["kept_offsets"][1:-1])):
        defined = stored["kept_defined"][video]  # later ones are zero-score fill of no defined order
        ours = kept[video][real[video]][:defined]
        stages.append(_compare_relative(f"windows of video {video}", ours, windows[:defined]))
    return CaseResult(case["id"], tuple(stages))


def highlight_case(folder: CaseFolder, case: dict[str, Any]) -> CaseResult:
    """TVSum and YouTube: each domain under each program's mean, ranked by the published unstable sort."""
    scores = folder.arrays(case["file"])
    tvsum = case["dataset"] == "tvsum"
    annotations = folder.annotations(
        "tvsum/tvsum_anno.json.gz" if tvsum else "youtube_highlights/youtube_anno.json.gz"
    )
    listed = _listed_videos(folder, tvsum, case["state"])
    stages = []
    figures: dict[str, dict[str, float]] = {"umt": {}, "cgdetr": {}}
    for domain, wanted in case["domains"].items():
        ours = _domain(scores, annotations, listed, wanted["videos"], tvsum)
        for name in wanted.keys() - {"videos"}:
            stages.append(_compare_figure(f"{domain} {name}", ours.get(name, "no rule"), wanted[name]))
        for name, whole in figures.items():
            if (figure := ours[name]) is not None:
                whole[domain] = figure
    for name, wanted_mean in case["mean_over_domains"].items():
        whole = figures.get(name, {})
        ours_mean = mean_over_domains(whole) if len(whole) == len(case["domains"]) else None
        stages.append(_compare_figure(f"mean over domains {name}", ours_mean, wanted_mean))
    return CaseResult(case["id"], tuple(stages))


def _domain(
    scores: Arrays, annotations: dict[str, Any], listed: set[str], videos: list[str], tvsum: bool
) -> dict[str, float | None]:
    published: list[Floats] = []
    stable: list[Floats] = []
    for video in videos:
        labels = np.array(annotations[video]["anno" if tvsum else "match"], dtype=np.float64)
        score_T = scores[video]
        for collected, order_T in ((published, _published_order(score_T)), (stable, clip_order(score_T))):
            collected.append(_video_ap(score_T, labels, order_T, tvsum))
    last_of_batch = [published[min(first + 3, len(published) - 1)] for first in range(0, len(published), 4)]
    return {
        "umt": domain_figure(published, "by_rater"),
        "univtg": domain_figure(published, "by_rater"),
        "cgdetr": domain_figure(published, "flat") if listed.issuperset(videos) else None,
        "momentdiff_batch4": domain_figure(last_of_batch, "flat"),
        "umt_if_stable_sort": domain_figure(stable, "by_rater"),
    }


def _video_ap(score_T: NDArray[Any], labels: Floats, order_T: NDArray[np.int64], tvsum: bool) -> Floats:
    if tvsum:
        return tvsum_ap(score_T, labels, order_T)
    return np.array([youtube_ap(score_T, labels, order_T)])


def _published_order(score_T: NDArray[np.float32]) -> NDArray[np.int64]:
    """The sort that decided the published figures where scores tie."""
    import torch

    return torch.from_numpy(score_T).argsort(descending=True).numpy()


def _listed_videos(folder: CaseFolder, tvsum: bool, state: str) -> set[str]:
    """Videos that the programs with JSON-lines readers know."""
    name = (
        f"tvsum/tvsum_{state}"
        if tvsum
        else f"youtube_highlights/youtube_{'valid' if state == 'val' else state}"
    )
    return {row["vid"] for row in folder.annotation_rows(f"{name}.jsonl.gz")}


def didemo_case(folder: CaseFolder, case: dict[str, Any]) -> CaseResult:
    """DiDeMo's Rank@1, Rank@5 and mIoU."""
    rows = folder.annotations(case["data"])
    if "file" in case:
        stored = folder.arrays(case["file"])
        ranking = stored["segments"].astype(np.int64)[stored["order"]]
    else:
        ranking = np.broadcast_to(np.array(case["order"]), (len(rows), *np.shape(case["order"])))
    scores = didemo_scores(ranking, [np.array(row["times"]) for row in rows])
    ours = {"rank1": scores.rank1, "rank5": scores.rank5, "miou": scores.miou}
    return CaseResult(
        case["id"],
        tuple(compare(name, value, case[name], FRACTION_TOLERANCE) for name, value in ours.items()),
    )


def post_process_case(folder: CaseFolder, case: dict[str, Any]) -> CaseResult:
    """Rounding and suppression of windows, which live in `predict`."""
    import torch

    from momentkit.predict.suppress import clip_and_round, decay_nms, temporal_nms

    options, windows = case["options"], torch.tensor(case["input"], dtype=torch.float32)
    note = ""
    wanted = np.array(case["expected"], dtype=np.float64)
    if case["kind"] == "clip_and_round":
        if options["min_ts_val"] != 0:
            raise NotRun(f"a smallest time of {options['min_ts_val']} is not known here; every program has 0")
        for step in options["process_func_names"]:
            if step == "clip_window_l":
                limits = options["min_w_l"], options["max_w_l"], options["move_window_method"]
                windows = torch.from_numpy(limit_lengths(windows.numpy(), *limits))
            elif step == "clip_ts":
                windows = clip_and_round(windows, options["max_ts_val"], None)
            elif step == "round_multiple":
                windows = clip_and_round(windows, None, options["clip_length"])
            else:
                raise NotRun(f"the step {step!r} is not known here")
        ours = np.array([[start, end, float(f"{score:.4f}")] for start, end, score in windows.tolist()])
    elif case["kind"] == "temporal_nms":
        kept = temporal_nms(
            windows, options["nms_thd"], max_before=ALL_WINDOWS, max_after=options["max_after_nms"]
        )
        ours = kept.double().numpy()
    elif case["kind"] == "score_decay_nms":
        ours, wanted = (
            _zeros_in_order(w) for w in (decay_nms(windows, options["nms_thd"], options["type"]), wanted)
        )
        note = "windows of score 0 compared as a set" if (wanted[:, 2] == 0).sum() > 1 else ""
    else:
        raise NotRun(f"the kind {case['kind']!r} is not known here")
    return CaseResult(case["id"], (_compare_relative("windows", ours, wanted),), note)


def _zeros_in_order(windows: Any) -> Floats:
    """Rows of score 0 sorted by their times: their order is an accident of an unstable sort."""
    rows = np.asarray(windows, dtype=np.float64)
    zero = rows[:, 2] == 0
    return np.concatenate([rows[~zero], np.array(sorted(rows[zero].tolist())).reshape(-1, 3)])


def _compare_relative(stage: str, ours: Any, stored: NDArray[Any]) -> StageResult:
    """Difference against the size of each entry, but at least 1 (a second, or a whole score)."""
    scale = np.maximum(np.abs(np.asarray(stored, dtype=np.float64)), 1.0)
    if np.shape(ours) != np.shape(stored):
        return compare(stage, ours, stored, FLOAT32_TOLERANCE)
    return compare(stage, ours / scale, stored / scale, FLOAT32_TOLERANCE)


def _compare_figure(stage: str, ours: float | str | None, wanted: float | None) -> StageResult:
    if isinstance(ours, float) and isinstance(wanted, float | int):
        return compare(stage, ours, wanted, 0.0)
    return StageResult(stage, 0.0 if ours is None and wanted is None else inf, 0.0)
