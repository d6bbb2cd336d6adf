"""The central claim of each paper, measured on the synthetic world's features path, with direction and size.

    python benchmarks/claims.py                 45 minutes a seed on two cores; started again, it goes on
    python benchmarks/claims.py --seeds 0       one seed first; the others can follow
    python benchmarks/claims.py --budget smoke  everything at toy size, in minutes: proves that it works

Writes sets and runs under the output folder, benchmarks/claims.json, and the table in docs/log.md; a smoke
test keeps to the output folder. A claim is a number for each seed, above 0 where the paper is right. It holds
("yes") where that is so for every seed, fails ("no") where it is so for none, and is "unclear" in between: by
chance alone three seeds agree one time in four.
"""

import argparse
import json
import math
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from momentkit.core.files import atomic_write
from momentkit.core.types import Query
from momentkit.data.annotations import read_annotations, write_annotations
from momentkit.data.splits import anti_bias
from momentkit.data.synthetic.grammar import Ask, sentence
from momentkit.data.synthetic.plan import FilmOptions
from momentkit.data.synthetic.questions import Question, row, windows_of
from momentkit.data.synthetic.world import Film
from momentkit.data.synthetic.writing import SPLITS, SetOptions, film_of, synthesize
from momentkit.features.store import write_features
from momentkit.features.tiny import TinyFrameEncoder, TinyTextEncoder
from momentkit.train.compare import MODEL
from momentkit.train.published import our_name
from momentkit.train.sweep import FIGURES_FILE, Row, Run, Sweep, markdown, run_sweep, runs_of, table_of

JSON, LOG = Path("benchmarks/claims.json"), Path("docs/log.md")
HEADING = "## The papers' claims on the synthetic world"
SETS = ("plain", "len", "mom", "overlap")
FILM = FilmOptions(shortest_s=20, longest_s=40)
WORLD_SEED = 3  # no other study uses films of this seed
OVERLAP_QID = 50_000_000  # sentences of the overlap set are numbered from here
ALIKE_ROLES = ("jump", "spin", "shake", "blink", "sway", "loop", "swap", "bump")


@dataclass(frozen=True)
class Budget:
    """How much of everything.

    Attributes:
        films, val_films: of which the sets are made.
        rows, val_rows: most sentences of each set.
        epochs: of every run; times `LONGER`.
        model: options of every model, after its own.
        proposals: of DiffusionVMR and queries of Moment-DETR that are compared, the trained number second.
    """

    films: int
    val_films: int
    rows: int
    val_rows: int
    epochs: int
    model: dict[str, Any]
    proposals: tuple[int, ...] = (5, 10, 20, 40, 80)


BUDGETS = {
    "real": Budget(films=2600, val_films=500, rows=4000, val_rows=500, epochs=8, model={}),
    "smoke": Budget(
        films=24,
        val_films=24,
        rows=32,
        val_rows=12,
        epochs=1,
        model={"hidden": 16, "heads": 2},
        proposals=(2, 10, 12),
    ),
}
SMALL = {"hidden": 64, "heads": 8, "feed_forward": 128, "input_dropout": 0.1}
MODELS: dict[str, dict[str, Any]] = {
    "moment_detr": SMALL | {"queries": 10},
    "momentdiff": SMALL | {"queries": 10, "steps": 10, "signal_scale": 1.0, "span_embedding": "roi"},
    "diffusion_vmr": SMALL
    | {"encoder_layers": 2, "dynamic_width": 16, "proposals": 20, "steps": 3, "grow_epochs": 0.6}
    | {"weight_label": 4.0},
    "ld_detr": SMALL
    | {"encoder_layers": 1, "cross_layers": 1, "conv_blocks": 2, "decoder_loops": 1, "weight_label": 20.0}
    | {"distill_memory": 1024},
    "flashvtg": SMALL
    | {"dummies": 8, "dummy_layers": 1, "cross_layers": 2, "encoder_layers": 1, "score_layers": 2}
    | {"strides": [1, 2, 4, 8, 16], "weight_saliency": 0.2, "weight_clip_aware": 1.0},
    "map_diffusion": SMALL
    | {"hidden": 48, "text_hidden": 48, "text_layers": 1, "decoder": "transformer", "width": 48}
    | {"map_width": 16, "pool": 2, "scales": 2, "columns": 6, "heads": 4, "layers": 2, "steps": 3}
    | {"signal_scale": 1.0},
}
# times the epochs: after as many as the others these are below or at the location prior (mAP 15)
LONGER = {"moment_detr": 3, "momentdiff": 2, "diffusion_vmr": 3}
PREDICT = {
    "flashvtg": {"top": 50, "nms": "normal", "nms_threshold": 0.5},
    "map_diffusion": {"top": 100_000, "nms": "greedy", "nms_threshold": 0.49, "keep": 10},
}
TRAIN = {"batch_size": 32, "bucket_batches": 10, "learning_rate": 1e-3, "clip_norm": 1.0}
TRAIN |= {"schedule": "cosine", "warmup_steps": 50, "ema_decay": 0.99, "evaluate_every": 100}
TRAIN |= {"checkpoint_steps": 0, "threads": 1}


