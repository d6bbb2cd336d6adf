"""TVSum on its published I3D features: six models, one training a domain, beside the published top-5 mAP.

    python benchmarks/tvsum.py                            the published recipes: near 70 hours of a core
    python benchmarks/tvsum.py --steps 40 --seeds 0       the same recipes, cut after 40 steps

A domain has four training videos and one validation video, so an epoch is a step, and the published figure
is that of the best of hundreds of evaluations on that one video. The table shows that one, the last weights,
which nothing was chosen by, scores drawn at random, and what equal scores leave open. Runs that are done are
not done again.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from momentkit.core.files import atomic_write
from momentkit.data.dataset import GroundingDataset
from momentkit.metrics.highlights import tied_at_cut, tvsum_ap
from momentkit.metrics.overlap import Floats
from momentkit.predict.weights import read_grounder_weights
from momentkit.train.compare import MODEL
from momentkit.train.evaluate import answer
from momentkit.train.published import read_published
from momentkit.train.run import read_folder_config
from momentkit.train.sweep import FIGURES_FILE, LAST_WEIGHTS, Row, Run, Sweep, run_sweep, runs_of

MODELS = ("qd_detr", "cg_detr", "tr_detr", "uvcom", "ld_detr", "flashvtg")
DOMAINS = ("BK", "BT", "DS", "FM", "GA", "MS", "PK", "PR", "VT", "VU")
EVALUATED = 5  # every so many steps, as published
DRAWS = 200  # orders of equal scores


def sweep_of(steps: int, seeds: Sequence[int], models: Sequence[str], domains: Sequence[str]) -> Sweep:
    """A run for each model, domain and seed; without `steps` as long as published."""
    cut = (f"train.epochs={steps}",) if steps else ()
    common = (f"train.evaluate_every={EVALUATED}", "train.threads=1", *cut)
    rows = tuple(
        Row(
            name=f"{model} {domain}",
            config=f"configs/{model}_tvsum_i3d.toml",
            set=(*common, f"data.domain={domain}"),
        )
        for model in models
        for domain in domains
    )
    return Sweep(title="TVSum", row=rows, seeds=tuple(seeds), figures=("mAP",))


def chance(folder: Path) -> tuple[float, float]:
    """What orders alone do on a run's validation video, in points of mAP, by the last weights.

    Returns:
        Between the least and the greatest that orders of equal scores gave, 0 without a tie between the fifth
        clip and the sixth; the mean of random scores.
    """
    config = read_folder_config(folder)
    model = cast(nn.Module, read_grounder_weights(folder / LAST_WEIGHTS).build_model(torch.device("cpu")))
    data = GroundingDataset(config.data, "val")
    rng, spreads, random = np.random.default_rng(0), [], []
    for row, query in zip(answer(model, data, config.predict, batch_size=1), data.queries, strict=True):
        rating_CR = np.array(query.clip_labels, dtype=np.float64)
        score_T = np.array(row["pred_saliency_scores"])[: len(rating_CR)]
        random += _figures(score_T, rating_CR, [rng.permutation(len(score_T)) for _ in range(DRAWS)])
        spread = 0.0
        if tied_at_cut(score_T):
            orders = [np.lexsort((rng.random(len(score_T)), -score_T)) for _ in range(DRAWS)]
            figures = _figures(score_T, rating_CR, orders)
            spread = max(figures) - min(figures)
        spreads.append(spread)
    return statistics.mean(spreads), statistics.mean(random)


def _figures(score_T: Floats, rating_CR: Floats, orders: Sequence[NDArray[np.int64]]) -> list[float]:
    return [100 * float(tvsum_ap(score_T, rating_CR, order_T).mean()) for order_T in orders]


def figures_of(run: Run) -> dict[str, Any]:
    """Of one model, domain and seed: mAP of the last weights, of the best evaluation, of random scores."""
    stored = json.loads((run.folder / FIGURES_FILE).read_text())
    model, domain = run.row.name.split()
    ties, random = chance(run.folder)
    return {
        "model": model,
        "domain": domain,
        "seed": run.seed,
        "last": stored["figures"][MODEL]["mAP"],
        "best": max(metrics["mAP"] for metrics in stored["evaluations"].values()),
        "random": random,
        "ties": ties,
        "train_s": stored["train_s"],
    }


def table_of(
    entries: Sequence[dict[str, Any]], models: Sequence[str], domains: Sequence[str]
) -> list[dict[str, Any]]:
    """A row a model: mean and deviation over the seeds that have every domain, of means over domains."""
    published = {row.config: row.on("val") for row in read_published()}
    rows = []
    for model in models:
        own = [entry for entry in entries if entry["model"] == model]
        seeds = [s for s in {e["seed"]: 0 for e in own} if sum(e["seed"] == s for e in own) == len(domains)]
        if not seeds:
            continue
        own = [entry for entry in own if entry["seed"] in seeds]
        line = published[f"{model}_tvsum_i3d"]
        row: dict[str, Any] = {
            "model": model,
            "seeds": seeds,
            "published": line.figures["mAP"] if line else None,
        }
        for name in ("last", "best", "random", "ties"):
            by_seed = [statistics.mean(e[name] for e in own if e["seed"] == seed) for seed in seeds]
            row[name] = statistics.mean(by_seed), statistics.stdev(by_seed) if len(seeds) > 1 else None
        row["tied"] = sum(entry["ties"] > 0 for entry in own), len(own)
        row["minutes"] = sum(entry["train_s"] for entry in own) / 60
        rows.append(row)
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table."""
    columns = (
        "model | seeds | last weights | best evaluation | random scores | published | videos with ties, worth"
    )
    lines = [f"| {columns} | minutes |", "|---" * 8 + "|"]
    for row in rows:
        tied, videos = row["tied"]
        cells = (
            f"`{row['model']}`",
            str(len(row["seeds"])),
            _cell(row["last"]),
            _cell(row["best"]),
            f"{row['random'][0]:.1f}",
            "" if row["published"] is None else f"{row['published']:.1f}",
            f"{tied} of {videos}, {row['ties'][0]:.1f}",
            f"{row['minutes']:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(figure: tuple[float, float | None]) -> str:
    mean, deviation = figure
    return f"{mean:.1f}" if deviation is None else f"{mean:.1f} ± {deviation:.1f}"


def main() -> None:
    """Do the runs, print the table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=0, help="of each run; 0 = as many as published")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 2017])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--domains", nargs="+", choices=DOMAINS, default=list(DOMAINS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/tvsum"))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/tvsum.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    sweep = sweep_of(options.steps, options.seeds, options.models, options.domains)
    output = options.output / (f"{options.steps}_steps" if options.steps else "published")
    for run in run_sweep(sweep, output, options.workers):
        print(f"{run.row.name}, seed {run.seed}", flush=True)
    entries = [figures_of(run) for run in runs_of(sweep, output) if run.done]
    rows = table_of(entries, options.models, options.domains)
    print(markdown(rows))
    report = {"steps": options.steps or "published", "seeds": options.seeds, "table": rows, "runs": entries}
    atomic_write(options.json, json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