# The sets


def write_sets(root: Path, budget: Budget) -> None:
    """Features and annotations of all sets under one folder; what is there already is kept.

    plain      sentences with one window each
    len, mom   the same with another length, or another place, of moments in training than in the test
    overlap    sentences that leave colour or shape open: few meanings in many wordings, met in each batch

    `plain`, `len` and `mom` have as many training sentences; each is tested on rows of validation films.
    """
    if (root / "sets.json").is_file():
        return
    frames, text = TinyFrameEncoder.bundled(), TinyTextEncoder.bundled()
    films = (("train", budget.films), ("val", budget.val_films))
    options = SetOptions(films=films, seed=WORLD_SEED, queries=6, negatives=0, film=FILM)
    synthesize(root, options, frame_encoder=frames, text_encoder=text)
    every = {split: read_annotations(root / "annotations" / f"{split}.jsonl") for split in SPLITS}
    single = {split: [q for q in rows if len(q.windows_s or ()) == 1] for split, rows in every.items()}
    rng = np.random.default_rng(WORLD_SEED)
    counts = {}
    for split, part, most in (("train", "train", budget.rows), ("val", "test", budget.val_rows)):
        mixed = [single[split][int(index)] for index in rng.permutation(len(single[split]))]
        made = {rule: _some(anti_bias(mixed, rule, part), rng) for rule in ("len", "mom")}
        most = min(most, *(len(rows) for rows in made.values())) if part == "train" else most
        made["plain"] = mixed
        for name, rows in made.items():
            counts[f"{name} {split}"] = len(rows[:most])
            write_annotations(root / "annotations" / f"{name}_{split}.jsonl", rows[:most])
        number = budget.films if split == "train" else budget.val_films
        alike = _overlapping(root, split, number, text)[:most]
        counts[f"overlap {split}"] = len(alike)
        lines = "".join(f"{json.dumps(line)}\n" for line in alike)
        atomic_write(root / "annotations" / f"overlap_{split}.jsonl", lines)
    atomic_write(root / "sets.json", json.dumps(counts, indent=1))


def _some(rows: list[Query], rng: np.random.Generator) -> list[Query]:
    """In another order, so that the first of them hold majority and minority alike."""
    return [rows[int(index)] for index in rng.permutation(len(rows))]


def _overlapping(root: Path, split: str, films: int, text: TinyTextEncoder) -> list[dict[str, object]]:
    """Rows of the overlap set of a split, with the features of their sentences."""
    rows = []
    for number in range(films):
        film = film_of(split, number, WORLD_SEED, FILM)
        rng = np.random.default_rng([film.seed, 8])
        for question in open_questions(film, rng):
            qid = OVERLAP_QID * (1 + SPLITS.index(split)) + len(rows)
            words_LE = text.encode_text([question.text])[0].words_LE
            path = root / "features" / "text" / f"qid{qid}"
            write_features(path, words_LE, text.contract, "last_hidden_state")
            rows.append(row(question, qid, film, rng))
    return rows


def open_questions(film: Film, rng: np.random.Generator) -> list[Question]:
    """What happens in a film, said without the colour or without the shape of who does it."""
    facts, found = film.facts(), {}
    for fact in facts:
        if fact.certain and fact.role in ALIKE_ROLES:
            whole = rng.random() < 0.5
            ask = Ask(
                role=fact.role, **({"colour": fact.actor.colour} if whole else {"shape": fact.actor.shape})
            )
            if (windows_s := windows_of(ask, facts)) and ask not in found:
                found[ask] = Question(text=sentence(ask, rng), ask=ask, windows_s=windows_s)
    return list(found.values())


# The runs


def sweep_of(root: Path, configs: Path, budget: Budget, seeds: Sequence[int]) -> Sweep:
    """Every run of the claims, and the configuration files they start from."""
    for model, options in MODELS.items():
        atomic_write(configs / f"{model}.toml", _toml(root, model, options, budget))

    def one(model: str, name: str, *changes: str, on: str = "plain", weights_of: str = "") -> Row:
        data = (f'data.train="annotations/{on}_train.jsonl"', f'data.val="annotations/{on}_val.jsonl"')
        config = str(configs / f"{model}.toml")
        return Row(name=f"{model}{name}", config=config, set=(*data, *changes), weights_of=weights_of)

    rows = [one(model, "") for model in ("moment_detr", "momentdiff", "diffusion_vmr", "ld_detr", "flashvtg")]
    for model in ("moment_detr", "momentdiff"):
        for rule in ("len", "mom"):
            rows.append(one(model, f", {rule}", on=rule))
            rows.append(one(model, f", plain tested on {rule}", on=rule, weights_of=model))
    for count in budget.proposals:
        changes = (f"model.proposals={count}", f"predict.top={count}")
        rows.append(one("diffusion_vmr", f", {count} proposals", *changes, weights_of="diffusion_vmr"))
    most = budget.proposals[-1]
    rows += [
        one("moment_detr", f", {most} queries", f"model.queries={most}", f"predict.top={most}"),
        one("moment_detr", ", three times the decoder", "model.decoder_layers=6"),
        one("moment_detr", ", three loops", "model.decoder_loops=3"),
        one("diffusion_vmr", ", 1 step", "model.steps=1", weights_of="diffusion_vmr"),
        one("diffusion_vmr", ", 5 steps", "model.steps=5", weights_of="diffusion_vmr"),
        one("momentdiff", ", 1 step", "model.steps=1", weights_of="momentdiff"),
        one("diffusion_vmr", ", all proposals from the start", "model.grow_epochs=0.0"),
        one("ld_detr", ", no convolutions", 'model.fuser=["v2t","t2v","encoder1","encoder2"]'),
        one("ld_detr", ", overlap", on="overlap"),
        one("ld_detr", ", overlap, hard targets", "model.distill_share=0.0", on="overlap"),
        one("ld_detr", ", overlap, not aligned", "model.distill_align=false", on="overlap"),
        one("flashvtg", ", one level", "model.strides=[1]", 'model.score="intra"'),
        one("flashvtg", ", five levels", 'model.score="intra"'),
        one("map_diffusion", ", concat"),
        one("map_diffusion", ", cross-attention", 'model.condition="cross_attention"'),
    ]
    figures = ("R1@0.5", "R1@0.7", "mAP", "MR-short-mAP")
    return Sweep(title="runs of the claims", row=tuple(rows), seeds=tuple(seeds), figures=figures)


def _toml(root: Path, model: str, options: dict[str, Any], budget: Budget) -> str:
    known = {"hidden", "heads"} & set(options)
    options = {"name": model} | options | {name: budget.model[name] for name in known & set(budget.model)}
    if model == "map_diffusion":  # its widths have names of their own
        options = {name: value for name, value in options.items() if name != "feed_forward"}
    sections = {"model": options, "train": TRAIN | {"epochs": budget.epochs * LONGER.get(model, 1)}}
    sections["predict"] = PREDICT.get(model, {"top": options.get("proposals", options.get("queries", 10))})
    lines = [(root / "data.toml").read_text()]
    for section, values in sections.items():
        lines += ["", f"[{section}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    return "\n".join(lines) + "\n"


# The claims


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement that can be wrong.

    Attributes:
        paper: whose it is.
        says: the statement, with its unit.
        rows: runs whose figure is read, in the order in which `size` takes them.
        figure: which one.
        size: those figures of one seed -> by how much the paper is right; above 0 = right.
        printed: the size in the paper, and where.
    """

    paper: str
    says: str
    rows: tuple[str, ...]
    figure: str
    size: Callable[..., float]
    printed: str


def gain(better: float, worse: float) -> float:
    """Points by which the first is above the second."""
    return better - worse


def more_kept(shifted: float, plain: float, other_shifted: float, other_plain: float) -> float:
    """Percent kept when training is shifted, above the other model's; NaN where there was nothing to keep."""
    return 100 * (shifted / plain - other_shifted / other_plain) if plain and other_plain else float("nan")


def least_rise(*values: float) -> float:
    """How far a later value lies above the best one before it, at worst; half a point is forgiven."""
    return min(value - max(values[:index]) for index, value in enumerate(values) if index) + 0.5


def claims_of(budget: Budget) -> list[Claim]:
    """All of them."""
    counts = budget.proposals

    def shift(rule: str, what: str, printed: str) -> Claim:
        rows = tuple(
            row
            for model in ("momentdiff", "moment_detr")
            for row in (f"{model}, {rule}", f"{model}, plain tested on {rule}")
        )
        says = (
            f"MomentDiff keeps more of its mAP than Moment-DETR when training moments {what} (percent kept)"
        )
        return Claim(paper="MomentDiff", says=says, rows=rows, figure="mAP", size=more_kept, printed=printed)

    def better(paper: str, says: str, first: str, second: str, figure: str, printed: str) -> Claim:
        rows = (first, second)
        return Claim(paper=paper, says=says, rows=rows, figure=figure, size=gain, printed=printed)

    many = f"from {counts[0]} to {counts[-1]} proposals, not trained again, mAP never falls by half a point"
    queries = f"Moment-DETR trained with {counts[-1]} queries is worse than with 10, in mAP"
    alike = "where sentences overlap in meaning, "
    return [
        shift("len", "are shorter than those of the test", "mAP 28.2 against 24.0 (table 4, len)"),
        shift("mom", "lie earlier", "mAP 21.4 against 18.7 (table 4, mom)"),
        better("MomentDiff", "10 steps in place of 1 raise R1@0.7",
               "momentdiff", "momentdiff, 1 step", "R1@0.7", "+2.4 (table 5 f)"),
        Claim(paper="DiffusionVMR", says=f"{many} (least rise, plus 0.5)",
              rows=tuple(f"diffusion_vmr, {count} proposals" for count in counts), figure="mAP",
              size=least_rise, printed="rises, then level (figure 4, no numbers)"),
        better("DiffusionVMR", queries,
               "moment_detr", f"moment_detr, {counts[-1]} queries", "mAP", "falls (figure 4, no numbers)"),
        better("DiffusionVMR", "5 steps of refinement in place of 1 raise R1@0.7",
               "diffusion_vmr, 5 steps", "diffusion_vmr, 1 step", "R1@0.7", "+2.6 (table VI)"),
        better("DiffusionVMR", "proposals that grow in training beat all of them from the start, in R1@0.7",
               "diffusion_vmr", "diffusion_vmr, all proposals from the start", "R1@0.7", "+3.8 (table IX)"),
        better("LD-DETR", alike + "Distill Align is better than no alignment, in mAP",
               "ld_detr, overlap", "ld_detr, overlap, not aligned", "mAP",
               "+0.6 on Moment-DETR, +1.4 on QD-DETR (table 4)"),
        better("LD-DETR", alike + "its soft targets are better than hard ones, in mAP",
               "ld_detr, overlap", "ld_detr, overlap, hard targets", "mAP",
               "+0.6 (study of the share, 0.4 against 0)"),
        better("LD-DETR", "three loops beat a decoder three times as deep, in R1@0.7 (Moment-DETR)",
               "moment_detr, three loops", "moment_detr, three times the decoder", "R1@0.7",
               "+2.7 (table 10)"),
        better("LD-DETR", "convolutional blocks raise mAP",
               "ld_detr", "ld_detr, no convolutions", "mAP", "+3.0 with two blocks (table 7)"),
        better("FlashVTG", "five pyramid levels in place of one raise the mAP of moments under 10 s",
               "flashvtg, five levels", "flashvtg, one level", "MR-short-mAP",
               "mAP of all lengths +5.6 (table 8)"),
        better("FlashVTG", "score refinement raises R1@0.7",
               "flashvtg", "flashvtg, five levels", "R1@0.7", "+1.1 (table 8)"),
        better("Map diffusion", "condition by concatenation beats cross-attention, in R1@0.5 (transformer)",
               "map_diffusion, concat", "map_diffusion, cross-attention", "R1@0.5", "+12.4 (table 3)"),
    ]  # fmt: skip


def verdict(sizes: Sequence[float]) -> str:
    """ "yes" where all are above 0, "no" where none is, "unclear" in between, "not measured" without any."""
    if not sizes:
        return "not measured"
    if all(size > 0 for size in sizes):
        return "yes"
    return "no" if all(size <= 0 for size in sizes) else "unclear"


def judge(claims: Sequence[Claim], sweep: Sweep, output: Path) -> list[dict[str, Any]]:
    """One entry a claim: verdict, its size by seed, mean and spread, and the runs it rests on."""
    figures = {
        (run.row.name, run.seed): json.loads((run.folder / FIGURES_FILE).read_text())["figures"][MODEL]
        for run in runs_of(sweep, output)
        if run.done
    }
    entries = []
    for claim in claims:
        sizes: dict[int, float] = {}
        for seed in sweep.seeds:
            if all((name, seed) in figures for name in claim.rows):
                of_rows = [_figure(figures[name, seed], claim.figure) for name in claim.rows]
                size = claim.size(*of_rows)
                sizes |= {seed: size} if math.isfinite(size) else {}
        values = list(sizes.values())
        entries.append(
            {
                "paper": claim.paper,
                "claim": claim.says,
                "holds": verdict(values),
                "size": statistics.mean(values) if values else None,
                "spread": statistics.stdev(values) if len(values) > 1 else None,
                "by_seed": sizes,
                "printed": claim.printed,
                "figure": claim.figure,
                "runs": list(claim.rows),
            }
        )
    return entries


def _figure(figures: dict[str, float], name: str) -> float:
    known = our_name(name, figures)
    return figures[known] if known else float("nan")


def table(entries: Sequence[dict[str, Any]]) -> str:
    """The claims as Markdown."""
    lines = ["| paper | claim | holds? | size | in the paper | seeds, runs |", "|---" * 6 + "|"]
    for entry in entries:
        spread = "" if entry["spread"] is None else f" ± {entry['spread']:.1f}"
        size = "" if entry["size"] is None else f"{entry['size']:+.1f}{spread}"
        runs = f"{len(entry['by_seed'])}, {len(entry['runs'])}"
        cells = (entry["paper"], entry["claim"], entry["holds"], size, entry["printed"], runs)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def into_log(text: str, section: str) -> str:
    """The log with this section, in the place of an older one or before the next heading but one."""
    body = f"{HEADING}\n\n{section.strip()}\n\n"
    if HEADING in text:
        return re.sub(rf"{re.escape(HEADING)}\n.*?(?=^## |\Z)", lambda _: body, text, flags=re.S | re.M)
    return re.sub(r"^## Synthetic world", lambda found: body + found[0], text, count=1, flags=re.M)


def run_here(runs: Sequence[Run]) -> None:
    """What `run_sweep` does, in this process: a toy run lasts shorter than a process takes to start."""
    from momentkit.train.checkpoint import has_state
    from momentkit.train.run import run_training
    from momentkit.train.run_config import read_run_config
    from momentkit.train.sweep import evaluate_run, take_weights

    for run in sorted((run for run in runs if not run.done), key=lambda run: run.weights is not None):
        if run.weights is None:
            config = read_run_config(run.config, run.settings, seed=run.seed)
            run_training(config, run.folder, resume=run.folder.is_dir() and has_state(run.folder))
        else:
            take_weights(run, run.weights)
        evaluate_run(run.folder)


def main() -> None:
    """Make the sets, do the runs, judge the claims."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget", choices=BUDGETS, default="real")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/claims"))
    parser.add_argument("--seeds", type=int, nargs="+", help="by default 0 1 2; of smoke 0")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    budget, smoke = BUDGETS[options.budget], options.budget == "smoke"
    output = options.output / options.budget
    began_s = time.monotonic()
    write_sets(output / "sets", budget)
    sweep = sweep_of(output / "sets", output, budget, options.seeds or ((0,) if smoke else (0, 1, 2)))
    if smoke:
        run_here(runs_of(sweep, output))
    else:
        for run in run_sweep(sweep, output, options.workers):
            print(f"{time.monotonic() - began_s:6.0f} s  {run.row.name}, seed {run.seed}", flush=True)
    entries = judge(claims_of(budget), sweep, output)
    rows = table_of(sweep, output)
    print(f"{table(entries)}\n{markdown(sweep, rows)}")
    sets = json.loads((output / "sets" / "sets.json").read_text())
    report = {
        "budget": options.budget,
        "seeds": sweep.seeds,
        "sentences": sets,
        "claims": entries,
        "rows": rows,
    }
    atomic_write(output / "claims.json" if smoke else JSON, json.dumps(report, indent=1))
    if not smoke:
        atomic_write(LOG, into_log(LOG.read_text(), table(entries)))


if __name__ == "__main__":
    main()
